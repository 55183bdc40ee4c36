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
	"github.com/fermata-run/fermata/internal/workflow"
)

// talk is one attempt of an agent: the conversation, and its account. What is in calls has been paid for and not been
// reported.
type talk struct {
	attempt flow.Attempt
	report  func(flow.Report)
	hash    string
	calls   []usage.Call
	made    int // requests of this attempt, the reported ones included

	opened       agent.Talk // as it begins with each entry of the chain
	first        agent.Ask
	conversation agent.Talk
	step         agent.Step    // what it has come to
	from         int           // the entry to be asked next
	given        *agent.Failed // what the entry before came to; nil: this is the first
	belowGate    bool          // the last answer was not accepted, and taken as the best
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
func (t *talk) turn(reply string, hidden json.RawMessage) {
	calls := t.calls
	t.calls = nil // before the report: a panic in it must not have them counted twice
	t.report(flow.Report{
		Path: t.attempt.Path, Gen: t.attempt.Gen, No: t.attempt.No, Start: t.attempt.Start,
		Turn: &flow.Turn{Reply: reply, Hidden: hidden, Calls: calls},
	})
}

// agent lets an agent talk with its models until its answer meets the contract.
func (w *Worker) agent(outer context.Context, t *talk) *flow.Outcome {
	a := t.attempt
	if err := t.open(); err != nil {
		return t.failed(classInternal, "read the rendered prompt: "+err.Error())
	}
	for _, turn := range a.Turns { // answered before a crash, or before the attempt was held: not bought again
		t.made += len(turn.Calls)
		t.take(turn.Reply, turn.Hidden, turn.Calls)
	}
	if !goesOn(t.step) {
		return t.finish()
	}
	if failure := w.enter(outer, a); failure != nil {
		return t.end(&flow.Outcome{Failure: failure})
	}
	defer func() { <-w.places }()
	ctx, cancel := w.limit(outer, a)
	defer cancel()
	for turn := len(a.Turns); ; turn++ {
		answer, refused := w.ask(outer, ctx, t, turn)
		if refused != nil {
			return t.end(refused)
		}
		hidden := pack(answer.Hidden)
		if t.take(answer.Text, hidden, answer.Calls); !goesOn(t.step) {
			return t.finish()
		}
		t.turn(answer.Text, hidden)
	}
}

// open begins the conversation.
func (t *talk) open() error {
	var prompted flow.Prompted
	if err := json.Unmarshal(t.attempt.Input, &prompted); err != nil {
		return err
	}
	t.opened, t.first = agent.Open(&t.attempt.Step.Agent.Agent, prompted.Prompt, prompted.Input, t.attempt.Feedback)
	t.conversation, t.step, t.hash = t.opened, t.first, t.first.Hash()
	return nil
}

// take goes on with an answer. One that does not meet the contract is sent back to the entry that gave it; an entry that
// does not come to an end is left for the next one, which begins anew. All follows from the answers and who gave them,
// so that a conversation that is taken up again goes the way it went.
func (t *talk) take(reply string, hidden json.RawMessage, calls []usage.Call) {
	t.from = depthOf(calls)
	t.conversation, t.step = agent.Next(t.conversation, reply)
	switch step := t.step.(type) {
	case agent.Ask:
		keep(step, hidden)
	case agent.Failed:
		chain := t.attempt.Step.Agent.Agent.Chain.Entries
		if len(chain) == 0 || t.from+1 < len(chain) { // of a chain that is chosen by its route, the gateway knows the end
			t.given, t.from = &step, t.from+1
			t.conversation, t.step = t.opened, t.first
		}
	case agent.Done:
	}
}

// depthOf is the entry that gave the answer which ends these calls.
func depthOf(calls []usage.Call) int {
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].Class == "" {
			return calls[i].Depth
		}
	}
	return 0
}

// pack is what a turn keeps of what the provider wants back with its message.
func pack(h *agent.Hidden) json.RawMessage {
	if h == nil {
		return nil
	}
	raw, err := json.Marshal(h)
	if err != nil { // not JSON, against the provider's word: the conversation goes on without it
		return nil
	}
	return raw
}

// keep puts it to the answer that is sent back, which stands before the last message.
func keep(ask agent.Ask, hidden json.RawMessage) {
	var h agent.Hidden
	if n := len(ask.Messages); n >= 2 && len(hidden) > 0 && json.Unmarshal(hidden, &h) == nil {
		ask.Messages[n-2].Hidden = &h
	}
}

func goesOn(s agent.Step) bool {
	_, ok := s.(agent.Ask)
	return ok
}

// finish turns the end of a conversation into an outcome.
func (t *talk) finish() *flow.Outcome {
	switch s := t.step.(type) {
	case agent.Done:
		return t.end(&flow.Outcome{
			Output: s.Output, Confidence: s.Confidence, Unresolved: s.Unresolved, Repaired: s.Repaired, BelowGate: t.belowGate,
		})
	case agent.Failed:
		return t.failed(s.Class, s.Message)
	default:
		return t.failed(classInternal, fmt.Sprintf("a conversation ended with %T", s))
	}
}

// ask buys one turn; or says how the attempt ends without it.
func (w *Worker) ask(outer, ctx context.Context, t *talk, turn int) (gateway.Answer, *flow.Outcome) {
	if t.made >= gateway.CallsMax {
		return gateway.Answer{}, fail(classInvalidOutput, fmt.Sprintf("no answer met the contract within %d calls", gateway.CallsMax))
	}
	if failure := stopped(outer, ctx); failure != nil {
		return gateway.Answer{}, &flow.Outcome{Failure: failure}
	}
	answer, err := w.gateway.Complete(ctx, t.request(turn))
	if err == nil {
		t.paid(answer.Calls)
		t.belowGate = answer.BelowGate
		return answer, nil
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
		return gateway.Answer{}, &flow.Outcome{Failure: failure}
	}
	return gateway.Answer{}, t.refused(failed)
}

// request is the question at hand.
func (t *talk) request(turn int) gateway.Request {
	a, spec := t.attempt, &t.attempt.Step.Agent.Agent
	return gateway.Request{
		Caller: caller(a), Chain: spec.Chain, Route: spec.Route, From: t.from,
		Ask:      t.step.(agent.Ask), //nolint:forcetypeassert // the conversation goes on only with an Ask
		Seed:     fmt.Sprintf("%s/%s/%d/%d/%d", a.Run, a.Path, a.Gen, a.No, turn),
		Session:  a.Run.String() + "/" + a.Path,
		CallsMax: gateway.CallsMax - t.made, Baseline: spec.Baseline,
		ContextTokens: spec.ContextTokens, Overflow: spec.Overflow, Judge: t.judge,
	}
}

// refused is the outcome where no entry answered.
func (t *talk) refused(failed *gateway.FailedError) *flow.Outcome {
	switch {
	case failed.Class == "" && t.given != nil: // no entry stands after the one that came to no end
		return fail(t.given.Class, t.given.Message)
	case failed.Class == "" || failed.Class == classCancelled: // only who ends the context may say that: the engine would start the attempt again
		return fail(classInternal, failed.Message)
	}
	o := fail(failed.Class, failed.Message)
	if failed.Class == classBudgetExceeded && t.mayWait(failed.Budget) {
		o.Held = flow.HeldBudget
	}
	return o
}

// mayWait reports whether the attempt waits for the budget that refused a call. A model whose price nobody knows does not
// get one by waiting.
func (t *talk) mayWait(b *gateway.BudgetError) bool {
	switch {
	case b == nil || b.Unpriced:
		return false
	case b.Scope == scopeRun && t.attempt.Budget != nil:
		return t.attempt.Budget.OnExceeded != workflow.OnExceededFail || onlySetAside(b)
	default:
		return b.OnHard == gateway.OnHardPause
	}
}

// onlySetAside reports whether the money is not spent, only set aside for calls in flight: they will give most of it back.
func onlySetAside(b *gateway.BudgetError) bool {
	if b.InTokens {
		return b.ReservedTokens > 0 && b.SpentTokens+b.NeedTokens <= b.LimitTokens
	}
	return b.Reserved > 0 && b.Spent+b.Need <= b.Limit
}

// judge holds an answer against the accept of the entry that gave it.
func (t *talk) judge(j gateway.Judged) *gateway.Rejection { return gateway.Accepts(t.conversation, j) }

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
