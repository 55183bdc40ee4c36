package gateway

import (
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Explanation is a routing decision with everything it was made of. Nothing is called and nothing is reserved for it.
type Explanation struct {
	Decision
	Why        string      `json:"why,omitempty"` // of the rule, in words
	Models     []string    `json:"chain"`         // that would be asked, in order
	Candidates []Candidate `json:"candidates"`    // those of the chain first, in its order, then the others that were looked at

	InputTokens int64       `json:"input_tokens"`       // as given, or estimated from the text
	MaxTokens   int         `json:"max_tokens"`         // of the first model's answer
	Low         usage.Money `json:"cost_low_nano"`      // if the first model answers at once, and briefly
	High        usage.Money `json:"cost_high_nano"`     // of the dearest model of the chain, with the longest answer: one answered call
	Unpriced    bool        `json:"unpriced,omitempty"` // what a model of the chain costs is not known, so High is not the end of it
	Error       string      `json:"error,omitempty"`    // why nobody would be asked
}

// Explain says which models a question would go to now, in which order, why, and at what price.
func (c *catalog) Explain(q Question) Explanation {
	if q.InputTokens == 0 && q.Text != "" {
		q.InputTokens = provider.CountTokens(q.Text, "")
	}
	m := c.market(&q)
	d, err := c.routing.decide(q, m)
	if err == nil && d.Classify != nil { // the rest is decided as if the model had answered what the scores say
		classify := d.Classify
		named := q
		if named.Class, _ = classOf(c.routing.classes, &q); named.Class == ClassUnclassified {
			named.Route, named.Class = "", ""
		}
		d, err = c.routing.decide(named, m)
		d.Classify = classify
	}
	x := Explanation{Decision: d, InputTokens: q.InputTokens, Models: []string{}}
	if err != nil {
		x.Error = err.Error()
	}
	for i := range c.routing.rules {
		if r := &c.routing.rules[i]; r.ID == d.Rule {
			x.Why = r.Why
		}
	}
	for _, e := range d.Chain.Entries {
		x.Models = append(x.Models, e.Model)
	}
	x.candidates(m)
	return x
}

// candidates lists what was looked at, with the places in the chain and the range of the price.
func (x *Explanation) candidates(m *market) {
	first := true
	for _, model := range x.Models {
		m.of(model)
	}
	m.all()
	for i, model := range x.Models {
		a := *m.of(model)
		if a.Accepted {
			a.Rank = i + 1
			if first {
				x.Low, x.MaxTokens, first = a.Low, int(m.answer(m.c.roster.find(m.c.bare(model)))), false
			}
			x.High = max(x.High, a.High)
			x.Unpriced = x.Unpriced || a.Unpriced
		}
		a.Reasons = append(slices.Clone(a.Reasons), m.standsFor(&a)...)
		x.Candidates = append(x.Candidates, a)
	}
	for _, model := range m.order {
		if slices.Contains(x.Models, model) {
			continue
		}
		a := *m.seen[model]
		if a.Accepted && len(a.Reasons) == 0 {
			a.Reasons = append(slices.Clone(a.Reasons), "it could, but is not in the chain")
			if a.Simulated && m.real {
				a.Reasons = []string{"it is simulated, and real models are served here"}
			}
		}
		x.Candidates = append(x.Candidates, a)
	}
}

// standsFor says what speaks for a candidate, and what may come in its way.
func (m *market) standsFor(a *Candidate) []string {
	if !a.Accepted {
		return nil
	}
	var said []string
	switch {
	case a.Subscription != "":
		said = append(said, "paid by the subscription "+a.Subscription)
	case a.Unpriced:
		said = append(said, "what it costs is not known")
	}
	if a.Warm {
		said = append(said, "this conversation is in its cache")
	}
	if a.Breaker == breakerOpen.String() {
		said = append(said, "its breaker is open: the next one is asked before it")
	}
	if a.Simulated {
		said = append(said, "simulated: no real model is called")
	}
	return said
}

// Chains are the chains that rules and questions may name.
func (c *catalog) Chains() map[string]workflow.Chain { return c.routing.chains }

// Decide says who is asked.
func (c *catalog) Decide(q Question) (Decision, error) { return c.routing.decide(q, c.market(&q)) }

// choose decides for a call, and names the rule. Rules that have a model name the class are passed over here.
func (c *catalog) choose(q Question) (workflow.Chain, string, error) {
	if q.Route == ClassAuto && q.Class == "" {
		if q.Class, _ = classOf(c.routing.classes, &q); q.Class == ClassUnclassified {
			q.Route, q.Class = "", ""
		}
	}
	d, err := c.Decide(q)
	if err != nil {
		return workflow.Chain{}, "", err
	}
	if d.By == ByDefault {
		return d.Chain, ByDefault, nil
	}
	return d.Chain, d.Rule, nil
}

// questionOf reads a question out of a call: what the agent is told to do and what it is asked last.
func questionOf(class string, caller Caller, ask agent.Ask) Question {
	q := Question{
		Route: class, Stakes: caller.Stakes, Mode: caller.Mode, Workflow: caller.Workflow, Agent: caller.Agent, Labels: caller.Labels,
		MaxTokens: ask.MaxTokens, InputTokens: provider.CountAsk(ask, ""),
	}
	var text strings.Builder
	last := -1
	for i, m := range ask.Messages {
		if m.Role == agent.RoleUser {
			last = i
		}
	}
	images := false
	for i, m := range ask.Messages {
		images = images || len(m.Images) > 0
		if m.Role == agent.RoleSystem || i == last {
			text.WriteString(m.Content)
			text.WriteByte('\n')
		}
	}
	q.Text = text.String()
	if len(ask.Tools) > 0 {
		q.Needs = append(q.Needs, CapTools)
	}
	if images {
		q.Needs = append(q.Needs, CapVision)
	}
	return q
}
