package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/ledger"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/worker"
	"github.com/fermata-run/fermata/internal/workflow"
)

// till is a provider whose model costs a cent a call. It keeps the calls it is asked until it is opened.
type till struct {
	mu    sync.Mutex
	asked map[string]int // by node
	open  chan struct{}
	plan  string // what a planner is answered
}

func newTill() *till { return &till{asked: map[string]int{}, open: make(chan struct{})} }

func (t *till) opened() *till {
	close(t.open)
	return t
}

func (t *till) count() (total, nodes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range maps.Values(t.asked) {
		total += n
	}
	return total, len(t.asked)
}

// counter is where a node asks the till.
type counter struct {
	*till
	node string
}

func (c counter) Name() string { return "till" }

func (c counter) Complete(ctx context.Context, call provider.Call) (provider.Reply, error) {
	c.mu.Lock()
	c.asked[c.node]++
	c.mu.Unlock()
	select {
	case <-c.open:
	case <-ctx.Done():
		return provider.Reply{}, &provider.Error{Class: provider.ClassCancelled, Message: "cut"}
	}
	text := "paid"
	if strings.Contains(fmt.Sprint(call.Ask.Messages), "make a plan") {
		text = c.plan
	}
	return provider.Reply{Text: text, FinishReason: "stop", Tokens: usage.Tokens{Input: 1, Output: 1}}, nil
}

// startPaying starts a node with all that stands between a step and the bill.
func startPaying(t *testing.T, url, name string, at *till, change func(*engine.Config)) *node {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	book := ledger.New(ledger.Config{Store: openStore(t, url), Node: id})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = book.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	if err := book.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	models, err := gateway.New(gateway.Config{
		Providers: []gateway.Provider{{Provider: counter{at, name}}}, Budgets: book,
		Prices: []gateway.PriceRow{{Model: "flat", Input: "0", Output: "0", PerCall: "0.01", Source: "of the test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return startNode(t, url, name, worker.New(worker.Config{Gateway: models}), func(c *engine.Config) {
		c.Node.ID = id
		if change != nil {
			change(c)
		}
	})
}

// payer is a workflow whose steps make so many calls, one after the other.
func payer(calls int) string {
	var steps strings.Builder
	for i := range calls {
		fmt.Fprintf(&steps, "  - {id: s%d, agent: w, prompt: \"Pay %d\"}\n", i, i)
	}
	return "spec: workflow/v1\nname: payer\nsequential: true\nagents: {w: {model: till/flat, output: {format: text}}}\nsteps:\n" + steps.String()
}

func (n *node) level(run uuid.UUID) store.RunLevel {
	n.t.Helper()
	level, err := n.db.RunLevel(n.t.Context(), store.TenantDefault, run)
	if err != nil {
		n.t.Fatal(err)
	}
	return level
}

// settled is where a run's budget stands when nothing is set aside any more: that is booked beside the run.
func (n *node) settled(run uuid.UUID) (level store.RunLevel) {
	n.t.Helper()
	n.until("nothing is set aside", func() bool {
		level = n.level(run)
		return level.Reserved == 0
	})
	return level
}

func (n *node) view(run uuid.UUID) flow.View {
	n.t.Helper()
	row, err := n.db.Run(n.t.Context(), store.TenantDefault, run)
	if err != nil {
		n.t.Fatal(err)
	}
	source, err := n.db.Definition(n.t.Context(), store.TenantDefault, row.Hash)
	if err != nil {
		n.t.Fatal(err)
	}
	w, err := workflow.Load(source)
	if err != nil {
		n.t.Fatal(err)
	}
	folded, err := flow.Fold(run, store.TenantDefault, w, n.log(run))
	if err != nil {
		n.t.Fatal(err)
	}
	return folded.View()
}

func (n *node) children(of uuid.UUID) []store.RunRow {
	n.t.Helper()
	rows, err := n.db.Runs(n.t.Context(), store.TenantDefault, store.RunFilter{Parent: &of, Limit: 100})
	if err != nil {
		n.t.Fatal(err)
	}
	return rows
}

// Fifty children of ten calls each, on two nodes, under their parent's budget for 37: so many are made, and at no commit
// is more than that spent or set aside. The others wait, and go on when the parent's budget is raised. Each cent counts
// once: in the child's lines, in the parent's sum, in its budget as it is spent.
func TestChildrenShareTheirParentsBudget(t *testing.T) {
	url := newDatabase(t)
	shared := newTill()
	first := startPaying(t, url, "n1", shared, func(c *engineConfig) { c.RunsMax = 20 }) // room for some of them only
	startPaying(t, url, "n2", shared, nil)
	id := first.submitWith(shelf{"payer": payer(10)}, `
spec: workflow/v1
name: parent
budget: {usd: 0.37}
steps:
  - id: each
    map:
      items: "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
      max_items: 10
      concurrency: 10
      steps:
        - {id: a, workflow: {name: payer}}
        - {id: b, workflow: {name: payer}}
        - {id: c, workflow: {name: payer}}
        - {id: d, workflow: {name: payer}}
        - {id: e, workflow: {name: payer}}
output: done
`, `{}`)
	exec(t, url, `create table most (nano bigint)`)
	exec(t, url, `insert into most values (370000000)`)
	exec(t, url, fmt.Sprintf(`create function over() returns trigger language plpgsql as $$ begin
			if new.spent_nano + new.reserved_nano > (select nano from most) then raise exception 'overspent: %%', new; end if;
			return new;
		end $$;
		create trigger over before insert or update on budget_window for each row when (new.budget = '%s') execute function over()`, id))

	first.until("those the budget has money for have asked", func() bool { total, _ := shared.count(); return total == 37 })
	held := `select count(*)::int from event_log where kind = 'attempt_failed' and data like '%"held":"budget"%'`
	first.until("the others wait", func() bool { return one[int](t, url, held) == 13 })
	if total, nodes := shared.count(); total != 37 || nodes != 2 {
		t.Errorf("%d calls of %d nodes", total, nodes)
	}
	if level := first.level(id); level.Reserved != 37*cent || level.Spent != 0 {
		t.Errorf("with 37 calls at work: %+v", level)
	}
	shared.opened()
	waiting := func() int {
		return len(slices.DeleteFunc(first.children(id), func(r store.RunRow) bool { return r.WaitingFor != flow.HeldBudget }))
	}
	first.until("all children wait for money", func() bool { return waiting() == 50 })
	if total, _ := shared.count(); total != 37 {
		t.Errorf("%d calls were made", total)
	}
	if level, view := first.settled(id), first.view(id); level.Spent != 37*cent || view.Sum.Cost != 0 || view.Budget.Warned {
		t.Errorf("the budget says %+v, the log %s, warned: %v", level, view.Sum.Cost, view.Budget.Warned)
	}

	exec(t, url, `update most set nano = 6000000000`)
	first.tell(id, flow.ToldBudget, `{"cost_nano":6000000000}`)
	row := first.status(id, flow.RunStatusSucceeded)
	if total, _ := shared.count(); total != 500 || row.Sum.Cost != 500*cent || row.Sum.Calls != 500 {
		t.Errorf("%d calls, the run says %+v", total, row.Sum)
	}
	if level, view := first.settled(id), first.view(id); level.Spent != 500*cent || !view.Budget.Warned {
		t.Errorf("the budget says %+v, warned: %v", level, view.Budget.Warned)
	}
	if spent := one[int64](t, url, `select sum(cost_nano)::int8 from spend`); usage.Money(spent) != 500*cent {
		t.Errorf("the report says %s", usage.Money(spent))
	}
	for _, c := range first.children(id) {
		if c.Sum.Cost != 10*cent || count(first.log(c.ID), flow.KindOuterRaised) != 1 {
			t.Errorf("child %s cost %s", c.ID, c.Sum.Cost)
		}
	}
}

// What a step may spend holds for all inside it, and no more than that fails; the rest of the run goes on.
func TestBudgetOfAStep(t *testing.T) {
	paid := newTill().opened()
	n := startPaying(t, newDatabase(t), "n1", paid, nil)
	id := n.submit(`
spec: workflow/v1
name: shares
budget: {usd: 0.40}
defaults: {retry: none}
agents: {w: {model: till/flat, output: {format: text}}}
input: {type: object, properties: {n: {type: array, items: {type: integer}}}}
steps:
  - id: each
    budget: {share: 0.5}
    map:
      items: input.n
      max_items: 30
      concurrency: 30
      on_item_error: keep
      steps:
        - {id: pay, agent: w, prompt: "Pay ${{ item }}"}
  - {id: dear, agent: w, prompt: Pay, needs: [each], budget: {usd: 0.005}, on_error: [{classes: [budget_exceeded], do: skip}]}
  - {id: last, agent: w, prompt: Pay, needs: [dear]}
output: {errors: "${{ steps.each.errors }}", last: "${{ steps.last.output }}"}
`, `{"n":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29]}`)
	n.status(id, flow.RunStatusSucceeded)
	var output struct {
		Errors []flow.Failure
		Last   string
	}
	if err := json.Unmarshal([]byte(n.output(id)), &output); err != nil {
		t.Fatal(err)
	}
	total, _ := paid.count()
	if total != 20+1 || len(output.Errors) != 10 || output.Last != "paid" {
		t.Fatalf("%d calls; %d items failed, the last step says %q", total, len(output.Errors), output.Last)
	}
	if f := output.Errors[0]; f.Class != "budget_exceeded" || !strings.Contains(f.Message, `budget "each" (step) is exhausted: spent $0.20 + reserved $0.00 + this call's $0.01 are more than its $0.20`) {
		t.Errorf("%+v", f)
	}
	if level := n.settled(id); level.Spent != 21*cent {
		t.Errorf("%+v", level)
	}
	for _, s := range n.view(id).Steps {
		if s.Path == "dear" && (s.Status != flow.StepStatusSkipped || !strings.Contains(s.Error.Message, `budget "dear" (step)`)) {
			t.Errorf("%s %+v", s.Status, s.Error)
		}
	}
}

// A run that would rather be done with less than wait for money goes down its ladder, also when it is a run inside that
// its budget refuses.
func TestBudgetTakesDownTheLadder(t *testing.T) {
	url := newDatabase(t)
	outer, err := workflow.CompileWith([]byte("spec: workflow/v1\nname: outer\nsteps:\n  - {id: inner, workflow: {name: payer}}\n"), shelf{"payer": payer(3)})
	if err != nil {
		t.Fatal(err)
	}
	for name, step := range map[string]string{
		"its own": `{id: third, agent: w, prompt: Pay, needs: [second]}`,
		"a child": `{id: third, workflow: {name: outer}, needs: [second]}`,
	} {
		t.Run(name, func(t *testing.T) {
			paid := newTill().opened()
			n := startPaying(t, url, "n1", paid, nil)
			id := n.submitWith(shelf{"outer": string(outer.Source)}, `
spec: workflow/v1
name: thrifty
budget: {usd: 0.02, on_exceeded: degrade}
agents: {w: {model: till/flat, output: {format: text}}}
steps:
  - {id: first, agent: w, prompt: Pay}
  - {id: second, set: {x: 1}, needs: [first]}
  - `+step+`
  - {id: fourth, agent: w, prompt: Pay, needs: [third]}
degrade:
  - {name: short, omit: [third]}
  - {name: shorter, omit: [third], set: {fourth: {value: nothing}}}
output: ${{ steps.fourth.output }}
`, `{}`)
			row := n.status(id, flow.RunStatusSucceeded)
			view := n.view(id)
			if total, _ := paid.count(); total != 2 || row.Sum.Cost != 2*cent || n.output(id) != `"nothing"` {
				t.Errorf("%d calls, %s, %s", total, row.Sum.Cost, n.output(id))
			}
			q := view.Result.Quality
			if q == nil || q.Level != 2 || q.Name != "shorter" || len(q.Reasons) != 2 {
				t.Fatalf("quality %+v", q)
			}
			for _, reason := range q.Reasons {
				if !strings.HasPrefix(reason, "the budget: ") || !strings.Contains(reason, "is exhausted") {
					t.Error(reason)
				}
			}
			if level := n.settled(id); level.Spent != 2*cent {
				t.Errorf("%+v", level)
			}
			for _, c := range n.children(id) {
				n.status(c.ID, flow.RunStatusCancelled)
			}
		})
	}
}

// A plan spends what it is allowed to and no more.
func TestPlanSpendsWhatIsAllowed(t *testing.T) {
	paid := newTill().opened()
	paid.plan = `{"steps":[{"id":"a","agent":"w","prompt":"Pay"},{"id":"b","agent":"w","prompt":"Pay","needs":["a"]},{"id":"c","agent":"w","prompt":"Pay","needs":["b"]}]}`
	n := startPaying(t, newDatabase(t), "n1", paid, nil)
	id := n.submit(`
spec: workflow/v1
name: planned
budget: {usd: 1.00}
agents: {lead: {role: orchestrator, model: till/flat}, w: {model: till/flat, output: {format: text}}}
steps:
  - id: do
    retry: none
    plan: {agent: lead, goal: make a plan, allow: {kinds: [agent], agents: [w], max_steps: 5, max_depth: 1, max_usd: 0.02}}
`, `{}`)
	row := n.status(id, flow.RunStatusFailed)
	if row.Error.Class != "child_failed" || !strings.Contains(row.Error.Message, `budget "run" (run) is exhausted: spent $0.02`) {
		t.Errorf("%+v", row.Error)
	}
	if total, _ := paid.count(); total != 1+2 || row.Sum.Cost != 3*cent {
		t.Errorf("%d calls for %s", total, row.Sum.Cost)
	}
	for _, c := range n.children(id) {
		if level := n.settled(c.ID); level.Spent != 2*cent || c.Error.Class != "budget_exceeded" {
			t.Errorf("%+v, %+v", level, c.Error)
		}
	}
	if level := n.settled(id); level.Spent != 3*cent {
		t.Errorf("%+v", level)
	}
}
