package flow

import (
	"fmt"
	"slices"

	"github.com/fermata-run/fermata/internal/workflow"
)

// apply folds one event. It is total and evaluates no expression, so that a log reads alike under any later binary;
// what the tables of moves do not allow is noted in r.broken.
func (r *Run) apply(e Event, body any) {
	r.seq, r.format, r.bytes = e.Seq, max(r.format, e.V), r.bytes+len(e.Body)
	if e.Step != "" {
		s := r.at(e.Step)
		if s == nil {
			r.broken = fmt.Errorf("the run has no step %q", e.Step)
			return
		}
		r.applyStep(e, s, body)
		return
	}
	r.applyRun(e, body)
}

func (r *Run) applyRun(e Event, body any) {
	switch b := body.(type) {
	case *Submitted:
		r.submitted, r.createdAt, r.clockFrom, r.budget = *b, e.At, e.At, b.Budget
		if b.Parent != nil {
			r.around = slices.Clone(b.Parent.Budgets)
		}
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
		r.applyResult(e, b)
	case *Resumed:
		r.applyResumed(e, b)
	case *BudgetRaise:
		if e.Kind == KindOuterRaised {
			r.applyOuterRaised(e, b)
		} else {
			r.applyRaised(e, b)
		}
	case *BudgetWarned:
		r.warned = true
	case *Signal:
		r.keepSignal(e.Seq, b)
	case *Degraded:
		r.applyDegraded(e, b)
	default:
		r.broken = fmt.Errorf("%s names no step", e.Kind)
	}
}

func (r *Run) applyResult(e Event, b *Result) {
	result := *b
	if s := r.at(b.OutputOf); b.OutputOf != "" && s != nil {
		result.Output = s.output()
	}
	r.result, r.endedAt = &result, e.At
	r.moveRun(map[Kind]RunStatus{
		KindRunSucceeded: RunStatusSucceeded, KindRunFailed: RunStatusFailed, KindRunCancelled: RunStatusCancelled,
	}[e.Kind])
	r.ready, r.timed = nil, nil
}

var sectionNames = map[workflow.Section]string{
	workflow.SectionMain: "main", workflow.SectionOnFailure: "on_failure", workflow.SectionFinally: "finally",
}

// enter begins a section: its top-level steps without open edges are ready.
func (r *Run) enter(section workflow.Section, e Event) {
	r.section, r.sectionSince, r.cut, r.ready = section, e.At, false, nil
	for _, d := range r.owed {
		d.old = true
	}
	for _, def := range r.sectionSteps(section) {
		if s := &r.root.steps[def.Slot]; s.waitingOn == 0 && s.status == StepStatusPending {
			r.ready = append(r.ready, todo{step: s})
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
		late := body.(*Cancelled)
		r.charge(s, late.Calls)
		r.chargeChild(s, late.Child)
		return
	}
	if e.Gen != s.gen {
		r.broken = fmt.Errorf("step %s is in generation %d, not %d", e.Step, s.gen, e.Gen)
		return
	}
	switch {
	case s.work == nil:
		r.broken = fmt.Errorf("step %s is %s, and nothing more happens to it", e.Step, s.status)
		return
	case !fits(s, body):
		r.broken = fmt.Errorf("step %s is a %s: %s does not happen to it", e.Step, s.def.Kind, e.Kind)
		return
	}
	switch b := body.(type) {
	case *Started:
		r.applyStarted(e, s, b)
	case *Turn:
		s.turns = append(s.turns, *b)
		s.noteBest(b.Calls)
		r.charge(s, b.Calls)
	case *Succeeded:
		r.applySucceeded(e, s, b)
	case *AttemptFailed:
		r.applyAttemptFailed(s, b)
	case *Failed:
		s.noteFailure(b.Failure)
		r.charge(s, b.Calls)
		r.chargeChild(s, b.Child)
		r.settle(e, s, StepStatusFailed)
	case *Skipped:
		r.applySkipped(e, s, b)
	case *Cancelled:
		r.charge(s, b.Calls)
		r.chargeChild(s, b.Child)
		r.settle(e, s, StepStatusCancelled)
	case *CaseChosen:
		r.applyCase(e, s, b.Case)
	case *ItemEnded:
		r.applyItem(s, b)
	case *IterationEnded:
		r.applyIteration(s, b)
	case *Reopening:
		r.applyReopened(e, s)
	case *Waiting:
		r.applyWaiting(e, s, b)
	case *Answered:
		r.applyAnswered(e, s, b)
	case *Planned:
		s.plan, s.replan = b, nil
		r.charge(s, b.Calls)
		r.leaveWork(s)
	default:
		r.broken = fmt.Errorf("%s is not about a step", e.Kind)
	}
}

// fits: the event can happen to a step of its kind, as far as it has come.
func fits(s *step, body any) bool {
	switch b := body.(type) {
	case *CaseChosen:
		return s.def.Switch != nil && b.Case < len(s.def.Switch.Cases)
	case *Planned:
		return s.def.Plan != nil
	case *ItemEnded:
		return s.def.Map != nil && s.many != nil
	case *IterationEnded, *Reopening:
		return s.def.Loop != nil && s.many != nil
	case *Succeeded:
		return !b.Assembled || s.many != nil || s.def.Merge != nil
	}
	return true
}

func (r *Run) applySucceeded(e Event, s *step, b *Succeeded) {
	s.last, s.raw, s.decoded, s.value = bare, b.Output, false, nil
	s.noteBest(b.Calls)
	r.charge(s, b.Calls)
	r.chargeChild(s, b.Child)
	if b.Assembled {
		s.raw = nil
	}
	rest := *b
	if rest.Output, rest.Calls, rest.Notes = nil, nil, nil; !rest.isBare() {
		last := rest
		s.last = &last
	}
	if b.Failure != nil {
		s.failures = append(s.failures, *b.Failure)
	}
	if b.Took != 0 {
		r.takeSignal(b.Took)
	}
	if b.Instead != "" { // who waits for what is inside is not to wait for ever
		s.skipped = SkippedInstead
		r.skipInside(e, s)
		s.skipped = ""
	}
	for _, note := range b.Notes {
		r.remark(e.Step + ": " + note)
	}
	r.settle(e, s, StepStatusSucceeded)
}

func (r *Run) applySkipped(e Event, s *step, b *Skipped) {
	r.charge(s, b.Calls)
	r.chargeChild(s, b.Child)
	if b.Failure != nil {
		s.failures = append(s.failures, *b.Failure)
	}
	s.skipped = b.Reason
	if b.Reason == SkippedDegraded {
		r.omitted = append(r.omitted, e.Step)
	}
	r.skip(e, s)
}

func (r *Run) applyAttemptFailed(s *step, b *AttemptFailed) {
	if b.Held != "" { // it goes on where it stands
		failure := b.Failure
		s.held, s.refusal, s.holds = b.Held, &failure, s.holds+1
	} else {
		s.noteFailure(b.Failure)
		s.feedback, s.turns = "", nil
		if b.Class != classCancelled { // else nothing was wrong with it
			s.feedback = b.Class + ": " + b.Message
		}
		s.applyNext(b)
	}
	s.retryAt = b.RetryAt
	r.charge(s, b.Calls)
	r.chargeChild(s, b.Child)
	r.leaveWork(s)
	r.moveStep(s, StepStatusRetrying)
	r.retrying = append(r.retrying, s)
}

// noteFailure keeps a failure. One that somebody has decided about was kept already.
func (s *step) noteFailure(f Failure) {
	if last := s.lastFailure(); s.duty == DutyDecide && last != nil && last.Class == f.Class && last.Message == f.Message {
		return
	}
	s.failures = append(s.failures, f)
}

// applyNext says what the next attempt is for.
func (s *step) applyNext(b *AttemptFailed) {
	s.duty, s.rule, s.refused = b.Duty, b.Rule, b.Refused
	switch b.Duty {
	case DutyFallback:
		s.fellBack = true
	case DutyDecide:
		if !s.escalated {
			s.escalated, s.about = true, len(s.failures)-1
		}
	case DutyWork:
	}
	if b.Afresh {
		s.base, s.input = s.attempt, nil
	}
	if b.Notes != "" {
		s.feedback = b.Notes
	}
	if b.Replan != nil {
		s.replan, s.replans = b.Replan, s.replans+1
	}
}

func (r *Run) applyStarted(e Event, s *step, b *Started) {
	r.leaveWork(s)
	r.moveStep(s, StepStatusRunning)
	if e.Attempt != s.attempt {
		s.begun = len(s.calls)
	}
	s.attempt, s.startSeq, s.queued, s.held, s.stale, s.waits = e.Attempt, e.Seq, false, "", false, nil
	s.beganAt = e.At
	r.fixLimit(s)
	if b.Input != nil {
		s.input = b.Input
	}
	if b.Agent != "" {
		s.agent = b.Agent
	}
	r.noteStart(e, s)
	if s.isLeaf() || s.duty != DutyWork {
		if r.startedAt.IsZero() {
			r.startedAt, r.firstStart = e.At, e.Seq
		}
		r.open = append(r.open, s)
		return
	}
	if s.def.Timeout > 0 {
		r.timed = append(r.timed, s)
	}
	switch {
	case s.def.Group != nil:
		r.openInside(s, s.def.Group.Steps)
	case s.def.Map != nil:
		s.many = &many{items: b.Items, frames: make([]*frame, b.Count), best: -1}
		r.expanded += b.Count * len(s.def.Map.Body.Steps)
		r.openItems(s)
	case s.def.Loop != nil:
		s.many = &many{best: -1}
		r.openIteration(s)
	}
}

// noteStart notes what holds since a step first started.
func (r *Run) noteStart(e Event, s *step) {
	if s.startedAt.IsZero() {
		s.startedAt = e.At
	}
}

// openInside lets the steps of a container begin. One without steps to wait for is ready to close at once.
func (r *Run) openInside(container *step, inside []*workflow.Step) {
	container.inside = 0
	for _, def := range inside {
		s := &container.frame.steps[def.Slot]
		if s.status.Settled() {
			continue
		}
		container.inside++
		if s.waitingOn == 0 && s.status == StepStatusPending {
			r.ready = append(r.ready, todo{step: s})
		}
	}
	if container.inside == 0 {
		r.ready = append(r.ready, todo{step: container})
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
			if other := &s.frame.steps[def.Slot]; other.status == StepStatusPending {
				other.skipped = "switch"
				r.skip(e, other)
			}
		}
	}
	if chosen >= 0 && chosen < len(s.def.Switch.Cases) {
		r.openInside(s, s.def.Switch.Cases[chosen].Steps)
		return
	}
	r.ready = append(r.ready, todo{step: s})
}

// skip settles a step and all inside it.
func (r *Run) skip(e Event, s *step) {
	r.skipInside(e, s)
	r.settle(e, s, StepStatusSkipped)
}

// skipInside settles what is inside a step and has not begun. What is at work comes to its end.
func (r *Run) skipInside(e Event, s *step) {
	for _, def := range contents(s.def) {
		switch inner := &s.frame.steps[def.Slot]; {
		case inner.status == StepStatusPending, inner.status == StepStatusRunning && (isEarly(inner.def) || inner.many != nil):
			inner.skipped = s.skipped
			r.skip(e, inner)
		default: // it is settled, or will be
			r.skipInside(e, inner)
		}
	}
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
	s.endedAt, s.endSeq, s.work = e.At, e.Seq, nil
	r.settled++
	for _, slot := range s.def.Dependants {
		r.oneLess(&s.frame.steps[slot], s)
	}
	if p := s.def.Parent; p != nil && p.Body == s.def.Body {
		c := &s.frame.steps[p.Slot]
		if c.status == StepStatusRunning && c.runsInside(s) {
			switch c.inside--; {
			case c.inside > 0:
			case r.mayGoOn(c):
				r.ready = append(r.ready, todo{step: c})
			case c.isOver(): // what is around it was done otherwise
				c.skipped = SkippedInstead
				r.settle(e, c, StepStatusSkipped)
			}
		}
		return
	}
	if f := s.frame; f.owner != nil {
		if f.undone--; f.undone == 0 && !f.ended {
			r.ready = append(r.ready, todo{frame: f})
		}
	}
}

// oneLess tells a step that one of those it waits for is settled. A merge that may be done before all its members are
// looks at each of them, unless it needs them, too.
func (r *Run) oneLess(d, settled *step) {
	if slices.ContainsFunc(d.def.Edges, func(e workflow.Edge) bool { return e.Slot == settled.def.Slot && holds(d.def, e) }) {
		d.waitingOn--
	}
	looks := d.status == StepStatusPending || d.status == StepStatusRunning && isEarly(d.def)
	if d.waitingOn == 0 && looks && r.mayGoOn(d) {
		r.ready = append(r.ready, todo{step: d})
	}
}

// mayGoOn: its section is the one at work, nothing decided the run yet, and all that is around it is open.
func (r *Run) mayGoOn(s *step) bool {
	if r.cut {
		return false
	}
	for {
		p := s.around()
		if p == nil {
			return s.def.Section == r.section && (r.section != workflow.SectionMain || r.fate == "")
		}
		if p.status != StepStatusRunning || p.duty != DutyWork || !p.runsInside(s) {
			return false
		}
		s = p
	}
}

// runsInside: a step of a switch belongs to what runs only if its case was chosen, one of an item or iteration as long as
// that has not ended.
func (c *step) runsInside(s *step) bool {
	switch {
	case c.def.Switch != nil:
		return c.chosen == s.def.Case
	case c.many != nil:
		return !s.frame.ended
	}
	return true
}

func (r *Run) leaveWork(s *step) {
	without := func(list []*step) []*step {
		if at := slices.Index(list, s); at >= 0 {
			return slices.Delete(list, at, at+1)
		}
		return list
	}
	r.open, r.retrying, r.waiting, r.timed = without(r.open), without(r.retrying), without(r.waiting), without(r.timed)
}

func (r *Run) moveRun(to RunStatus) {
	if !canMove(runMoves, r.status, to) {
		r.broken = fmt.Errorf("a run that is %s cannot become %s", r.status, to)
	}
	r.status = to
}

func (r *Run) moveStep(s *step, to StepStatus) {
	if !canMove(stepMoves, s.status, to) {
		r.broken = fmt.Errorf("step %s is %s and cannot become %s", s.path(), s.status, to)
	}
	s.status = to
}
