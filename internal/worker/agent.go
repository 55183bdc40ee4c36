package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/usage"
)

// talk is the account of one attempt of an agent. What is in calls has been paid for and not been reported.
type talk struct {
	attempt flow.Attempt
	report  func(flow.Report)
	hash    string
	calls   []usage.Call
	made    int // requests of this attempt, the reported ones included
}

// end closes the account.
func (t *talk) end(o *flow.Outcome) *flow.Outcome {
	o.Calls, o.PromptHash = t.calls, t.hash
	return o
}

func (t *talk) failed(class, message string) *flow.Outcome { return t.end(fail(class, message)) }

// paid notes the requests of one turn.
func (t *talk) paid(calls []usage.Call) {
	t.calls = append(t.calls, calls...)
	t.made += len(calls)
}

// turn reports an answered turn that the conversation goes on from.
//
// A crash before it is committed buys the turn again; one after it does not.
func (t *talk) turn(reply string) {
	calls := t.calls
	t.calls = nil // before the report: a panic in it must not have them counted twice
	t.report(flow.Report{
		Path: t.attempt.Path, Gen: t.attempt.Gen, No: t.attempt.No,
		Turn: &flow.Turn{Reply: reply, Calls: calls},
	})
}

// agent lets an agent talk with its models until its answer meets the contract.
func (w *Worker) agent(outer context.Context, t *talk) *flow.Outcome {
	a := t.attempt
	var prompted flow.Prompted
	if err := json.Unmarshal(a.Input, &prompted); err != nil {
		return t.failed(classInternal, "read the rendered prompt: "+err.Error())
	}
	spec := &a.Step.Agent.Agent
	conversation, ask := agent.Open(spec, prompted.Prompt, prompted.Input, a.Feedback)
	t.hash = ask.Hash()
	var step agent.Step = ask
	for _, turn := range a.Turns { // answered before a crash: not bought again
		conversation, step = agent.Next(conversation, turn.Reply)
		t.made += len(turn.Calls)
	}
	if !goesOn(step) {
		return t.finish(step)
	}
	if failure := w.enter(outer, a); failure != nil {
		return t.end(&flow.Outcome{Failure: failure})
	}
	defer func() { <-w.places }()
	ctx, cancel := w.limit(outer, a)
	defer cancel()
	for turn := len(a.Turns); ; turn++ {
		answer, failure := w.ask(outer, ctx, t, step.(agent.Ask), turn) //nolint:forcetypeassert // the loop goes on only with an Ask
		if failure != nil {
			return t.end(&flow.Outcome{Failure: failure})
		}
		if conversation, step = agent.Next(conversation, answer); !goesOn(step) {
			return t.finish(step)
		}
		t.turn(answer)
	}
}

func goesOn(s agent.Step) bool {
	_, ok := s.(agent.Ask)
	return ok
}

// finish turns the end of a conversation into an outcome.
func (t *talk) finish(s agent.Step) *flow.Outcome {
	switch s := s.(type) {
	case agent.Done:
		return t.end(&flow.Outcome{Output: s.Output, Confidence: s.Confidence, Unresolved: s.Unresolved, Repaired: s.Repaired})
	case agent.Failed:
		return t.failed(s.Class, s.Message)
	default:
		return t.failed(classInternal, fmt.Sprintf("a conversation ended with %T", s))
	}
}

// ask buys one turn.
func (w *Worker) ask(outer, ctx context.Context, t *talk, ask agent.Ask, turn int) (string, *flow.Failure) {
	a := t.attempt
	if t.made >= gateway.CallsMax {
		return "", &flow.Failure{Class: classInvalidOutput, Message: fmt.Sprintf("no answer met the contract within %d calls", gateway.CallsMax)}
	}
	if failure := stopped(outer, ctx); failure != nil {
		return "", failure
	}
	answer, err := w.gateway.Complete(ctx, gateway.Request{
		Chain: a.Step.Agent.Agent.Chain, Ask: ask, Caller: caller(a), CallsMax: gateway.CallsMax - t.made,
		Seed: fmt.Sprintf("%s/%s/%d/%d/%d", a.Run, a.Path, a.Gen, a.No, turn),
	})
	if err == nil {
		t.paid(answer.Calls)
		return answer.Text, nil
	}
	var failed *gateway.FailedError
	if !errors.As(err, &failed) {
		failed = &gateway.FailedError{Class: classInternal, Message: err.Error()}
	}
	t.paid(failed.Calls)
	if failure := stopped(outer, ctx); failure != nil {
		if failure.Class == classTimeout && len(failed.Calls) > 0 {
			failure.Message += "; last: " + failed.Message
		}
		return "", failure
	}
	if failed.Class == classCancelled { // only who ends the context may say so: the engine would start the attempt again
		failed.Class = classInternal
	}
	return "", &flow.Failure{Class: failed.Class, Message: failed.Message}
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

// caller says whose calls those of an attempt are.
func caller(a flow.Attempt) gateway.Caller {
	c := gateway.Caller{
		Tenant: a.Tenant, Run: a.Run, Step: a.Path, Gen: a.Gen, Attempt: a.No, Workflow: a.Workflow,
		Agent: a.Step.Agent.Agent.Name, Labels: a.Labels, Mode: a.Mode, Stakes: a.Stakes,
	}
	if b := a.Budget; b != nil {
		c.Budget = &gateway.RunBudget{Cost: b.Cost, Tokens: b.Tokens, Spent: b.Spent.Cost, SpentTokens: b.Spent.Tokens.Total()}
	}
	return c
}
