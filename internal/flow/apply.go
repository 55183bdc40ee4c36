package flow

import (
	"fmt"
	"slices"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// apply folds one event. It is total and evaluates no expression, so that a log reads alike under any later binary;
// what the tables of moves do not allow is noted in r.broken.
func (r *Run) apply(e Event, body any) {
	r.seq, r.format = e.Seq, max(r.format, e.V)
	if e.Step != "" {
		def := r.w.Step(e.Step)
		if def == nil {
			r.broken = fmt.Errorf("the definition has no step %q", e.Step)
			return
		}
		r.applyStep(e, &r.steps[def.Index], body)
		return
	}
	r.applyRun(e, body)
}

func (r *Run) applyRun(e Event, body any) {
	switch b := body.(type) {
	case *Submitted:
		r.submitted, r.createdAt, r.clockFrom, r.budget = *b, e.At, e.At, b.Budget
		r.moveRun(RunStatusRunning)
		r.enter(workflow.SectionMain, e)
	case *Failing:
		r.fate, r.cut, r.cutSince = RunStatusFailed, b.Cut, e.At
		failure := b.Failure
		r.failure, r.ready = &failure, nil
	case *Cancelling:
		if r.status != RunStatusCancelling {
			r.moveRun(RunStatusCancelling)
		}
		r.fate, r.cut, r.cutSince, r.ready = RunStatusCancelled, true, e.At, nil
	case *SectionEntered:
		section := workflow.SectionOnFailure
		if b.Section == sectionNames[workflow.SectionFinally] {
			section = workflow.SectionFinally
		}
		r.enter(section, e)
	case *Result:
		result := *b
		if def := r.w.Step(b.OutputOf); def != nil {
			result.Output = r.steps[def.Index].last.Output
		}
		r.result, r.endedAt = &result, e.At
		r.moveRun(map[Kind]RunStatus{
			KindRunSucceeded: RunStatusSucceeded, KindRunFailed: RunStatusFailed, KindRunCancelled: RunStatusCancelled,
		}[e.Kind])
		r.ready, r.timed = nil, nil
	case *Resumed:
		r.applyResumed(e, b)
	case *BudgetRaise:
		r.applyRaised(e, b)
	case *BudgetWarned:
		r.warned = true
	default:
		r.broken = fmt.Errorf("%s names no step", e.Kind)
	}
}

var sectionNames = map[workflow.Section]string{
	workflow.SectionMain: "main", workflow.SectionOnFailure: "on_failure", workflow.SectionFinally: "finally",
}

// enter begins a section: its top-level steps without open edges are ready.
func (r *Run) enter(section workflow.Section, e Event) {
	r.section, r.sectionSince, r.cut, r.ready = section, e.At, false, nil
	for _, def := range r.sectionSteps(section) {
		if s := &r.steps[def.Index]; s.waitingOn == 0 && s.status == StepStatusPending {
			r.ready = append(r.ready, def.Index)
		}
	}
}

func (r *Run) sectionSteps(section workflow.Section) []*workflow.Step {
	switch section {
	case workflow.SectionOnFailure:
		return r.w.OnFailure
	case workflow.SectionFinally:
		return r.w.Finally
	default:
		return r.w.Main
	}
}

func (r *Run) applyStep(e Event, s *step, body any) {
	if e.Kind == KindOutcomeDiscarded {
		r.charge(s, body.(*Cancelled).Calls)
		return
	}
	if e.Gen != s.gen {
		r.broken = fmt.Errorf("step %s is in generation %d, not %d", e.Step, s.gen, e.Gen)
		return
	}
	switch b := body.(type) {
	case *Started:
		r.applyStarted(e, s, b)
	case *Turn:
		s.turns = append(s.turns, *b)
		r.charge(s, b.Calls)
	case *Succeeded:
		s.last, s.decoded, s.value = *b, false, nil
		s.best = len(s.calls) + surest(b.Calls)
		r.charge(s, b.Calls)
		s.last.Calls = nil
		r.settle(e, s, StepStatusSucceeded)
	case *AttemptFailed:
		r.applyAttemptFailed(s, b)
	case *Failed:
		s.failures = append(s.failures, b.Failure)
		r.charge(s, b.Calls)
		r.settle(e, s, StepStatusFailed)
	case *Skipped:
		s.skipped = b.Reason
		r.skip(e, s)
	case *Cancelled:
		r.charge(s, b.Calls)
		r.settle(e, s, StepStatusCancelled)
	case *CaseChosen:
		r.applyCase(e, s, b.Case)
	default:
		r.broken = fmt.Errorf("%s is not about a step", e.Kind)
	}
}

func (r *Run) applyAttemptFailed(s *step, b *AttemptFailed) {
	if b.Held != "" { // it goes on where it stands
		failure := b.Failure
		s.held, s.refusal, s.holds = b.Held, &failure, s.holds+1
	} else {
		s.failures = append(s.failures, b.Failure)
		s.feedback, s.turns = b.Class+": "+b.Message, nil
	}
	s.retryAt = b.RetryAt
	r.charge(s, b.Calls)
	r.leaveWork(s)
	r.moveStep(s, StepStatusRetrying)
	r.retrying = append(r.retrying, s.def.Index)
}

func (r *Run) applyStarted(e Event, s *step, b *Started) {
	r.leaveWork(s)
	r.moveStep(s, StepStatusRunning)
	s.attempt, s.startSeq, s.queued, s.held, s.stale = e.Attempt, e.Seq, false, "", false
	if b.Input != nil {
		s.input = b.Input
	}
	if s.startedAt.IsZero() {
		s.startedAt = e.At
	}
	if s.isLeaf() {
		if r.startedAt.IsZero() {
			r.startedAt, r.firstStart = e.At, e.Seq
		}
		r.open = append(r.open, s.def.Index)
		return
	}
	if s.def.Timeout > 0 {
		r.timed = append(r.timed, s.def.Index)
	}
	if s.def.Group != nil {
		r.openInside(s, s.def.Group.Steps)
	}
}

// openInside lets the steps of a container begin. One without steps to wait for is ready to close at once.
func (r *Run) openInside(container *step, inside []*workflow.Step) {
	container.inside = 0
	for _, def := range inside {
		s := &r.steps[def.Index]
		if s.status.Settled() {
			continue
		}
		container.inside++
		if s.waitingOn == 0 && s.status == StepStatusPending {
			r.ready = append(r.ready, def.Index)
		}
	}
	if container.inside == 0 {
		r.ready = append(r.ready, container.def.Index)
	}
}

func (r *Run) applyCase(e Event, s *step, chosen int) {
	s.chosen = chosen
	s.inside = 0
	for i, c := range s.def.Switch.Cases {
		if i == chosen {
			continue
		}
		for _, def := range c.Steps {
			if other := &r.steps[def.Index]; other.status == StepStatusPending {
				other.skipped = "switch"
				r.skip(e, other)
			}
		}
	}
	if chosen >= 0 && chosen < len(s.def.Switch.Cases) {
		r.openInside(s, s.def.Switch.Cases[chosen].Steps)
		return
	}
	r.ready = append(r.ready, s.def.Index)
}

// skip settles a step and all inside it.
func (r *Run) skip(e Event, s *step) {
	for _, def := range contents(s.def) {
		if inner := &r.steps[def.Index]; !inner.status.Settled() { // else: set by hand
			inner.skipped = s.skipped
			r.skip(e, inner)
		}
	}
	r.settle(e, s, StepStatusSkipped)
}

func contents(def *workflow.Step) []*workflow.Step {
	switch {
	case def.Group != nil:
		return def.Group.Steps
	case def.Switch != nil:
		var all []*workflow.Step
		for _, c := range def.Switch.Cases {
			all = append(all, c.Steps...)
		}
		return all
	}
	return nil
}

// settle ends a step in this generation and lets those begin that waited for it.
func (r *Run) settle(e Event, s *step, to StepStatus) {
	r.leaveWork(s)
	r.moveStep(s, to)
	s.endedAt, s.turns, s.input = e.At, nil, nil
	r.settled++
	for _, i := range s.def.Dependants {
		d := &r.steps[i]
		d.waitingOn--
		if d.waitingOn == 0 && d.status == StepStatusPending && r.mayBegin(d) {
			r.ready = append(r.ready, i)
		}
	}
	if s.def.Parent == nil {
		return
	}
	p := &r.steps[s.def.Parent.Index]
	if p.status == StepStatusRunning && r.runsInside(p, s) {
		if p.inside--; p.inside == 0 && r.mayBegin(p) {
			r.ready = append(r.ready, p.def.Index)
		}
	}
}

// mayBegin: its section is the one at work, nothing decided the run yet, and all that is around it is open.
func (r *Run) mayBegin(s *step) bool {
	if s.def.Section != r.section || (r.section == workflow.SectionMain && r.fate != "") || r.cut {
		return false
	}
	for s.def.Parent != nil {
		p := &r.steps[s.def.Parent.Index]
		if p.status != StepStatusRunning || !r.runsInside(p, s) {
			return false
		}
		s = p
	}
	return true
}

// runsInside: a step of a switch belongs to what runs only if its case was chosen.
func (r *Run) runsInside(p, s *step) bool {
	return p.def.Switch == nil || p.chosen == s.def.Case
}

func (r *Run) leaveWork(s *step) {
	i := s.def.Index
	without := func(list []int) []int {
		if at := slices.Index(list, i); at >= 0 {
			return slices.Delete(list, at, at+1)
		}
		return list
	}
	r.open, r.retrying, r.timed = without(r.open), without(r.retrying), without(r.timed)
}

func (r *Run) charge(s *step, calls []usage.Call) {
	agent := ""
	if s.def.Agent != nil {
		agent = s.def.Agent.Agent.Name
	}
	for _, c := range calls {
		r.sum.Add(c)
		s.calls = append(s.calls, c)
		r.charged = append(r.charged, Charge{Agent: agent, Call: c})
	}
}

// applyResumed opens a new generation of the listed steps and works out anew who waits for whom.
func (r *Run) applyResumed(e Event, b *Resumed) {
	r.moveRun(RunStatusRunning)
	r.fate, r.cut, r.failure, r.result = "", false, nil, nil
	r.clockFrom, r.endedAt = e.At, time.Time{}
	for _, reopened := range b.Reopened {
		def := r.w.Step(reopened.Step)
		if def == nil {
			r.broken = fmt.Errorf("the definition has no step %q", reopened.Step)
			return
		}
		s := &r.steps[def.Index]
		started := !s.startedAt.IsZero() && !s.isLeaf() && s.def.Set == nil
		*s = step{def: def, status: StepStatusPending, gen: reopened.Gen, chosen: s.chosen, calls: s.calls}
		if output, byHand := b.Set[reopened.Step]; byHand {
			s.status, s.last = StepStatusSucceeded, Succeeded{Output: output, ByHand: true}
			s.startedAt, s.endedAt = e.At, e.At
		} else if started && def.Section == workflow.SectionMain {
			s.status, s.startedAt, s.startSeq = StepStatusRunning, e.At, e.Seq
		} else {
			s.chosen = caseUnchosen
		}
	}
	r.recount()
	r.enter(workflow.SectionMain, e)
	r.reopenContainers()
}

// recount works out the counters from the statuses.
func (r *Run) recount() {
	r.settled, r.open, r.retrying, r.timed = 0, nil, nil, nil
	for i := range r.steps {
		s := &r.steps[i]
		if s.status.Settled() {
			r.settled++
		}
		s.waitingOn = 0
		for _, edge := range s.def.Edges {
			if !r.steps[edge.Slot].status.Settled() {
				s.waitingOn++
			}
		}
	}
}

// reopenContainers lets go on what is inside the containers that were reopened at work.
func (r *Run) reopenContainers() {
	for i := range r.steps {
		s := &r.steps[i]
		if s.status != StepStatusRunning || s.isLeaf() {
			continue
		}
		if s.def.Timeout > 0 {
			r.timed = append(r.timed, i)
		}
		switch {
		case s.def.Group != nil:
			r.openInside(s, s.def.Group.Steps)
		case s.chosen >= 0:
			r.openInside(s, s.def.Switch.Cases[s.chosen].Steps)
		default:
			r.ready = append(r.ready, i) // its case is not chosen yet
		}
	}
}

func (r *Run) moveRun(to RunStatus) {
	if !canMove(runMoves, r.status, to) {
		r.broken = fmt.Errorf("a run that is %s cannot become %s", r.status, to)
	}
	r.status = to
}

func (r *Run) moveStep(s *step, to StepStatus) {
	if !canMove(stepMoves, s.status, to) {
		r.broken = fmt.Errorf("step %s is %s and cannot become %s", s.def.Path, s.status, to)
	}
	s.status = to
}
