package rehearsal

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/usage"
)

// purse keeps the budgets that runs bring along as the ledger does: what a call may cost at most is set aside before it is
// made, in all of them or in none.
type purse struct {
	mu       sync.Mutex
	holds    uint64
	accounts map[uuid.UUID]*account // by budget
}

// account is what is spent and set aside under a budget.
type account struct {
	spent, reserved  usage.Money
	tokens, reserveT int64
}

func newPurse() *purse { return &purse{accounts: map[uuid.UUID]*account{}} }

// Applies reports whether the run brings a budget along.
func (p *purse) Applies(c gateway.Charge) bool { return len(c.Caller.Budgets()) > 0 }

// Reserve sets aside what a call may cost at most, or refuses it.
func (p *purse) Reserve(_ context.Context, c gateway.Charge) (gateway.Hold, error) {
	budgets := c.Caller.Budgets()
	if len(budgets) == 0 {
		return gateway.Hold{}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range budgets {
		if refused := p.of(&budgets[i]).refuses(&budgets[i], c); refused != nil {
			return gateway.Hold{}, refused
		}
	}
	for i := range budgets {
		a := p.of(&budgets[i])
		a.reserved += c.Cost
		a.reserveT += c.Tokens
	}
	p.holds++
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[8:], p.holds)
	return gateway.Hold{ID: id, Amount: c.Cost, Tokens: c.Tokens}, nil
}

// refuses says why a call does not fit, or nil.
func (a *account) refuses(b *gateway.RunBudget, c gateway.Charge) error {
	inMoney := b.Cost > 0 && (c.Unpriced || a.spent+a.reserved+c.Cost > b.Cost)
	inTokens := b.Tokens > 0 && a.tokens+a.reserveT+c.Tokens > b.Tokens
	if !inMoney && !inTokens {
		return nil
	}
	e := &gateway.BudgetError{
		ID: b.ID, OnHard: gateway.OnHardReject, Unpriced: b.Cost > 0 && c.Unpriced, InTokens: !inMoney,
		Limit: b.Cost, Spent: a.spent, Reserved: a.reserved, Need: c.Cost,
		LimitTokens: b.Tokens, SpentTokens: a.tokens, ReservedTokens: a.reserveT, NeedTokens: c.Tokens,
	}
	e.Budget, e.Scope = b.Named(c.Caller.Run)
	return e
}

// of is the account of a budget. It begins with what the log holds.
func (p *purse) of(b *gateway.RunBudget) *account {
	a := p.accounts[b.ID]
	if a == nil {
		a = &account{spent: b.Spent, tokens: b.SpentTokens}
		p.accounts[b.ID] = a
	}
	return a
}

// Settle replaces what was set aside by what was spent.
func (p *purse) Settle(s gateway.Settlement) {
	if s.Hold.ID == uuid.Nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range s.Caller.Budgets() {
		a := p.of(&b)
		a.reserved -= s.Hold.Amount
		a.reserveT -= s.Hold.Tokens
		if s.Call.Try > 0 {
			a.spent += s.Call.Cost
			a.tokens += s.Call.Tokens.Total()
		}
	}
}
