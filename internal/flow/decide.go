package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Cause is why a run is decided upon.
type Cause interface{ cause() }

// The causes.
type (
	// Reported: a worker said something of an attempt.
	Reported struct{ Report Report }
	// Told: a message from the inbox.
	Told struct {
		Kind string // one of ToldXxx
		Body json.RawMessage
	}
	// Fired: the time that Due named has come.
	Fired struct{}
	// Claimed: the run was just loaded; nothing of it is in hand.
	Claimed struct{}
)

func (Reported) cause() {}
func (Told) cause()     {}
func (Fired) cause()    {}
func (Claimed) cause()  {}

// The kinds of message a run is told.
const (
	ToldCancel   = "cancel"   // Cancelling
	ToldResume   = "resume"   // Resume
	ToldBudget   = "budget"   // BudgetRaise
	ToldIncident = "incident" // nothing: one was resolved, and held attempts may go on
)

// Limits in time.
const (
	cleanupTimeout = 5 * time.Minute  // of on_failure, and of finally
	cutGrace       = 30 * time.Second // for calls that are cut to come back with what they cost
	parkAfter      = 30 * time.Second // a shorter wait keeps the run in memory
)

// Decide says what follows from the cause: the events, already folded. It is the only place that evaluates
// expressions. Same state, cause and now give the same events.
func (r *Run) Decide(c Cause, now time.Time) []Event {
	r.now, r.effort = now.Truncate(time.Microsecond), effort{}
	if told, ok := c.(Told); ok {
		r.told(told)
	} else if !r.status.Ended() {
		switch c := c.(type) {
		case Reported:
			r.reported(c.Report)
		case Claimed:
			r.claimed()
		}
		r.fired()
	}
	r.warn()
	r.bound()
	r.advance()
	return r.take()
}

// bound ends a run whose log is too long to be held.
func (r *Run) bound() {
	if r.bytes > workflow.RunBytesMax && r.section == workflow.SectionMain && r.fate == "" && !r.status.Ended() {
		r.decideFate(KindRunFailing, &Failing{Failure: Failure{
			Class: classExhausted, Message: fmt.Sprintf("the run's log has more than %d bytes; let steps hand on less, or split the work over runs of their own", workflow.RunBytesMax),
		}})
	}
}

// advance starts what may start, and closes sections that are done, until the run must wait or has ended.
func (r *Run) advance() {
	for !r.status.Ended() {
		for len(r.ready) > 0 && len(r.open) < r.w.MaxParallel {
			if r.effort.enough() {
				return
			}
			r.effort.steps++
			t := r.ready[0]
			r.ready = r.ready[1:]
			if t.frame != nil {
				r.closeFrame(t.frame)
			} else {
				r.begin(t.step)
			}
		}
		if len(r.open) > 0 || len(r.retrying) > 0 || len(r.waiting) > 0 || r.isOwed() && r.Due().After(r.now) {
			return
		}
		r.closeSection()
	}
}

// closeSection goes on from a section in which nothing more will happen.
func (r *Run) closeSection() {
	if r.section == workflow.SectionMain && r.fate == "" {
		output, err := r.renderOutput()
		if err != nil {
			r.emit(KindRunFailing, nil, &Failing{Failure: Failure{Class: classExpression, Message: "output: " + err.Error()}})
			return
		}
		r.output = output
	}
	switch {
	case r.section == workflow.SectionMain && r.fate == RunStatusFailed && len(r.w.OnFailure) > 0:
		r.emit(KindSectionEntered, nil, &SectionEntered{Section: sectionNames[workflow.SectionOnFailure]})
	case r.section != workflow.SectionFinally && len(r.w.Finally) > 0:
		r.emit(KindSectionEntered, nil, &SectionEntered{Section: sectionNames[workflow.SectionFinally]})
	default:
		r.end()
	}
}

// end closes the log. Containers that were at work when the run was decided go down with it.
func (r *Run) end() {
	for s := range r.each {
		if s.status == StepStatusRunning {
			r.emit(KindStepCancelled, s, &Cancelled{Reason: "run_ended"})
		}
	}
	result := &Result{Provenance: r.provenance(), Unresolved: r.unresolved(), Savings: r.savings(), Quality: r.qualityNow()}
	switch r.fate {
	case RunStatusFailed:
		result.Error = r.failure
		r.emit(KindRunFailed, nil, result)
	case RunStatusCancelled:
		r.emit(KindRunCancelled, nil, result)
	default:
		r.finishOutput(result)
		r.emit(KindRunSucceeded, nil, result)
	}
	r.tellParent()
}

// finishOutput puts the output into the result, or the name of the step that made it.
func (r *Run) finishOutput(result *Result) {
	if last := r.w.Main[len(r.w.Main)-1]; r.w.Output == nil && r.root.steps[last.Slot].status == StepStatusSucceeded {
		result.OutputOf = last.Path
		return
	}
	if result.Output = r.output; result.Output == nil { // folded from a log since the main list was done
		result.Output, _ = r.renderOutput() //nolint:errcheck // it rendered when the section was closed
	}
}

// reported applies what a worker says of the attempt at work; of any other attempt only the cost is kept.
func (r *Run) reported(rep Report) {
	s := r.at(rep.Path)
	if s == nil {
		return
	}
	if !slices.Contains(r.open, s) || s.gen != rep.Gen || s.attempt != rep.No || rep.Start != 0 && rep.Start != s.startSeq {
		r.discard(s, rep)
		return
	}
	if rep.Turn != nil {
		r.emit(KindTurnAnswered, s, rep.Turn)
		return
	}
	o := rep.Outcome
	switch {
	case o.Failure == nil && o.Held == "" && (!r.cut || r.fate != RunStatusCancelled || s.isUnsafe()): // what is known of its effect is kept
		r.arrived(s, o)
	case r.cut:
		known := o.Unbegun || o.Failure != nil && o.Failure.Class != classCancelled && o.Failure.Class != classTimeout
		r.cutOff(s, known, &Cancelled{Reason: r.cutReason(), Discarded: o.Failure == nil, Calls: o.Calls})
	case o.Held == HeldDecision:
		r.askPerson(s, o)
	case o.Failure.Class == classCancelled:
		// The node stopped the worker, not the run: the attempt is still open and runs again under its number.
		r.discard(s, rep)
	case o.Held != "" && r.mayGoOn(s):
		r.hold(s, o)
	case o.Held == HeldIncident: // the run is decided, and of this attempt nothing was begun
		r.emit(KindStepCancelled, s, &Cancelled{Reason: "run_ending", Calls: o.Calls})
	case r.mayRetry(s, o.Failure.Class):
		r.emit(KindAttemptFailed, s, &AttemptFailed{
			Failure: *o.Failure, RetryAt: r.now.Add(r.backoff(s)), Calls: o.Calls, Duty: s.duty, Rule: s.rule, Refused: s.refused,
		})
	case s.duty == DutyDecide:
		r.decided(s, Decision{Decision: DecisionFail, Notes: "nobody could decide: " + o.Failure.Message}, o.Calls)
	default:
		r.fail(s, &Failed{Failure: *o.Failure, Calls: o.Calls, Refused: o.Refused})
	}
	if o.Held == "" && (len(o.Calls) > 0 || o.Failure != nil && o.Failure.Class == classBudgetExceeded) {
		r.nextHeld()
	}
}

// arrived takes what a successful attempt brought: what the step is for, a plan of it, or a decision about it.
func (r *Run) arrived(s *step, o *Outcome) {
	switch {
	case o.Decision != nil:
		r.decided(s, *o.Decision, o.Calls)
	case o.Planned != nil:
		planned := *o.Planned
		planned.Calls = o.Calls
		r.emit(KindPlanMade, s, &planned)
		if !r.mayGoOn(s) { // nobody runs it
			r.emit(KindStepCancelled, s, &Cancelled{Reason: "run_ending"})
			return
		}
		r.planned(s)
	default:
		b := &Succeeded{
			Output: o.Output, Confidence: o.Confidence, Unresolved: o.Unresolved, Repaired: o.Repaired, PromptHash: o.PromptHash,
			BelowGate: o.BelowGate, Calls: o.Calls, Summary: o.Summary, Gate: o.Gate, Notes: o.Notes,
		}
		if s.duty == DutyFallback {
			b.Instead = InsteadFallback
		}
		r.emit(KindStepSucceeded, s, b)
	}
}

// discard keeps the cost of calls whose answer comes too late. After the end of the run nothing is added to its log.
func (r *Run) discard(s *step, rep Report) {
	var c Cancelled
	if rep.Turn != nil {
		c = Cancelled{Reason: "late", Discarded: true, Calls: rep.Turn.Calls}
	} else {
		c = Cancelled{Reason: "late", Discarded: rep.Outcome.Failure == nil, Calls: rep.Outcome.Calls}
	}
	if len(c.Calls) > 0 {
		r.emit(KindOutcomeDiscarded, s, &c)
	}
}

func (r *Run) cutReason() string {
	switch {
	case r.fate == RunStatusCancelled:
		return "run_cancelled"
	case r.section == workflow.SectionMain:
		return "run_timeout"
	default:
		return "section_timeout"
	}
}

// decideFate ends the main list early: what is between attempts gets no other.
func (r *Run) decideFate(k Kind, body any) {
	r.emit(k, nil, body)
	for _, s := range slices.Clone(r.retrying) {
		r.emit(KindStepCancelled, s, &Cancelled{Reason: "run_ending"})
	}
	for _, s := range slices.Clone(r.waiting) {
		switch {
		case s.waits.Child == nil:
			r.stopWaiting(s, false)
			r.emit(KindStepCancelled, s, &Cancelled{Reason: "run_ending"})
		case r.cut:
			r.tell(s.waits.Child.Run, ToldCancel, &Cancelling{Reason: "its parent is " + string(r.fate), Actor: "parent"})
		}
	}
}

// claimed takes up a run that was just loaded. Attempts that were at work run again under their number, except where
// a repetition could do harm. What a message has started since the log was read is not meant.
func (r *Run) claimed() {
	for _, s := range slices.Clone(r.open) {
		switch {
		case s.startSeq > r.folded || s.status != StepStatusRunning: // or the one before has ended it
		case r.cut:
			r.cutOff(s, false, &Cancelled{Reason: r.cutReason()})
		case s.isUnsafe():
			r.fail(s, &Failed{Failure: Failure{
				Class:   classOutcomeUnknown,
				Message: "the node died while the tool was at work; whether it had its effect is not known: look, then resume with the step's output set by hand",
			}})
		case s.input == nil && s.duty != DutyDecide:
			if err := r.render(s); err != nil {
				r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: err.Error()}})
			}
		}
	}
}

// fired applies all times that have come.
func (r *Run) fired() {
	for _, s := range r.retrying {
		if !s.queued && !s.retryAt.After(r.now) {
			s.queued = true
			r.ready = append(r.ready, todo{step: s})
		}
	}
	for _, s := range slices.Clone(r.waiting) {
		if s.status == StepStatusWaiting && s.waits.isUp(r.now) { // else the one before has ended it
			r.timeIsUp(s)
		}
	}
	for _, s := range slices.Clone(r.timed) {
		if !s.startedAt.Add(s.def.Timeout).After(r.now) && s.status == StepStatusRunning {
			r.timeoutContainer(s)
		}
	}
	if r.cut {
		if !r.cutSince.Add(cutGrace).After(r.now) {
			r.cancelOpen("cut_unanswered")
		}
		return
	}
	if r.sectionDue().After(r.now) {
		return
	}
	if r.section == workflow.SectionMain {
		if r.fate == "" {
			r.decideFate(KindRunFailing, &Failing{Cut: true, Failure: Failure{
				Class: classTimeout, Message: fmt.Sprintf("the run took longer than its timeout of %s", r.w.Timeout),
			}})
		} else {
			r.cancelOpen("run_timeout")
		}
		return
	}
	r.cancelOpen("section_timeout")
	r.ready = nil // after it: whoever waited for a cancelled step would be ready now
}

// timeoutContainer ends a container that took too long, and what is at work in it.
func (r *Run) timeoutContainer(c *step) {
	r.cutInside(c, "container_timeout")
	r.fail(c, &Failed{Failure: Failure{
		Class: classTimeout, Message: fmt.Sprintf("%s took longer than its timeout of %s", c.path(), c.def.Timeout),
	}})
}

// cutInside ends what is at work or waits in a container.
func (r *Run) cutInside(c *step, reason string) {
	for _, s := range r.unfinished() {
		if s.within(c) {
			r.cutOff(s, false, &Cancelled{Reason: reason})
		}
	}
}

// unfinished are the steps that are at work, between attempts, or wait.
func (r *Run) unfinished() []*step { return slices.Concat(r.open, r.retrying, r.waiting) }

func (r *Run) cancelOpen(reason string) {
	for _, s := range r.unfinished() {
		if !s.status.Settled() { // by the one before
			r.cutOff(s, false, &Cancelled{Reason: reason})
		}
	}
}

// cutOff ends an attempt that is not waited for any more. Of an unsafe tool at work it is not known what came of it,
// unless it said so.
func (r *Run) cutOff(s *step, known bool, c *Cancelled) {
	if s.status == StepStatusWaiting {
		r.stopWaiting(s, false)
	}
	if known || s.status != StepStatusRunning || !s.isUnsafe() {
		r.emit(KindStepCancelled, s, c)
		return
	}
	r.emit(KindStepFailed, s, &Failed{Calls: c.Calls, Failure: Failure{
		Class:   classOutcomeUnknown,
		Message: "the tool was cut while it was at work (" + c.Reason + "); whether it had its effect is not known: look",
	}})
}

// told applies a message. One that the state does not allow (any more) changes nothing.
func (r *Run) told(t Told) {
	switch t.Kind {
	case ToldCancel:
		var body Cancelling
		if json.Unmarshal(t.Body, &body) != nil || r.CanCancel() != nil {
			return
		}
		r.decideFate(KindRunCancelling, &body)
	case ToldResume:
		var body Resume
		if json.Unmarshal(t.Body, &body) == nil {
			r.resume(body)
		}
	case ToldBudget:
		r.toldBudget(t)
	case ToldIncident:
		r.lookAgain(HeldIncident)
	case ToldApproval:
		r.toldApproval(t.Body)
	case ToldSignal:
		r.toldSignal(t.Body)
	case ToldChild:
		r.toldChild(t.Body)
	case ToldShort:
		r.toldShort(t.Body)
	}
}
