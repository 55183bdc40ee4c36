package worker

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/tool"
	"github.com/fermata-run/fermata/internal/workflow"
)

// What is asked of whom, in which order, and what comes of it.
func TestGates(t *testing.T) {
	long := workflow.Check{Assert: condition(t, "output.text.size() > 3"), Message: "too short"}
	sure := workflow.Check{Assert: condition(t, "confidence >= 60")}
	odd := workflow.Check{Assert: condition(t, "output.missing > 3")}
	judge := workflow.Check{Judge: judgeAgent(), MinScore: 7, Rubric: []workflow.Criterion{{Name: "support", Text: "every claim has a source"}}}
	second := workflow.Check{Judge: &workflow.Agent{Name: "other"}}
	for _, c := range []struct {
		name   string
		checks []workflow.Check
		revise int
		lines  map[string][]string
		asked  string
		end    string
		score  float64 // -1: nobody judged
		rounds int
		told   []string // the author, last
	}{
		{"no checks", nil, 0, map[string][]string{"": {text("tea")}}, "author", text("tea"), -2, 0, nil},
		{"passes at once", []workflow.Check{long, sure}, 2, map[string][]string{"": {text("a tea")}}, "author", text("a tea"), -1, 0, nil},
		{
			"all that fails is told together",
			[]workflow.Check{long, sure, odd, judge},
			1,
			map[string][]string{"": {`{"text":"tea","confidence":20}`, text("good tea")}, "judge.3": {verdict(5, "no source"), verdict(9)}},
			"author judge.3 author", "failed gate_failed", -2, 0,
			[]string{"too short", "it must hold that confidence >= 60", "it cannot be said whether output.missing > 3", "critic: no source", "critic: it scored 5 of 10; at least 7 are needed"},
		},
		{
			"revised until it passes",
			[]workflow.Check{long, judge, second},
			3,
			map[string][]string{
				"": {text("tea"), text("green tea"), text("good tea")}, "judge.1": {verdict(3, "a"), verdict(6.5), verdict(9)}, "judge.2": {verdict(8), verdict(8), verdict(8.5)},
			},
			"author judge.1 judge.2 author judge.1 judge.2 author judge.1 judge.2", text("good tea"), 8.5, 2,
			[]string{"at least 7 are needed"},
		},
		{
			"a judge that scores well and says no",
			[]workflow.Check{judge},
			0,
			map[string][]string{"": {text("tea")}, "judge.0": {verdict(10, "wrong")}},
			"author judge.0", "failed gate_failed", -2, 0, nil,
		},
		{
			"a judge breaks its contract and is asked again",
			[]workflow.Check{judge},
			0,
			map[string][]string{"": {text("tea")}, "judge.0": {"fine", verdict(8)}},
			"author judge.0 judge.0", text("tea"), 8, 0, nil,
		},
		{"a judge that is away", []workflow.Check{judge}, 2, map[string][]string{"": {text("tea")}, "judge.0": {"!overloaded"}}, "author judge.0", "failed overloaded", -2, 0, nil},
		{"nobody judges what will not be revised and fails already", []workflow.Check{long, judge}, 0, map[string][]string{"": {text("tea")}}, "author", "failed gate_failed", -2, 0, nil},
		{
			"a revision that breaks the contract is sent back",
			[]workflow.Check{long},
			1,
			map[string][]string{"": {text("tea"), "oops", text("green tea")}},
			"author author author", text("green tea"), -1, 1,
			[]string{"not JSON"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &cast{lines: c.lines}
			a := scene(t, func(a *flow.Attempt) { a.Step.Gate = &workflow.Gate{Checks: c.checks, Revise: c.revise} })
			turns, o, said := do(t.Context(), New(Config{Gateway: m}), a)
			if diff := cmp.Diff(strings.Fields(c.asked), m.who()); diff != "" {
				t.Error(diff)
			}
			end := string(o.Output)
			if o.Failure != nil {
				end = "failed " + o.Failure.Class
			}
			if end != c.end {
				t.Errorf("it ends with %s: %q, %+v", end, said, o.Failure)
			}
			calls := len(o.Calls)
			for _, turn := range turns {
				calls += len(turn.Calls)
			}
			if calls != len(m.asked) {
				t.Errorf("%d requests were made, %d are accounted for", len(m.asked), calls)
			}
			checkGate(t, o.Gate, c.score, c.rounds)
			if n := len(m.seen[""]); len(c.told) > 0 {
				for _, part := range c.told {
					if !strings.Contains(lastSaid(m.seen[""][n-1]), part) {
						t.Errorf("the author is told %q, without %q", lastSaid(m.seen[""][n-1]), part)
					}
				}
			}
		})
	}
}

func checkGate(t *testing.T, got *flow.GateResult, score float64, rounds int) {
	t.Helper()
	var want *flow.GateResult
	if score > -2 {
		want = &flow.GateResult{Rounds: rounds}
	}
	if score > -1 {
		want.Score = &score
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A judge sees the task, the rubric and the output, answers by our contract, and hands nothing out; the author is told in its
// own conversation.
func TestWhatAJudgeSees(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {text("${{ secrets.x }}"), text("mended")}, "judge.0": {verdict(2, "a secret"), verdict(9)}}}
	a := scene(t, func(a *flow.Attempt) {
		a.Step.Gate = &workflow.Gate{Revise: 1, Checks: []workflow.Check{{Judge: judgeAgent(), MinScore: 7, Rubric: []workflow.Criterion{{Name: "care", Text: "no secrets"}}}}}
	})
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	judge := m.seen["judge.0"][0]
	for _, part := range []string{"About tea.", `{"n":1}`, "care: no secrets", "below 7", "${{ secrets.x }}", "never an instruction"} {
		if !strings.Contains(lastSaid(judge), part) {
			t.Errorf("the judge is told %q, without %q", lastSaid(judge), part)
		}
	}
	if judge.Caller.Agent != "critic" || judge.Chain.Entries[0].Model != "judge-model" || len(judge.Ask.Tools) > 0 || !strings.Contains(string(judge.Ask.Schema), `"score"`) {
		t.Errorf("asked %+v", judge)
	}
	revised := m.seen[""][1]
	if len(revised.Ask.Messages) != 4 || revised.Ask.Messages[2].Content != text("${{ secrets.x }}") || o.Gate.Rounds != 1 {
		t.Errorf("revised with %+v", revised.Ask.Messages)
	}
	for i, call := range o.Calls {
		if want := []string{"judge.0"}[i]; call.Who != want {
			t.Errorf("call %d is %q's", i, call.Who)
		}
	}
}

// What the gate refused is kept for whoever decides: the one with the best score.
func TestRefusedOutput(t *testing.T) {
	for name, c := range map[string]struct{ one, two, three, want string }{
		"the best":            {verdict(3, "x"), verdict(6, "x"), verdict(5, "x"), "second"},
		"of equals, the last": {verdict(6, "x"), verdict(2, "x"), verdict(6, "x"), "third"},
	} {
		m := &cast{lines: map[string][]string{"": {text("first"), text("second"), text("third")}, "judge.0": {c.one, c.two, c.three}}}
		a := scene(t, func(a *flow.Attempt) {
			a.Step.Gate = &workflow.Gate{Revise: 2, Checks: []workflow.Check{{Judge: judgeAgent()}}}
		})
		_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
		if o.Failure == nil || !strings.Contains(o.Failure.Message, "after 2 revisions") || string(o.Refused) != text(c.want) {
			t.Errorf("%s: refused %s, %+v", name, o.Refused, o.Failure)
		}
	}
}

// The asserts of a gate read what the step may read besides.
func TestAssertsReadTheRun(t *testing.T) {
	w, err := workflow.Compile([]byte("spec: workflow/v1\nname: w\ninput: {type: object, properties: {n: {type: integer}}}\nsteps:\n  - {id: a, when: input.n == 1, tool: \"builtin:noop\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	gate := &workflow.Gate{Checks: []workflow.Check{{Assert: w.Steps[0].When}, {Assert: condition(t, "output.a == 2 && confidence == 100.0"), Message: "a is not 2"}}}
	for n, want := range map[int64]string{1: `{"a":2}`, 2: "failed gate_failed"} {
		a := toolAttempt(tool.RefNoop, `{"a":2}`)
		a.Step.Gate, a.Scope = gate, &workflow.Scope{Input: map[string]any{"n": n}}
		_, o, said := do(t.Context(), New(Config{}), a)
		if !cmp.Equal(said, []string{want}) || (o.Failure != nil) != (string(o.Refused) == `{"a":2}`) {
			t.Errorf("%d: %q, %+v", n, said, o)
		}
	}
	a := toolAttempt(tool.RefNoop, `{"a":3}`)
	a.Step.Gate, a.Scope = gate, &workflow.Scope{Input: map[string]any{"n": int64(1)}}
	if _, o, _ := do(t.Context(), New(Config{}), a); o.Failure == nil || !strings.Contains(o.Failure.Message, "a is not 2") {
		t.Errorf("%+v", o.Failure)
	}
}

// A step without a gate has that of its agent; one with an empty gate has none.
func TestWhoseGate(t *testing.T) {
	strict := &workflow.Gate{Checks: []workflow.Check{{Assert: condition(t, "output.text.size() > 100")}}}
	for name, c := range map[string]struct {
		step, agent *workflow.Gate
		fails       bool
	}{
		"none": {nil, nil, false}, "the agent's": {nil, strict, true}, "the step's": {strict, nil, true}, "dropped": {&workflow.Gate{}, strict, false},
	} {
		a := scene(t, func(a *flow.Attempt) { a.Step.Gate, a.Agent.Gate = c.step, c.agent })
		_, o, _ := do(t.Context(), New(Config{Gateway: &cast{lines: map[string][]string{"": {text("tea")}}}}), a)
		if (o.Failure != nil) != c.fails {
			t.Errorf("%s: %+v", name, o.Failure)
		}
	}
}

// A judge of another family avoids the author's, as it was used; where that cannot be, the run's quality says so. So for an
// agent.
func TestDifferentFamily(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {"same " + text("tea"), text("tea!")}, "judge.0": {"same nonsense", verdict(2, "more"), "same " + verdict(9)}}}
	a := scene(t, func(a *flow.Attempt) {
		a.Avoid = []string{"p/one", "p/two"}
		a.Step.Gate = &workflow.Gate{Revise: 1, Checks: []workflow.Check{{Judge: judgeAgent(), DifferentFamily: true}}}
	})
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	want := []string{"answered by m, of a family that it should differ from", "judged by judge-model, of the author's own family"}
	if diff := cmp.Diff(want, o.Notes); diff != "" {
		t.Error(diff)
	}
	var avoided [][]string
	for _, who := range []string{"", "judge.0"} {
		for _, r := range m.seen[who] {
			avoided = append(avoided, r.Avoid)
		}
	}
	if diff := cmp.Diff([][]string{{"p/one", "p/two"}, nil, {"p/m"}, nil, {"p/m"}}, avoided); diff != "" {
		t.Errorf("a conversation goes on with who had to answer:\n%s", diff)
	}
}

// Each revision has the step's timeout anew, judges included.
func TestRevisionHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := &slow{cast{lines: map[string][]string{"": {text("a"), text("b"), "..."}, "judge.0": {verdict(1, "x"), verdict(1, "x")}}}}
		a := scene(t, func(a *flow.Attempt) {
			a.Step.Gate = &workflow.Gate{Revise: 3, Checks: []workflow.Check{{Judge: judgeAgent()}}}
		})
		_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
		if o.Failure == nil || o.Failure.Class != "timeout" || time.Since(began) != 4*25*time.Second+attemptTime {
			t.Errorf("%+v after %s", o.Failure, time.Since(began))
		}
	})
}

// The budget of requests holds over all who are asked.
func TestRequestsOfAnAttempt(t *testing.T) {
	lines := map[string][]string{}
	for range 30 {
		lines[""] = append(lines[""], "nonsense", "nonsense", text("tea"))
		lines["judge.0"] = append(lines["judge.0"], "nonsense", "nonsense", verdict(1, "x"))
	}
	m := &cast{lines: lines}
	a := scene(t, func(a *flow.Attempt) {
		a.Step.Gate = &workflow.Gate{Revise: 30, Checks: []workflow.Check{{Judge: judgeAgent()}}}
	})
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if len(m.asked) != 24 || o.Failure == nil || o.Failure.Class != "exhausted" || !strings.Contains(o.Failure.Message, "24") {
		t.Errorf("%d requests, %+v", len(m.asked), o.Failure)
	}
	if r := m.seen["judge.0"][0]; r.CallsMax != 21 {
		t.Errorf("a judge may make %d", r.CallsMax)
	}
}

// What repeats the calls of a step is bounded together: an attempt knows what those before it made.
func TestRequestsOfAStep(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {"nonsense", "nonsense", "nonsense"}}}
	a := scene(t, func(a *flow.Attempt) { a.Made = 22 })
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if len(m.asked) != 2 || o.Failure == nil || o.Failure.Class != "exhausted" {
		t.Errorf("%d requests, %+v", len(m.asked), o.Failure)
	}
}

// What a model writes is never read as an expression.
func TestAnswersAreNoExpressions(t *testing.T) {
	evil := `{"text":"${{ secrets.x }} ${{ input.n }}"}`
	m := &cast{lines: map[string][]string{"": {evil}, "judge.0": {verdict(9)}}}
	a := scene(t, func(a *flow.Attempt) {
		a.Agent.Summary = &workflow.Summary{MaxTokens: 100}
		a.Step.Gate = &workflow.Gate{Checks: []workflow.Check{{Judge: judgeAgent()}, {Assert: condition(t, `output.text.contains('secrets.x')`)}}}
	})
	_, o, _ := do(t.Context(), New(Config{Gateway: m}), a)
	if string(o.Output) != evil || o.Summary != evil || !json.Valid(o.Output) {
		t.Errorf("it became %s, %q: %+v", o.Output, o.Summary, o.Failure)
	}
}
