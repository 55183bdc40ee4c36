package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Complete makes one logical call: the entries of the chain in order, each with its retries, until one answers. Its
// error is a *FailedError. The deadline of ctx bounds everything, waits included; it returns soon after ctx is done,
// with the cost of what was begun.
func (g *Gateway) Complete(ctx context.Context, req Request) (Answer, error) {
	c := &completion{g: g, req: req, limit: req.CallsMax}
	if c.limit <= 0 || c.limit > CallsMax {
		c.limit = CallsMax
	}
	answer, err := c.run(ctx)
	g.metrics.ModelCalls(req.Caller.Agent, c.calls)
	return answer, err
}

// completion is one logical call under way.
type completion struct {
	g     *Gateway
	req   Request
	limit int

	calls    []usage.Call
	failures []*provider.Error // one for each call that failed
	window   int64             // an entry must take more tokens than this
}

// verdict is what comes after an entry.
type verdict uint8

const (
	verdictNext verdict = iota
	verdictAnswered
	verdictStop
)

func (c *completion) run(ctx context.Context) (Answer, error) {
	entries := c.req.Chain.Entries
	if len(entries) == 0 {
		return Answer{}, &FailedError{Class: string(provider.ClassInvalidRequest), Message: errNoEntries.Error()}
	}
	for depth, e := range entries {
		r, err := c.g.route(e.Model)
		if err != nil {
			c.note(usage.Call{Model: e.Model, Depth: depth, Try: 1}, &provider.Error{Class: provider.ClassNotFound, Message: err.Error()})
			continue
		}
		if r.known != nil && r.known.contextTokens > 0 && r.known.contextTokens <= c.window {
			continue
		}
		answer, v := c.entry(ctx, r, e, depth, depth == len(entries)-1)
		switch v {
		case verdictAnswered:
			answer.Calls = c.calls
			return answer, nil
		case verdictStop:
			return Answer{}, c.failed(ctx)
		case verdictNext:
		}
	}
	return Answer{}, c.failed(ctx)
}

// entry asks one entry until it answers, or its failure says to leave it.
func (c *completion) entry(ctx context.Context, r route, e workflow.ChainEntry, depth int, last bool) (Answer, verdict) {
	retries, lessons := 0, 0
	for try := 1; ; try++ {
		if len(c.calls) >= c.limit || ctx.Err() != nil {
			return Answer{}, verdictStop
		}
		reply, failure := c.call(ctx, r, e, depth, try)
		if failure == nil {
			return Answer{
				Reply: reply, Provider: r.to.Name(), Asked: r.model, Depth: depth, Try: try,
			}, verdictAnswered
		}
		rule := ruleOf(failure.Class)
		switch {
		case ctx.Err() != nil:
			return Answer{}, verdictStop
		case failure.Learned && lessons < lessonsMax: // the same question, put differently: at once, and not as a retry
			lessons++
		case !rule.next:
			return Answer{}, verdictStop
		case c.again(ctx, e, failure, retries, last):
			retries++
		default:
			if failure.Class == provider.ClassContextLength && r.known != nil {
				c.window = max(c.window, r.known.contextTokens)
			}
			return Answer{}, verdictNext
		}
	}
}

// again decides whether the same entry is asked again, and waits for it.
func (c *completion) again(ctx context.Context, e workflow.ChainEntry, failure *provider.Error, retries int, last bool) bool {
	rule := ruleOf(failure.Class)
	allowed := rule.retry || failure.Class == provider.ClassTimeout && e.RetryTimeouts
	if !allowed || failure.NoRetry || retries >= e.Retries || rule.once && retries > 0 {
		return false
	}
	wait := max(backoff(retries), failure.RetryAfter)
	limit := waitMax
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		if limit = min(limit, left/2); last { // nobody else to ask: whatever fits
			limit = left - time.Millisecond
		}
	}
	if wait > limit {
		return false
	}
	return pause(ctx, wait)
}

// backoff is exponential with full jitter.
func backoff(retries int) time.Duration {
	limit := min(backoffBase<<min(retries, 10), backoffMax)
	return rand.N(limit + 1)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// call makes one request and writes it down.
func (c *completion) call(ctx context.Context, r route, e workflow.ChainEntry, depth, try int) (provider.Reply, *provider.Error) {
	if e.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.Timeout)
		defer cancel()
	}
	line := usage.Call{Provider: r.to.Name(), Model: r.model, Simulated: r.to.Simulated, Depth: depth, Try: try}
	price := c.g.price(r, c.g.now())
	c.g.metrics.ModelInFlight(line.Provider, 1)
	defer c.g.metrics.ModelInFlight(line.Provider, -1)
	began := time.Now()
	reply, err := r.to.Complete(ctx, provider.Call{
		Model: r.model, Ask: c.req.Ask, MaxTokens: c.maxTokens(r), Seed: fmt.Sprintf("%s/%d.%d", c.req.Seed, depth, try),
	})
	line.Millis = time.Since(began).Milliseconds()
	failure := asFailure(ctx, err)
	if failure == nil {
		line.Tokens, line.Estimated = reply.Tokens, reply.Estimated
	} else {
		line.Tokens, line.Estimated = failure.Tokens, failure.Estimated
	}
	if line.Tokens.Total() > 0 {
		if price == nil {
			line.Unpriced = true
		} else {
			line.Cost = price.Cost(line.Tokens)
		}
	}
	c.note(line, failure)
	return reply, failure
}

// maxTokens bounds the answer: as the agent says, else the default, never more than the model can.
func (c *completion) maxTokens(r route) int {
	n := c.req.Ask.MaxTokens
	if n <= 0 {
		n = TokensDefault
		if r.known != nil && r.known.reasoning {
			n = TokensReasoningDefault
		}
	}
	if r.known != nil && r.known.outputTokens > 0 {
		n = min(n, r.known.outputTokens)
	}
	return n
}

// asFailure takes what an adapter returned. One that breaks its word is unknown.
func asFailure(ctx context.Context, err error) *provider.Error {
	if err == nil {
		return nil
	}
	var failure *provider.Error
	switch {
	case errors.As(err, &failure):
		return failure
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &provider.Error{Class: provider.ClassTimeout, Message: "no answer in time"}
	case ctx.Err() != nil:
		return &provider.Error{Class: provider.ClassCancelled, Message: "the call was cut"}
	}
	return &provider.Error{Class: provider.ClassUnknown, Message: err.Error()}
}

func (c *completion) note(line usage.Call, failure *provider.Error) {
	if failure != nil {
		line.Class, line.Message = string(failure.Class), failure.Message
		c.failures = append(c.failures, failure)
		c.g.log.Debug("model call failed", "provider", line.Provider, "model", line.Model, "class", line.Class, "message", line.Message)
	}
	c.calls = append(c.calls, line)
}

// failed tells of all that failed by the last failure that means something.
func (c *completion) failed(ctx context.Context) *FailedError {
	e := &FailedError{Calls: c.calls}
	primary := len(c.failures) - 1
	for i := primary; i >= 0; i-- {
		if !ruleOf(c.failures[i].Class).minor {
			primary = i
			break
		}
	}
	if primary >= 0 {
		f, line := c.failures[primary], c.calls[primary]
		e.Class, e.RetryAfter = string(f.Class), f.RetryAfter
		e.Message = fmt.Sprintf("%s: %s", line.Model, f.Message)
		if line.Provider != "" && line.Provider != line.Model {
			e.Message = fmt.Sprintf("%s at %s: %s", line.Model, line.Provider, f.Message)
		}
		if n := len(c.calls); n > 1 {
			e.Message += fmt.Sprintf(" (the last that counts of %d failed calls)", n)
		}
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Class = string(provider.ClassTimeout)
	case ctx.Err() != nil:
		e.Class = string(provider.ClassCancelled)
	}
	if e.Message == "" {
		e.Message = "no request was made"
	}
	return e
}
