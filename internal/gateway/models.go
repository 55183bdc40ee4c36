package gateway

import "time"

// Model is one model of the roster, as it stands here and now.
type Model struct {
	Name          string   `json:"name"`
	Aliases       []string `json:"aliases,omitempty"`
	Vendor        string   `json:"vendor"`
	Family        string   `json:"family"`
	Tier          int      `json:"tier"`      // of cost: 1, the cheapest, to 5
	Speed         string   `json:"speed"`     // slow, medium, fast or very_fast
	Strengths     []string `json:"strengths"` // task classes
	Zone          string   `json:"zone,omitempty"`
	ContextTokens int64    `json:"context_tokens,omitempty"` // 0: not known
	OutputTokens  int      `json:"output_tokens,omitempty"`  // 0: not known
	Capabilities  []string `json:"capabilities"`             // of tools, schema, vision, caching, reasoning
	Reasoning     bool     `json:"reasoning,omitempty"`

	Price        *Price  `json:"price,omitempty"`    // that holds now; nil: unknown
	Provider     string  `json:"provider,omitempty"` // that serves it; empty: none does
	Simulated    bool    `json:"simulated,omitempty"`
	Subscription string  `json:"subscription,omitempty"` // the flat plan that serves those who wait
	Health       *Health `json:"health,omitempty"`       // nil: nobody serves it
}

// Health is how the provider of a model does with it at the moment.
type Health struct {
	State   string    `json:"state"`          // closed, half_open or open, as its breaker stands
	Until   time.Time `json:"until,omitzero"` // when an open one is tried again
	Reason  string    `json:"reason,omitempty"`
	FirstMS int64     `json:"first_token_ms,omitempty"` // until an answer begins, lately; 0: not known
}

// Models is the roster with what each model costs now, who serves it and how that goes.
func (c *catalog) Models() []Model {
	now := c.now()
	list := make([]Model, 0, len(c.roster.models))
	for _, k := range c.roster.models {
		m := Model{
			Name: k.name, Aliases: k.aliases, Vendor: k.vendor, Family: k.family, Tier: k.tier, Speed: k.speed, Strengths: k.strengths, Zone: k.zone,
			ContextTokens: k.contextTokens, OutputTokens: k.outputTokens, Capabilities: k.capabilities(), Reasoning: k.reasoning,
		}
		r, err := c.route(k.name)
		if err == nil {
			m.Provider, m.Simulated, m.Health = r.to.Name(), r.to.Simulated, c.health(r)
			for _, through := range c.serving(k.name, ModeInteractive) {
				if m.Subscription = c.subscription(through); m.Subscription != "" {
					break
				}
			}
		}
		m.Price = c.price(r, now)
		list = append(list, m)
	}
	return list
}

func (c *catalog) health(r route) *Health {
	s := c.stands(r, "")
	return &Health{State: s.state, Until: s.until, Reason: s.reason, FirstMS: s.first.Milliseconds()}
}
