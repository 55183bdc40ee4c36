package ledger

import (
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
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
		budgets: budgets, own: c.Caller.Budgets(), done: make(chan error, 1),
		hold: store.HoldNew{
			ID: id, Tenant: c.Caller.Tenant, Run: c.Caller.Run, Step: c.Caller.Step, Gen: c.Caller.Gen, Attempt: c.Caller.Attempt,
			Amount: max(c.Cost, 0), Tokens: max(c.Tokens, 0), Unpriced: c.Unpriced,
		},
	}
	return r, nil
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
		ID: f.Budget, OnHard: gateway.OnHardReject, Unpriced: f.Unpriced, InTokens: f.InTokens,
		Limit: f.Limit, Spent: f.Spent, Reserved: f.Reserved, Need: r.hold.Amount,
		LimitTokens: f.LimitTokens, SpentTokens: f.SpentTokens, ReservedTokens: f.ReservedTokens, NeedTokens: r.hold.Tokens,
		Resets: f.Resets,
	}
	for _, b := range r.own {
		if b.ID == f.Budget {
			e.Budget, e.Scope = b.Named(r.hold.Run)
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
