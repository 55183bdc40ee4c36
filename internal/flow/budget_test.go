package flow_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

const oneAgent = "spec: workflow/v1\nname: one\nagents: {w: {model: gpt-4o}}\nsteps: [{id: a, agent: w, prompt: A}]\n"

// A submission lowers the definition's budget key by key, or gives one; it raises none.
func TestBudgetOfASubmission(t *testing.T) {
	const defined = oneAgent + "budget: {usd: 2, warn_at: 0.5, on_exceeded: fail}\n"
	pause, fail := workflow.OnExceededPause, workflow.OnExceededFail
	for _, c := range []struct {
		name, definition string
		given            *workflow.Budget
		want             *flow.RunBudget
	}{
		{"none", oneAgent, nil, nil},
		{"the definition's", defined, nil, &flow.RunBudget{Cost: 2 * usage.USD, WarnAt: 0.5, OnExceeded: fail}},
		{"given where there is none", oneAgent, &workflow.Budget{Tokens: 9}, &flow.RunBudget{Tokens: 9, WarnAt: 0.8, OnExceeded: pause}},
		{"lowered", defined, &workflow.Budget{Cost: usage.USD, OnExceeded: pause}, &flow.RunBudget{Cost: usage.USD, WarnAt: 0.5, OnExceeded: pause}},
		{"not raised", defined, &workflow.Budget{Cost: 3 * usage.USD}, &flow.RunBudget{Cost: 2 * usage.USD, WarnAt: 0.5, OnExceeded: fail}},
		{"another key", defined, &workflow.Budget{Tokens: 9, WarnAt: 0.9}, &flow.RunBudget{Cost: 2 * usage.USD, Tokens: 9, WarnAt: 0.9, OnExceeded: fail}},
	} {
		run, events, err := flow.Open(flow.Submission{ID: playRun, Workflow: compile(t, c.definition), Input: json.RawMessage(`{}`), Priority: -1, Budget: c.given}, playStart)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, run.Submitted().Budget); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if want := map[bool]int16{true: 1, false: 2}[c.want == nil]; events[0].V != want || run.Format() != want {
			t.Errorf("%s: version %d, format %d", c.name, events[0].V, run.Format())
		}
	}
}

// However many runs a budget holds, they do not come back together, and none later than after a minute.
func TestHeldRunsSpread(t *testing.T) {
	w := compile(t, oneAgent)
	refused := &flow.Outcome{Held: flow.HeldBudget, Failure: &flow.Failure{Class: "budget_exceeded", Message: "m"}}
	seconds := map[int]int{}
	for i := range 1000 {
		id := playRun
		id[14], id[15] = byte(i>>8), byte(i)
		run, _, err := flow.Open(flow.Submission{ID: id, Tenant: uuid.Nil, Workflow: w, Input: json.RawMessage(`{}`), Priority: -1}, playStart)
		if err != nil {
			t.Fatal(err)
		}
		run.Decide(flow.Reported{Report: flow.Report{Path: "a", Gen: 1, No: 1, Outcome: refused}}, playStart)
		wake, parks := run.Rest(playStart)
		if !parks || run.WaitingFor() != flow.HeldBudget {
			t.Fatalf("run %d parks: %v, for %s", i, parks, run.WaitingFor())
		}
		seconds[int(wake.Sub(playStart)/time.Second)]++
	}
	for second, n := range seconds {
		if second < 45 || second > 59 || n > 200 {
			t.Errorf("%d of 1000 come back after %d s", n, second)
		}
	}
	if len(seconds) < 15 {
		t.Errorf("they come back in %d different seconds", len(seconds))
	}
}
