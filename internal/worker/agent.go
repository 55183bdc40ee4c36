package worker

import (
	"context"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// work lets the agent answer until its answer meets the contract and passes the gate.
func (j *job) work() *flow.Outcome {
	by := j.attempt.Agent
	j.task.Staffed = true
	if j.attempt.Step.Kind == workflow.KindMerge && j.task.Prompt == "" {
		j.task.Prompt = agent.MergePrompt
	}
	talk, first := agent.Open(by, j.task)
	d := j.open("", by, talk, first)
	d.avoid, d.shared = j.attempt.Avoid, "answered by %s, of a family that it should differ from"
	done, passed, b := j.passed(d)
	if b != nil {
		return j.end(b.outcome)
	}
	o := &flow.Outcome{
		Output: done.Output, Confidence: done.Confidence, Unresolved: done.Unresolved, Repaired: done.Repaired,
		BelowGate: d.last.BelowGate, Gate: passed,
	}
	if by.Summary != nil {
		if o.Summary, b = d.summary(done.Output); b != nil {
			return j.end(b.outcome)
		}
	}
	return j.end(o)
}

// enter waits for a place among the agents at work. The attempt's timeout does not run yet; the end of what is around
// it comes all the same.
func (w *Worker) enter(ctx context.Context, a flow.Attempt) *flow.Failure {
	select {
	case w.places <- struct{}{}:
		w.metrics.StepQueued(0)
		return nil
	default:
	}
	began := time.Now()
	inner := ctx
	if !a.Deadline.IsZero() {
		var cancel context.CancelFunc
		inner, cancel = context.WithTimeoutCause(ctx, max(a.Deadline.Sub(w.now()), 0), errAttemptTime{"what is around it may take, waiting for a place"})
		defer cancel()
	}
	select {
	case w.places <- struct{}{}:
		w.metrics.StepQueued(time.Since(began))
		return nil
	case <-inner.Done():
		return stopped(ctx, inner)
	}
}
