package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Run is the folded state of one run. It belongs to one goroutine at a time.
type Run struct {
	ID     uuid.UUID
	Tenant uuid.UUID

	w         *workflow.Workflow
	submitted Submitted
	input     any // decoded, once an expression reads it

	seq     int32
	folded  int32 // events up to here were read from the log
	format  int16 // the highest version of its events
	bytes   int   // of their bodies
	status  RunStatus
	broken  error // an event that the tables do not allow: the log is not ours to go on with
	section workflow.Section
	fate    RunStatus // what the run will end as: empty while that is success
	cut     bool      // attempts at work are being cut
	failure *Failure

	createdAt    time.Time // of the submission
	clockFrom    time.Time // the run's timeout counts from here: submission or last resume
	sectionSince time.Time
	cutSince     time.Time
	startedAt    time.Time // of the first attempt
	firstStart   int32     // the event that started it
	endedAt      time.Time

	root     *frame
	ready    []todo  // what may go on, in the order it became so
	open     []*step // attempts at work
	retrying []*step // between attempts
	waiting  []*step // for people, times, signals and runs of their own
	timed    []*step // containers at work with a timeout
	settled  int
	total    int // steps in all frames
	expanded int // total, and those of items that have not begun

	signals []kept // that nobody has taken
	heard   map[string]bool
	full    map[string]bool     // names of which one was lost since one was taken
	owed    map[uuid.UUID]*debt // runs that steps started, whose cost is not counted yet
	level   int                 // of the ladder
	levelAt time.Time           // when it came to it
	quality []string
	unsaid  int // remarks on it, beyond remarksMax
	omitted []Path

	budget *RunBudget // as it stands; nil: none
	warned bool       // of the budget as it stands
	around []Budget   // of the steps and runs around this one, the nearest first; their limits as they stand
	sum    usage.Sum
	result *Result

	// Of the decision at hand; empty between decisions.
	now     time.Time
	out     []Event
	charged []Charge
	effects Effects
	output  json.RawMessage // of the run, rendered when the main list was done
	effort  effort
}

// Charge is a model call that a decision has just recorded.
type Charge struct {
	Agent string
	Call  usage.Call
}

// Open starts a run: its state and its first events. The error is a *fault.Error that says what is wrong with the
// submission; then nothing has happened.
func Open(s Submission, now time.Time) (*Run, []Event, error) {
	r, body, err := prepare(s, now)
	if err != nil {
		return nil, nil, err
	}
	r.emit(KindRunSubmitted, nil, body)
	r.advance()
	return r, r.take(), nil
}

// Accept is Open for a run that somebody else will start: nothing of it begins.
func Accept(s Submission, now time.Time) (*Run, []Event, error) {
	r, body, err := prepare(s, now)
	if err != nil {
		return nil, nil, err
	}
	r.emit(KindRunSubmitted, nil, body)
	return r, r.take(), nil
}

// prepare checks a submission: a run that nothing has happened to, and the body of its first event.
func prepare(s Submission, now time.Time) (*Run, *Submitted, error) {
	input, err := checkInput(s)
	if err != nil {
		return nil, nil, err
	}
	r := newRun(s.ID, s.Tenant, s.Workflow)
	r.now = now
	body := &Submitted{
		Workflow: s.Workflow.Name, Version: s.WorkflowVersion, Hash: s.Workflow.Hash.String(),
		Priority: s.Priority, Labels: s.Labels, Input: input, Budget: budgetOf(s), Parent: s.Parent,
	}
	if body.Priority < 0 {
		body.Priority = s.Workflow.Priority
	}
	r.submitted = *body // the templates of stakes and mode read the input
	if body.Stakes, err = r.word("stakes", s.Stakes, s.Workflow.Stakes, "normal", "low", "high"); err != nil {
		return nil, nil, err
	}
	if body.Mode, err = r.word("mode", s.Mode, s.Workflow.Mode, "batch", "interactive"); err != nil {
		return nil, nil, err
	}
	return r, body, nil
}

func checkInput(s Submission) (json.RawMessage, error) {
	input := s.Input
	if len(input) == 0 {
		input = json.RawMessage("{}")
	}
	if len(input) > workflow.InputBytesMax {
		return nil, fault.New(fault.KindTooLarge, "input_too_large", "the input has %d bytes; the limit is %d", len(input), workflow.InputBytesMax)
	}
	if s.Workflow.Input == nil {
		return input, nil
	}
	filled, err := s.Workflow.Input.Fill(input)
	if err != nil {
		return nil, fault.New(fault.KindInvalid, "input_invalid", "the input cannot be read: %v", err)
	}
	if issues := s.Workflow.Input.Check(filled); len(issues) > 0 {
		for i := range issues {
			issues[i].Pointer = "/input" + issues[i].Pointer
		}
		e := fault.New(fault.KindInvalid, "input_invalid", "the input does not meet the workflow's input schema")
		e.Issues = issues
		return nil, e
	}
	return filled, nil
}

// word settles stakes or mode: given at submission, else the definition's template, else the first of the words.
func (r *Run) word(name, given string, t *workflow.Template, words ...string) (string, error) {
	if given == "" && t != nil {
		s := r.scope(r.root)
		text, err := t.Text(s)
		if err != nil {
			return "", fault.New(fault.KindInvalid, name+"_invalid", "%s cannot be read from the input: %v", name, err)
		}
		given = text
	}
	if given == "" {
		return words[0], nil
	}
	for _, w := range words {
		if given == w {
			return given, nil
		}
	}
	return "", fault.New(fault.KindInvalid, name+"_invalid", "%s is %q; it must be one of %v", name, given, words)
}

// Fold reads a run back from its log. The error says that the log is unreadable; w must be the definition whose hash
// the first event names.
func Fold(id, tenant uuid.UUID, w *workflow.Workflow, log []Event) (*Run, error) {
	r := newRun(id, tenant, w)
	for _, e := range log {
		if e.Seq != r.seq+1 {
			return nil, fmt.Errorf("event %d follows event %d", e.Seq, r.seq)
		}
		body, err := decode(e)
		if err != nil {
			return nil, err
		}
		r.apply(e, body)
		if r.broken != nil {
			return nil, fmt.Errorf("event %d (%s): %w", e.Seq, e.Kind, r.broken)
		}
	}
	if r.seq == 0 {
		return nil, fmt.Errorf("the log of run %s is empty", id)
	}
	r.charged, r.folded = nil, r.seq
	r.ready = slices.DeleteFunc(r.ready, func(t todo) bool { return !r.isReady(t) })
	return r, nil
}

// isReady: what became ready in the log may have begun later in it.
func (r *Run) isReady(t todo) bool {
	if t.frame != nil {
		return !t.frame.ended && t.frame.undone == 0
	}
	switch s := t.step; {
	case s.status == StepStatusPending:
		return s.waitingOn == 0 && r.mayGoOn(s)
	case s.status == StepStatusRunning && isEarly(s.def):
		return s.duty == DutyWork
	case s.status != StepStatusRunning || !s.isContainer() || s.duty != DutyWork:
		return false
	case s.def.Map != nil:
		return s.many.active == 0 && (s.many.next == len(s.many.frames) || s.isStopping())
	case s.def.Loop != nil:
		return s.many.active == 0
	default:
		return s.inside == 0
	}
}

func newRun(id, tenant uuid.UUID, w *workflow.Workflow) *Run {
	r := &Run{ID: id, Tenant: tenant, w: w}
	r.root = r.newFrame(w.Body, nil, 0)
	r.expanded = r.total
	return r
}

// Workflow is the definition the run is pinned to.
func (r *Run) Workflow() *workflow.Workflow { return r.w }

// Seq is the number of events so far.
func (r *Run) Seq() int32 { return r.seq }

// Format is the highest version of its events: a binary that does not read it must leave the run alone.
func (r *Run) Format() int16 { return r.format }

// Status is where the run stands by its log.
func (r *Run) Status() RunStatus { return r.status }

// Err is not nil when an event came that the tables of moves do not allow: the run must not be gone on with.
func (r *Run) Err() error { return r.broken }

// emit records a fact: it is given its number, folded, and kept for the caller of Decide.
func (r *Run) emit(k Kind, s *step, body any) {
	e := Event{Seq: r.seq + 1, At: r.now, Kind: k, V: version(r.w, body), Body: encode(body)}
	if r.format >= formatLanguage { // nobody older reads the run, and events of one version are stored together
		e.V = r.format
	}
	if s != nil {
		e.Step, e.Gen, e.Attempt = s.path(), s.gen, s.attempt
		if s.beginsAttempt(k, body) {
			e.Attempt++
		}
	}
	r.apply(e, body)
	r.out = append(r.out, e)
	r.effort.bytes += len(e.Body)
}

func (r *Run) take() []Event {
	out := r.out
	r.out = nil
	return out
}

// TakeCharges hands over the model calls recorded since it was asked last.
func (r *Run) TakeCharges() []Charge {
	c := r.charged
	r.charged = nil
	return c
}

// TakeEffects hands over what the decisions since it was asked last do beyond the run's own log.
func (r *Run) TakeEffects() Effects {
	e := r.effects
	r.effects = Effects{}
	return e
}
