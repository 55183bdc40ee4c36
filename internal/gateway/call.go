package gateway

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// request is one request to a provider, from its admission to its settlement.
type request struct {
	c     *completion
	e     *entry
	t     *tries
	ask   agent.Ask
	line  usage.Call
	price *Price
	max   int      // tokens of the answer
	need  estimate // tokens; zero where nobody needs them counted
	place place
	pass  pass
	hold  Hold
}

// call makes one request of an entry: it waits for its turn, is let through by the breaker, sets money aside, asks, and
// settles. Every request that is made is written down.
func (c *completion) call(ctx context.Context, e *entry, t *tries) (Answer, *failure) {
	q := &request{c: c, e: e, t: t, ask: c.req.Ask, price: c.g.price(e.route, c.g.now()), max: c.maxTokens(e.route.known, t.longer)}
	if f := q.admit(ctx); f != nil {
		f.entry = e
		return Answer{}, f
	}
	q.begin()
	spanned, span := c.g.requestSpan(ctx, e.route)
	reply, failed := q.send(spanned)
	q.settle(ctx, reply, failed)
	endSpan(span, &q.line, reply.Model)
	answer := Answer{Reply: reply, Provider: q.line.Provider, Asked: q.line.Model, Depth: e.depth, Try: q.line.Try, SameFamily: e.avoided}
	if failed == nil {
		return answer, nil
	}
	if failed.Class == provider.ClassLowConfidence {
		c.keepBest(answer, e, *q.line.Confidence)
	}
	return Answer{}, &failure{entry: e, err: failed, asked: true}
}

// admit gets the request everything it needs before it may be made. What it got is given back if it is refused.
func (q *request) admit(ctx context.Context) *failure {
	g, e := q.c.g, q.e
	if err := q.fit(); err != nil {
		return &failure{err: err}
	}
	breaker := g.breakers.of(e.route, time.Now())
	if refused := breaker.refuses(time.Now()); refused != nil && !(q.t.forced && refused.forcible) {
		return refused.failure() // before it waits for its turn: that would be for nothing
	}
	charged := g.budgets.Applies(q.charge())
	if charged || g.lanes.counts(e.route) {
		q.need = estimate{input: q.countInput(ctx), output: int64(q.max)}
	}
	waited := time.Now()
	place, wait, err := g.lanes.enter(ctx, e.route, q.who(), q.need, patience(ctx, e.last))
	g.metrics.ModelQueued(e.route.to.Name(), time.Since(waited))
	switch {
	case err != nil:
		return &failure{err: &provider.Error{Class: provider.ClassCancelled, Message: "the call was cut while it waited for its turn"}}
	case wait > 0:
		return &failure{until: time.Now().Add(wait), err: &provider.Error{
			Class: provider.ClassThrottled, RetryAfter: wait, Message: fmt.Sprintf("the rate limit of %s leaves no room for %s", e.route.to.Name(), wait.Round(time.Millisecond)),
		}}
	}
	pass, refused := breaker.admit(time.Now(), q.t.forced)
	if refused != nil {
		place.cancel()
		return refused.failure()
	}
	if charged {
		if f := q.reserve(ctx); f != nil {
			pass.giveBack()
			place.cancel()
			return f
		}
	}
	q.place, q.pass = place, pass
	return nil
}

func (r *refusal) failure() *failure {
	return &failure{until: r.until, shut: r, err: &provider.Error{Class: r.class, Message: r.reason}}
}

// begin counts the request. Two ways to one model are one entry: their tries are told apart.
func (q *request) begin() {
	c := q.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tries == nil {
		c.tries = map[int]int{}
	}
	c.tries[q.e.depth]++
	q.line = usage.Call{
		Provider: q.e.route.to.Name(), Model: q.e.route.model, Simulated: q.e.route.to.Simulated, Depth: q.e.depth, Try: c.tries[q.e.depth],
		Subscription: q.e.route.to.Subscription, Rule: c.rule, Hold: q.hold.ID, Trimmed: q.line.Trimmed, Hedged: q.t.hedged,
	}
	if q.t.retries == 0 {
		c.g.retryBudget(q.line.Provider).earn(time.Now())
	}
}

func (q *request) who() string {
	if run := q.c.req.Caller.Run; run != uuid.Nil {
		return run.String()
	}
	return q.c.req.Seed
}

// send asks the provider and judges its answer. A defect of an adapter, or of whoever judges or listens, ends this
// request, not the node, and leaves nothing taken.
func (q *request) send(ctx context.Context) (reply provider.Reply, failed *provider.Error) {
	defer func() {
		if p := recover(); p != nil {
			q.c.g.log.Error("panic in a model call", "provider", q.line.Provider, "model", q.line.Model, "panic", p, "stack", string(debug.Stack()))
			reply, failed = provider.Reply{}, &provider.Error{Class: provider.ClassUnknown, NoRetry: true, Message: "the service broke down over this call; its log has the details"}
		}
	}()
	if reply, failed = q.complete(ctx); failed == nil {
		failed = q.judge(reply)
	}
	if failed == nil && q.held() {
		q.c.tellWhole(q.e, reply)
	}
	return reply, failed
}

// complete asks the provider.
func (q *request) complete(ctx context.Context) (provider.Reply, *provider.Error) {
	c, e := q.c, q.e
	if e.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.Timeout)
		defer cancel()
	}
	call := provider.Call{
		Model: e.route.model, Ask: q.ask, MaxTokens: q.max, Seed: fmt.Sprintf("%s/%d.%d", c.req.Seed, e.depth, q.line.Try),
		FirstToken: e.FirstToken, Idle: e.Idle, Session: c.req.Session, Stream: q.stream(),
	}
	c.g.metrics.ModelInFlight(q.line.Provider, 1)
	began := time.Now()
	defer func() {
		took := time.Since(began)
		q.line.Millis = took.Milliseconds()
		c.g.metrics.ModelInFlight(q.line.Provider, -1)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.upstream += took
	}()
	reply, err := e.route.to.Complete(ctx, call)
	return reply, asFailure(ctx, err)
}

// held reports whether the parts of an answer are kept back until it is whole: it may turn out not to be accepted, and
// what was told cannot be taken back.
func (q *request) held() bool {
	return q.c.req.Stream != nil && q.c.judged(q.e) && !q.c.req.Restarts
}

// stream passes the parts of an answer on. A probe of a breaker is over once its answer has begun.
func (q *request) stream() func(provider.Delta) {
	tells := q.c.req.Stream != nil && !q.held()
	if !tells && !q.pass.probe {
		return nil
	}
	first := true
	return func(d provider.Delta) {
		if first {
			q.pass.begun()
		}
		if tells {
			q.c.tell(q.e, d, first)
		}
		first = false
	}
}

// tell passes a part of an answer on. The first part of an answer makes what was told of another one void.
func (c *completion) tell(e *entry, d provider.Delta, first bool) {
	restart := first && c.told != nil
	c.told = e
	c.req.Stream(Delta{Delta: d, Provider: e.route.to.Name(), Model: e.route.model, Depth: e.depth, Simulated: e.route.to.Simulated, Restart: restart})
}

// tellWhole tells an answer of which nothing has been told.
func (c *completion) tellWhole(e *entry, r provider.Reply) {
	d := provider.Delta{Text: r.Text}
	for i, t := range r.ToolCalls {
		d.ToolCalls = append(d.ToolCalls, provider.ToolCallDelta{Index: i, ID: t.ID, Name: t.Name, Arguments: t.Arguments})
	}
	c.tell(e, d, true)
}

func (c *completion) judged(e *entry) bool { return c.req.Judge != nil && e.Accept != nil }

// judge asks whether the answer is accepted.
func (q *request) judge(reply provider.Reply) *provider.Error {
	if !q.c.judged(q.e) {
		return nil
	}
	j := Judged{Entry: &q.e.ChainEntry, Reply: reply, Latency: time.Duration(q.line.Millis) * time.Millisecond}
	if q.price != nil && q.line.Subscription == "" {
		j.Cost = q.price.Cost(reply.Tokens)
	}
	rejected := q.c.req.Judge(j)
	if rejected == nil {
		return nil
	}
	q.line.Confidence = &rejected.Confidence
	return &provider.Error{Class: provider.ClassLowConfidence, Message: rejected.Reason, Tokens: reply.Tokens, Estimated: reply.Estimated, RequestID: reply.RequestID, Limits: reply.Limits}
}

func (c *completion) keepBest(a Answer, e *entry, score float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.best == nil || score > c.best.score {
		c.best = &best{a, e, score}
	}
}

// settle writes the request down and ends what it was admitted with: its place, its pass, its money.
func (q *request) settle(ctx context.Context, reply provider.Reply, failed *provider.Error) {
	line, g := &q.line, q.c.g
	told := reply.Limits
	if failed == nil {
		line.Tokens, line.Estimated, line.RequestID = reply.Tokens, reply.Estimated, reply.RequestID
		line.FirstMillis = reply.FirstToken.Milliseconds()
	} else {
		line.Class, line.Message = string(failed.Class), failed.Message
		line.Tokens, line.Estimated, line.RequestID, told = failed.Tokens, failed.Estimated, failed.RequestID, failed.Limits
	}
	q.c.priceLine(line, q.e.route, q.price)
	if failed == nil || q.cutShort(failed) {
		q.c.compare(line)
	}
	q.place.leave(line.Tokens)
	g.lanes.learn(line.Provider+"/"+line.Model, told)
	q.endPass(ctx, reply, failed)
	if q.hold.ID != uuid.Nil || q.c.req.Caller.Run == uuid.Nil {
		g.budgets.Settle(Settlement{Hold: q.hold, Caller: q.c.req.Caller, Call: *line})
	}
	q.c.mu.Lock()
	defer q.c.mu.Unlock()
	q.c.calls = append(q.c.calls, *line)
}

// endPass tells the breaker what became of the request. That whoever asked gave up says nothing of the provider, except
// how long it had been waited for.
func (q *request) endPass(ctx context.Context, reply provider.Reply, failed *provider.Error) {
	g, id := q.c.g, q.line.Provider+"/"+q.line.Model
	if failed != nil && ctx.Err() != nil {
		if overtaken(ctx) && !failed.Begun {
			q.pass.b.began(time.Duration(q.line.Millis) * time.Millisecond)
		}
		q.pass.giveBack()
		return
	}
	news := q.pass.observe(time.Now(), failed)
	g.tell(news)
	if q.pass.probe && news == nil {
		g.metrics.BreakerChanged(id, "", g.breakerState(id))
	}
	if failed == nil {
		if reply.FirstToken > 0 {
			q.pass.b.began(reply.FirstToken)
		}
		g.warm.answered(q.c.req.Session, id, time.Now())
	}
}

// cutShort reports whether an answer reached its limit and is not asked for again: the baseline model would have been
// paid for it, too.
func (q *request) cutShort(failed *provider.Error) bool {
	return failed.Class == provider.ClassOutputTruncated && (q.t.longer || !q.c.req.Chain.LongerOnce || !q.c.canLonger(q.e))
}

// priceLine works out what a request cost, and what the cache took off.
func (c *completion) priceLine(line *usage.Call, r route, price *Price) {
	if line.Tokens.Total() == 0 {
		return
	}
	switch {
	case r.to.Subscription != "":
	case price == nil:
		line.Unpriced = true
	default:
		rates := price.Rates(line.Tokens.InputTotal())
		line.Cost, line.CacheSaved, line.Price, line.Rates = price.Cost(line.Tokens), price.CacheSaved(line.Tokens), price.Row(line.Tokens), &rates
	}
}

// compare works out what an answer would have cost on the baseline model. Only the one that is used is compared: the
// baseline model would have been asked once.
func (c *completion) compare(line *usage.Call) {
	if line.Tokens.Total() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.based || c.noBaseline {
		return
	}
	c.based = true
	line.Baseline = line.Cost
	if base := c.g.baseline(c.baselineModels(), c.g.now()); base != nil && !line.Unpriced {
		line.Baseline = base.Uncached(line.Tokens)
	}
}

func (c *completion) baselineModels() []string {
	if len(c.req.Baseline) > 0 {
		return c.req.Baseline
	}
	models := make([]string, len(c.req.Chain.Entries))
	for i, e := range c.req.Chain.Entries {
		models[i] = e.Model
	}
	return models
}

// asFailure takes what an adapter returned. One that breaks its word is unknown.
func asFailure(ctx context.Context, err error) *provider.Error {
	if err == nil {
		return nil
	}
	var failed *provider.Error
	switch {
	case errors.As(err, &failed):
		return failed
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &provider.Error{Class: provider.ClassTimeout, Message: "no answer in time"}
	case ctx.Err() != nil:
		return &provider.Error{Class: provider.ClassCancelled, Message: "the call was cut"}
	}
	return &provider.Error{Class: provider.ClassUnknown, Message: err.Error()}
}
