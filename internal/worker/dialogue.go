package worker

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// dialogue is one conversation of an attempt, with the models of one agent.
type dialogue struct {
	job    *job
	who    string
	spec   *workflow.Agent // its chain, and whose calls they are
	helper bool            // it is a delegate's, or within a delegate's
	avoid  []string        // models whose families are passed over
	shared string          // what is noted where they could not be; the model goes into it

	opened       agent.Talk // where it begins with each entry of the chain
	first        agent.Ask
	conversation agent.Talk
	step         agent.Step    // what it has come to
	from         int           // the entry to be asked next
	given        *agent.Failed // what the entry before came to; nil: this is the first
	last         flow.Turn     // the answer it has come to
	tasks        int           // handed out so far
}

// noAnswer is why a conversation has no answer.
type noAnswer struct {
	outcome *flow.Outcome // with a failure, and maybe held
	whole   bool          // the attempt ends with it, whoever's conversation it was
}

// by says whose failure it is.
func (b *noAnswer) by(who string) *noAnswer {
	if b != nil && !b.whole {
		b.outcome.Failure.Message = who + ": " + b.outcome.Failure.Message
	}
	return b
}

// open begins a conversation.
func (j *job) open(who string, spec *workflow.Agent, talk agent.Talk, first agent.Ask) *dialogue {
	if who == "" {
		j.hash = first.Hash()
	}
	return &dialogue{job: j, who: who, spec: spec, opened: talk, first: first, conversation: talk, step: first}
}

// within begins a conversation that belongs to this one.
func (d *dialogue) within(who string, spec *workflow.Agent, talk agent.Talk, first agent.Ask) *dialogue {
	if d.who != "" {
		who = d.who + "/" + who
	}
	inner := d.job.open(who, spec, talk, first)
	inner.helper = d.helper
	return inner
}

// answer goes on until the conversation comes to an answer that meets its contract.
func (d *dialogue) answer() (agent.Done, *noAnswer) {
	for {
		var b *noAnswer
		switch s := d.step.(type) {
		case agent.Done:
			return s, nil
		case agent.Failed:
			return agent.Done{}, &noAnswer{outcome: fail(s.Class, s.Message)}
		case agent.Undecided:
			b = d.decide(s.Question)
		case agent.Ask:
			b = d.turn(s)
		}
		if b != nil {
			return agent.Done{}, b
		}
	}
}

// turn goes on with one answer: one that was given before a crash, else a new one. A delegate that gets none does not
// end the attempt: that is written down like an answer, so that whoever is told of it is told the same again.
func (d *dialogue) turn(question agent.Ask) *noAnswer {
	turn, ok := d.job.before(d.who, d.helper)
	if !ok {
		var b *noAnswer
		if turn, b = d.buy(question); b != nil {
			return b
		}
		d.job.keep(turn, d.helper)
	}
	if turn.Failure != nil {
		return &noAnswer{outcome: &flow.Outcome{Failure: turn.Failure}}
	}
	return d.take(turn)
}

// buy asks the gateway.
func (d *dialogue) buy(question agent.Ask) (flow.Turn, *noAnswer) {
	ctx, left, b := d.job.admit(d.helper)
	if b != nil {
		return d.without(nil, b)
	}
	answer, err := d.job.w.gateway.Complete(ctx, d.request(question, left))
	if err == nil {
		return flow.Turn{
			Who: d.who, Reply: answer.Text, Hidden: pack(answer.Hidden), ToolCalls: packCalls(answer.ToolCalls),
			BelowGate: answer.BelowGate, SameFamily: answer.SameFamily, Calls: d.signed(answer.Calls),
		}, nil
	}
	var failed *gateway.FailedError
	if !errors.As(err, &failed) {
		failed = &gateway.FailedError{Class: classInternal, Message: err.Error()}
	}
	if failure := stopped(d.job.outer, ctx); failure != nil {
		if failure.Class == classTimeout && len(failed.Calls) > 0 {
			failure.Message += "; last: " + failed.Message
		}
		return d.without(failed.Calls, &noAnswer{&flow.Outcome{Failure: failure}, true})
	}
	return d.without(failed.Calls, d.refused(failed))
}

// without is a turn that brought no answer.
func (d *dialogue) without(calls []usage.Call, b *noAnswer) (flow.Turn, *noAnswer) {
	if d.helper && !b.whole {
		return flow.Turn{Who: d.who, Failure: b.outcome.Failure, Calls: d.signed(calls)}, nil
	}
	d.job.lose(d.signed(calls), d.helper)
	return flow.Turn{}, b
}

// signed says whose calls they are.
func (d *dialogue) signed(calls []usage.Call) []usage.Call {
	for i := range calls {
		calls[i].Who = d.who
	}
	return calls
}

// request is the question at hand.
func (d *dialogue) request(question agent.Ask, callsMax int) gateway.Request {
	a, talk := &d.job.attempt, d.conversation
	session, seed := a.Run.String()+"/"+a.Path, fmt.Sprintf("%s/%s/%d/%d", a.Run, a.Path, a.Gen, a.No)
	if d.who != "" {
		session, seed = session+"/"+d.who, seed+"/"+d.who
	}
	d.job.mu.Lock()
	n := d.job.answers[d.who]
	d.job.mu.Unlock()
	return gateway.Request{
		Caller: caller(*a, d.spec), Chain: d.spec.Chain, Route: d.spec.Route, From: d.from, Avoid: d.avoid, Ask: question,
		Seed: fmt.Sprintf("%s/%d", seed, n), Session: session, CallsMax: callsMax, Baseline: d.spec.Baseline,
		ContextTokens: d.spec.ContextTokens, Overflow: d.spec.Overflow,
		Judge: func(j gateway.Judged) *gateway.Rejection { return gateway.Accepts(talk, j) },
	}
}

// take goes on with an answer. One that does not meet the contract is sent back to the entry that gave it; an entry that
// does not come to an end is left for the next one, which begins anew. All follows from the answers and who gave them,
// so that a conversation that is taken up again goes the way it went.
func (d *dialogue) take(turn flow.Turn) *noAnswer {
	d.last, d.from = turn, answering(turn.Calls).Depth
	if turn.SameFamily {
		d.job.note(fmt.Sprintf(d.shared, answering(turn.Calls).Model))
		d.avoid = nil // nobody else was left: it goes on with who answered
	}
	if calls := callsOf(turn); len(calls) > 0 && d.conversation.Delegates() {
		return d.handOut(turn, calls)
	}
	d.conversation, d.step = agent.Next(d.conversation, turn.Reply)
	switch step := d.step.(type) {
	case agent.Ask:
		putBack(step, turn.Hidden)
	case agent.Failed:
		chain := d.spec.Chain.Entries
		if len(chain) == 0 || d.from+1 < len(chain) { // of a chain that is chosen by its route, the gateway knows the end
			d.given, d.from = &step, d.from+1
			d.conversation, d.step = d.opened, d.first
		}
	case agent.Done, agent.Undecided:
	}
	return nil
}

// goOn goes on with something that is said to the last answer. An entry that is asked next begins here.
func (d *dialogue) goOn(talk agent.Talk, ask agent.Ask) {
	putBack(ask, d.last.Hidden)
	d.opened, d.first, d.conversation, d.step = talk, ask, talk, ask
}

// answering is the call that gave the answer which ends these calls: the last one answered, else the surest of those that
// were not accepted.
func answering(calls []usage.Call) (best usage.Call) {
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].Class == "" {
			return calls[i]
		}
		if c := calls[i]; c.Confidence != nil && (best.Confidence == nil || *c.Confidence >= *best.Confidence) {
			best = c
		}
	}
	return best
}

// pack is what a turn keeps of what the provider wants back with its message.
func pack(h *agent.Hidden) json.RawMessage {
	if h == nil {
		return nil
	}
	raw, err := json.Marshal(h)
	if err != nil || workflow.TooDeep(raw) != "" { // not JSON, against the provider's word: the conversation goes on without it
		return nil
	}
	return raw
}

// putBack puts it to the answer it came with.
func putBack(ask agent.Ask, hidden json.RawMessage) {
	var h agent.Hidden
	if len(hidden) == 0 || json.Unmarshal(hidden, &h) != nil {
		return
	}
	for i := len(ask.Messages) - 1; i >= 0; i-- {
		if m := &ask.Messages[i]; m.Role == agent.RoleAssistant {
			m.Hidden = &h
			return
		}
	}
}

func packCalls(calls []agent.ToolCall) json.RawMessage {
	if len(calls) == 0 {
		return nil
	}
	raw, err := json.Marshal(calls)
	if err != nil { // texts: there is nothing that could not be written
		return nil
	}
	return raw
}

func callsOf(turn flow.Turn) (calls []agent.ToolCall) {
	if len(turn.ToolCalls) == 0 || json.Unmarshal(turn.ToolCalls, &calls) != nil {
		return nil
	}
	return calls
}

// refused is why no entry answered.
func (d *dialogue) refused(failed *gateway.FailedError) *noAnswer {
	switch {
	case failed.Class == "" && d.given != nil: // no entry stands after the one that came to no end
		return &noAnswer{outcome: fail(d.given.Class, d.given.Message)}
	case failed.Class == "" || failed.Class == classCancelled: // only who ends the context may say that: the engine would start the attempt again
		return &noAnswer{outcome: fail(classInternal, failed.Message)}
	}
	b := &noAnswer{fail(failed.Class, failed.Message), failed.Class == classBudgetExceeded}
	if b.whole {
		d.job.holdFor(failed.Budget, b.outcome)
	}
	return b
}

// holdFor lets the attempt wait for the budget that refused a call, where that is of use. A model whose price nobody knows
// does not get one by waiting, and what a step may spend is not raised: for those it waits only as long as their money
// is set aside, not spent.
func (j *job) holdFor(b *gateway.BudgetError, o *flow.Outcome) {
	if b == nil || b.Unpriced {
		return
	}
	short := flow.Short{Aside: onlySetAside(b)}
	waits := b.OnHard == gateway.OnHardPause
	if own := j.attempt.BudgetOf(b.ID); own != nil {
		short.Budget = own.ID
		waits = short.Aside || own.OnExceeded == workflow.OnExceededPause || own.OnExceeded == workflow.OnExceededDegrade
	}
	if waits {
		o.Held, o.Short = flow.HeldBudget, short
	}
}

// onlySetAside reports whether the money is not spent, only set aside for calls in flight: they will give most of it back.
func onlySetAside(b *gateway.BudgetError) bool {
	if b.InTokens {
		return b.ReservedTokens > 0 && b.SpentTokens+b.NeedTokens <= b.LimitTokens
	}
	return b.Reserved > 0 && b.Spent+b.Need <= b.Limit
}

// caller says whose calls those of an agent are.
func caller(a flow.Attempt, by *workflow.Agent) gateway.Caller {
	c := gateway.Caller{
		Tenant: a.Tenant, Run: a.Run, Step: a.Path, Gen: a.Gen, Attempt: a.No, Workflow: a.Workflow,
		Agent: by.Name, Labels: a.Labels, Mode: a.Mode, Stakes: a.Stakes,
	}
	if a.Budget != nil {
		own := budget(a.Budget)
		c.Budget = &own
	}
	for i := range a.Around {
		c.Around = append(c.Around, budget(&a.Around[i]))
	}
	return c
}

func budget(b *flow.Budget) gateway.RunBudget {
	return gateway.RunBudget{
		ID: b.ID, Run: b.Run, Step: b.Name, Cost: b.Cost, Tokens: b.Tokens, Spent: b.Spent.Cost, SpentTokens: b.Spent.Tokens.Total(),
	}
}
