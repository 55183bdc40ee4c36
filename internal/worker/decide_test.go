package worker

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

const askingA = `{"needs_decision":{"question":"Green or black?","options":["green","black"],"recommendation":"green"}}`

func lead() *workflow.Agent {
	return &workflow.Agent{Name: "lead", Role: "orchestrator", Chain: workflow.Chain{Entries: []workflow.ChainEntry{{Model: "big"}}}}
}

// A grinder's question is answered by the orchestrator, and its own conversation goes on with the answer.
func TestOrchestratorDecides(t *testing.T) {
	m := &cast{lines: map[string][]string{
		"":        {askingA, "```json\n" + askingA + "\n```", text("black tea")},
		"decider": {`{"decision":"black","reason":"it is morning"}`, "well", `{"decision":"still black"}`},
	}}
	a := scene(t, func(a *flow.Attempt) { a.Orchestrator = lead() })
	turns, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if string(o.Output) != text("black tea") || len(turns) != 5 {
		t.Fatalf("%d turns, %s, %+v", len(turns), o.Output, o.Failure)
	}
	decider, author := m.seen["decider"][0], m.seen[""]
	for _, part := range []string{"Green or black?", "- black", "green", "About tea.", "writer"} {
		if !strings.Contains(lastSaid(decider), part) {
			t.Errorf("the orchestrator is told %q, without %q", lastSaid(decider), part)
		}
	}
	if decider.Caller.Agent != "lead" || decider.Chain.Entries[0].Model != "big" {
		t.Errorf("asked %+v", decider)
	}
	if !strings.Contains(author[0].Ask.Messages[0].Content, "needs_decision") {
		t.Error("a grinder is not told that it may ask")
	}
	if got := lastSaid(author[1]); len(author[1].Ask.Messages) != 4 || !strings.Contains(got, "black\nBecause: it is morning") {
		t.Errorf("it goes on with %q", got)
	}
	if len(author[2].Ask.Messages) != 6 {
		t.Errorf("it goes on with %+v", author[2].Ask.Messages)
	}
}

// Without an orchestrator the attempt waits for a person, and goes on under its number with what was answered.
func TestPersonDecides(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {askingA, text("green tea")}}}
	w := New(Config{Gateway: m})
	a := scene(t, nil)
	turns, o, _ := do(t.Context(), w, a)
	want := &flow.Question{Question: "Green or black?", Options: []string{"green", "black"}, Recommendation: "green"}
	if diff := cmp.Diff(want, o.Question); diff != "" || o.Held != flow.HeldDecision || o.Failure.Class != "needs_decision" || len(turns) != 1 || len(o.Calls) != 0 {
		t.Fatalf("%s %+v, turns %+v", diff, o, turns)
	}
	a.Turns = turns
	if again, o, _ := do(t.Context(), w, a); o.Held != flow.HeldDecision || len(again) != 0 || len(m.asked) != 1 {
		t.Errorf("begun again before the answer: %+v", o)
	}
	a.Turns = append(turns, flow.Turn{Who: "person", Reply: "green, ${{ secrets.x }}"})
	if again, o, _ := do(t.Context(), w, a); string(o.Output) != text("green tea") || len(again) != 0 || !strings.Contains(lastSaid(m.seen[""][1]), "green, ${{ secrets.x }}") {
		t.Errorf("%s, %+v", o.Output, o.Failure)
	}
}

func TestDecisionsEnd(t *testing.T) {
	for _, c := range []struct {
		name  string
		edit  func(*flow.Attempt)
		lines map[string][]string
		class string
	}{
		{"at most three", nil, map[string][]string{"": {askingA, askingA, askingA, askingA}, "decider": {`{"decision":"a"}`, `{"decision":"b"}`, `{"decision":"c"}`}}, "needs_decision"},
		{"the orchestrator is away", nil, map[string][]string{"": {askingA}, "decider": {"!overloaded"}}, "overloaded"},
		{
			"a validator may not ask", func(a *flow.Attempt) { a.Agent.Role = "validator" },
			map[string][]string{"": {askingA, askingA, askingA}},
			"invalid_output",
		},
		{"a question is not half an answer", nil, map[string][]string{"": {`{"text":"a","needs_decision":{"question":"b"}}`, `{"needs_decision":{}}`, "c"}}, "invalid_output"},
	} {
		a := scene(t, func(a *flow.Attempt) {
			if a.Orchestrator = lead(); c.edit != nil {
				c.edit(a)
			}
		})
		_, o, said := do(t.Context(), New(Config{Gateway: &cast{lines: c.lines}}), a)
		if o.Failure == nil || o.Failure.Class != c.class || o.Held != "" {
			t.Errorf("%s: %q, %+v", c.name, said, o.Failure)
		}
	}
}

// An answer to what may be asked is no expression's matter: a free text that is a question is one, too, and no accept of the
// chain judges it.
func TestQuestionOfAFreeText(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {askingA}}}
	a := scene(t, func(a *flow.Attempt) { a.Agent.Output = workflow.Contract{} })
	if _, o, _ := do(t.Context(), New(Config{Gateway: m}), a); o.Held != flow.HeldDecision {
		t.Errorf("%+v", o)
	}
}

// While somebody else decides the attempt's own time stands still.
func TestClockStandsStillForADecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := &slow{cast{lines: map[string][]string{"": {askingA, "..."}, "decider": {"well", `{"decision":"a"}`}}}}
		a := scene(t, func(a *flow.Attempt) { a.Orchestrator = lead() })
		_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
		if o.Failure == nil || o.Failure.Class != "timeout" || time.Since(began) != attemptTime+2*25*time.Second {
			t.Errorf("%+v after %s", o.Failure, time.Since(began))
		}
	})
}

// What becomes of a failure: who decides is told all of it, and keeps to the step's contract.
func TestEscalations(t *testing.T) {
	refused := json.RawMessage(text("weak tea"))
	for _, c := range []struct {
		name    string
		refused json.RawMessage
		lines   []string
		want    *flow.Decision
		class   string
	}{
		{"accepted", refused, []string{`{"decision":"accept","output":{"text":"other"},"notes":"good enough"}`}, &flow.Decision{Decision: "accept", Notes: "good enough"}, ""},
		{"nothing to accept", nil, []string{`{"decision":"accept"}`, `{"decision":"fail"}`}, &flow.Decision{Decision: "fail"}, ""},
		{
			"replaced, by the contract", refused,
			[]string{`{"decision":"replace"}`, `{"decision":"replace","output":{"text":1}}`, `{"decision":"replace","output":{"text":"mine"}}`},
			&flow.Decision{Decision: "replace", Output: json.RawMessage(text("mine"))},
			"",
		},
		{"done again", refused, []string{`{"decision":"redo","notes":"use more leaves"}`}, &flow.Decision{Decision: "redo", Notes: "use more leaves"}, ""},
		{"no decision", refused, []string{"a", `{"decision":"maybe"}`, `{"decision":"replace","output":{"tea":1}}`}, nil, "invalid_output"},
		{"who decides is away", refused, []string{"!auth"}, nil, "auth"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &cast{lines: map[string][]string{"": c.lines}}
			a := scene(t, func(a *flow.Attempt) {
				a.Duty, a.Contract = flow.DutyDecide, a.Agent.Output
				a.Agent = lead()
				a.Step.Gate = &workflow.Gate{Checks: []workflow.Check{{Assert: condition(t, "1 == 2")}}} // it is no part of this
				a.Escalated = &flow.Escalated{
					Failure: flow.Failure{Class: "gate_failed", Message: "too weak"}, Refused: c.refused, History: []flow.Failure{{Class: "server", Message: "away"}},
				}
			})
			_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
			if diff := cmp.Diff(c.want, o.Decision); diff != "" || c.class == "" != (o.Failure == nil) || o.Failure != nil && o.Failure.Class != c.class {
				t.Errorf("%s %+v", diff, o.Failure)
			}
			asked := lastSaid(m.seen[""][0])
			for _, part := range []string{"gate_failed: too weak", "server: away", "About tea.", `"additionalProperties":false`} {
				if !strings.Contains(asked, part) {
					t.Errorf("told %q, without %q", asked, part)
				}
			}
			if strings.Contains(asked, "weak tea") != (c.refused != nil) || m.seen[""][0].Caller.Agent != "lead" {
				t.Errorf("told %q", asked)
			}
		})
	}
}

// A failed tool is decided about like an agent: by its arguments; a step without a contract takes any JSON, one of free
// text a text.
func TestEscalatedTool(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {`{"decision":"replace","output":7}`}}}
	a := toolAttempt("builtin:fail", `{"class":"server"}`)
	a.Contract.JSON = true
	a.Duty, a.Agent, a.Escalated = flow.DutyDecide, lead(), &flow.Escalated{Failure: flow.Failure{Class: "server", Message: "away"}}
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if o.Decision == nil || string(o.Decision.Output) != "7" || !strings.Contains(lastSaid(m.seen[""][0]), `{"class":"server"}`) {
		t.Errorf("%+v, told %q", o, lastSaid(m.seen[""][0]))
	}
	m = &cast{lines: map[string][]string{"": {`{"decision":"replace","output":7}`, `{"decision":"replace","output":"seven"}`}}}
	b := scene(t, func(a *flow.Attempt) {
		a.Duty, a.Escalated = flow.DutyDecide, &flow.Escalated{}
	})
	if _, o, _ = do(t.Context(), New(Config{Gateway: m}), b); o.Decision == nil || string(o.Decision.Output) != `"seven"` {
		t.Errorf("%+v", o)
	}
}

// A fallback works like whoever was to work: by its own contract, and through the gate.
func TestFallbackWorks(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {text("tea"), text("green tea")}}}
	a := scene(t, func(a *flow.Attempt) {
		a.Step.Gate = &workflow.Gate{Revise: 1, Checks: []workflow.Check{{Assert: condition(t, "output.text.size() > 3")}}}
		other := *a.Agent
		other.Name, other.Chain = "other", workflow.Chain{Entries: []workflow.ChainEntry{{Model: "small"}}}
		a.Duty, a.Agent = flow.DutyFallback, &other
	})
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if string(o.Output) != text("green tea") || m.seen[""][0].Caller.Agent != "other" || m.seen[""][0].Chain.Entries[0].Model != "small" {
		t.Errorf("%+v, asked %+v", o, m.seen[""][0])
	}
}

// The judge of a merge reads all candidates, and answers by its contract.
func TestMergeJudge(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {text("the best of both")}}}
	a := scene(t, func(a *flow.Attempt) {
		a.Step.Kind, a.Step.Merge, a.Step.Agent = workflow.KindMerge, &workflow.MergeStep{Strategy: workflow.StrategyJudge, Agent: a.Step.Agent}, nil
		a.Input = json.RawMessage(`{"prompt":"","input":{"candidates":[{"step":"one","output":"a","confidence":80},{"step":"two","output":"b"}]}}`)
	})
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	asked := lastSaid(m.seen[""][0])
	if string(o.Output) != text("the best of both") || !strings.Contains(asked, `"step":"two"`) || !strings.Contains(asked, "candidates") {
		t.Errorf("%+v, told %q", o, asked)
	}
}
