package ledger

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// Where it is not known which budgets there are, no call is made past them; and where nothing can be written, calls that
// only the ledger keeps do not pile up, whether or not a budget bounds them.
func TestNoCallPastALedgerThatCannotWrite(t *testing.T) {
	run := gateway.Charge{Caller: gateway.Caller{Tenant: store.TenantDefault, Run: uuid.New()}}
	none := gateway.Charge{Caller: gateway.Caller{Tenant: store.TenantDefault}}
	l := New(Config{})
	know := func(age time.Duration) { l.roster.Store(newRoster(nil, time.Now().Add(-age))) }
	for _, c := range []gateway.Charge{run, none} {
		if know(0); l.Applies(c) {
			t.Error("no budget applies")
		}
		if know(staleAfter + time.Second); !l.Applies(c) {
			t.Errorf("the list of budgets is old, and a call of run %s is not asked for", c.Caller.Run)
		}
	}
	know(0)
	for range BacklogMax {
		l.Settle(gateway.Settlement{Caller: none.Caller, Call: usage.Call{Try: 1}})
	}
	if l.Applies(run) {
		t.Error("the log keeps what a run spends")
	}
	if !l.Applies(none) {
		t.Errorf("%d calls wait to be written, and there is no end to it", BacklogMax)
	}
}

// An attempt that began before its run's budget was raised does not make the new money unknown to the others.
func TestLimitOfARunIsTheRaisedOne(t *testing.T) {
	caller := gateway.Caller{Run: uuid.New()}
	var b load
	for _, limit := range []usage.Money{usage.USD, 2 * usage.USD, usage.USD} {
		caller.Budget = &gateway.RunBudget{Cost: limit, Tokens: int64(limit)}
		r, err := newReservation(gateway.Charge{Caller: caller}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.waiting = append(b.waiting, r)
	}
	b.prepare()
	if n := b.booking.Needs; len(n) != 1 || n[0].Limit != 2*usage.USD || n[0].LimitTokens != int64(2*usage.USD) {
		t.Errorf("needs %+v", n)
	}
}

// Two labels may read alike: the budget counts a call once all the same.
func TestLabelsThatReadAlike(t *testing.T) {
	rows := []store.BudgetRow{{ID: uuid.New(), Tenant: store.TenantDefault, BudgetSpec: store.BudgetSpec{Scope: store.ScopeLabel, Of: "a=b=c"}}}
	found := newRoster(rows, time.Now()).of(gateway.Charge{Caller: gateway.Caller{
		Tenant: store.TenantDefault, Labels: map[string]string{"a": "b=c", "a=b": "c"},
	}})
	if len(found) != 1 {
		t.Errorf("it counts %d times", len(found))
	}
}

// A budget of a model holds its calls under every name it has, each once.
func TestBudgetOfAModelByAnyName(t *testing.T) {
	rows := []store.BudgetRow{{ID: uuid.New(), Tenant: store.TenantDefault, BudgetSpec: store.BudgetSpec{Scope: store.ScopeModel, Of: "gpt-4o"}}}
	r := newRoster(rows, time.Now())
	for _, model := range []string{"gpt-4o", "gpt-4o-2024-08-06", "openai/gpt-4o"} {
		if n := len(r.of(gateway.Charge{Caller: gateway.Caller{Tenant: store.TenantDefault}, Model: model, Known: "gpt-4o"})); n != 1 {
			t.Errorf("%s: %d budgets", model, n)
		}
	}
}
