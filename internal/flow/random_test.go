package flow_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// randomDefinition has every kind of step, in containers and out of them. Its expressions are marked, so that the
// same structure with other rules can be made of it.
const randomDefinition = `
spec: workflow/v1
name: random
max_parallel: 3
timeout: 1h
budget: {usd: 0.00000002, tokens: 40}
input: {type: object, properties: {a: {type: boolean, default: true}, k: {type: integer, default: 1}}}
agents:
  w: {model: gpt-4o}
steps:
  - {id: one, tool: "builtin:noop", args: {k: "${{ input.k }}"}}
  - {id: two, agent: w, prompt: "two", retry: {max_attempts: 3, backoff: {initial: 20s, max: 2m}, classes: [any]}}
  - id: grp
    when: input.a
    timeout: 20m
    group:
      steps:
        - {id: g1, tool: "builtin:noop", retry: {max_attempts: 2, backoff: {initial: 1s}, classes: [any]}}
        - {id: g2, needs: [g1], set: {x: 1}}
        - id: deep
          needs: [one]
          group:
            steps:
              - {id: d1, tool: "builtin:noop", side_effect: unsafe, retry: none}
              - {id: d2, needs: [d1], agent: w, prompt: "d2"}
  - id: sw
    needs: [two]
    switch:
      - when: input.k == 1
        steps:
          - {id: s1, tool: "builtin:noop", retry: none}
          - {id: s2, needs: [s1], set: {y: 2}}
      - else: true
        steps:
          - {id: s3, tool: "builtin:noop"}
  - {id: last, needs: [grp, sw], tool: "builtin:noop"}
on_failure:
  - {id: tell, tool: "builtin:noop"}
  - {id: told, needs: [tell], set: {ok: true}}
finally:
  - {id: tidy, tool: "builtin:noop", retry: {max_attempts: 2, backoff: {initial: 5s}, classes: [any]}}
`

func compile(t interface{ Fatal(...any) }, definition string) *workflow.Workflow {
	w, err := workflow.Compile([]byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestRandomRuns: whatever happens to a run and in whatever order, with crashes in between, the rules never panic,
// what is finished never moves within its generation, the same causes give the same events, the fold of the events
// is the state and orders the same attempts, other expressions do not change what a log folds to, a time that has come is dealt with, and every run
// can be brought to an end.
func TestRandomRuns(t *testing.T) {
	w := compile(t, randomDefinition)
	changed := compile(t, strings.NewReplacer(
		"when: input.a", "when: \"!input.a\"", "input.k == 1", "input.k != 1", "{x: 1}", "{x: 3}", "args: {k:", "args: {other:",
	).Replace(randomDefinition))
	rapid.Check(t, func(t *rapid.T) {
		input := json.RawMessage(rapid.SampledFrom([]string{`{}`, `{"a":false}`, `{"k":2}`}).Draw(t, "input"))
		m := &machine{w: w, now: playStart}
		m.open(t, input)
		for i := range rapid.IntRange(1, 60).Draw(t, "causes") {
			m.cause(t)
			m.checkSettled(t, m.run.View())
			if i%8 == 0 { // what a fold gets wrong stays wrong until the next one
				m.check(t, changed)
			}
		}
		m.bringToEnd(t)
		m.check(t, changed)
	})
}

// machine drives a run and a twin of it alike.
type machine struct {
	w         *workflow.Workflow
	run, twin *flow.Run
	log       []flow.Event
	now       time.Time
	settled   map[string]flow.StepView // by path and generation
}

func (m *machine) open(t *rapid.T, input json.RawMessage) {
	sub := flow.Submission{ID: playRun, Workflow: m.w, Input: input, Priority: -1}
	var err error
	if m.run, m.log, err = flow.Open(sub, m.now); err != nil {
		t.Fatal(err)
	}
	m.twin, _, _ = flow.Open(sub, m.now)
	m.settled = map[string]flow.StepView{}
}

func (m *machine) decide(t *rapid.T, c flow.Cause) {
	events, again := m.run.Decide(c, m.now), m.twin.Decide(c, m.now)
	if diff := cmp.Diff(events, again); diff != "" {
		t.Fatalf("the same cause gave other events:\n%s", diff)
	}
	m.log = append(m.log, events...)
	if _, told := c.(flow.Told); !told && !m.run.Status().Ended() && !m.run.Due().After(m.now) {
		t.Fatalf("at %s it is still due at %s", m.now, m.run.Due())
	}
}

func (m *machine) cause(t *rapid.T) {
	switch rapid.SampledFrom([]string{"report", "report", "report", "report", "late", "wait", "cancel", "resume", "budget", "incident", "crash"}).Draw(t, "cause") {
	case "report":
		m.report(t, false)
	case "late":
		path := m.w.Steps[rapid.IntRange(0, len(m.w.Steps)-1).Draw(t, "step")].Path
		rep := flow.Report{Path: path, Gen: int16(rapid.IntRange(0, 3).Draw(t, "gen")), No: int16(rapid.IntRange(0, 3).Draw(t, "no"))}
		rep.Outcome = outcome(t)
		m.decide(t, flow.Reported{Report: rep})
	case "wait":
		m.now = m.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 10, 60, 600, 4000}).Draw(t, "seconds")) * time.Second)
		m.decide(t, flow.Fired{})
	case "cancel":
		if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
			m.decide(t, flow.Told{Kind: flow.ToldCancel, Body: json.RawMessage(`{}`)})
		}
	case "resume":
		body := rapid.SampledFrom([]string{`{}`, `{"set":{"d1":{"v":1}}}`, `{"set":{"two":"by hand","last":{}}}`, `{"set":{"grp":1}}`, `{"budget":{"cost_nano":500}}`, `nonsense`}).Draw(t, "body")
		m.decide(t, flow.Told{Kind: flow.ToldResume, Body: json.RawMessage(body)})
	case "budget":
		body := rapid.SampledFrom([]string{``, `{}`, `{"cost_nano":30}`, `{"cost_nano":60,"tokens":20}`, `{"tokens":90}`, `nonsense`}).Draw(t, "body")
		m.decide(t, flow.Told{Kind: flow.ToldBudget, Body: json.RawMessage(body)})
	case "incident":
		m.decide(t, flow.Told{Kind: flow.ToldIncident, Body: json.RawMessage(`{}`)})
	case "crash":
		m.crash(t)
	}
}

func (m *machine) crash(t *rapid.T) {
	for _, r := range []**flow.Run{&m.run, &m.twin} {
		run, err := flow.Fold(playRun, m.run.Tenant, m.w, m.log)
		if err != nil {
			t.Fatal(err)
		}
		*r = run
	}
	m.decide(t, flow.Claimed{})
}

// report lets one of the pending attempts say something; false: none is at work.
func (m *machine) report(t *rapid.T, mustSucceed bool) bool {
	var pending []flow.Start
	for s := range m.run.Pending {
		pending = append(pending, s)
	}
	if len(pending) == 0 {
		return false
	}
	a := m.run.Attempt(pending[rapid.IntRange(0, len(pending)-1).Draw(t, "attempt")])
	rep := flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: &flow.Outcome{Output: json.RawMessage(`{"v":1}`)}}
	if !mustSucceed {
		if rapid.IntRange(0, 5).Draw(t, "turn") == 0 {
			rep.Outcome, rep.Turn = nil, &flow.Turn{Reply: "r", Calls: []usage.Call{{Model: "m", Cost: 7}}}
		} else {
			rep.Outcome = outcome(t)
		}
	}
	m.decide(t, flow.Reported{Report: rep})
	return true
}

func outcome(t *rapid.T) *flow.Outcome {
	o := &flow.Outcome{Calls: []usage.Call{{Provider: "p", Model: "m", Cost: 3, Tokens: usage.Tokens{Input: 2}}}}
	switch class := rapid.SampledFrom([]string{"", "", "", "server", "tool_error", "cancelled", "invalid_request", "budget_exceeded", "incident"}).Draw(t, "class"); class {
	case "":
		o.Output = json.RawMessage(`{"v":1}`)
	default:
		o.Failure = &flow.Failure{Class: class, Message: "m"}
		switch class {
		case "budget_exceeded":
			o.Held = flow.HeldBudget
		case "incident":
			o.Held = flow.HeldIncident
		}
		o.Unbegun = class == "cancelled" && rapid.Bool().Draw(t, "unbegun")
	}
	return o
}

func (m *machine) check(t *rapid.T, changed *workflow.Workflow) {
	if err := m.run.Err(); err != nil {
		t.Fatalf("a move that the tables forbid: %v", err)
	}
	for i, e := range m.log {
		if int(e.Seq) != i+1 {
			t.Fatalf("event %d has number %d", i+1, e.Seq)
		}
	}
	view := m.run.View()
	for name, w := range map[string]*workflow.Workflow{"the same": m.w, "changed": changed} {
		again, err := flow.Fold(playRun, m.run.Tenant, w, m.log)
		if err != nil {
			t.Fatalf("fold with %s rules: %v", name, err)
		}
		if diff := diffViews(view, again.View()); diff != "" {
			t.Fatalf("the fold with %s rules differs from the state:\n%s", name, diff)
		}
		if diff := cmp.Diff(pendingOf(m.run), pendingOf(again), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("the fold with %s rules orders other attempts:\n%s", name, diff)
		}
	}
	m.checkSettled(t, view)
	m.checkBudget(t, view)
}

// pendingOf is what a run orders, but for the rendered inputs, which live in memory alone.
func pendingOf(run *flow.Run) []flow.Attempt {
	var list []flow.Attempt
	for start := range run.Pending {
		a := run.Attempt(start)
		a.Within, a.Step, a.Agent, a.Input = nil, nil, nil, nil
		list = append(list, a)
	}
	return list
}

// checkBudget: of each limit is warned once at most, and only of one that is nearly spent; limits only rise; what was
// held is not counted as an attempt; the format is the highest of the events.
func (m *machine) checkBudget(t *rapid.T, view flow.View) {
	limit, warned, format := *view.Submitted.Budget, false, int16(0)
	for _, e := range m.log {
		format = max(format, e.V)
		switch e.Kind { //nolint:exhaustive // the others are not of the budget
		case flow.KindRunBudgetRaised:
			var b flow.BudgetRaise
			if err := json.Unmarshal(e.Body, &b); err != nil || b.Cost != 0 && b.Cost <= limit.Cost || b.Tokens != 0 && b.Tokens <= limit.Tokens {
				t.Fatalf("raised from %+v by %s: %v", limit, e.Body, err)
			}
			limit.Cost, limit.Tokens, warned = max(limit.Cost, b.Cost), max(limit.Tokens, b.Tokens), false
		case flow.KindBudgetWarned:
			var b flow.BudgetWarned
			if err := json.Unmarshal(e.Body, &b); err != nil || warned || 10*b.Cost < 8*limit.Cost && 10*b.Tokens < 8*limit.Tokens {
				t.Fatalf("warned (again: %v) of %+v: %s: %v", warned, limit, e.Body, err)
			}
			warned = true
		}
	}
	if diff := cmp.Diff(&flow.BudgetView{RunBudget: limit, Warned: warned}, view.Budget); diff != "" || format != m.run.Format() {
		t.Fatalf("format %d, not %d; the budget is another:\n%s", m.run.Format(), format, diff)
	}
	for _, s := range view.Steps {
		if attempts := m.w.Step(s.Path).Retry.MaxAttempts; int(s.Attempt) > max(attempts, 1) {
			t.Fatalf("%s is at attempt %d of %d", s.Path, s.Attempt, attempts)
		}
	}
}

// checkSettled: within a generation a settled step stays what it is, its output included.
func (m *machine) checkSettled(t *rapid.T, view flow.View) {
	for _, s := range view.Steps {
		key := s.Path + string(rune('0'+s.Gen))
		before, was := m.settled[key]
		if was {
			if diff := cmp.Diff(before, s, cmpopts.IgnoreFields(flow.StepView{}, "Sum", "Calls", "Input"), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("settled step moved within its generation:\n%s", diff)
			}
		} else if s.Status.Settled() {
			m.settled[key] = s
		}
	}
}

// bringToEnd: with workers that succeed and time that passes, every run ends.
func (m *machine) bringToEnd(t *rapid.T) {
	for range 200 {
		if m.run.Status().Ended() {
			return
		}
		if !m.report(t, true) {
			m.now = m.now.Add(10 * time.Minute)
			m.decide(t, flow.Fired{})
		}
	}
	t.Fatalf("the run does not end: %s", cmp.Diff(nil, m.run.View()))
}
