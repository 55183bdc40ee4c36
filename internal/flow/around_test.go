package flow_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

const insideDefinition = `
spec: workflow/v1
name: inside
defaults: {retry: none}
agents: {w: {model: gpt-4o, output: {format: text}}}
steps:
  - {id: a, agent: w, prompt: A}
  - {id: b, agent: w, prompt: B, needs: [a], budget: {share: 0.5}}
`

// around are the budgets that an attempt of a run brings along, but for its own.
func around(r *flow.Run) string {
	var list []string
	for start := range r.Pending {
		for _, b := range r.Attempt(start).Around {
			list = append(list, fmt.Sprintf("%s %d/%d %d tokens", b.Name, b.Spent.Cost, b.Cost, b.Tokens))
		}
	}
	return strings.Join(list, ", ")
}

// A run that a step started goes by the budgets around it: their limits as they are told, what it has spent itself on top of
// what was known when it began. When one of them has nothing left, it waits or says so, as that budget wants it.
func TestBudgetsAroundARun(t *testing.T) {
	w := compile(t, insideDefinition)
	step, outer := uuid.New(), uuid.New()
	parent := &flow.Parent{Run: outer, Step: "do", Gen: 1, Attempt: 1, Depth: 1, Budgets: []flow.Budget{
		{ID: step, Run: outer, Name: "do", Cost: 101, Tokens: 9},
		{ID: outer, Run: outer, Cost: 1_000, Spent: usage.Sum{Cost: 200}, OnExceeded: workflow.OnExceededDegrade},
	}}
	r, log, err := flow.Open(flow.Submission{ID: playRun, Workflow: w, Priority: -1, Parent: parent}, playStart)
	if err != nil {
		t.Fatal(err)
	}
	decide := func(c flow.Cause) (kinds []flow.Kind) {
		t.Helper()
		events := r.Decide(c, playStart)
		log = append(log, events...)
		again, err := flow.Fold(playRun, uuid.Nil, w, log)
		if err != nil || r.Err() != nil {
			t.Fatal(err, r.Err())
		}
		if got, want := around(again), around(r); got != want {
			t.Errorf("folded: %s, want %s", got, want)
		}
		for _, e := range events {
			kinds = append(kinds, e.Kind)
		}
		return kinds
	}
	want := func(what string) {
		t.Helper()
		if got := around(r); got != what {
			t.Errorf("around: %s, want %s", got, what)
		}
	}
	report := func(path flow.Path, o *flow.Outcome) []flow.Kind {
		t.Helper()
		return decide(flow.Reported{Report: flow.Report{Path: path, Gen: 1, No: 1, Outcome: o}})
	}
	want("do 0/101 9 tokens,  200/1000 0 tokens")
	report("a", &flow.Outcome{Output: json.RawMessage(`"x"`), Calls: []usage.Call{{Try: 1, Cost: 10}}})
	want("b 0/51 5 tokens, do 10/101 9 tokens,  210/1000 0 tokens")

	refused := func(short flow.Short) *flow.Outcome {
		return &flow.Outcome{Held: flow.HeldBudget, Short: short, Failure: &flow.Failure{Class: "budget_exceeded", Message: "nothing is left"}}
	}
	raise := func(body string) []flow.Kind {
		return decide(flow.Told{Kind: flow.ToldBudget, Body: json.RawMessage(body)})
	}
	report("b", refused(flow.Short{Budget: outer, Aside: true}))
	if told := r.TakeEffects().Told; len(told) != 0 {
		t.Errorf("what is only set aside comes back: %+v", told)
	}
	again := []flow.Kind{flow.KindStepStarted}
	if got := raise(`{}`); !slices.Equal(got, again) {
		t.Errorf("looks again: %v", got)
	}
	report("b", refused(flow.Short{Budget: outer}))
	told := r.TakeEffects().Told
	var short flow.ChildShort
	if len(told) != 1 || told[0].To != outer || told[0].Kind != flow.ToldShort || json.Unmarshal(told[0].Body, &short) != nil || short.Run != playRun || short.Budget != outer || !short.Since.Equal(playStart) {
		t.Errorf("told %+v: %+v", told, short)
	}
	for _, c := range []struct {
		raise  string
		raised bool
	}{
		{`{"budget":"` + outer.String() + `","cost_nano":900}`, false}, // lower than it is
		{`{"budget":"` + uuid.NewString() + `","cost_nano":9000}`, false},
		{`{"budget":"` + outer.String() + `","tokens":7}`, false}, // there is no such limit
		{`{"budget":"` + outer.String() + `","cost_nano":2000,"tokens":7}`, true},
		{`{"budget":"` + outer.String() + `","cost_nano":2000}`, false}, // told twice
	} {
		if got := raise(c.raise); slices.Contains(got, flow.KindOuterRaised) != c.raised {
			t.Errorf("%s: %v", c.raise, got)
		}
	}
	want("b 0/51 5 tokens, do 10/101 9 tokens,  210/2000 0 tokens")
}
