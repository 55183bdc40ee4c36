package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
)

// waitingForHeld is what a person reads of an attempt that is held: its step, and what holds it.
var waitingForHeld = map[string]string{
	flow.HeldBudget:   "step %s waits for money: %s. It looks again by itself; to let it go on now, raise the budget or resume the run",
	flow.HeldIncident: "step %s waits, for attempts like it fail: %s. It looks again by itself; to let it go on now, resolve the incident",
}

// waitingOf says in a sentence what a run with nothing at work waits for.
func waitingOf(v flow.View) Waiting {
	if v.WaitingFor == "" {
		return Waiting{}
	}
	for _, s := range v.Steps {
		if s.Waiting != nil && s.Waiting.For == v.WaitingFor {
			return waitingStepOf(s)
		}
	}
	held := waitingForHeld[v.WaitingFor]
	for _, s := range v.Steps {
		if held != "" && s.Held == v.WaitingFor && s.Refusal != nil {
			return Waiting{
				Kind: v.WaitingFor, Step: s.Path, Until: s.RetryAt.UTC(), Sentence: fmt.Sprintf(held, s.Path, s.Refusal.Message),
			}
		}
		if held == "" && s.Status == flow.StepStatusRetrying && s.RetryAt.Equal(v.RetryingAt) {
			return Waiting{
				Kind: v.WaitingFor, Step: s.Path, Until: s.RetryAt.UTC(),
				Sentence: fmt.Sprintf("step %s is tried again after %s", s.Path, lastFailure(s)),
			}
		}
	}
	return Waiting{}
}

func lastFailure(s flow.StepView) string {
	if n := len(s.Failures); n > 0 {
		return s.Failures[n-1].Class + ": " + s.Failures[n-1].Message
	}
	return "a failure"
}

// waitingStepOf says what a step waits for that is not tried again: a person, a time, a signal, or a run of its own.
func waitingStepOf(s flow.StepView) Waiting {
	w := stepWaitingOf(s.Waiting)
	out := Waiting{Kind: w.For, Step: s.Path, Until: w.Until, Approval: w.Approval, Signal: w.Signal, Run: w.Run}
	switch w.For {
	case flow.WaitingApproval:
		out.Sentence = fmt.Sprintf("step %s asks a person: %s To let it go on, answer %s: %s", s.Path, asSentence(w.Title), w.Approval, strings.Join(w.Choices, ", "))
	case flow.WaitingSignal:
		out.Sentence = fmt.Sprintf("step %s waits for the signal %s", s.Path, w.Signal)
	case flow.WaitingChild:
		out.Sentence = fmt.Sprintf("step %s waits for %s, which it started", s.Path, w.Run)
	default:
		out.Sentence = fmt.Sprintf("step %s waits until %s", s.Path, w.Until.Format(time.RFC3339))
	}
	return out
}

// asSentence ends a text that does not end itself.
func asSentence(text string) string {
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") || strings.HasSuffix(text, "!") {
		return text
	}
	return text + "."
}
