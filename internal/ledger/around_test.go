package ledger_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// neverOver makes Postgres itself refuse every commit after which a budget of a run or a step would hold more than its limit.
func (h *house) neverOver(limits map[uuid.UUID]usage.Money) {
	h.do(`create table most (budget uuid primary key, nano bigint);
		create function over() returns trigger language plpgsql as $$ begin
			if new.spent_nano + new.reserved_nano > (select nano from most where budget = new.budget) then raise exception 'overspent: %', new; end if;
			return new;
		end $$;
		create trigger over before insert or update on budget_window for each row execute function over()`)
	for id, most := range limits {
		h.do(`insert into most values ($1, $2)`, id, int64(most))
	}
}

// family is a run with a budget of its own whose steps start runs: each has a budget, and so has the step that started it.
type family struct{ parent, step uuid.UUID }

func (f family) call(child uuid.UUID, parent, step, own usage.Money) gateway.Charge {
	c := charge(10)
	c.Caller.Run = child
	c.Caller.Budget = &gateway.RunBudget{ID: child, Run: child, Cost: own}
	c.Caller.Around = []gateway.RunBudget{
		{ID: f.step, Run: f.parent, Step: "sub", Cost: step},
		{ID: f.parent, Run: f.parent, Cost: parent},
	}
	return c
}

// Fifty children of one run make ten calls each, on two nodes, and the run's budget has money for 37: so many are made,
// and at no commit is there more than the limit in any of their budgets.
func TestChildrenUnderOneBudget(t *testing.T) {
	h := newHouse(t)
	f := family{parent: uuid.Must(uuid.NewV7()), step: uuid.New()}
	limits := map[uuid.UUID]usage.Money{f.parent: 37*10 + 9, f.step: 1_000}
	children := make([]uuid.UUID, 50)
	for i := range children {
		children[i] = uuid.Must(uuid.NewV7())
		limits[children[i]] = 100
	}
	h.neverOver(limits)
	nodes := []*node{h.open(nil), h.open(nil)}
	var made, refused atomic.Int64
	var group sync.WaitGroup
	for i, child := range children {
		group.Go(func() {
			for j := range 10 {
				n := nodes[(i+j)%2]
				c := f.call(child, 37*10+9, 1_000, 100)
				hold, err := n.Reserve(t.Context(), c)
				var short *gateway.BudgetError
				switch {
				case err == nil:
					made.Add(1)
					n.Settle(settlement(c, hold, 10))
				case errors.As(err, &short) && short.ID == f.parent && short.Budget == "run" && short.Scope == "parent "+f.parent.String():
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for _, n := range nodes {
		n.stop()
	}
	if made.Load() != 37 || refused.Load() != 463 {
		t.Errorf("%d made, %d refused", made.Load(), refused.Load())
	}
	for budget, want := range map[string]int{"run_id = budget and budget = $1": 370, "run_id = $1 and budget <> $1": 370, "run_id <> $1": 370} {
		if spent := ask[int](h, `select sum(spent_nano)::int from budget_window where run and reserved_nano = 0 and `+budget, f.parent); spent != want {
			t.Errorf("%s: %d spent, want %d", budget, spent, want)
		}
	}
	if n := ask[int](h, `select deadlocks::int from pg_stat_database where datname = current_database()`); n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

// Whatever refuses, nothing is set aside in the others; the narrowest that refuses is named.
func TestRefusedByWhatIsAround(t *testing.T) {
	h := newHouse(t)
	counted := newNotes()
	n := h.open(counted)
	f := family{parent: uuid.Must(uuid.NewV7()), step: uuid.New()}
	child := uuid.Must(uuid.NewV7())
	for _, c := range []struct {
		parent, step, own usage.Money
		id                uuid.UUID
		budget, scope     string
	}{
		{9, 100, 100, f.parent, "run", "parent " + f.parent.String()},
		{100, 9, 100, f.step, "sub", "step"},
		{9, 9, 100, f.step, "sub", "step"},
		{9, 9, 9, child, "run", "run"},
	} {
		_, err := n.Reserve(t.Context(), f.call(child, c.parent, c.step, c.own))
		var short *gateway.BudgetError
		if !errors.As(err, &short) || short.ID != c.id || short.Budget != c.budget || short.Scope != c.scope || short.Limit != 9 || short.Need != 10 {
			t.Errorf("%+v: %v", c, err)
		}
	}
	inside := f.call(child, 100, 100, 100) // of a step of the run itself: it is named before the run
	inside.Caller.Around = append([]gateway.RunBudget{{ID: uuid.New(), Run: child, Step: "build.3.make", Tokens: 9}}, inside.Caller.Around...)
	inside.Caller.Budget.Cost = 9
	_, err := n.Reserve(t.Context(), inside)
	var short *gateway.BudgetError
	if !errors.As(err, &short) || short.Budget != "build.3.make" || !short.InTokens {
		t.Error(err)
	}
	if sum := ask[int](h, `select sum(reserved_nano + spent_nano)::int from budget_window`); sum != 0 {
		t.Errorf("%d is set aside", sum)
	}
	if counted.denied["step reject"] != 3 || counted.denied["parent reject"] != 1 || counted.denied["run reject"] != 1 {
		t.Errorf("counted %v", counted.denied)
	}
}

// A budget that was never reserved under begins with what the log says; one whose limit was raised lets the next in.
func TestBudgetAroundBeginsAndIsRaised(t *testing.T) {
	h := newHouse(t)
	n := h.open(nil)
	f := family{parent: uuid.Must(uuid.NewV7()), step: uuid.New()}
	call := func(limit, spent usage.Money) error {
		c := f.call(uuid.Must(uuid.NewV7()), limit, 1_000, 1_000)
		c.Caller.Around[1].Spent = spent
		hold, err := n.Reserve(t.Context(), c)
		if err == nil {
			n.Settle(settlement(c, hold, 10))
		}
		return err
	}
	if err := call(100, 91); err == nil {
		t.Error("10 of 9 left")
	}
	if err := call(101, 91); err != nil {
		t.Error(err)
	}
	eventually(h, 101, `select spent_nano::int from budget_window where budget = $1`, f.parent)
	if err := call(101, 0); err == nil {
		t.Error("a child that began before knows of less, and is let in")
	}
	if err := call(111, 0); err != nil {
		t.Error(err)
	}
}

// The node of a child dies while calls are made: nothing stays set aside in the budgets around it.
func TestDeadNodeOfAChild(t *testing.T) {
	h := newHouse(t)
	dead := h.open(nil)
	lease := dead.lease()
	f := family{parent: uuid.Must(uuid.NewV7()), step: uuid.New()}
	child := uuid.Must(uuid.NewV7())
	c := f.call(child, 1_000, 1_000, 1_000)
	logged := dead.reserve(c)
	dead.reserve(c)
	dead.record(lease, f.parent, usage.Call{Try: 1, Hold: uuid.New()})
	dead.record(lease, child, usage.Call{Try: 1, Cost: 3, Tokens: usage.Tokens{Input: 3}, Hold: logged.ID})
	dead.stop()
	h.do(`update reservation set created_at = created_at - interval '1 minute'`)
	h.do(`update lease set closed_at = now(), epoch = epoch + 1`)
	h.open(nil)
	eventually(h, 0, `select sum(reserved_nano + reserved_tokens)::int from budget_window`)
	for _, id := range []uuid.UUID{child, f.step, f.parent} {
		if spent := ask[int](h, `select spent_nano::int from budget_window where budget = $1`, id); spent != 3+10 {
			t.Errorf("%s: %d is spent", id, spent)
		}
	}
	if level, err := h.db.RunLevel(t.Context(), store.TenantDefault, child); err != nil || level.Spent != 13 || level.Reserved != 0 {
		t.Errorf("%+v %v", level, err)
	}
}
