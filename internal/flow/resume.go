package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Resume is the body of a resume message: a failed run goes on from its last checkpoints.
type Resume struct {
	Set    map[Path]json.RawMessage `json:"set,omitempty"`    // outputs given by hand
	Budget *BudgetRaise             `json:"budget,omitempty"` // nil: the limits stay
	Reason string                   `json:"reason,omitempty"`
	Actor  string                   `json:"actor,omitempty"`
}

// CanCancel says why the run cannot be cancelled (any more), as a *fault.Error, or nil.
func (r *Run) CanCancel() error {
	if r.status.Ended() {
		return fault.New(fault.KindConflict, "run_terminal", "the run is %s: there is nothing to cancel", r.status)
	}
	return nil
}

// CanResume says why the run cannot be resumed with these outputs, as a *fault.Error, or nil.
func (r *Run) CanResume(set map[Path]json.RawMessage) error {
	if r.status != RunStatusFailed {
		legal := "cancel"
		if r.status.Ended() {
			legal = "none"
		}
		return fault.New(fault.KindConflict, "run_not_failed", "the run is %s; only a failed run can be resumed (legal actions now: %s)", r.status, legal)
	}
	var issues []fault.Issue
	for _, path := range slices.Sorted(mapKeys(set)) {
		issues = append(issues, r.checkSet(path, set[path])...)
	}
	if len(issues) > 0 {
		e := fault.New(fault.KindInvalid, "resume_invalid", "the outputs set by hand cannot be taken")
		e.Issues = issues
		return e
	}
	return nil
}

func (r *Run) checkSet(path Path, output json.RawMessage) []fault.Issue {
	pointer := "/set/" + pointerToken("steps."+path+".output")
	issue := func(code, detail string) []fault.Issue {
		return []fault.Issue{{Pointer: pointer, Code: code, Detail: detail}}
	}
	s := r.at(path)
	if s == nil || s.def.Section != sectionMain {
		return issue("unknown_step", "the run has no step "+path+" in its main list")
	}
	switch {
	case s.isContainer():
		return issue("not_settable", path+" holds other steps; set the outputs of those")
	case s.status == StepStatusSucceeded || s.status == StepStatusSkipped:
		return issue("step_settled", path+" is "+string(s.status)+": what is finished is not rewritten")
	case s.isOver():
		return issue("step_over", "what is around "+path+" has come to its end without it")
	case len(output) > workflow.OutputBytesMax:
		return issue("output_too_large", "the output is larger than the limit")
	case !json.Valid(output):
		return issue("json_syntax", "the output is not JSON")
	}
	contract := s.contract()
	if contract.Schema == nil {
		return nil
	}
	issues := contract.Schema.Check(output)
	for i := range issues {
		issues[i].Pointer = pointer + issues[i].Pointer
	}
	return issues
}

// resume reopens what failed or was cut, and all of the cleaning up: it is done again after the run's new end.
func (r *Run) resume(body Resume) {
	if r.CanResume(body.Set) != nil {
		return
	}
	b := &Resumed{Set: body.Set, Reason: body.Reason, Actor: body.Actor}
	for s := range r.each {
		_, byHand := body.Set[s.path()]
		cleanup := s.def.Section != sectionMain && s.status != StepStatusPending && s.frame == r.root // what is inside begins anew with it
		if byHand || cleanup || s.def.Section == sectionMain && r.reopens(s) {
			b.Reopened = append(b.Reopened, Reopened{Step: s.path(), Gen: s.gen + 1})
		}
	}
	r.emit(KindRunResumed, nil, b)
	if body.Budget != nil {
		raised := *body.Budget
		raised.Actor = body.Actor
		r.raise(raised)
	}
}

// reopens: what failed or was cut runs again, unless what is around it has got over that: a merge without the member, a
// map without the item, a container that was done otherwise.
func (r *Run) reopens(s *step) bool {
	if s.status != StepStatusFailed && s.status != StepStatusCancelled {
		return false
	}
	if s.isOver() {
		return false
	}
	if !s.def.Member {
		return true
	}
	return slices.ContainsFunc(s.def.Dependants, func(slot int) bool {
		m := &s.frame.steps[slot]
		return m.def.Merge != nil && slices.Contains(m.def.Merge.Of, s.def.Slot) && m.status != StepStatusSucceeded && m.status != StepStatusSkipped
	})
}

// isOver: nothing reads the step any more, because what is around it has come to its end without it.
func (s *step) isOver() bool {
	for ; s != nil; s = s.around() {
		if p := s.around(); p != nil && (p.status == StepStatusSucceeded || p.status == StepStatusSkipped) {
			return true
		}
		if f := s.frame; f.isPast() || f.ended && f.failure == nil {
			return true
		}
	}
	return false
}

// applyResumed opens a new generation of the listed steps and works out anew who waits for whom.
func (r *Run) applyResumed(e Event, b *Resumed) {
	r.moveRun(RunStatusRunning)
	r.fate, r.cut, r.failure, r.result = "", false, nil, nil
	r.clockFrom, r.endedAt = e.At, time.Time{}
	for _, reopened := range b.Reopened {
		s := r.at(reopened.Step)
		if s == nil {
			r.broken = fmt.Errorf("the run has no step %q", reopened.Step)
			return
		}
		output, byHand := b.Set[reopened.Step]
		s.reopen(e, reopened.Gen, output, byHand)
		r.appoint(s)
	}
	r.recount()
	r.enter(workflow.SectionMain, e)
	r.reopenContainers()
}

// reopen lets a step run again. A container that was at work goes on with what is inside it.
func (s *step) reopen(e Event, gen int16, output json.RawMessage, byHand bool) {
	started := !s.startedAt.IsZero() && s.isContainer()
	*s = step{
		def: s.def, frame: s.frame, at: s.at, status: StepStatusPending, gen: gen, chosen: s.chosen, many: s.many,
		limit: s.limit, sum: s.sum, calls: s.calls, work: &work{earlier: len(s.calls)}, last: bare,
	}
	switch {
	case byHand:
		s.status, s.raw, s.last, s.work = StepStatusSucceeded, output, &Succeeded{ByHand: true}, nil
		s.startedAt, s.endedAt = e.At, e.At
	case started && s.def.Section == workflow.SectionMain && (s.def.Map == nil && s.def.Loop == nil || s.many != nil):
		s.status, s.startedAt, s.startSeq = StepStatusRunning, e.At, e.Seq
	default:
		s.chosen, s.many = caseUnchosen, nil
	}
}

// recount works out the counters from the statuses.
func (r *Run) recount() {
	r.settled, r.total, r.open, r.retrying, r.waiting, r.timed = 0, 0, nil, nil, nil, nil
	r.expanded = len(r.root.steps)
	for s := range r.each {
		r.total++
		if s.many != nil {
			r.expanded += len(s.many.frames) * len(s.body().Steps)
		}
		if s.status.Settled() {
			r.settled++
		}
		s.waitingOn = 0
		for _, edge := range s.def.Edges {
			if holds(s.def, edge) && !s.frame.steps[edge.Slot].status.Settled() {
				s.waitingOn++
			}
		}
	}
}

// reopenContainers lets go on what is inside the containers that were reopened at work.
func (r *Run) reopenContainers() {
	var again []*step // first: what is reopened changes what there is
	for s := range r.each {
		if s.status == StepStatusRunning && s.isContainer() {
			again = append(again, s)
		}
	}
	for _, s := range again {
		if s.def.Timeout > 0 {
			r.timed = append(r.timed, s)
		}
		switch {
		case s.def.Group != nil:
			r.openInside(s, s.def.Group.Steps)
		case s.many != nil:
			r.reopenMany(s)
		case s.chosen >= 0:
			r.openInside(s, s.def.Switch.Cases[s.chosen].Steps)
		default:
			r.ready = append(r.ready, todo{step: s}) // its case is not chosen yet
		}
	}
}

func pointerToken(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}
