package flow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Start is the one command there is: an attempt that should be at work. What is at work and not among the pending
// starts should be stopped.
type Start struct {
	Seq int32 // the event that orders it, and its name within the run: perform it once that is durable

	step *step
}

// Pending says, from state alone, which attempts should be at work.
func (r *Run) Pending(yield func(Start) bool) {
	for _, s := range r.open {
		if !yield(Start{Seq: s.startSeq, step: s}) {
			return
		}
	}
}

// AtWork reports whether any attempt should be at work.
func (r *Run) AtWork() bool { return len(r.open) > 0 }

// Cutting reports whether attempts at work are being cut: those that are pending are to come back with what they cost.
func (r *Run) Cutting() bool { return r.cut }

// Attempt gives a worker all it needs for a pending start.
func (r *Run) Attempt(start Start) Attempt {
	s := start.step
	a := Attempt{
		Run: r.ID, Tenant: r.Tenant, Workflow: r.w.Name, Step: s.def, Path: s.path(), Gen: s.gen, No: s.attempt, Start: s.startSeq,
		Input: s.input, Turns: s.turns, Key: sideEffectKey(r.ID[:], s.path()), Deadline: r.deadline(s),
		Labels: r.submitted.Labels, Stakes: r.submitted.Stakes, Mode: r.submitted.Mode, Budget: r.attemptBudget(), Around: r.budgetsAround(s),
		Duty: s.duty, Agent: s.worker(), Orchestrator: r.w.Orchestrator, Avoid: s.avoided(), Replan: s.replan, Depth: r.plans() + 1, Made: s.made(),
	}
	if s.def.Plan != nil {
		a.Within = r.w
	}
	if (s.def.Gate != nil || a.Agent != nil && a.Agent.Gate != nil) && s.duty != DutyDecide {
		a.Scope = r.frozen(s)
	}
	if s.duty == DutyDecide {
		a.Escalated, a.Contract = s.escalation(), s.contract()
		a.Contract.JSON = a.Contract.JSON || s.def.Agent == nil // no text is asked for: any JSON will do
		if a.Agent = s.rungOfError().To; s.input == nil {
			a.Input = json.RawMessage("{}")
		}
	}
	if s.def.Retry.Feedback || s.duty != DutyWork || s.base > 0 {
		a.Feedback = s.feedback
	}
	return a
}

// made counts the requests of the attempts before: what repeats them is bounded together.
func (s *step) made() int {
	n := 0
	for _, c := range s.calls[s.earlier:max(s.earlier, s.begun)] {
		if !strings.HasPrefix(c.Who, whoDelegate) {
			n++
		}
	}
	return n
}

// whoDelegate is how the names of delegates begin in usage.Call.Who.
const whoDelegate = "delegate"

// worker is the agent that works at the step, or nil.
func (s *step) worker() *workflow.Agent {
	if s.duty == DutyFallback {
		if rule := s.rungOfError(); rule.Agent != nil {
			return rule.Agent
		}
	}
	var a *workflow.Agent
	switch {
	case s.def.Agent != nil && s.agent != "":
		a = s.def.Agent.Choices[s.agent]
	case s.def.Agent != nil:
		a = &s.def.Agent.Agent
	case s.def.Plan != nil:
		a = &s.def.Plan.Planner
	case s.def.Merge != nil && s.def.Merge.Agent != nil:
		a = &s.def.Merge.Agent.Agent
	}
	if a == nil {
		return nil
	}
	chain := s.chain
	if s.duty == DutyFallback {
		chain = s.rungOfError().Chain
	}
	switch {
	case s.instead != nil:
		return s.instead
	case chain != nil:
		other := *a
		other.Chain, other.Route = *chain, ""
		return &other
	}
	return a
}

// rungOfError is the rule of on_error that gave the attempt its duty.
func (s *step) rungOfError() workflow.OnError {
	if s.rule < 1 || s.rule > len(s.def.OnError) {
		return workflow.OnError{}
	}
	return s.def.OnError[s.rule-1]
}

// avoided are the models whose families are passed over: those that made what the step has to look at with other eyes.
func (s *step) avoided() []string {
	if s.def.Agent == nil {
		return nil
	}
	var models []string
	for _, slot := range s.def.Agent.DifferentFamily {
		if c, ok := s.frame.steps[slot].answered(); ok {
			models = append(models, c.Model)
		}
	}
	return models
}

// sideEffectKey is the same for all attempts and generations of a step.
func sideEffectKey(run []byte, path Path) string {
	sum := sha256.Sum256(append(append([]byte{}, run...), path...))
	return hex.EncodeToString(sum[:16])
}

// deadline is the earliest end of what surrounds a step.
func (r *Run) deadline(s *step) time.Time {
	due := r.sectionDue()
	for p := s.around(); p != nil; p = p.around() {
		if p.def.Timeout > 0 {
			if end := p.startedAt.Add(p.def.Timeout); end.Before(due) {
				due = end
			}
		}
	}
	return due
}

func (r *Run) sectionDue() time.Time {
	if r.section == sectionMain {
		return r.clockFrom.Add(r.w.Timeout)
	}
	return r.sectionSince.Add(cleanupTimeout)
}

// Due is when the run must be decided upon again if nothing else happens.
func (r *Run) Due() time.Time {
	if r.effort.left && !r.status.Ended() {
		return r.now.Add(time.Microsecond)
	}
	due := r.sectionDue()
	if r.cut {
		due = r.cutSince.Add(cutGrace)
	}
	for _, s := range r.retrying {
		if !s.queued && s.retryAt.Before(due) {
			due = s.retryAt
		}
	}
	for _, s := range r.waiting {
		if at := s.waits.due(s.waitingSince, r.now); at != nil && at.Before(due) {
			due = *at
		}
	}
	for _, s := range r.timed {
		if end := s.startedAt.Add(s.def.Timeout); end.Before(due) {
			due = end
		}
	}
	return due
}

// Rest reports whether the run may be parked: nothing is at work and nothing is due soon. Wake is when it must be
// claimed again at the latest. A run that is being cancelled stays where it is: that takes minutes at most, and the row
// of a parked run would say that it waits.
func (r *Run) Rest(now time.Time) (wake time.Time, ok bool) {
	if r.status.Ended() || r.status == RunStatusCancelling || len(r.open) > 0 {
		return time.Time{}, false
	}
	due := r.Due()
	return due, due.Sub(now) >= parkAfter
}

// WaitingFor says what a run that may be parked waits for: what a step waits for, the most patient first; budget or
// incident, if an attempt is held for one, else retry.
func (r *Run) WaitingFor() string {
	for _, what := range []string{WaitingApproval, WaitingSignal, WaitingChild, WaitingTimer} {
		for _, s := range r.waiting {
			if s.waits.For == what {
				return what
			}
		}
	}
	for _, s := range r.retrying {
		if s.held != "" && s.held != HeldDecision {
			return s.held
		}
	}
	if len(r.retrying) == 0 {
		return WaitingChild
	}
	return "retry"
}
