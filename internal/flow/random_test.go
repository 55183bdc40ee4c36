package flow_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

func compile(t interface{ Fatal(...any) }, definition string) *workflow.Workflow {
	w, err := workflow.CompileWith([]byte(definition), oneChild{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const childDefinition = "spec: workflow/v1\nname: child\nsteps: [{id: a, tool: \"builtin:noop\"}]\n"

// oneChild is the library that the random definitions find their child in.
type oneChild struct{}

func (oneChild) Workflow(name string, _ int) (ref string, source []byte, ok bool) {
	if name != "child" {
		return "", nil, false
	}
	w, err := workflow.Compile([]byte(childDefinition))
	if err != nil {
		return "", nil, false
	}
	return "child@1", w.Source, true
}

// TestRandomRuns: whatever happens to a run and in whatever order, with crashes in between, the rules never panic,
// what is finished never moves within its generation, the same causes give the same events, the fold of the events
// is the state and orders the same attempts, other expressions do not change what a log folds to, a time that has come
// is dealt with, every run can be brought to an end, what it does to the world it does once, and no cost is lost.
func TestRandomRuns(t *testing.T) {
	for name, definition := range map[string]string{
		"plain": randomPlain, "many": randomMany, "waiting": randomWaiting, "merging": randomMerging,
	} {
		w := compile(t, definition)
		changed := compile(t, strings.NewReplacer(changes...).Replace(definition))
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { randomRun(t, w, changed) })
		})
	}
}

func randomRun(t *rapid.T, w, changed *workflow.Workflow) {
	input := json.RawMessage(rapid.SampledFrom([]string{`{}`, `{"a":false}`, `{"k":2}`}).Draw(t, "input"))
	m := &machine{w: w, now: playStart}
	m.open(t, input)
	for i := range rapid.IntRange(1, 60).Draw(t, "causes") {
		m.cause(t)
		switch { // what went wrong stays wrong for a while: a fold until the next one, what has moved for ever
		case i%8 == 0:
			m.check(t, changed)
		case i%4 == 0:
			m.checkSettled(t, m.run.View())
		}
	}
	m.bringToEnd(t)
	m.check(t, changed)
	m.checkEnd(t)
	m.checkDamaged(t)
}

// machine drives a run and a twin of it alike.
type machine struct {
	w         *workflow.Workflow
	run, twin *flow.Run
	log       []flow.Event
	now       time.Time
	settled   map[string]flow.StepView // by path and generation

	spent      usage.Money // by what was reported to it while it went on
	asked      []flow.Ask
	unanswered map[uuid.UUID]bool // of asked: neither answered nor withdrawn
	children   []flow.Submission
	atWork     map[uuid.UUID]bool // of children: neither ended nor told to cancel
	counted    map[uuid.UUID]bool // of children: their cost is in the run's
	emitted    map[string]bool
}

func (m *machine) open(t *rapid.T, input json.RawMessage) {
	sub := flow.Submission{ID: playRun, Workflow: m.w, Input: input, Priority: -1}
	var err error
	if m.run, m.log, err = flow.Open(sub, m.now); err != nil {
		t.Fatal(err)
	}
	m.twin, _, _ = flow.Open(sub, m.now)
	m.settled = map[string]flow.StepView{}
	m.unanswered, m.atWork, m.counted, m.emitted = map[uuid.UUID]bool{}, map[uuid.UUID]bool{}, map[uuid.UUID]bool{}, map[string]bool{}
	m.take(t, m.log)
}

func (m *machine) decide(t *rapid.T, c flow.Cause) {
	events, again := m.run.Decide(c, m.now), m.twin.Decide(c, m.now)
	if diff := cmp.Diff(events, again); diff != "" {
		t.Fatalf("the same cause gave other events:\n%s", diff)
	}
	m.log = append(m.log, events...)
	if err := m.run.Err(); err != nil {
		t.Fatalf("a move that the tables forbid: %v", err)
	}
	m.take(t, events)
	if _, told := c.(flow.Told); !told && !m.run.Status().Ended() && !m.run.Due().After(m.now) {
		t.Fatalf("at %s it is still due at %s", m.now, m.run.Due())
	}
}

// take keeps account of what the run does to the world: each thing once.
func (m *machine) take(t *rapid.T, events []flow.Event) {
	e := m.run.TakeEffects()
	if diff := cmp.Diff(e, m.twin.TakeEffects(), cmpopts.IgnoreFields(flow.Submission{}, "Workflow")); diff != "" {
		t.Fatalf("the same cause had other effects:\n%s", diff)
	}
	for _, c := range e.Children {
		if _, twice := m.atWork[c.ID]; twice {
			t.Fatalf("run %s is begun twice", c.ID)
		}
		m.children, m.atWork[c.ID] = append(m.children, c), true
	}
	for _, l := range e.Told {
		if l.Kind == flow.ToldCancel {
			m.atWork[l.To] = false
		}
	}
	for _, a := range e.Asked {
		if _, twice := m.unanswered[a.Approval]; twice {
			t.Fatalf("%s asks %s twice", a.Step, a.Approval)
		}
		m.asked, m.unanswered[a.Approval] = append(m.asked, a), true
	}
	for _, w := range e.Withdrawn {
		if !m.unanswered[w.ID] {
			t.Fatalf("approval %s is withdrawn, and is not open", w.ID)
		}
		m.unanswered[w.ID] = false
	}
	for _, x := range e.Emitted {
		if m.emitted[x.ID] {
			t.Fatalf("event %s is sent twice", x.ID)
		}
		m.emitted[x.ID] = true
	}
	for _, e := range events {
		var b flow.Answered
		if e.Kind != flow.KindApprovalAnswered {
			continue
		}
		if err := json.Unmarshal(e.Body, &b); err != nil || !m.unanswered[b.Approval] {
			t.Fatalf("approval %s is answered, and is not open: %v", b.Approval, err)
		}
		m.unanswered[b.Approval] = false
	}
}

var causes = []string{
	"report", "report", "report", "report", "report", "late", "wait", "wait", "answer", "answer", "child", "child", "signal",
	"cancel", "resume", "budget", "incident", "crash",
}

func (m *machine) cause(t *rapid.T) {
	switch rapid.SampledFrom(causes).Draw(t, "cause") {
	case "report":
		m.report(t, false)
	case "late":
		m.late(t)
	case "wait":
		m.now = m.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 10, 60, 600, 4000}).Draw(t, "seconds")) * time.Second)
		m.decide(t, flow.Fired{})
	case "answer":
		m.answer(t)
	case "child":
		m.child(t)
	case "signal":
		m.signal(t)
	case "cancel":
		if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
			m.tell(t, flow.ToldCancel, `{}`)
		}
	case "resume":
		m.tell(t, flow.ToldResume, rapid.SampledFrom([]string{
			`{}`, `{}`, `{"set":{"d1":{"v":1}}}`, `{"set":{"two":"by hand","last":{}}}`, `{"set":{"grp":1}}`, `{"budget":{"cost_nano":500}}`, `nonsense`,
			`{"set":{"each.1.make":{"v":1,"ok":true},"each.0.better.1.look":1}}`, `{"set":{"rounds.1.parts.1.ask":null}}`, `{"set":{"each.01.make":{"v":1,"ok":true}}}`,
			`{"set":{"subs.0.one":{},"do":1}}`, `{"set":{"a":{"v":1},"most":2}}`,
		}).Draw(t, "body"))
	case "budget":
		m.tell(t, flow.ToldBudget, rapid.SampledFrom([]string{``, `{}`, `{"cost_nano":30}`, `{"cost_nano":60,"tokens":20}`, `{"tokens":90}`, `nonsense`}).Draw(t, "body"))
	case "incident":
		m.tell(t, flow.ToldIncident, `{}`)
	case "crash":
		m.crash(t)
	}
}

func (m *machine) tell(t *rapid.T, kind string, body any) {
	raw, isText := body.(string)
	if !isText {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(text)
	}
	m.decide(t, flow.Told{Kind: kind, Body: json.RawMessage(raw)})
}

// late is a report of an attempt that may be over, or never have been.
func (m *machine) late(t *rapid.T) {
	steps := m.run.View().Steps
	path := steps[rapid.IntRange(0, len(steps)-1).Draw(t, "step")].Path
	rep := flow.Report{Path: path, Gen: int16(rapid.IntRange(0, 3).Draw(t, "gen")), No: int16(rapid.IntRange(0, 3).Draw(t, "no"))}
	rep.Outcome = outcome(t)
	m.counts(rep)
	m.decide(t, flow.Reported{Report: rep})
}

// counts expects the cost of a report in the run's, unless the run has ended.
func (m *machine) counts(rep flow.Report) {
	if m.run.Status().Ended() {
		return
	}
	var calls []usage.Call
	if rep.Turn != nil {
		calls = rep.Turn.Calls
	} else {
		calls = rep.Outcome.Calls
	}
	for _, c := range calls {
		m.spent += c.Cost
	}
}

// answer gives an answer to something that was asked once: it may be answered already.
func (m *machine) answer(t *rapid.T) {
	if len(m.asked) == 0 {
		return
	}
	a := m.asked[rapid.IntRange(0, len(m.asked)-1).Draw(t, "approval")]
	b := flow.Answered{Approval: a.Approval, By: "jane", Choice: rapid.SampledFrom(append([]string{"approve", "nonsense"}, a.Choices...)).Draw(t, "choice")}
	if form := rapid.SampledFrom([]string{"", `{}`, `{"output":{"v":1,"ok":true},"notes":"n"}`, `{"output":null}`, `[]`}).Draw(t, "form"); form != "" {
		b.Form = json.RawMessage(form)
	}
	m.tell(t, flow.ToldApproval, b)
}

// child is the end of a run that was begun, or of another.
func (m *machine) child(t *rapid.T) {
	ended := flow.ChildEnded{Run: playRun, Step: "do", Sum: usage.Sum{Calls: 1, Cost: 5}}
	if n := rapid.IntRange(-1, len(m.children)-1).Draw(t, "child"); n >= 0 {
		p := m.children[n].Parent
		ended.Run, ended.Step, ended.Gen, ended.Attempt = m.children[n].ID, p.Step, p.Gen, p.Attempt
	}
	ended.Status = rapid.SampledFrom([]flow.RunStatus{"succeeded", "succeeded", "failed", "cancelled"}).Draw(t, "status")
	m.end(t, ended)
}

func (m *machine) end(t *rapid.T, ended flow.ChildEnded) {
	if ended.Status == flow.RunStatusSucceeded {
		ended.Output = json.RawMessage(`{"v":1}`)
		ended.Unresolved = []flow.Unresolved{{Step: "a", Text: "?"}}
	} else {
		ended.Error = &flow.Failure{Class: "server", Message: "m"}
	}
	if _, known := m.atWork[ended.Run]; known && !m.counted[ended.Run] && !m.run.Status().Ended() {
		m.counted[ended.Run], m.atWork[ended.Run] = true, false
		m.spent += ended.Sum.Cost
	}
	m.tell(t, flow.ToldChild, ended)
}

// signal sends one or more than are kept; some were sent before, and some nobody waits for.
func (m *machine) signal(t *rapid.T) {
	s := flow.Signal{
		Name: rapid.SampledFrom([]string{"go", "go", "other", "unknown"}).Draw(t, "name"), ID: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "id"),
		Data: json.RawMessage(rapid.SampledFrom([]string{`{"v":1}`, `{"v":2}`, `7`, `null`}).Draw(t, "data")),
	}
	n := 1
	if rapid.IntRange(0, 19).Draw(t, "many") == 0 {
		n = workflow.SignalsKeptMax + 3
	}
	for range n {
		m.tell(t, flow.ToldSignal, s)
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
	rep := flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start}
	switch {
	case mustSucceed:
		rep.Outcome = m.success(t, a, "replace")
	case rapid.IntRange(0, 5).Draw(t, "turn") == 0:
		rep.Turn = &flow.Turn{Reply: "r", Calls: []usage.Call{{Model: "m", Cost: 7}}}
	case rapid.Bool().Draw(t, "succeeds"):
		rep.Outcome = m.success(t, a, rapid.SampledFrom([]string{"accept", "replace", "redo", "fail", "nonsense"}).Draw(t, "decision"))
	default:
		rep.Outcome = outcome(t)
	}
	m.counts(rep)
	m.decide(t, flow.Reported{Report: rep})
	return true
}

// success is what the attempt is for.
func (m *machine) success(t *rapid.T, a flow.Attempt, decision string) *flow.Outcome {
	o := &flow.Outcome{Calls: []usage.Call{{Provider: "p", Model: "m", Cost: 3, Tokens: usage.Tokens{Input: 2}}}}
	switch {
	case a.Duty == flow.DutyDecide:
		if a.Escalated.Failure.Class == "" {
			t.Fatalf("%s is to be decided about, and nothing failed", a.Path)
		}
		o.Decision = &flow.Decision{Decision: decision, Output: json.RawMessage(`{"v":1,"ok":true}`), Notes: "n"}
	case a.Step.Plan != nil:
		o.Planned = planned(t, a.Step.Plan, m.w)
	default:
		confidence := float64(rapid.IntRange(0, 2).Draw(t, "confidence"))
		o.Output = json.RawMessage(fmt.Sprintf(`{"v":%d,"ok":%v}`, rapid.IntRange(1, 2).Draw(t, "v"), rapid.Bool().Draw(t, "ok")))
		o.Confidence, o.Unresolved, o.Notes, o.Summary = &confidence, []string{"?"}, []string{"note"}, "s"
	}
	return o
}

func planned(t interface{ Fatal(...any) }, p *workflow.PlanStep, w *workflow.Workflow) *flow.Planned {
	made, err := workflow.CompilePlan(p, w, json.RawMessage(`{"steps":[{"id":"a","agent":"w","prompt":"do"}]}`), 1)
	if err != nil {
		t.Fatal(err)
	}
	return &flow.Planned{Definition: made.Source, Hash: made.Hash.String(), Estimate: flow.PlanEstimate{CostMax: 1_500_000_000, Steps: 1}}
}

func outcome(t *rapid.T) *flow.Outcome {
	o := &flow.Outcome{Calls: []usage.Call{{Provider: "p", Model: "m", Cost: 3, Tokens: usage.Tokens{Input: 2}}}}
	class := rapid.SampledFrom([]string{
		"", "server", "server", "tool_error", "cancelled", "invalid_request", "budget_exceeded", "incident", "gate_failed", "needs_decision",
	}).Draw(t, "class")
	if class == "" {
		o.Output = json.RawMessage(`{"v":1,"ok":false}`)
		return o
	}
	o.Failure = &flow.Failure{Class: class, Message: "m"}
	switch class {
	case "budget_exceeded":
		o.Held, o.Short = flow.HeldBudget, flow.Short{Budget: playRun, Aside: rapid.Bool().Draw(t, "aside")}
	case "incident":
		o.Held = flow.HeldIncident
	case "gate_failed":
		o.Refused = json.RawMessage(`{"v":9,"ok":false}`)
	case "needs_decision":
		o.Held, o.Question = flow.HeldDecision, &flow.Question{Question: "?", Options: []string{"a", "b"}}
	}
	o.Unbegun = class == "cancelled" && rapid.Bool().Draw(t, "unbegun")
	return o
}

func (m *machine) check(t *rapid.T, changed *workflow.Workflow) {
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
		if diff := cmp.Diff(m.resting(m.run), m.resting(again)); diff != "" {
			t.Fatalf("the fold with %s rules waits for something else:\n%s", name, diff)
		}
	}
	m.checkSettled(t, view)
	m.checkCounts(t, view)
	m.checkBudget(t, view)
}

// resting says until when a run may be left alone, and for what. One that waits for a run of its own stays in memory as
// long as that is new, and an attempt that waits for a free place may be taken up at once after a fold.
func (m *machine) resting(run *flow.Run) string {
	if view := run.View(); run.AtWork() || slices.ContainsFunc(view.Steps, func(s flow.StepView) bool { return s.Waiting != nil && s.Waiting.Child != nil }) {
		return ""
	}
	wake, ok := run.Rest(m.now)
	return fmt.Sprint(run.WaitingFor(), run.Due(), wake, ok)
}

// pendingOf is what a run orders, but for the rendered inputs, which live in memory alone.
func pendingOf(run *flow.Run) []flow.Attempt {
	var list []flow.Attempt
	for start := range run.Pending {
		a := run.Attempt(start)
		if a.Agent != nil {
			a.Workflow += " " + a.Agent.Name
		}
		a.Within, a.Step, a.Agent, a.Orchestrator, a.Input, a.Scope, a.Contract = nil, nil, nil, nil, nil, nil, workflow.Contract{}
		list = append(list, a)
	}
	return list
}

// checkCounts: what is counted in passing is what there is; each step is found by its path.
func (m *machine) checkCounts(t *rapid.T, view flow.View) {
	done := 0
	for _, s := range view.Steps {
		if s.Status.Settled() {
			done++
		}
	}
	if view.Total != len(view.Steps) || view.StepsDone != done {
		t.Fatalf("%d of %d steps are done, and it says %d of %d", done, len(view.Steps), view.StepsDone, view.Total)
	}
	if path := m.run.Lost(); path != "" {
		t.Fatalf("%s is not found by its path", path)
	}
	if view.Sum.Cost != m.spent {
		t.Fatalf("it has cost %d, and says %d", m.spent, view.Sum.Cost)
	}
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
		if most := m.attemptsMax(s.Path); int(s.Attempt) > most {
			t.Fatalf("%s is at attempt %d of %d", s.Path, s.Attempt, most)
		}
	}
}

// attemptsMax is how many attempts may be made of a step: those of its retry, once more for whatever lets it begin anew,
// and one that decides about it.
func (m *machine) attemptsMax(path string) int {
	def := m.w.Step(anyItem(path))
	anew, decides := 1, 0
	for _, rule := range def.OnError {
		switch rule.Do {
		case workflow.ActionEscalate:
			anew, decides = anew+1, max(def.Retry.MaxAttempts, 1)
		case workflow.ActionFallback:
			anew++
		case workflow.ActionDegrade, workflow.ActionSkip, workflow.ActionFail:
		}
	}
	if def.Plan != nil {
		anew += def.Plan.Replan
	}
	return max(def.Retry.MaxAttempts, 1)*(anew+len(m.w.Degrade)) + decides
}

// anyItem is the path in the definition of a step of an item or iteration.
func anyItem(path string) string {
	var ids []string
	for i, part := range strings.Split(path, ".") {
		if i%2 == 0 {
			ids = append(ids, part)
		}
	}
	return strings.Join(ids, ".")
}

// checkSettled: within a generation a settled step stays what it is, its output included.
func (m *machine) checkSettled(t *rapid.T, view flow.View) {
	for _, s := range view.Steps {
		key := s.Path + string(rune('0'+s.Gen))
		before, was := m.settled[key]
		if was {
			if diff := cmp.Diff(before, s, cmpopts.IgnoreFields(flow.StepView{}, "Sum", "Calls", "Input", "Inside"), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("settled step moved within its generation:\n%s", diff)
			}
		} else if s.Status.Settled() {
			m.settled[key] = s
		}
	}
}

// bringToEnd: with workers that succeed, people who answer, runs that end and time that passes, every run ends.
func (m *machine) bringToEnd(t *rapid.T) {
	for range 300 {
		if m.run.Status().Ended() {
			return
		}
		if m.report(t, true) {
			continue
		}
		for _, a := range m.asked {
			if m.unanswered[a.Approval] {
				m.tell(t, flow.ToldApproval, flow.Answered{Approval: a.Approval, Choice: a.Choices[0]})
			}
		}
		for _, c := range m.children {
			if m.atWork[c.ID] {
				m.end(t, flow.ChildEnded{Run: c.ID, Step: c.Parent.Step, Status: flow.RunStatusSucceeded})
			}
		}
		m.now = m.now.Add(10 * time.Minute)
		m.decide(t, flow.Fired{})
	}
	t.Fatalf("the run does not end: %s", cmp.Diff(nil, m.run.View()))
}

// checkDamaged: a log that no run can have is refused, or is not; it never breaks who reads it.
func (m *machine) checkDamaged(t *rapid.T) {
	for range 5 {
		log := slices.Clone(m.log)
		one, other := &log[rapid.IntRange(0, len(log)-1).Draw(t, "one")], log[rapid.IntRange(0, len(log)-1).Draw(t, "other")]
		switch rapid.IntRange(0, 4).Draw(t, "damage") {
		case 0:
			one.Step = other.Step
		case 1:
			one.Gen++
		case 2:
			one.Kind = other.Kind
		case 3:
			one.Kind, one.Body, one.Step = other.Kind, other.Body, other.Step
		case 4:
			one.Body = other.Body
		}
		_, _ = flow.Fold(playRun, m.run.Tenant, m.w, log) //nolint:errcheck // either will do
	}
}

// checkEnd: nobody is asked by a run that has ended, and no run it began goes on without it.
func (m *machine) checkEnd(t *rapid.T) {
	for id, open := range m.unanswered {
		if open {
			t.Errorf("approval %s is open after the end", id)
		}
	}
	for id, atWork := range m.atWork {
		if atWork {
			t.Errorf("run %s goes on after the end", id)
		}
	}
	for _, s := range m.run.View().Steps {
		if s.Status == flow.StepStatusRunning || s.Status == flow.StepStatusRetrying || s.Status == flow.StepStatusWaiting {
			t.Errorf("%s is %s after the end", s.Path, s.Status)
		}
	}
}
