package flow

import "time"

// Why an attempt is held.
const (
	HeldBudget   = "budget"   // a budget has no money for it
	HeldIncident = "incident" // attempts like it failed alike, and none are made until that is mended
	HeldDecision = "decision" // a person has to answer a question
)

// A held attempt asks again after holdMin and a part of holdSpread, whether or not anybody told that it may go on: what
// other calls had set aside may have been given back, a window may have begun anew, a probe may have succeeded.
const (
	holdMin    = 45 * time.Second
	holdSpread = 15 * time.Second

	// What waits long for money asks less often, up to every eight minutes: each time is written down, and read again by
	// whoever claims the run.
	holdsOfAPace = 8
	pacesMax     = 3
)

// hold lets an attempt wait. It goes on under its number and with its turns, and is not counted as one. One that was
// refused while the message was on its way that it may go on looks again at once: nobody will tell it again. So does one
// that was refused while the run went down its ladder.
func (r *Run) hold(s *step, o *Outcome) {
	if o.Held == HeldBudget && !o.Short.Aside {
		if o.Short.Budget == r.ID && r.degradeForMoney(s, s.beganAt, o) {
			return
		}
		r.tellShort(s, o)
	}
	wait := holdMin + time.Duration(r.draw(s, s.holds)*float64(holdSpread))
	if o.Held == HeldBudget {
		wait <<= min(s.holds/holdsOfAPace, pacesMax)
	}
	if s.stale || o.Held == HeldBudget && s.beganAt.Before(r.levelAt) {
		wait = 0
	}
	r.emit(KindAttemptFailed, s, &AttemptFailed{
		Failure: *o.Failure, Held: o.Held, RetryAt: r.now.Add(wait.Truncate(time.Microsecond)), Calls: o.Calls,
	})
}

// nextHeld lets one attempt that is held for money ask again: what the call that has just ended had set aside may be enough
// for it, or there is none left to wait for. One that ended by being held itself frees nothing.
func (r *Run) nextHeld() {
	for _, s := range r.retrying {
		if s.held == HeldBudget && !s.queued {
			s.queued = true
			r.ready = append(r.ready, todo{step: s})
			return
		}
	}
}

// lookAgain lets the attempts that are held for a reason ask at once whether they may go on.
func (r *Run) lookAgain(held string) {
	for _, s := range r.open { // lost with the memory, like the refusal it is about
		s.stale = true
	}
	for _, s := range r.retrying {
		if s.held == held && !s.queued {
			s.queued = true
			r.ready = append(r.ready, todo{step: s})
		}
	}
}
