package flow

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// View is the state of a run to look at.
type View struct {
	Status     RunStatus
	Section    string   // main, on_failure, finally
	Stage      []string // paths of the steps at work
	Submitted  Submitted
	CreatedAt  time.Time
	StartedAt  time.Time // of the first attempt; zero: none yet
	EndedAt    time.Time // zero: not ended
	Steps      []StepView
	StepsDone  int // settled
	Sum        usage.Sum
	Error      *Failure
	Result     *Result // nil until the run has ended
	RetryingAt time.Time
	Budget     *BudgetView // nil: the run has none of its own
	WaitingFor string      // of a run with nothing at work: budget, incident, retry, or one of WaitingXxx; else empty
	Quality    *Quality    // nil: nothing was left out or done otherwise
	Total      int         // steps there are, those of items and iterations so far included
}

// Quality says what of the definition a run did not do as written.
type Quality struct {
	Level   int      `json:"level"`             // of the ladder; 0: none
	Name    string   `json:"name,omitempty"`    // of the level
	Omitted []Path   `json:"omitted,omitempty"` // by the ladder
	Reasons []string `json:"reasons,omitempty"`
}

// Inside counts the items of a map, or the iterations of a loop.
type Inside struct {
	Total, AtWork, Succeeded, Failed int
	Exhausted                        bool // of a loop: the last iteration there may be has not met its until
}

// Dissent is an output that a merge did not take.
type Dissent struct {
	Step   Path            `json:"step"`
	Output json.RawMessage `json:"output"`
}

// BudgetView is a run's budget as it stands; View.Sum is what of it is spent.
type BudgetView struct {
	RunBudget
	Warned bool // since it was set or last raised
}

// StepView is the state of a step to look at.
type StepView struct {
	Path       Path
	Kind       workflow.Kind
	Section    string
	Status     StepStatus
	Gen        int16
	Attempt    int16
	StartedAt  time.Time
	EndedAt    time.Time
	RetryAt    time.Time // set while retrying
	Input      json.RawMessage
	Output     json.RawMessage
	Error      *Failure
	Failures   []Failure // of all attempts of this generation
	Confidence *float64
	Unresolved []string
	Skipped    string // the reason: when, switch
	Case       *int
	ByHand     bool
	Repaired   bool
	BelowGate  bool      // no model's answer was accepted; this is the best one
	Held       string    // what its attempt waits for until RetryAt: budget, incident; empty: it is not held
	Refusal    *Failure  // that holds it
	Sum        usage.Sum // of all generations, and of all that is inside it
	Calls      []usage.Call

	Inside    *Inside     // of a map or loop; the steps of its items stand behind it
	Waiting   *Waiting    // while it waits
	Answer    *Answered   // of a person, the last one
	Child     *Child      // the run it started, the last one
	Summary   string      // of the output
	Gate      *GateResult // nil: there is none
	Agreement *float64    // of a merge
	Dissent   []Dissent   // of a merge
	Agent     string      // who works or worked at it
	Instead   string      // of its own outcome: one of InsteadXxx
	Duty      Duty        // of the attempt at work, or the last one
	Plan      *Planned    // of a plan step, the last one
}

// View shows the whole run.
func (r *Run) View() View {
	v := View{
		Status: r.status, Section: sectionNames[r.section], Submitted: r.submitted, CreatedAt: r.createdAt,
		StartedAt: r.startedAt, EndedAt: r.endedAt, StepsDone: r.settled, Sum: r.sum, Error: r.failure, Result: r.result,
		Stage: r.stage(), Steps: make([]StepView, 0, r.total), Quality: r.qualityNow(), Total: r.total,
	}
	for s := range r.each {
		step := r.stepView(s)
		if at := step.RetryAt; !at.IsZero() && (v.RetryingAt.IsZero() || at.Before(v.RetryingAt)) {
			v.RetryingAt = at
		}
		v.Steps = append(v.Steps, step)
	}
	if r.budget != nil {
		v.Budget = &BudgetView{RunBudget: *r.budget, Warned: r.warned}
	}
	if len(r.open) == 0 && (len(r.retrying)+len(r.waiting) > 0 || r.isOwed()) {
		v.WaitingFor = r.WaitingFor()
	}
	return v
}

func (r *Run) stage() []string {
	var at []string
	for _, s := range r.unfinished() {
		at = append(at, s.path())
	}
	return at
}

func (r *Run) stepView(s *step) StepView {
	v := StepView{
		Path: s.path(), Kind: s.def.Kind, Section: sectionNames[s.def.Section], Status: s.status, Gen: s.gen,
		Attempt: s.attempt, StartedAt: s.startedAt, EndedAt: s.endedAt, Failures: s.failures,
		Skipped: s.skipped, Sum: s.sum, Calls: s.calls,
		Inside: s.inView(), Answer: s.answer, Child: s.child, Duty: s.duty, Plan: s.plan,
	}
	if a := s.worker(); a != nil {
		v.Agent = a.Name
	}
	if s.work != nil {
		v.Input = s.input
	}
	switch s.status {
	case StepStatusSucceeded:
		v.Output, v.Confidence, v.Unresolved = s.output(), s.last.Confidence, s.last.Unresolved
		v.ByHand, v.Repaired, v.BelowGate = s.last.ByHand, s.last.Repaired, s.last.BelowGate
		v.Summary, v.Gate, v.Agreement, v.Instead = s.last.Summary, s.last.Gate, s.last.Agreement, s.last.Instead
		for _, id := range s.last.Dissent {
			m := s.member(id)
			v.Dissent = append(v.Dissent, Dissent{Step: m.path(), Output: m.output()})
		}
	case StepStatusFailed:
		v.Error = s.lastFailure()
	case StepStatusSkipped:
		if s.skipped == SkippedError {
			v.Error = s.lastFailure()
		}
	case StepStatusRetrying:
		if v.RetryAt, v.Held = s.retryAt, s.held; s.held != "" {
			v.Refusal = s.refusal
		}
	case StepStatusWaiting:
		v.Waiting = s.waits
	case StepStatusPending, StepStatusRunning, StepStatusCancelled:
	}
	if s.chosen >= 0 {
		chosen := s.chosen
		v.Case = &chosen
	}
	return v
}

func (s *step) lastFailure() *Failure {
	if n := len(s.failures); n > 0 {
		return &s.failures[n-1]
	}
	return nil
}

// inView counts what is inside a map or a loop.
func (s *step) inView() *Inside {
	if s.many == nil {
		return nil
	}
	in := &Inside{Total: len(s.many.frames), AtWork: s.many.active, Exhausted: s.last.Exhausted}
	for _, f := range s.many.frames {
		switch {
		case f == nil || !f.ended:
		case f.failure != nil:
			in.Failed++
		default:
			in.Succeeded++
		}
	}
	return in
}

// Summary is what the run's row says of it: for lists and claims.
type Summary struct {
	Status     RunStatus
	Stage      string
	Preview    string // the beginning of the output
	Error      *Failure
	Sum        usage.Sum
	StepsDone  int
	StepsTotal int
	StartedAt  time.Time
	FinishedAt time.Time
}

const previewBytesMax = 200

// Summary works out the row.
func (r *Run) Summary() Summary {
	s := Summary{
		Status: r.status, Error: r.failure, Sum: r.sum, StepsDone: r.settled, StepsTotal: r.total, StartedAt: r.startedAt, FinishedAt: r.endedAt,
	}
	for _, list := range [][]*step{r.open, r.retrying, r.waiting} {
		if len(list) > 0 {
			s.Stage = list[0].path()
			break
		}
	}
	if r.result != nil {
		s.Preview = Preview(r.result.Output)
	}
	return s
}

// Preview cuts JSON down to what a list shows.
func Preview(raw json.RawMessage) string {
	if len(raw) <= previewBytesMax {
		return string(raw)
	}
	return strings.ToValidUTF8(string(raw[:previewBytesMax]), "") + "…"
}

// StepStat is what is counted of a step when an event of it is recorded.
type StepStat struct {
	Kind      workflow.Kind
	Agent     string
	Gated     bool // its outputs have to pass a gate
	StartedAt time.Time
	EndedAt   time.Time
}

// Stat tells what is counted of a step.
func (r *Run) Stat(path Path) StepStat {
	s := r.at(path)
	if s == nil {
		return StepStat{}
	}
	stat := StepStat{Kind: s.def.Kind, StartedAt: s.startedAt, EndedAt: s.endedAt, Gated: s.def.Gate != nil}
	if a := s.worker(); a != nil {
		stat.Agent, stat.Gated = a.Name, stat.Gated || a.Gate != nil
	}
	return stat
}

// answered is the last call of the step's own agent that a model answered, or whose answer was taken though it was not
// accepted. Those of judges, delegates and others who work at the step are none.
func (s *step) answered() (usage.Call, bool) {
	if s.last.BelowGate && s.best < len(s.calls) {
		return s.calls[s.best], true
	}
	for i := len(s.calls) - 1; i >= 0; i-- {
		if c := &s.calls[i]; c.Class == "" && c.Who == "" {
			return *c, true
		}
	}
	return usage.Call{}, false
}

// noteBest remembers which of the calls that are about to be counted is the best one that was not accepted: the first of
// the surest.
func (s *step) noteBest(calls []usage.Call) {
	score := -1.0
	for i, c := range calls {
		if c.Who == "" && c.Class == classLowConfidence && c.Confidence != nil && *c.Confidence > score {
			s.best, score = len(s.calls)+i, *c.Confidence
		}
	}
}

// Submitted is what the run started from.
func (r *Run) Submitted() Submitted { return r.submitted }

// CreatedAt is when the run was submitted.
func (r *Run) CreatedAt() time.Time { return r.createdAt }

// FirstStart is the number of the event that started the run's first attempt; 0: none yet.
func (r *Run) FirstStart() int32 { return r.firstStart }

// LastClass is the error class of the step's last failed attempt; empty: none failed.
func (r *Run) LastClass(path Path) string {
	if s := r.at(path); s != nil && len(s.failures) > 0 {
		return s.lastFailure().Class
	}
	return ""
}
