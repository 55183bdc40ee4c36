package gateway

import (
	"context"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/workflow"
)

// classTokens bounds the answer of a classifier: it is one word.
const classTokens = 20

// chosen is the chain that the rules choose for a question, and the rule. Where a rule has a model name the class of the
// question, that is a call of its own, recorded with the others.
func (c *completion) chosen(ctx context.Context) (workflow.Chain, string, error) {
	q := questionOf(c.req.Route, c.req.Caller, c.req.Ask)
	q.Session, q.CallsPerDay, q.Avoid = c.req.Session, c.g.volumes.add(c.req.Caller, time.Now()), c.req.Avoid
	if q.Route == ClassAuto {
		if d, err := c.g.Decide(q); err == nil && d.Classify != nil {
			q.Class = c.classify(ctx, d.Classify, q.Text)
		}
	}
	return c.g.choose(q)
}

// classify has a cheap model name the class. If it cannot, it is empty, and the words of the question decide: a classifier
// that is away must not keep anybody from being answered.
func (c *completion) classify(ctx context.Context, by *Classify, text string) string {
	sub := &completion{
		g: c.g, limit: min(c.limit-1, len(by.Chain.Entries)), rule: "classify:" + by.Rule, noBaseline: true,
		req: Request{
			Caller: c.req.Caller, Chain: by.Chain, Seed: c.req.Seed + "/class",
			Ask: agent.Ask{MaxTokens: classTokens, Messages: []agent.Message{
				{Role: agent.RoleSystem, Content: by.Prompt, Stable: true}, {Role: agent.RoleUser, Content: text},
			}},
		},
	}
	if sub.limit < 1 {
		return ""
	}
	answer, err := sub.run(ctx)
	c.calls, c.begun, c.upstream = sub.calls, sub.begun, sub.upstream
	if err != nil {
		return ""
	}
	class, _ := by.Read(answer.Text)
	return class
}
