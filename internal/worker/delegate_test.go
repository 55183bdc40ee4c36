package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/workflow"
)

// delegating is an attempt of an agent that hands out tasks: explore makes short forms of what it finds, and may hand tasks
// to reader; implement does not.
func delegating(t testing.TB, maxTurns int) flow.Attempt {
	t.Helper()
	chain := func(model string) workflow.Chain {
		return workflow.Chain{Entries: []workflow.ChainEntry{{Model: model}}}
	}
	reader := &workflow.Agent{Name: "reader", Chain: chain("small")}
	return scene(t, func(a *flow.Attempt) {
		a.Agent.Role, a.Agent.MaxTurns = "orchestrator", maxTurns
		a.Agent.Delegates = []*workflow.Agent{
			{Name: "explore", Role: "grinder", Instructions: "Look around.", Chain: chain("mid"), Summary: &workflow.Summary{MaxTokens: 5, Model: "tiny"}, Delegates: []*workflow.Agent{reader}},
			{Name: "implement", Role: "grinder", Chain: chain("mid"), Output: a.Agent.Output},
		}
	})
}

// Tasks are done in conversations of their own, at the same time; who handed them out gets short forms, never how they came
// about.
func TestDelegates(t *testing.T) {
	long := "I looked into every corner of the house, and found it. SECRET TRANSCRIPT"
	m := &cast{lines: map[string][]string{
		"":                                     {"call explore: look; implement: build; nobody: x; explore: ", text("done")},
		"delegate.0.explore":                   {"call reader: read it", long},
		"delegate.0.explore/summary":           {"found it"},
		"delegate.1.implement":                 {"no JSON", `{"text":"built","unresolved":["the roof"]}`},
		"delegate.0.explore/delegate.0.reader": {"it says so"},
	}}
	turns, o, _ := do(t.Context(), New(Config{Gateway: m}), delegating(t, 3))
	if string(o.Output) != text("done") {
		t.Fatalf("%s, %+v", o.Output, o.Failure)
	}
	first, second := m.seen[""][0], m.seen[""][1]
	if tools := first.Ask.Tools; len(tools) != 1 || tools[0].Name != "delegate" || !strings.Contains(tools[0].Description, "- explore: grinder; Look around.") || !json.Valid(tools[0].Parameters) {
		t.Errorf("tools %+v", tools)
	}
	var results []string
	for _, message := range second.Ask.Messages[3:] {
		results = append(results, message.Role+" "+message.ToolCallID+" "+message.Content)
	}
	want := []string{
		"tool call-0 found it", `tool call-1 {"text":"built"}` + "\n\nUNRESOLVED\n- the roof",
		`tool call-2 There is no agent "nobody"; there are explore, implement.`, "tool call-3 The task is empty.",
	}
	if diff := cmp.Diff(want, results); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(fmt.Sprint(second.Ask), "TRANSCRIPT") {
		t.Error("the transcript goes up")
	}
	if asked := m.seen["delegate.0.explore"][0]; asked.Caller.Agent != "explore" || asked.Chain.Entries[0].Model != "mid" || !strings.Contains(lastSaid(asked), "look\n\nCONTEXT\nbackground") {
		t.Errorf("asked %+v", asked)
	}
	if asked := m.seen["delegate.0.explore/summary"][0]; asked.Chain.Entries[0].Model != "tiny" {
		t.Errorf("asked %+v", asked)
	}
	if len(turns) != 7 || len(o.Calls) != 1 {
		t.Errorf("%d turns and %d calls", len(turns), len(o.Calls))
	}
}

// A task that fails, or cannot be done without a decision, is told to who handed it out; the attempt goes on.
func TestDelegatesFail(t *testing.T) {
	m := &cast{lines: map[string][]string{
		"":                     {"call explore: a; implement: b; implement: c; explore: d", text("done")},
		"delegate.0.explore":   {"!overloaded"},
		"delegate.1.implement": {"x", "y", "z"},
		"delegate.2.implement": {askingA},
		"delegate.3.explore":   {strings.Repeat("long ", 50)}, "delegate.3.explore/summary": {"!auth"},
	}}
	turns, o, _ := do(t.Context(), New(Config{Gateway: m}), delegating(t, 3))
	if string(o.Output) != text("done") {
		t.Fatalf("%s, %+v", o.Output, o.Failure)
	}
	for i, part := range []string{"Not done. overloaded: scripted", "Not done. invalid_output: asked 3 times", "Green or black?", "long long long long…"} {
		if got := m.seen[""][1].Ask.Messages[3+i].Content; !strings.Contains(got, part) {
			t.Errorf("task %d: told %q", i, got)
		}
	}
	failed := 0
	for _, turn := range turns {
		if turn.Failure != nil {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d failures are in the log: %+v", failed, turns)
	}
}

// After its turns an agent must come to an end.
func TestDelegationEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		class string
	}{
		{"it does", []string{"call implement: a", "call implement: b", text("done")}, ""},
		{"it does not", []string{"call implement: a", "call implement: b", "call !implement: c"}, "exhausted"},
	} {
		m := &cast{lines: map[string][]string{"": c.lines, "delegate.0.implement": {text("a")}, "delegate.1.implement": {text("b")}, "delegate.2.implement": {text("c")}}}
		_, o, _ := do(t.Context(), New(Config{Gateway: m}), delegating(t, 2))
		if (o.Failure == nil) != (c.class == "") || o.Failure != nil && o.Failure.Class != c.class || len(m.seen["delegate.2.implement"]) > 0 {
			t.Errorf("%s: %+v", c.name, o.Failure)
		}
		last := m.seen[""][2]
		if string(last.Ask.ToolChoice) != `"none"` || !strings.Contains(lastSaid(last), "Answer now") || last.CallsMax != gateway.CallsMax {
			t.Errorf("%s: asked last %+v", c.name, last)
		}
	}
}

// More tasks than can be done at a time are not done, and nobody's requests are without end.
func TestDelegatesAreBounded(t *testing.T) {
	lines := map[string][]string{"": nil}
	task := strings.TrimSuffix(strings.Repeat("explore: a; ", 12), "; ")
	for turn := range 40 {
		lines[""] = append(lines[""], "call "+task)
		for i := range 8 {
			lines[fmt.Sprintf("delegate.%d.explore", turn*8+i)] = []string{"ok"}
		}
	}
	lines[""] = append(lines[""], text("done"))
	m := &cast{lines: lines}
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), delegating(t, 40))
	if string(o.Output) != text("done") {
		t.Fatalf("%+v", o.Failure)
	}
	if helped := len(m.asked) - 41; helped != helpersCallsMax {
		t.Errorf("delegates made %d requests", helped)
	}
	second, last := m.seen[""][1].Ask.Messages, m.seen[""][40].Ask.Messages
	if got := second[3+8].Content; !strings.Contains(got, "at most 8") {
		t.Errorf("told %q", got)
	}
	if got := last[len(last)-12].Content; !strings.Contains(got, "at most 200 requests") {
		t.Errorf("told %q", got)
	}
}

// What ends the attempt ends it from within a delegate, too, with all that was paid.
func TestAttemptEndsWithinADelegate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &cast{lines: map[string][]string{"": {"call explore: a; implement: b"}, "delegate.0.explore": {"..."}, "delegate.1.implement": {text("b")}}}
		began := time.Now()
		turns, o, _ := do(t.Context(), New(Config{Gateway: m}), delegating(t, 3))
		if o.Failure == nil || o.Failure.Class != "timeout" || time.Since(began) != attemptTime || len(turns) != 2 || len(o.Calls) != 1 || o.Calls[0].Who != "delegate.0.explore" {
			t.Errorf("%+v, %d turns, calls %+v", o.Failure, len(turns), o.Calls)
		}
	})
	own := &gateway.BudgetError{Budget: "run", Scope: "run"}
	m := &poor{cast{lines: map[string][]string{"": {"call explore: a"}}}, own}
	a := delegating(t, 3)
	a.Budget = &flow.Budget{Cost: 5, OnExceeded: workflow.OnExceededPause}
	turns, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if o.Held != flow.HeldBudget || len(turns) != 1 {
		t.Errorf("%+v, %d turns", o, len(turns))
	}
}

// poor has no money for delegates.
type poor struct {
	cast
	refused *gateway.BudgetError
}

func (p *poor) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	if whoOf(r) == "" {
		return p.cast.Complete(ctx, r)
	}
	return gateway.Answer{}, &gateway.FailedError{Class: "budget_exceeded", Message: "no money", Budget: p.refused}
}

// A defect in a delegate's work ends the attempt, not the node.
func TestPanicOfADelegate(t *testing.T) {
	m := &brittle{cast{lines: map[string][]string{"": {"call explore: a"}}}}
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), delegating(t, 3))
	if o.Failure == nil || o.Failure.Class != "internal" {
		t.Errorf("%+v", o)
	}
}

type brittle struct{ cast }

func (b *brittle) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	if whoOf(r) != "" {
		panic(errors.New("boom"))
	}
	return b.cast.Complete(ctx, r)
}

// A summary is made of what is long, by a cheap model; that it cannot be made fails nobody.
func TestSummaries(t *testing.T) {
	long := text(strings.Repeat("word ", 40))
	for _, c := range []struct {
		name, output string
		lines        []string
		summary      string
		notes        int
		model        string
	}{
		{"short is its own", text("tea"), nil, text("tea"), 0, ""},
		{"made", long, []string{"words about words"}, "words about words", 0, "tiny"},
		{"made too long", long, []string{strings.Repeat("x", 50)}, strings.Repeat("x", 39) + "…", 0, "tiny"},
		{"not made", long, []string{"!server"}, long[:39] + "…", 1, "tiny"},
		{"empty", long, []string{"", "", ""}, long[:39] + "…", 1, "tiny"},
	} {
		m := &cast{lines: map[string][]string{"": {c.output}, "summary": c.lines}}
		a := scene(t, func(a *flow.Attempt) { a.Agent.Summary = &workflow.Summary{MaxTokens: 10, Model: "tiny"} })
		turns, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
		if o.Failure != nil || string(o.Output) != c.output || o.Summary != c.summary || len(o.Notes) != c.notes {
			t.Errorf("%s: %q, notes %q, %+v", c.name, o.Summary, o.Notes, o.Failure)
		}
		if asked := m.seen["summary"]; (len(asked) > 0) != (c.model != "") || c.model != "" && (asked[0].Chain.Entries[0].Model != c.model || len(turns) == 0) {
			t.Errorf("%s: asked %+v", c.name, asked)
		}
	}
}
