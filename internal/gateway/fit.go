package gateway

import (
	"context"
	"fmt"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/workflow"
)

// maxTokens bounds the answer: as the agent says, else the default; twice that where the answer before was cut; never more
// than the model can.
func (c *completion) maxTokens(k *known, longer bool) int {
	n := c.req.Ask.MaxTokens
	if n <= 0 {
		n = TokensDefault
		if k != nil && k.reasoning {
			n = TokensReasoningDefault
		}
	}
	if longer {
		n *= 2
	}
	if k != nil && k.outputTokens > 0 {
		n = min(n, k.outputTokens)
	}
	return n
}

// canLonger reports whether a model can make a longer answer than it was asked for.
func (c *completion) canLonger(e *entry) bool {
	return c.maxTokens(e.route.known, true) > c.maxTokens(e.route.known, false)
}

// window is how many tokens a prompt may have at an entry; 0: nobody knows a limit.
func (c *completion) window(e *entry) int64 {
	limit := c.req.ContextTokens
	if k := e.route.known; k != nil && k.contextTokens > 0 {
		room := max(k.contextTokens-int64(c.maxTokens(k, false)), k.contextTokens/8)
		if limit == 0 || room < limit {
			limit = room
		}
	}
	return limit
}

// over is by how many tokens the prompt is longer than an entry has room for. Tokens are counted only where the number of
// bytes does not already tell.
func (c *completion) over(e *entry) int64 {
	limit := c.window(e)
	if limit == 0 || provider.AtMost(c.req.Ask) <= limit {
		return 0
	}
	return max(c.promptTokens(e.route.model)-limit, 0)
}

// promptTokens estimates the prompt, once for each model.
func (c *completion) promptTokens(model string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.counted[model]
	if !ok {
		n = provider.CountAsk(c.req.Ask, model)
		if c.counted == nil {
			c.counted = map[string]int64{}
		}
		c.counted[model] = n
	}
	return n
}

// fit makes the prompt fit the window by the agent's rule, or refuses it: never silently.
func (q *request) fit() *provider.Error {
	over := q.c.over(q.e)
	if over == 0 {
		return nil
	}
	if q.c.req.Overflow == workflow.OverflowTrim {
		count := func(s string) int64 { return provider.CountTokens(s, q.e.route.model) }
		if ask, trimmed, ok := agent.Trim(q.ask, over, count); ok {
			q.ask, q.line.Trimmed = ask, trimmed
			return nil
		}
	}
	return &provider.Error{Class: provider.ClassContextLength, Message: fmt.Sprintf(
		"the prompt is about %d tokens longer than the %d that %s has room for; pass on less, choose a model with a larger window, or set context.overflow to trim",
		over, q.c.window(q.e), q.e.route.model)}
}

// countInput counts the tokens of the prompt: the provider does where it can and is configured to, else they are estimated,
// with headroom, because providers count a little differently.
func (q *request) countInput(ctx context.Context) int64 {
	if by, ok := q.e.route.to.Provider.(provider.Counter); ok {
		if n, err := by.CountTokens(ctx, provider.Call{Model: q.e.route.model, Ask: q.ask}); err == nil {
			return n
		}
	}
	n := q.c.promptTokens(q.e.route.model) - q.line.Trimmed
	return n + n/10
}
