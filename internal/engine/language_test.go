package engine_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

// shelf is a library of workflows for the tests.
type shelf map[string]string

func (s shelf) Workflow(name string, _ int) (string, []byte, bool) {
	source, ok := s[name]
	return name + "@1", []byte(source), ok
}

const childDefinition = `
spec: workflow/v1
name: child
input: {type: object, properties: {n: {type: integer, default: 0}}}
steps:
  - {id: one, tool: "builtin:noop", args: {n: "${{ input.n }}"}}
  - {id: two, tool: "builtin:noop", args: {n: "${{ steps.one.output.n * 2 }}"}}
`

func (n *node) submitWith(lib workflow.Library, definition, input string) uuid.UUID {
	n.t.Helper()
	w, err := workflow.CompileWith([]byte(definition), lib)
	if err != nil {
		n.t.Fatal(err)
	}
	id := uuid.Must(uuid.NewV7())
	if err := n.db.PutDefinition(n.t.Context(), store.TenantDefault, w.Hash, w.Source); err != nil {
		n.t.Fatal(err)
	}
	sub := flow.Submission{ID: id, Tenant: store.TenantDefault, Workflow: w, Input: json.RawMessage(input), Priority: -1}
	if err := n.engine.Submit(n.t.Context(), &sub); err != nil {
		n.t.Fatal(err)
	}
	return id
}

func (n *node) output(id uuid.UUID) string {
	n.t.Helper()
	log := n.log(id)
	var result flow.Result
	if err := json.Unmarshal(log[len(log)-1].Body, &result); err != nil {
		n.t.Fatal(err)
	}
	return string(result.Output)
}

// A step may run another workflow as a run of its own: its first events are committed with those of the step, its end
// is told to the run that waits, and its cost counts there.
func TestChildren(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	id := n.submitWith(shelf{"child": childDefinition}, `
spec: workflow/v1
name: parent
steps:
  - id: each
    map:
      items: "[1, 2, 3, 4, 5]"
      max_items: 10
      concurrency: 3
      steps:
        - {id: run, workflow: {name: child, input: {n: "${{ item }}"}}}
output: ${{ steps.each.output }}
`, `{}`)
	n.status(id, flow.RunStatusSucceeded)
	if got, want := n.output(id), `[{"n":2},{"n":4},{"n":6},{"n":8},{"n":10}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	children, err := n.db.Runs(t.Context(), store.TenantDefault, store.RunFilter{Parent: &id, Limit: 100})
	if err != nil || len(children) != 5 {
		t.Fatalf("%d children, %v", len(children), err)
	}
	for _, c := range children {
		n.judge([]uuid.UUID{c.ID}, 2)
	}
}

// A child whose node cannot go on is taken over by another node, and so is its parent; what was done is not done again.
func TestChildTakenOver(t *testing.T) {
	url := newDatabase(t)
	way, worker := newLink(t, url), newStuck("two")
	first := startNode(t, way.url, "n1", workerFunc(worker.work), shortLease)
	var mu sync.Mutex
	again := map[flow.Path]int{}
	second := startNode(t, url, "n2", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		mu.Lock()
		again[a.Path]++
		mu.Unlock()
		return echo(ctx, a)
	}), shortLease)
	id := first.submitWith(shelf{"child": childDefinition}, `
spec: workflow/v1
name: parent
steps:
  - {id: run, workflow: {name: child, input: {n: 21}}}
output: ${{ steps.run.output }}
`, `{}`)
	<-worker.started
	way.cut()
	second.status(id, flow.RunStatusSucceeded)
	if got := second.output(id); got != `{"n":42}` {
		t.Errorf("got %s", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if again["one"] != 0 || again["two"] != 1 {
		t.Errorf("the other node did %v", again)
	}
}

// Cancelling a run cancels those that its steps started.
func TestCancelReachesChildren(t *testing.T) {
	worker := newStuck("two")
	n := startNode(t, newDatabase(t), "n1", workerFunc(worker.work), nil)
	id := n.submitWith(shelf{"child": childDefinition}, `
spec: workflow/v1
name: parent
steps:
  - {id: run, workflow: {name: child}}
`, `{}`)
	<-worker.started
	if err := n.engine.Tell(t.Context(), store.TenantDefault, store.Message{Run: id, Kind: flow.ToldCancel, Body: json.RawMessage(`{}`)}); err != nil {
		t.Fatal(err)
	}
	n.status(id, flow.RunStatusCancelled)
	children, err := n.db.Runs(t.Context(), store.TenantDefault, store.RunFilter{Parent: &id, Limit: 100})
	if err != nil || len(children) != 1 {
		t.Fatalf("%d children, %v", len(children), err)
	}
	n.status(children[0].ID, flow.RunStatusCancelled)
}

// A run that waits for a person is parked: nobody owns it, and the answer makes it go on.
func TestApprovalParksAndGoesOn(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	id := n.submit(`
spec: workflow/v1
name: asks
steps:
  - {id: ask, approval: {title: "Go on?", expires: 1h}}
  - {id: go, needs: [ask], set: {by: "${{ steps.ask.by }}"}}
output: ${{ steps.go.output }}
`, `{}`)
	row := n.status(id, flow.RunStatusWaiting)
	if row.WaitingFor != flow.WaitingApproval {
		t.Errorf("it waits for %q", row.WaitingFor)
	}
	open, err := n.db.Approvals(t.Context(), store.TenantDefault, store.ApprovalFilter{Run: id, Limit: 10})
	if err != nil || len(open) != 1 || open[0].Title != "Go on?" {
		t.Fatalf("approvals %+v, %v", open, err)
	}
	if _, err := n.db.AnswerApproval(t.Context(), store.TenantDefault, open[0].Approval, store.Answer{Choice: flow.ChoiceApprove, By: "jane"}); err != nil {
		t.Fatal(err)
	}
	n.status(id, flow.RunStatusSucceeded)
	if got := n.output(id); got != `{"by":"jane"}` {
		t.Errorf("got %s", got)
	}
}

// What one run emits is told to another that waits for it, and to one that will.
func TestSignalsBetweenRuns(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	const waits = `
spec: workflow/v1
name: waits
steps:
  - {id: paid, wait: {signal: {name: paid, match: event.data.order == 7, timeout: 1h}}}
output: ${{ steps.paid.output }}
`
	waiting := n.submit(waits, `{}`)
	n.status(waiting, flow.RunStatusWaiting)
	emits := `
spec: workflow/v1
name: emits
input: {type: object, properties: {order: {type: integer, default: 7}}}
steps:
  - {id: say, emit: {event: paid, data: {order: "${{ input.order }}"}}}
`
	n.status(n.submit(emits, `{"order":8}`), flow.RunStatusSucceeded)
	n.status(n.submit(emits, `{}`), flow.RunStatusSucceeded)
	n.status(waiting, flow.RunStatusSucceeded)
	if got := n.output(waiting); got != `{"order":7}` {
		t.Errorf("got %s", got)
	}
}
