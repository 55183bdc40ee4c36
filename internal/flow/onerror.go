package flow

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// What an output came from that is not the step's own: Succeeded.Instead.
const (
	InsteadFallback   = "fallback"
	InsteadEscalation = "escalation"
	InsteadDegraded   = "degraded"
)

// Why a step was skipped: Skipped.Reason, besides when and switch.
const (
	SkippedError    = "error"
	SkippedDegraded = "degraded"
	SkippedMerge    = "merge"
	SkippedInstead  = "instead" // what is around it was done otherwise
)

// fail settles a step that came to nothing, unless its on_error knows better. A failure that nobody handles is that of
// what is around it.
func (r *Run) fail(s *step, b *Failed) {
	if r.handled(s, b) {
		return
	}
	r.emit(KindStepFailed, s, b)
	r.abandon(s)
	r.failAround(s, b.Failure)
}

// failAround fails what is around a failed step: the group or switch, the item or loop, the run. A merge's member is
// the merge's to handle.
func (r *Run) failAround(s *step, f Failure) {
	if s.def.Member {
		return
	}
	if f.Step == "" {
		f.Step = s.path()
	}
	around := Failure{Class: f.Class, Message: fmt.Sprintf("step %s failed: %s", f.Step, f.Message)}
	p := s.around()
	switch {
	case p == nil:
		if r.section == workflow.SectionMain && r.fate == "" {
			r.decideFate(KindRunFailing, &Failing{Failure: f})
		}
	case p.status != StepStatusRunning || p.duty != DutyWork: // it has failed already; perhaps somebody is deciding about that
	case p.many != nil:
		r.failFrame(s.frame, f)
	default:
		r.failContainer(p, around, f)
	}
}

// failContainer fails a group, a switch or a loop for what failed inside.
func (r *Run) failContainer(c *step, around, origin Failure) {
	if r.handled(c, &Failed{Failure: around}) {
		return
	}
	r.emit(KindStepFailed, c, &Failed{Failure: around})
	r.abandon(c)
	r.failAround(c, origin)
}

// failFrame fails an item, and with it perhaps its map; or an iteration, and with it its loop.
func (r *Run) failFrame(f *frame, failure Failure) {
	if f.ended {
		return
	}
	s := f.owner
	around := Failure{Class: failure.Class, Message: fmt.Sprintf("step %s failed: %s", failure.Step, failure.Message)}
	if failure.Step == s.path() { // its own template
		around.Message = failure.Message
	}
	if s.def.Loop != nil {
		r.failContainer(s, around, failure)
		return
	}
	around.Step = failure.Step
	r.emit(KindItemEnded, s, &ItemEnded{Item: f.n, Failure: &around})
	for _, inner := range slices.Concat(r.retrying, r.waiting) {
		if inner.isIn(f) {
			r.cutOff(inner, false, &Cancelled{Reason: "item_failed"})
		}
	}
}

// isIn reports whether a step stands in a frame, at any depth.
func (s *step) isIn(f *frame) bool {
	for s.frame != f {
		if s.frame.owner == nil {
			return false
		}
		s = s.frame.owner
	}
	return true
}

// abandon lets nothing wait in a container that has failed: what is at work comes to its end, and is kept.
func (r *Run) abandon(c *step) {
	if !c.isContainer() {
		return
	}
	for _, s := range slices.Concat(r.retrying, r.waiting) {
		if s.within(c) {
			r.cutOff(s, false, &Cancelled{Reason: "container_failed"})
		}
	}
}

// handled does what the first rule of on_error says that names the class of a failure; false: there is none, or it
// cannot be done.
func (r *Run) handled(s *step, b *Failed) bool {
	if !r.mayGoOn(s) || s.duty == DutyFallback {
		return false
	}
	for i, rule := range s.def.OnError {
		if !workflow.Covers(rule.Classes, b.Class) {
			continue
		}
		switch rule.Do {
		case workflow.ActionSkip:
			r.abandon(s)
			failure := b.Failure
			r.emit(KindStepSkipped, s, &Skipped{Reason: SkippedError, Failure: &failure, Calls: b.Calls, Child: b.Child})
			return true
		case workflow.ActionFallback:
			return r.fallBack(s, b, i+1)
		case workflow.ActionEscalate:
			return r.escalate(s, b, i+1)
		case workflow.ActionDegrade:
			return r.degrade(s, b, rule.Level)
		case workflow.ActionFail:
			return false
		}
	}
	return false
}

// fallBack gives the step to somebody else, once, or takes a value for its output.
func (r *Run) fallBack(s *step, b *Failed, rule int) bool {
	on := s.def.OnError[rule-1]
	if on.Value == nil {
		if s.fellBack || !s.isLeaf() {
			return false
		}
		r.again(s, b, AttemptFailed{Duty: DutyFallback, Rule: rule, Afresh: true})
		return true
	}
	output, err := on.Value.Render(r.scope(s.frame))
	if err == nil {
		err = checkOutput(output)
	}
	if err != nil {
		b.Message += "; and its fallback cannot be worked out: " + err.Error()
		return false
	}
	r.succeedInstead(s, b, output, InsteadFallback)
	return true
}

// succeedInstead settles a failed step with an output from elsewhere.
func (r *Run) succeedInstead(s *step, b *Failed, output json.RawMessage, instead string) {
	r.abandon(s)
	failure := b.Failure
	r.emit(KindStepSucceeded, s, &Succeeded{Output: output, Instead: instead, Failure: &failure, Calls: b.Calls, Child: b.Child})
}

// again lets another attempt follow at once.
func (r *Run) again(s *step, b *Failed, next AttemptFailed) {
	r.setBack(s, b, next)
	s.queued = true
	r.ready = append(r.ready, todo{step: s})
}

// setBack records a failure that is not the end of the step.
func (r *Run) setBack(s *step, b *Failed, next AttemptFailed) {
	r.abandon(s)
	next.Failure, next.Calls, next.Refused, next.Child, next.RetryAt = b.Failure, b.Calls, b.Refused, b.Child, r.now
	r.emit(KindAttemptFailed, s, &next)
}

// escalate lets an agent or a person decide, once.
func (r *Run) escalate(s *step, b *Failed, rule int) bool {
	if s.escalated {
		return false
	}
	next := AttemptFailed{Duty: DutyDecide, Rule: rule}
	if s.def.OnError[rule-1].To != nil {
		r.again(s, b, next)
		return true
	}
	r.setBack(s, b, next)
	r.askAboutFailure(s)
	return true
}

// escalation is what somebody has to decide about.
func (s *step) escalation() *Escalated {
	return &Escalated{Failure: s.failures[s.about], Refused: s.refused, History: s.failures[:s.about]}
}

// canRedo: an attempt can be made again, and a loop can go on; what else holds steps cannot be told what to do better.
func (s *step) canRedo() bool {
	return s.isLeaf() || s.def.Workflow != nil || s.def.Loop != nil && s.many != nil
}

// decided does what somebody decided about a failure.
func (r *Run) decided(s *step, d Decision, calls []usage.Call) {
	failure := s.failures[s.about]
	failed := &Failed{Failure: failure, Calls: calls, Refused: s.refused}
	switch {
	case d.Decision == DecisionAccept && s.refused != nil:
		r.emit(KindStepSucceeded, s, &Succeeded{
			Output: s.refused, Instead: InsteadEscalation, Calls: calls, Notes: []string{"accepted though: " + failure.Message},
		})
	case d.Decision == DecisionReplace:
		r.emit(KindStepSucceeded, s, &Succeeded{Output: d.Output, Instead: InsteadEscalation, Calls: calls})
	case d.Decision == DecisionRedo && !r.mayGoOn(s): // meanwhile the run was decided
		r.emit(KindStepFailed, s, failed)
	case d.Decision == DecisionRedo && s.def.Loop != nil && s.many != nil:
		r.emit(KindStepReopened, s, &Reopening{Notes: d.Notes})
	case d.Decision == DecisionRedo && s.canRedo():
		r.again(s, failed, AttemptFailed{Afresh: true, Notes: d.Notes})
	default:
		if d.Notes != "" {
			failed.Message += " (" + d.Notes + ")"
		}
		r.emit(KindStepFailed, s, failed)
		r.failAround(s, failed.Failure)
	}
}
