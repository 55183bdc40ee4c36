package flow

import (
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/workflow"
)

// residence is how long a run stays in memory that waits for one of its own: most end soon.
const residence = 30 * time.Second

// expiryGrace is how much later than people are told an approval expires: an answer that was taken in time comes first.
const expiryGrace = 2 * time.Second

// due is when the run must be looked at if no message comes; nil: never.
func (w *Waiting) due(since, now time.Time) *time.Time {
	stays := since.Add(residence)
	if w.Child != nil && stays.After(now) && (w.Until == nil || stays.Before(*w.Until)) {
		return &stays
	}
	return w.Until
}

func (w *Waiting) isUp(now time.Time) bool { return w.Until != nil && !w.Until.After(now) }

func (r *Run) applyWaiting(e Event, s *step, b *Waiting) {
	r.charge(s, b.Calls)
	r.leaveWork(s)
	r.moveStep(s, StepStatusWaiting)
	s.attempt = e.Attempt
	r.noteStart(e, s)
	s.waits, s.waitingSince, s.queued = b, e.At, false
	r.fixLimit(s)
	s.waits.Calls = nil
	if b.Child != nil {
		s.child = b.Child
		r.owes(b.Child.Run, s)
	}
	r.waiting = append(r.waiting, s)
}

// wait records that a step waits, and puts a question to people if it is for one.
func (r *Run) wait(s *step, b *Waiting) {
	r.emit(KindStepWaiting, s, b)
	if b.Asked != nil {
		ask := Ask{Asked: *b.Asked, Step: s.path(), Gen: s.gen}
		if b.Until != nil {
			expires := b.Until.Add(-expiryGrace)
			ask.Expires = &expires
		}
		r.effects.Asked = append(r.effects.Asked, ask)
	}
}

// stopWaiting withdraws what a step asked for, before it is settled otherwise.
func (r *Run) stopWaiting(s *step, expired bool) {
	switch w := s.waits; {
	case w.Asked != nil:
		r.effects.Withdrawn = append(r.effects.Withdrawn, Withdrawn{ID: w.Asked.Approval, Expired: expired})
	case w.Child != nil:
		r.tell(w.Child.Run, ToldCancel, &Cancelling{Reason: "its parent does not wait for it any more", Actor: "parent"})
	}
}

func (r *Run) tell(to uuid.UUID, kind string, body any) {
	r.effects.Told = append(r.effects.Told, Letter{To: to, Kind: kind, Body: encode(body)})
}

func (r *Run) until(d time.Duration) *time.Time {
	if d <= 0 {
		return nil
	}
	at := r.now.Add(d).Truncate(time.Microsecond)
	return &at
}

// timeIsUp is the end of a wait that has one.
func (r *Run) timeIsUp(s *step) {
	switch w := s.waits; w.For {
	case WaitingTimer:
		r.emit(KindStepSucceeded, s, &Succeeded{Output: null})
	case WaitingApproval:
		r.stopWaiting(s, true)
		r.fail(s, &Failed{Failure: Failure{Class: classExpired, Message: "nobody answered " + strconv.Quote(w.Asked.Title) + " in time"}})
	case WaitingSignal:
		r.fail(s, &Failed{Failure: Failure{Class: classTimeout, Message: fmt.Sprintf("the signal %s did not come within %s", w.Signal, s.def.Wait.Signal.Timeout)}})
	case WaitingChild:
		r.stopWaiting(s, false)
		r.retryChild(s, Failure{Class: classTimeout, Message: fmt.Sprintf("the run it started took longer than its timeout of %s", s.def.Timeout)}, nil)
	}
}

// beginWait waits for a time or a signal.
func (r *Run) beginWait(s *step) {
	w, scope := s.def.Wait, r.scope(s.frame)
	switch {
	case w.Signal != nil:
		r.beginSignal(s)
	case w.For != nil:
		text, err := w.For.Text(scope)
		if err != nil {
			r.failExpression(s, "for", err)
			return
		}
		d, ok := workflow.ParseDuration(text)
		if !ok || d > workflow.TimeoutMax {
			r.failExpression(s, "for", fmt.Errorf("%q is not a duration like 30s, 5m, 2h or 3d, of at most 30d", clipped(text)))
			return
		}
		r.waitUntil(s, r.now.Add(d))
	default:
		v, err := w.At.Eval(scope)
		if err != nil {
			r.failExpression(s, "at", err)
			return
		}
		at, err := timeOf(v)
		if err != nil {
			r.failExpression(s, "at", err)
			return
		}
		r.waitUntil(s, at)
	}
}

func timeOf(v any) (time.Time, error) {
	text, ok := v.(string)
	if !ok {
		return time.Time{}, fmt.Errorf("it gives %T, not a time", v)
	}
	return time.Parse(time.RFC3339, text)
}

func (r *Run) waitUntil(s *step, at time.Time) {
	if !at.After(r.now) {
		r.emit(KindStepSucceeded, s, &Succeeded{Output: null})
		return
	}
	at = at.UTC().Truncate(time.Microsecond)
	r.wait(s, &Waiting{For: WaitingTimer, Until: &at})
}
