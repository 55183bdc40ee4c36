package flow

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Start is the one command there is: an attempt that should be at work. What is at work and not among the pending
// starts should be stopped. Idempotent by step, generation and attempt.
type Start struct {
	Step    int   // index of the step
	Seq     int32 // the event that orders it: perform it once that is durable
	Gen, No int16
}

// Pending says, from state alone, which attempts should be at work.
func (r *Run) Pending(yield func(Start) bool) {
	for _, i := range r.open {
		s := &r.steps[i]
		if !yield(Start{Step: i, Seq: s.startSeq, Gen: s.gen, No: s.attempt}) {
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
	s := &r.steps[start.Step]
	a := Attempt{
		Run: r.ID, Tenant: r.Tenant, Workflow: r.w.Name, Step: s.def, Path: s.def.Path, Gen: s.gen, No: s.attempt,
		Input: s.input, Turns: s.turns, Key: sideEffectKey(r.ID[:], s.def.Path), Deadline: r.deadline(s),
		Labels: r.submitted.Labels, Stakes: r.submitted.Stakes, Mode: r.submitted.Mode, Budget: r.attemptBudget(),
	}
	if s.def.Retry.Feedback {
		a.Feedback = s.feedback
	}
	return a
}

// sideEffectKey is the same for all attempts and generations of a step.
func sideEffectKey(run []byte, path Path) string {
	sum := sha256.Sum256(append(append([]byte{}, run...), path...))
	return hex.EncodeToString(sum[:16])
}

// deadline is the earliest end of what surrounds a step.
func (r *Run) deadline(s *step) time.Time {
	due := r.sectionDue()
	for p := s.def.Parent; p != nil; p = p.Parent {
		if p.Timeout > 0 {
			if end := r.steps[p.Index].startedAt.Add(p.Timeout); end.Before(due) {
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
	due := r.sectionDue()
	if r.cut {
		due = r.cutSince.Add(cutGrace)
	}
	for _, i := range r.retrying {
		if s := &r.steps[i]; !s.queued && s.retryAt.Before(due) {
			due = s.retryAt
		}
	}
	for _, i := range r.timed {
		if end := r.steps[i].startedAt.Add(r.steps[i].def.Timeout); end.Before(due) {
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

// WaitingFor says what a run that may be parked waits for: budget or incident, if an attempt is held for one, else retry.
func (r *Run) WaitingFor() string {
	for _, i := range r.retrying {
		if held := r.steps[i].held; held != "" {
			return held
		}
	}
	return "retry"
}
