package ledger

import (
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
)

// budgetOfRun is what the budget of a run is called.
const budgetOfRun = "run"

// What budgets limit that runs bring along.
const (
	scopeRun    = "run"
	scopeStep   = "step"   // of the run, or of one around it
	scopeParent = "parent" // and its id: a run around
)

// reservation is a call that waits for money.
type reservation struct {
	hold    store.HoldNew
	budgets []*store.BudgetRow
	own     []gateway.RunBudget // that the run brings along, the narrow ones first: they are named when it does not fit
	left    atomic.Bool         // by its caller, or answered: whoever sets it
	done    chan error
	tried   bool // once, and certainly not written
}

func newReservation(c gateway.Charge, budgets []*store.BudgetRow) (*reservation, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	r := &reservation{
		budgets: budgets, own: ownOf(c.Caller), done: make(chan error, 1),
		hold: store.HoldNew{
			ID: id, Tenant: c.Caller.Tenant, Run: c.Caller.Run, Step: c.Caller.Step, Gen: c.Caller.Gen, Attempt: c.Caller.Attempt,
			Amount: max(c.Cost, 0), Tokens: max(c.Tokens, 0), Unpriced: c.Unpriced,
		},
	}
	return r, nil
}

// ownOf are the budgets that a run brings along: of its steps, of the run, and of what is around it.
func ownOf(c gateway.Caller) []gateway.RunBudget {
	if c.Run == uuid.Nil {
		return nil
	}
	var own []gateway.RunBudget
	add := func(b gateway.RunBudget) {
		if b.Has() {
			own = append(own, b)
		}
	}
	steps := 0
	for ; steps < len(c.Around) && c.Around[steps].Run == c.Run; steps++ {
		add(c.Around[steps])
	}
	if b := c.Budget; b != nil {
		of := *b
		of.ID, of.Run = c.Run, c.Run
		add(of)
	}
	for _, b := range c.Around[steps:] {
		add(b)
	}
	return own
}

// needs is in how many budgets it is to be made.
func (r *reservation) needs() int { return len(r.budgets) + len(r.own) }

// leave gives the reservation up. False: it is being answered.
func (r *reservation) leave() bool { return r.left.CompareAndSwap(false, true) }

// answer tells the caller. False: it has left.
func (r *reservation) answer(err error) bool {
	if !r.left.CompareAndSwap(false, true) {
		return false
	}
	r.done <- err
	return true
}

// refusal is what a caller is told whom a budget refuses.
func (r *reservation) refusal(f store.Refusal, roster *roster) *gateway.BudgetError {
	e := &gateway.BudgetError{
		ID: f.Budget, Budget: budgetOfRun, Scope: scopeRun, OnHard: gateway.OnHardReject, Unpriced: f.Unpriced, InTokens: f.InTokens,
		Limit: f.Limit, Spent: f.Spent, Reserved: f.Reserved, Need: r.hold.Amount,
		LimitTokens: f.LimitTokens, SpentTokens: f.SpentTokens, ReservedTokens: f.ReservedTokens, NeedTokens: r.hold.Tokens,
		Resets: f.Resets,
	}
	for _, b := range r.own {
		switch {
		case b.ID != f.Budget || b.Step == "" && b.Run == r.hold.Run:
		case b.Step != "":
			e.Budget, e.Scope = b.Step, scopeStep
		default:
			e.Scope = scopeParent + " " + b.Run.String()
		}
	}
	for _, b := range r.budgets {
		if b.ID != f.Budget {
			continue
		}
		if now := roster.byID[b.ID]; now != nil {
			b = now
		}
		e.Budget, e.Scope, e.OnHard = b.Name, b.Scope, gateway.OnHard(b.OnHard)
		if b.Of != "" {
			e.Scope += " " + b.Of
		}
	}
	return e
}
