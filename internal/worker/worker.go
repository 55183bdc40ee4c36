// Package worker does one attempt of a step: the conversation of an agent with models, or the call of a tool. It gives
// an account of each: turns to be checkpointed, then the outcome, with everything that was paid for.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/tool"
	"github.com/fermata-run/fermata/internal/workflow"
)

// agentsMaxDefault bounds the agents at work on a node.
const agentsMaxDefault = 20_000

// The classes of failure that are the worker's own to give; others come from the gateway, the tools and the agent.
const (
	classTimeout       = "timeout"
	classCancelled     = "cancelled"
	classInternal      = "internal"
	classInvalidOutput = "invalid_output"
	classToolError     = "tool_error"
	classExhausted     = "exhausted"
	classGateFailed    = "gate_failed"
	classNeedsDecision = "needs_decision"

	classBudgetExceeded = "budget_exceeded"
)

// Gateway makes one logical model call. Its error is a *gateway.FailedError.
type Gateway interface {
	Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error)
}

// Tools calls one tool. Its error is a *tool.Error.
type Tools interface {
	Call(ctx context.Context, r tool.Request) (json.RawMessage, error)
}

// Metrics is what the worker counts; attempts and steps are counted by the engine, model calls by the gateway.
type Metrics interface {
	StepQueued(delay time.Duration)
}

// Incidents holds back the attempts of a kind that keeps failing.
type Incidents interface {
	// Admit says why an attempt must not be made now, or nil.
	Admit(ctx context.Context, a flow.Attempt) *flow.Failure
	// Ended is told how an attempt ended that was admitted.
	Ended(ctx context.Context, a flow.Attempt, o *flow.Outcome)
}

// Config of a Worker. Zero values take the defaults named here.
type Config struct {
	Gateway   Gateway
	Tools     Tools     // the built-in ones
	Incidents Incidents // nil: every attempt is made
	// Roster says what is known of models: what plans may cost is reckoned by it. Nil: nothing is known, and they cost nothing.
	Roster    workflow.Roster
	Metrics   Metrics
	Log       *slog.Logger
	AgentsMax int // agents at work at once: 20,000; the others wait, and their timeout does not run
	// Now is the clock that Attempt.Deadline is read against: time.Now, unless a test brings another.
	Now func() time.Time
}

// Worker does attempts. It is safe for concurrent use.
type Worker struct {
	gateway Gateway
	tools   Tools
	trouble Incidents
	roster  workflow.Roster
	metrics Metrics
	log     *slog.Logger
	now     func() time.Time
	places  chan struct{} // a place for each agent at work
}

// New makes a Worker.
func New(c Config) *Worker {
	w := &Worker{gateway: c.Gateway, tools: c.Tools, trouble: c.Incidents, roster: c.Roster, metrics: c.Metrics, log: c.Log, now: c.Now}
	if w.tools == nil {
		w.tools = &tool.Tools{}
	}
	if w.trouble == nil {
		w.trouble = untroubled{}
	}
	if w.metrics == nil {
		w.metrics = uncounted{}
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.now == nil {
		w.now = time.Now
	}
	if c.AgentsMax <= 0 {
		c.AgentsMax = agentsMaxDefault
	}
	w.places = make(chan struct{}, c.AgentsMax)
	return w
}

type untroubled struct{}

func (untroubled) Admit(context.Context, flow.Attempt) *flow.Failure  { return nil }
func (untroubled) Ended(context.Context, flow.Attempt, *flow.Outcome) {}

type uncounted struct{}

func (uncounted) StepQueued(time.Duration) {}

// errAttemptTime ends an attempt that took too long. It is a deadline, and says whose.
type errAttemptTime struct{ limit string }

func (e errAttemptTime) Error() string { return "the attempt took longer than " + e.limit }

// Do does one attempt: report is called for each turn that the conversation goes on from, then once, last, for the
// outcome, all before Do returns. When ctx is done the attempt is broken off and its outcome is of class cancelled,
// with the calls made so far. Only delegates have goroutines of their own, which end before Do does; a tool that does not
// wait costs next to nothing.
func (w *Worker) Do(ctx context.Context, a flow.Attempt, report func(flow.Report)) {
	if failure := w.trouble.Admit(ctx, a); failure != nil {
		held := &flow.Outcome{Held: flow.HeldIncident, Failure: failure, Unbegun: true}
		report(flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: held})
		return
	}
	outcome := w.attempt(ctx, a, report)
	w.trouble.Ended(ctx, a, outcome) // before the report: who sees that a run failed finds the incident it made
	report(flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: outcome})
}

// attempt never panics: a defect ends the attempt, not the node.
func (w *Worker) attempt(ctx context.Context, a flow.Attempt, report func(flow.Report)) (outcome *flow.Outcome) {
	var j *job
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		w.log.Error("panic in an attempt", "run", a.Run, "step", a.Path, "panic", p, "stack", string(debug.Stack()))
		outcome = fail(classInternal, "the service broke down over this step; its log has the details")
		if j != nil {
			outcome = j.end(outcome)
		}
	}()
	switch {
	case a.Agent != nil:
		j = w.newJob(ctx, a, report)
		return j.do()
	case a.Step.Kind == workflow.KindTool:
		return w.tool(ctx, a)
	}
	return fail(classInternal, fmt.Sprintf("nobody is named to work at a step of kind %s", a.Step.Kind))
}

func fail(class, message string) *flow.Outcome {
	return &flow.Outcome{Failure: &flow.Failure{Class: class, Message: message}}
}

// limit bounds the work on an attempt, from now on: by what is left of the step's timeout, if it has one, and by the end
// of what surrounds it.
func (w *Worker) limit(ctx context.Context, a flow.Attempt, left time.Duration) (context.Context, context.CancelFunc) {
	d, why := max(left, 0), ""
	if a.Step.Timeout > 0 {
		why = "its timeout of " + a.Step.Timeout.String()
	}
	if !a.Deadline.IsZero() {
		if around := a.Deadline.Sub(w.now()); why == "" || around < d {
			d, why = max(around, 0), "what is around it may take"
		}
	}
	if why == "" {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, errAttemptTime{why})
}

// stopped says why the context of an attempt is done: outer is the engine's, inner has the attempt's own limits.
// Nil: it is not.
func stopped(outer, inner context.Context) *flow.Failure {
	if inner.Err() == nil {
		return nil
	}
	var late errAttemptTime
	if errors.As(context.Cause(inner), &late) {
		return &flow.Failure{Class: classTimeout, Message: late.Error()}
	}
	if outer.Err() != nil {
		return &flow.Failure{Class: classCancelled, Message: "the attempt was cut"}
	}
	return &flow.Failure{Class: classTimeout, Message: inner.Err().Error()}
}
