package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// vendor answers with the lines that stand for each model, in turn; "!class" is a failure. What it is asked is kept.
type vendor struct {
	mu     sync.Mutex
	script map[string][]string
	asked  []string // model and how many messages the conversation has
}

func (v *vendor) Name() string { return "vendor" }

func (v *vendor) Complete(_ context.Context, c provider.Call) (provider.Reply, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = append(v.asked, fmt.Sprintf("%s %d", c.Model, len(c.Ask.Messages)))
	lines := v.script[c.Model]
	if len(lines) == 0 {
		return provider.Reply{}, &provider.Error{Class: provider.ClassInvalidRequest, Message: "not in the script"}
	}
	v.script[c.Model] = lines[1:]
	if class, failed := strings.CutPrefix(lines[0], "!"); failed {
		return provider.Reply{}, &provider.Error{Class: provider.Class(class), Message: "scripted"}
	}
	hidden := &agent.Hidden{Provider: "vendor", Model: c.Model, Data: json.RawMessage(`"thought"`)}
	return provider.Reply{Text: lines[0], FinishReason: "stop", Hidden: hidden, Tokens: usage.Tokens{Input: 10, Output: 4}}, nil
}

// chained is a first attempt of an agent with this chain, and a worker whose gateway speaks with the vendor.
func chained(t *testing.T, chain string, v *vendor) (*Worker, flow.Attempt) {
	t.Helper()
	w, err := workflow.Compile([]byte(`
spec: workflow/v1
name: chained
agents:
  w: {role: grinder, output: {schema: {type: object, required: [text], properties: {text: {type: string}}}}}
steps:
  - {id: write, agent: w, prompt: Write, chain: ` + chain + `}
`))
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Providers: []gateway.Provider{{Provider: v, Fallback: true}}})
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Gateway: g}), flow.Attempt{
		Run: uuid.MustParse("0190a0f0-0000-7000-8000-000000000001"), Workflow: "chained", Path: "write", Gen: 1, No: 1,
		Step: w.Steps[0], Agent: &w.Steps[0].Agent.Agent, Input: json.RawMessage(`{"prompt":"Write"}`),
	}
}

const (
	twoGates  = `{entries: [{model: one, accept: confidence >= 70}, {model: two, accept: confidence >= 70}]}`
	takesBest = `{entries: [{model: one, accept: confidence >= 70}, {model: two, accept: confidence >= 70}], accept_best: true}`
	plain     = `[{model: one}, {model: two}]`
)

func says(confidence string) string { return `{"text":"x"` + confidence + `}` }

// Who is asked after what, and what comes of it. The attempt is then done again from each of its turns, as after a crash:
// it goes on as it went.
func TestChains(t *testing.T) {
	for _, c := range []struct {
		name, chain string
		one, two    []string
		asked       []string
		end         string
	}{
		{
			"an answer below the gate is left at once", twoGates,
			[]string{says(`,"confidence":40`)},
			[]string{says(`,"confidence":90`)},
			[]string{"one 2", "two 2"},
			`{"text":"x"} of 1`,
		},
		{"no confidence is all of it", twoGates, []string{says("")}, nil, []string{"one 2"}, `{"text":"x"} of 0`},
		{
			"all below the gate", twoGates,
			[]string{says(`,"confidence":60`)},
			[]string{says(`,"confidence":50`)},
			[]string{"one 2", "two 2"},
			"failed low_confidence",
		},
		{
			"all below the gate, and the best is taken", takesBest,
			[]string{says(`,"confidence":60`)},
			[]string{says(`,"confidence":50`)},
			[]string{"one 2", "two 2"},
			`{"text":"x"} below the gate`,
		},
		{
			"what cannot be judged is not accepted", `[{model: one, accept: output.missing == 1}, {model: two}]`,
			[]string{says("")},
			[]string{says("")},
			[]string{"one 2", "two 2"},
			`{"text":"x"} of 1`,
		},
		{
			"what breaks its contract is sent back before it is judged", twoGates,
			[]string{"no", says(`,"confidence":40`)},
			[]string{says(`,"confidence":90`)},
			[]string{"one 2", "one 4", "two 4"},
			`{"text":"x"} of 1`,
		},
		{
			"it is sent back to who answered", plain,
			[]string{"!server", says("")},
			[]string{"no", says("")},
			[]string{"one 2", "two 2", "two 4"},
			`{"text":"x"} of 1`,
		},
		{
			"who breaks it to the end is left, and the next begins anew", plain,
			[]string{"a", "b", "c"},
			[]string{"d", says("")},
			[]string{"one 2", "one 4", "one 6", "two 2", "two 4"},
			`{"text":"x"} of 1`,
		},
		{
			"all break it", plain,
			[]string{"a", "b", "c"},
			[]string{"d", "e", "f"},
			[]string{"one 2", "one 4", "one 6", "two 2", "two 4", "two 6"},
			"failed invalid_output",
		},
		{
			"the next fails", plain,
			[]string{"a", "b", "c"},
			[]string{"!auth"},
			[]string{"one 2", "one 4", "one 6", "two 2"},
			"failed auth",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &vendor{script: map[string][]string{"one": c.one, "two": c.two}}
			w, a := chained(t, c.chain, v)
			turns, outcome, _ := do(t.Context(), w, a)
			if diff := cmp.Diff(c.asked, v.asked); diff != "" {
				t.Error(diff)
			}
			if got := endOf(outcome); got != c.end {
				t.Errorf("it ends with %s: %+v", got, outcome.Failure)
			}
			for n := 1; n <= len(turns); n++ {
				goesOnAlike(t, c.chain, a, turns, n, c.one, c.two, outcome)
			}
		})
	}
}

// goesOnAlike does the attempt again of which n turns are in the log.
func goesOnAlike(t *testing.T, chain string, a flow.Attempt, turns []flow.Turn, n int, one, two []string, want *flow.Outcome) {
	t.Helper()
	script := map[string][]string{"one": one, "two": two}
	for _, turn := range turns[:n] { // what was bought is not in the script any more
		for _, call := range turn.Calls {
			script[call.Model] = script[call.Model][1:]
		}
	}
	v := &vendor{script: script}
	w, _ := chained(t, chain, v)
	a.Turns = turns[:n]
	_, got, _ := do(t.Context(), w, a)
	if endOf(got) != endOf(want) || len(got.Calls) != len(want.Calls) || got.PromptHash != want.PromptHash {
		t.Errorf("after %d turns it ends with %s for %d calls, not %s for %d", n, endOf(got), len(got.Calls), endOf(want), len(want.Calls))
	}
}

func endOf(o *flow.Outcome) string {
	switch {
	case o.Failure != nil:
		return "failed " + o.Failure.Class
	case o.BelowGate:
		return string(o.Output) + " below the gate"
	}
	return fmt.Sprintf("%s of %d", o.Output, answering(o.Calls).Depth)
}

// A routed agent's chain is the gateway's: that no entry is left is its word.
func TestRouteEndsWithTheContract(t *testing.T) {
	a := agentAttempt(t)
	a.Agent.Chain, a.Agent.Route = workflow.Chain{}, "easy"
	m := &models{script: []string{"a", "b", "c", "!"}}
	turns, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if o.Failure == nil || o.Failure.Class != classInvalidOutput || len(turns) != 3 {
		t.Errorf("%d turns, then %+v", len(turns), o.Failure)
	}
	if last := m.asked[3]; last.Route != "easy" || last.From != 1 || len(last.Ask.Messages) != 2 || last.Session != a.Run.String()+"/write" {
		t.Errorf("asked %+v", last)
	}
}

// What a provider hides in its answer stands in the turn, and goes back with the message, after a crash too.
func TestHiddenGoesBack(t *testing.T) {
	v := &vendor{script: map[string][]string{"one": {"no"}}}
	w, a := chained(t, plain, v)
	turns, _, _ := do(t.Context(), w, a)
	if len(turns) != 1 || string(turns[0].Hidden) != `{"provider":"vendor","model":"one","data":"thought"}` {
		t.Fatalf("turns %+v", turns)
	}
	m := &models{script: []string{"no", `{"text":"x"}`}}
	a.Turns = turns
	do(t.Context(), New(Config{Gateway: m}), a)
	for i, r := range m.asked {
		if h := r.Ask.Messages[2].Hidden; h == nil || h.Model != "one" || string(h.Data) != `"thought"` {
			t.Errorf("question %d goes back with %+v", i, h)
		}
	}
}

// broke refuses every call.
type broke struct{ failed *gateway.FailedError }

func (b broke) Complete(context.Context, gateway.Request) (gateway.Answer, error) {
	return gateway.Answer{}, b.failed
}

func TestOutOfBudget(t *testing.T) {
	const pause, fails, degrade = workflow.OnExceededPause, workflow.OnExceededFail, workflow.OnExceededDegrade
	run, step, outer, team := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	spent := func(id uuid.UUID) *gateway.BudgetError {
		return &gateway.BudgetError{ID: id, OnHard: gateway.OnHardReject, Limit: 5, Spent: 3, Reserved: 1, Need: 3}
	}
	aside := func(id uuid.UUID) *gateway.BudgetError {
		return &gateway.BudgetError{ID: id, OnHard: gateway.OnHardReject, Limit: 5, Spent: 1, Reserved: 2, Need: 3}
	}
	for _, c := range []struct {
		name   string
		class  string
		budget *gateway.BudgetError
		own    workflow.OnExceeded
		outer  workflow.OnExceeded
		waits  bool
		short  flow.Short
	}{
		{"its own, that is waited for", "budget_exceeded", spent(run), pause, fails, true, flow.Short{Budget: run}},
		{"its own, that goes down the ladder", "budget_exceeded", spent(run), degrade, fails, true, flow.Short{Budget: run}},
		{"its own, that is not waited for", "budget_exceeded", spent(run), fails, pause, false, flow.Short{}},
		{"its own, which has set the money aside", "budget_exceeded", aside(run), fails, pause, true, flow.Short{Budget: run, Aside: true}},
		{"a step's", "budget_exceeded", spent(step), pause, pause, false, flow.Short{}},
		{"a step's, which has set the money aside", "budget_exceeded", aside(step), pause, pause, true, flow.Short{Budget: step, Aside: true}},
		{"of the run around, that is waited for", "budget_exceeded", spent(outer), fails, pause, true, flow.Short{Budget: outer}},
		{"of the run around, that is not", "budget_exceeded", spent(outer), pause, fails, false, flow.Short{}},
		{"a team's, that runs wait for", "budget_exceeded", &gateway.BudgetError{ID: team, Budget: "run", OnHard: gateway.OnHardPause}, fails, fails, true, flow.Short{}},
		{"a team's, that refuses", "budget_exceeded", spent(team), pause, pause, false, flow.Short{}},
		{"a price that is not known does not come by waiting", "budget_exceeded", &gateway.BudgetError{ID: run, Unpriced: true}, pause, pause, false, flow.Short{}},
		{"the last that failed was something else", "server", spent(run), pause, pause, false, flow.Short{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := agentAttempt(t)
			a.Budget = &flow.Budget{ID: run, Cost: 5, OnExceeded: c.own}
			a.Around = []flow.Budget{{ID: step, Name: "write", Cost: 5}, {ID: outer, Cost: 5, OnExceeded: c.outer}}
			w := New(Config{Gateway: broke{&gateway.FailedError{Class: c.class, Message: "m", Budget: c.budget}}})
			_, o, _ := do(t.Context(), w, a)
			if (o.Held == flow.HeldBudget) != c.waits || o.Short != c.short || o.Failure == nil || o.Failure.Class != c.class {
				t.Errorf("held: %q %+v, failure %+v", o.Held, o.Short, o.Failure)
			}
		})
	}
}

// Budgets and rules are told whose call it is, and what the run may spend.
func TestCallerIsTold(t *testing.T) {
	m := &models{script: []string{`{"text":"x"}`}}
	a := agentAttempt(t)
	a.Tenant, a.Labels, a.Stakes, a.Mode = uuid.Max, map[string]string{"team": "a"}, "high", "interactive"
	a.Budget = &flow.Budget{ID: a.Run, Run: a.Run, Cost: 5, Tokens: 7, Spent: usage.Sum{Cost: 2, Tokens: usage.Tokens{Input: 3, Output: 1}}}
	a.Around = []flow.Budget{{ID: uuid.Max, Run: a.Run, Name: "write", Cost: 4, Spent: usage.Sum{Cost: 1}}}
	do(t.Context(), New(Config{Gateway: m}), a)
	want := gateway.Caller{
		Tenant: uuid.Max, Run: a.Run, Step: "write", Gen: 1, Attempt: 2, Workflow: "w", Agent: "writer", Labels: a.Labels,
		Mode: "interactive", Stakes: "high", Budget: &gateway.RunBudget{ID: a.Run, Run: a.Run, Cost: 5, Tokens: 7, Spent: 2, SpentTokens: 4},
		Around: []gateway.RunBudget{{ID: uuid.Max, Run: a.Run, Step: "write", Cost: 4, Spent: 1}},
	}
	if diff := cmp.Diff(want, m.asked[0].Caller); diff != "" {
		t.Error(diff)
	}
}
