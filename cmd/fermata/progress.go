package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

// progress is what a watcher knows of a run, gathered from its events.
type progress struct {
	id     string
	known  int32 // events up to this one were seen before: a resume shows what follows
	status string
	began  time.Time
	ended  time.Time
	steps  []*stepProgress // in the order of the definition, then as they were met
	byPath map[string]*stepProgress
	spent  spending
}

// stepProgress is what a watcher knows of a step.
type stepProgress struct {
	path, status string
	attempt      int
	began, ended time.Time
	note         string // why it failed, was skipped, is retried
	way          string // the command that lets it go on; empty: nobody is asked
	inside       insideProgress
	spent        spending // with what is inside of it
}

// insideProgress counts the items of a map, or the iterations of a loop.
type insideProgress struct {
	of, done, failed int // of 0: not known before
	word             string
}

func (in insideProgress) String() string {
	switch {
	case in.word == "":
		return ""
	case in.of == 0:
		return counted(in.done+in.failed, in.word)
	}
	text := fmt.Sprintf("%d of %s", in.done+in.failed, counted(in.of, in.word))
	if in.failed > 0 {
		text += fmt.Sprintf(", %d failed", in.failed)
	}
	return text
}

// spending adds up what events say they used.
type spending struct {
	calls, unpriced int
	tokens          int64
	cost            usage.Money
	simulated       bool
}

func (s *spending) add(e *client.Event) {
	s.calls += e.Usage.Calls
	s.tokens += totalTokens(e.Usage.Tokens)
	s.cost += usage.Money(e.Cost.NanoUSD)
	s.unpriced += e.Cost.UnpricedCalls
	s.simulated = s.simulated || e.Simulated
}

func totalTokens(t client.Tokens) int64 {
	return t.Input + t.CacheRead + t.CacheWrite + t.Output + t.Reasoning
}

// String says what was used; nothing if nothing was.
func (s spending) String() string {
	if s.calls == 0 {
		return ""
	}
	parts := []string{grouped(s.tokens) + " tokens", money(s.cost, s.unpriced, s.calls)}
	if s.simulated {
		parts = append(parts, "simulated")
	}
	return strings.Join(parts, ", ")
}

func newProgress(id string) *progress {
	return &progress{id: id, status: string(client.RunStatusQueued), byPath: map[string]*stepProgress{}}
}

// plan makes the steps known before they begin, so that the whole of the run can be seen from the start.
func (p *progress) plan(steps []client.Step) {
	for _, s := range steps {
		p.step(s.Path)
	}
}

func (p *progress) step(path string) *stepProgress {
	s, ok := p.byPath[path]
	if !ok {
		s = &stepProgress{path: path, status: string(client.StepStatusPending)}
		p.byPath[path] = s
		p.steps = append(p.steps, s)
	}
	return s
}

// settled counts the steps that will not change.
func (p *progress) settled() int {
	n := 0
	for _, s := range p.steps {
		if s.over() {
			n++
		}
	}
	return n
}

func (s *stepProgress) over() bool {
	switch client.StepStatus(s.status) {
	case client.StepStatusSucceeded, client.StepStatusFailed, client.StepStatusSkipped, client.StepStatusCancelled:
		return true
	case client.StepStatusPending, client.StepStatusRunning, client.StepStatusRetrying, client.StepStatusWaiting:
	}
	return false
}

func (s *stepProgress) failed() bool { return s.status == string(client.StepStatusFailed) }
func (s *stepProgress) waits() bool  { return s.status == string(client.StepStatusWaiting) }

// moving reports whether it is at work, between attempts, or waits.
func (s *stepProgress) moving() bool {
	return s.waits() || s.status == string(client.StepStatusRunning) || s.status == string(client.StepStatusRetrying)
}

// details are the parts of an event's data that are shown.
type details struct {
	Class      string    `json:"class"`
	Message    string    `json:"message"`
	Step       string    `json:"step"`
	Reason     string    `json:"reason"`
	Section    string    `json:"section"`
	RetryAt    time.Time `json:"retry_at"`
	Held       string    `json:"held"`
	CostNano   int64     `json:"cost_nano"`
	Confidence *float64  `json:"confidence"`
	Calls      []struct {
		Model string `json:"model"`
		Class string `json:"class"`
		Depth int    `json:"depth"`
	} `json:"calls"`
	ByHand bool `json:"by_hand"`

	For   string    `json:"for"`
	Until time.Time `json:"until"`
	Asked struct {
		Approval string   `json:"approval"`
		Title    string   `json:"title"`
		Choices  []string `json:"choices"`
	} `json:"asked"`
	Signal string `json:"signal"`
	Child  struct {
		Run string `json:"run"`
	} `json:"child"`
	Choice    string          `json:"choice"`
	By        string          `json:"by"`
	Name      string          `json:"name"`
	Level     int             `json:"level"`
	Item      int             `json:"item"`
	Count     *int            `json:"count"` // of a map that starts
	Duty      flow.Duty       `json:"duty"`
	Instead   string          `json:"instead"`
	Iteration int             `json:"iteration"`
	Met       bool            `json:"met"`
	Failure   *client.Failure `json:"failure"`

	Case     int `json:"case"`
	Reopened []struct {
		Step string `json:"step"`
	} `json:"reopened"`
	Set   map[string]json.RawMessage `json:"set"`
	Error *struct {
		Class   string `json:"class"`
		Message string `json:"message"`
		Step    string `json:"step"`
	} `json:"error"`
}

// apply takes in one event and says it in a line; empty: not worth one.
func (p *progress) apply(e *client.Event) string {
	var d details
	if len(e.Data) > 0 {
		_ = json.Unmarshal(e.Data, &d) // what cannot be read is not shown; the log has it
	}
	p.spent.add(e)
	if e.Step != "" {
		return p.applyStep(e, d)
	}
	return p.applyRun(e, d)
}

func (p *progress) applyRun(e *client.Event, d details) string {
	switch flow.Kind(e.Kind) {
	case flow.KindRunSubmitted:
		p.began, p.status = e.At, string(client.RunStatusRunning)
		return p.line(e, "run", "submitted", p.id)
	case flow.KindRunFailing:
		if d.Step != "" { // which has just told it
			d.Message = ""
		}
		return p.line(e, "run", "failing", failure(d.Class, d.Message, d.Step))
	case flow.KindRunCancelling:
		p.status = string(client.RunStatusCancelling)
		return p.line(e, "run", "cancelling", d.Reason)
	case flow.KindSectionEntered:
		return p.line(e, "run", "entered", d.Section)
	case flow.KindRunBudgetRaised:
		return p.line(e, "run", "raised", "its budget is $"+usage.Money(d.CostNano).String()+" now", d.Reason)
	case flow.KindOuterRaised:
		return p.line(e, "run", "raised", "a budget around it is $"+usage.Money(d.CostNano).String()+" now", d.Reason)
	case flow.KindBudgetWarned:
		return p.line(e, "run", "warned", "most of its budget is spent: $"+usage.Money(d.CostNano).String())
	case flow.KindRunDegraded:
		return p.line(e, "run", "degraded", fmt.Sprintf("to level %d, %s", d.Level, d.Name), d.Reason)
	case flow.KindSignalReceived:
		return p.line(e, "run", "signalled", d.Name)
	case flow.KindRunResumed:
		return p.resumed(e, d)
	case flow.KindRunSucceeded:
		p.neverReached()
		return p.over(e, string(client.RunStatusSucceeded), "")
	case flow.KindRunFailed:
		why := ""
		if d.Error != nil {
			why = failure(d.Error.Class, d.Error.Message, d.Error.Step)
		}
		return p.over(e, string(client.RunStatusFailed), why)
	case flow.KindRunCancelled:
		return p.over(e, string(client.RunStatusCancelled), "")
	default: // the rest belongs to steps
		return ""
	}
}

func (p *progress) over(e *client.Event, status, why string) string {
	p.status, p.ended = status, e.At
	return p.line(e, "run", status, "in "+took(e.At.Sub(p.began)), p.spent.String(), why)
}

func (p *progress) resumed(e *client.Event, d details) string {
	p.status, p.ended = string(client.RunStatusRunning), time.Time{}
	for _, r := range d.Reopened {
		s := p.step(r.Step)
		*s = stepProgress{path: s.path, status: string(client.StepStatusPending), spent: s.spent}
	}
	for path := range d.Set {
		s := p.step(path)
		s.status, s.note, s.ended = string(client.StepStatusSucceeded), "set by hand", e.At
	}
	return p.line(e, "run", "resumed", d.Reason)
}

func (p *progress) applyStep(e *client.Event, d details) string {
	s := p.step(e.Step)
	s.spent.add(e)
	for _, container := range containersOf(e.Step) {
		p.step(container).spent.add(e)
	}
	s.way = ""
	switch flow.Kind(e.Kind) {
	case flow.KindStepStarted:
		return p.started(e, s, d)
	case flow.KindStepSucceeded:
		note := ""
		if d.ByHand {
			note = "set by hand"
		} else if d.Confidence != nil {
			note = fmt.Sprintf("confidence %g", *d.Confidence)
		}
		return p.settle(e, s, client.StepStatusSucceeded, joined(note, d.fellBack(), insteadText(d.Instead)))
	case flow.KindStepFailed:
		return p.settle(e, s, client.StepStatusFailed, failure(d.Class, d.Message, ""))
	case flow.KindStepSkipped:
		return p.settle(e, s, client.StepStatusSkipped, whySkipped(d.Reason))
	case flow.KindStepCancelled:
		return p.settle(e, s, client.StepStatusCancelled, whyCancelled(d.Reason))
	case flow.KindAttemptFailed:
		if d.Held != "" {
			s.status, s.note = string(client.StepStatusRetrying), failure("", d.Message, "")
			return p.line(e, s.path, "waiting", d.Message, "looks again in "+took(max(0, d.RetryAt.Sub(e.At)))+"; "+p.wayOn(d.Held))
		}
		s.status, s.note = string(client.StepStatusRetrying), failure(d.Class, d.Message, "")
		return p.line(e, s.path, "retrying", s.note, d.next(e.At))
	case flow.KindCaseChosen:
		if d.Case < 0 {
			return p.line(e, s.path, "chose", "no case")
		}
		return p.line(e, s.path, "chose", fmt.Sprintf("case %d", d.Case))
	case flow.KindTurnAnswered:
		return p.line(e, s.path, "answered", spendingOf(e).String())
	case flow.KindStepWaiting:
		s.status, s.note = string(client.StepStatusWaiting), waitingText(d.waiting())
		s.way = d.wayOn()
		return p.line(e, s.path, "waiting", s.note, s.way)
	case flow.KindApprovalAnswered:
		return p.line(e, s.path, "answered", d.Choice+" by "+d.By, d.Reason)
	case flow.KindItemEnded:
		s.inside.word = "item"
		s.inside.end(d.Failure)
		return p.line(e, s.path, "item", fmt.Sprint(d.Item), ended(d.Failure))
	case flow.KindIterationEnded:
		s.inside.word = "iteration"
		s.inside.end(d.Failure)
		return p.line(e, s.path, "iteration", fmt.Sprint(d.Iteration), map[bool]string{true: "its condition holds"}[d.Met])
	case flow.KindPlanMade:
		return p.line(e, s.path, "planned", spendingOf(e).String())
	default: // a late outcome changes nothing but the cost
		return ""
	}
}

func (p *progress) started(e *client.Event, s *stepProgress, d details) string {
	if s.began.IsZero() {
		s.began = e.At
	}
	s.status, s.attempt, s.note = string(client.StepStatusRunning), e.Attempt, ""
	note := ""
	if e.Attempt > 1 {
		note = fmt.Sprintf("attempt %d", e.Attempt)
	}
	if d.Count != nil {
		s.inside = insideProgress{of: *d.Count, word: "item"}
		note = counted(*d.Count, "item")
	}
	return p.line(e, s.path, "started", note)
}

func (in *insideProgress) end(f *client.Failure) {
	if f != nil {
		in.failed++
		return
	}
	in.done++
}

// insideEnded takes out the steps inside a map or loop that nothing was told of when it ended: those of the cases of a
// switch that were not chosen, and of containers that were skipped.
func (p *progress) insideEnded(container string) {
	p.steps = slices.DeleteFunc(p.steps, func(s *stepProgress) bool {
		out := s.status == string(client.StepStatusPending) && strings.HasPrefix(s.path, container+".")
		if out {
			delete(p.byPath, s.path)
		}
		return out
	})
}

// neverReached are the steps that nothing was told of when the run succeeded: they were skipped.
func (p *progress) neverReached() {
	for _, s := range p.steps {
		if s.status == string(client.StepStatusPending) {
			s.status = string(client.StepStatusSkipped)
		}
	}
}

// containersOf are the maps and loops that a step is inside of: each stands before a number in its path.
func containersOf(path string) []string {
	var list []string
	for i := 0; i+1 < len(path); i++ {
		if path[i] == '.' && path[i+1] >= '0' && path[i+1] <= '9' {
			list = append(list, path[:i])
		}
	}
	return list
}

// next says what follows on a failed attempt.
func (d *details) next(at time.Time) string {
	switch d.Duty {
	case flow.DutyFallback:
		return "its fallback works at it now"
	case flow.DutyDecide:
		return "somebody else decides now"
	case flow.DutyWork:
	}
	return "again in " + took(max(0, d.RetryAt.Sub(at)))
}

// fellBack says who answered in the place of whom, and why; empty: the first of the chain did.
func (d *details) fellBack() string {
	n := len(d.Calls)
	if n == 0 || d.Calls[n-1].Depth == 0 || d.Calls[n-1].Class != "" {
		return ""
	}
	first := d.Calls[0]
	if first.Class == "" || first.Depth == d.Calls[n-1].Depth {
		return fmt.Sprintf("%s, number %d of its chain", d.Calls[n-1].Model, d.Calls[n-1].Depth+1)
	}
	return fmt.Sprintf("%s instead of %s (%s)", d.Calls[n-1].Model, first.Model, first.Class)
}

// waiting is what a step waits for, as the service would show it.
func (d *details) waiting() client.StepWaiting {
	return client.StepWaiting{
		For: d.For, Until: d.Until, Approval: d.Asked.Approval, Title: d.Asked.Title, Choices: d.Asked.Choices, Signal: d.Signal, Run: d.Child.Run,
	}
}

// toAnswer introduces a command in a line of text.
const toAnswer = "to answer: "

// wayOn is the command that answers what a step asks.
func (d *details) wayOn() string {
	w := d.waiting()
	if w.Approval == "" || len(w.Choices) == 0 {
		return ""
	}
	return toAnswer + answersOf(w.Approval, w.Choices, "")[0]
}

// ended says how an item came to its end.
func ended(f *client.Failure) string {
	if f == nil {
		return "done"
	}
	return failure(f.Class, f.Message, f.Step)
}

// wayOn says how a run that waits can be helped on.
func (p *progress) wayOn(held string) string {
	if held == flow.HeldIncident {
		return "to let it go on now: " + program() + " incident ls, then resolve"
	}
	return "to let it go on now: " + program() + " resume " + p.id + " --budget USD, or raise the budget that is named"
}

func (p *progress) settle(e *client.Event, s *stepProgress, status client.StepStatus, note string) string {
	s.status, s.ended, s.note = string(status), e.At, note
	if s.inside.word != "" {
		p.insideEnded(s.path)
	}
	if s.began.IsZero() || status == client.StepStatusSkipped {
		return p.line(e, s.path, s.status, note)
	}
	return p.line(e, s.path, s.status, took(s.ended.Sub(s.began)), s.spent.String(), note)
}

func spendingOf(e *client.Event) spending {
	var s spending
	s.add(e)
	return s
}

// line is one change in one line, with the word of the status in it: to be read, and to be searched.
func (p *progress) line(e *client.Event, who, word string, parts ...string) string {
	said := make([]string, 0, len(parts))
	for _, part := range parts {
		if part != "" {
			said = append(said, oneLine(part))
		}
	}
	return strings.TrimRight(fmt.Sprintf("%s  %-16s %-11s%s", e.At.Local().Format("15:04:05.000"), who, word, strings.Join(said, " · ")), " ")
}
