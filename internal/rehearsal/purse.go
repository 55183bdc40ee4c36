package rehearsal

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/usage"
)

// purse keeps the budgets of runs as the ledger does: what a call may cost at most is set aside before it is made.
type purse struct {
	mu    sync.Mutex
	holds uint64
	runs  map[uuid.UUID]*account
}

// account is what a run has spent and set aside.
type account struct {
	spent, reserved  usage.Money
	tokens, reserveT int64
}

func newPurse() *purse { return &purse{runs: map[uuid.UUID]*account{}} }

// Applies reports whether the run has a budget.
func (p *purse) Applies(c gateway.Charge) bool { return c.Caller.Budget != nil }

// Reserve sets aside what a call may cost at most, or refuses it.
func (p *purse) Reserve(_ context.Context, c gateway.Charge) (gateway.Hold, error) {
	b := c.Caller.Budget
	if b == nil {
		return gateway.Hold{}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.of(c.Caller)
	if b.Cost > 0 && (c.Unpriced || a.spent+a.reserved+c.Cost > b.Cost) || b.Tokens > 0 && a.tokens+a.reserveT+c.Tokens > b.Tokens {
		return gateway.Hold{}, &gateway.BudgetError{
			Budget: "run", Scope: "run", OnHard: gateway.OnHardPause, Unpriced: b.Cost > 0 && c.Unpriced,
			Limit: b.Cost, Spent: a.spent, Reserved: a.reserved, Need: c.Cost,
			LimitTokens: b.Tokens, SpentTokens: a.tokens, ReservedTokens: a.reserveT, NeedTokens: c.Tokens,
			InTokens: b.Tokens > 0 && a.tokens+a.reserveT+c.Tokens > b.Tokens,
		}
	}
	a.reserved += c.Cost
	a.reserveT += c.Tokens
	p.holds++
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[8:], p.holds)
	return gateway.Hold{ID: id, Amount: c.Cost, Tokens: c.Tokens}, nil
}

// of is the account of a caller's run. It begins with what the log holds.
func (p *purse) of(c gateway.Caller) *account {
	a := p.runs[c.Run]
	if a == nil {
		a = &account{spent: c.Budget.Spent, tokens: c.Budget.SpentTokens}
		p.runs[c.Run] = a
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
	a := p.of(s.Caller)
	a.reserved -= s.Hold.Amount
	a.reserveT -= s.Hold.Tokens
	if s.Call.Try > 0 {
		a.spent += s.Call.Cost
		a.tokens += s.Call.Tokens.Total()
	}
}
