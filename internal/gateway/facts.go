package gateway

import "github.com/fermata-run/fermata/internal/workflow"

// picoPerNano: a Rate is in pico-USD, what a workflow is told in nano-USD.
const picoPerNano = 1_000

// tokensBySpeed is how fast an answer is written, in tokens a second, as far as its speed class tells.
var tokensBySpeed = map[string]float64{SpeedVeryFast: 150, SpeedFast: 80, SpeedMedium: 60, SpeedSlow: 40}

// Model implements workflow.Roster: what is known of a model before it is asked. The price is the one that holds now for
// a short prompt, fresh, at the provider that serves the model when nobody waits; nothing where a flat plan pays. False:
// nobody serves it, and the roster does not have it.
func (c *catalog) Model(name string) (workflow.ModelFacts, bool) {
	r, err := c.route(name)
	if r.known == nil {
		r.known = c.roster.find(c.bare(name))
	}
	if err != nil && r.known == nil {
		return workflow.ModelFacts{}, false
	}
	f := workflow.ModelFacts{Family: c.Family(name)}
	if k := r.known; k != nil {
		f.Tier, f.ContextTokens, f.TokensPerS = k.tier, k.contextTokens, tokensBySpeed[k.speed]
	}
	f.AnswerTokens = answerTokens(r.known, 0)
	switch p := c.price(r, c.now()); {
	case c.subscription(r) != "":
		f.Priced = true
	case p != nil:
		f.Priced = true
		f.Input, f.Output = float64(p.Tiers[0].Input)/picoPerNano, float64(p.Tiers[0].Output)/picoPerNano
	}
	return f, true
}

var _ workflow.Roster = (*Gateway)(nil)
