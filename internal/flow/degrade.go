package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// rung is the level of the ladder that the run is at, or nil.
func (r *Run) rung() *workflow.Rung {
	if r.level < 1 || r.level > len(r.w.Degrade) {
		return nil
	}
	return &r.w.Degrade[r.level-1]
}

// applyDegraded takes the run down to a level; what that does to each step is told by events of their own.
func (r *Run) applyDegraded(e Event, b *Degraded) {
	r.level, r.levelAt = b.Level, e.At
	r.remark(b.Reason)
	for i := range r.root.steps {
		if s := &r.root.steps[i]; !s.status.Settled() {
			r.appoint(s)
		}
	}
}

// appoint gives a step to whom the level of the ladder names for it.
func (r *Run) appoint(s *step) {
	if rung := r.rung(); rung != nil {
		set := rung.Set[s.def.Index]
		s.instead, s.chain = set.Agent, set.Chain
	}
}

// remarksMax bounds what is said of a run's quality.
const remarksMax = 200

// remark keeps what the run's quality has to say; of a great many, the number.
func (r *Run) remark(text string) {
	if len(r.quality) < remarksMax {
		r.quality = append(r.quality, text)
	} else {
		r.unsaid++
	}
}

// qualityNow says what was not done as written, or nil.
func (r *Run) qualityNow() *Quality {
	if r.level == 0 && len(r.quality) == 0 {
		return nil
	}
	q := &Quality{Level: r.level, Omitted: r.omitted, Reasons: r.quality}
	if r.unsaid > 0 {
		q.Reasons = append(slices.Clone(q.Reasons), fmt.Sprintf("and %d more", r.unsaid))
	}
	if rung := r.rung(); rung != nil {
		q.Name = rung.Name
	}
	return q
}

// rungDecides settles a step that the level of the ladder leaves out or gives its output.
func (r *Run) rungDecides(s *step) bool {
	rung := r.rung()
	if rung == nil || s.frame != r.root {
		return false
	}
	if slices.Contains(rung.Omit, s.def.Index) {
		r.emit(KindStepSkipped, s, &Skipped{Reason: SkippedDegraded})
		return true
	}
	if set, ok := rung.Set[s.def.Index]; ok && set.Value != nil {
		r.takeRungValue(s, set.Value, &Failed{})
		return true
	}
	return false
}

// takeRungValue settles a step with the output that the level gives it.
func (r *Run) takeRungValue(s *step, value *workflow.Template, b *Failed) {
	output, err := value.Render(r.scope(s.frame))
	if err == nil {
		err = checkOutput(output)
	}
	if err != nil {
		failed := &Failed{Failure: Failure{Class: classExpression, Message: "degrade: " + err.Error()}, Calls: b.Calls}
		r.emit(KindStepFailed, s, failed)
		r.failAround(s, failed.Failure)
		return
	}
	success := &Succeeded{Output: output, Instead: InsteadDegraded, Calls: b.Calls, Child: b.Child}
	if b.Class != "" {
		failure := b.Failure
		success.Failure = &failure
	}
	r.emit(KindStepSucceeded, s, success)
}

// degrade takes the run down the ladder because a step failed; false: there is no level that helps it.
func (r *Run) degrade(s *step, b *Failed, level int) bool {
	if level == 0 {
		level = r.nextFor(s)
	}
	if level <= r.level || level > len(r.w.Degrade) { // levels only rise: what the one at hand says was done already
		return false
	}
	target := touched(&r.w.Degrade[level-1], s)
	if target == nil {
		return false
	}
	reason := fmt.Sprintf("%s: %s: %s", s.path(), b.Class, b.Message)
	if target == s {
		r.descend(s, level, reason)
		r.takeRung(s, b)
		return true
	}
	r.emit(KindStepFailed, s, b)
	r.abandon(s)
	r.descend(s, level, reason)
	return true
}

// nextFor is the next level that makes something else of a step; behind the last one: there is none.
func (r *Run) nextFor(s *step) int {
	level := r.level + 1
	for level <= len(r.w.Degrade) && touched(&r.w.Degrade[level-1], s) == nil {
		level++
	}
	return level
}

// touched is what a level leaves out or does otherwise: the step, or what is around it; nil: neither.
func touched(rung *workflow.Rung, s *step) *step {
	for ; s != nil; s = s.around() {
		if touches(rung, s) {
			return s
		}
	}
	return nil
}

// touches: the level leaves the step out, or lets somebody else do it.
func touches(rung *workflow.Rung, s *step) bool {
	_, set := rung.Set[s.def.Index]
	return s.frame.owner == nil && (set || slices.Contains(rung.Omit, s.def.Index))
}

// descend records the new level, and does what it says to all steps that are not settled but the one that asked.
func (r *Run) descend(asked *step, level int, reason string) {
	rung := &r.w.Degrade[level-1]
	r.emit(KindRunDegraded, nil, &Degraded{Level: level, Name: rung.Name, Step: asked.path(), Reason: reason})
	for i := range r.root.steps {
		s := &r.root.steps[i]
		if s != asked && touches(rung, s) && !s.status.Settled() && s.status != StepStatusPending {
			r.takeRung(s, &Failed{})
		}
	}
}

// takeRung lets a step that is at work or has failed be what the level makes of it.
func (r *Run) takeRung(s *step, b *Failed) {
	rung := r.rung()
	r.cutInside(s, "degraded")
	if s.status == StepStatusWaiting {
		r.stopWaiting(s, false)
	}
	set := rung.Set[s.def.Index]
	switch {
	case b.Class == "" && s.status == StepStatusRunning && s.isUnsafe():
		r.cutOff(s, false, &Cancelled{Reason: SkippedDegraded})
	case slices.Contains(rung.Omit, s.def.Index):
		skipped := &Skipped{Reason: SkippedDegraded, Calls: b.Calls, Child: b.Child}
		if b.Class != "" {
			failure := b.Failure
			skipped.Failure = &failure
		}
		r.emit(KindStepSkipped, s, skipped)
	case set.Value != nil:
		r.takeRungValue(s, set.Value, b)
	case b.Class == "" && s.status == StepStatusRetrying: // its next attempt is made by who does it now
	default:
		if b.Class == "" {
			b.Failure = Failure{Class: classCancelled, Message: "somebody else does it at this level"}
		}
		r.again(s, b, AttemptFailed{Afresh: true})
	}
}

// degradeForMoney takes the run down the ladder where its budget says so, instead of waiting; false: the step has to wait.
// What was refused before the run came to its level is of the level before.
func (r *Run) degradeForMoney(s *step, since time.Time, o *Outcome) bool {
	if r.budget == nil || r.budget.OnExceeded != workflow.OnExceededDegrade || r.level >= len(r.w.Degrade) || since.Before(r.levelAt) {
		return false
	}
	level := r.level + 1
	r.descend(s, level, "the budget: "+o.Failure.Message)
	failed := &Failed{Failure: *o.Failure, Calls: o.Calls}
	switch {
	case s.status.Settled(): // with what is around it
		r.discard(s, Report{Outcome: o})
	case touches(&r.w.Degrade[level-1], s):
		r.takeRung(s, failed)
	case !r.mayGoOn(s): // the new level decided the run
		if s.status == StepStatusWaiting {
			r.stopWaiting(s, false)
		}
		r.fail(s, failed)
	default:
		return false
	}
	return true
}

// tellShort says to the run whose budget has no money that one inside it waits for some: it may go down its ladder.
func (r *Run) tellShort(s *step, o *Outcome) {
	for _, b := range r.around {
		if b.ID == o.Short.Budget && b.OnExceeded == workflow.OnExceededDegrade {
			r.tell(r.submitted.Parent.Run, ToldShort, &ChildShort{Run: r.ID, Budget: b.ID, Since: s.beganAt, Message: o.Failure.Message})
		}
	}
}

// toldShort goes down the ladder for a run that a step started, or passes on that it should be done further out. Where
// the step is left as it is, the run that waits for money looks again.
func (r *Run) toldShort(body json.RawMessage) {
	var b ChildShort
	if json.Unmarshal(body, &b) != nil || r.status.Ended() {
		return
	}
	s := r.waitingFor(b.Run)
	short := &Outcome{Failure: &Failure{Class: classBudgetExceeded, Message: b.Message}}
	switch {
	case s == nil || !r.mayGoOn(s):
	case b.Budget != r.ID:
		if p := r.submitted.Parent; p != nil {
			r.tell(p.Run, ToldShort, &ChildShort{Run: r.ID, Budget: b.Budget, Since: b.Since, Message: b.Message})
		}
	case !r.degradeForMoney(s, b.Since, short) && b.Since.Before(r.levelAt):
		r.tell(b.Run, ToldBudget, &BudgetRaise{})
	}
}
