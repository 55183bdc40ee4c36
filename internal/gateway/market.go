package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// standing is how a provider does with a model at the moment.
type standing struct {
	state  string // closed, half_open or open
	until  time.Time
	reason string
	first  time.Duration // until an answer begins, lately; 0: not known
	warm   bool          // the prompt of this conversation is in its cache
}

// stands asks for the standing of a route.
func (c *catalog) stands(r route, session string) standing {
	if c.standing == nil {
		return standing{state: breakerClosed.String()}
	}
	return c.standing(r, session)
}

// Candidate is a model that was considered, and what speaks for and against it.
type Candidate struct {
	Model        string   `json:"model"`
	Provider     string   `json:"provider,omitempty"` // who serves it; empty: nobody
	Simulated    bool     `json:"simulated,omitempty"`
	Subscription string   `json:"subscription,omitempty"` // the flat plan that pays for it
	Tier         int      `json:"tier,omitempty"`         // 0: not in the roster
	Speed        string   `json:"speed,omitempty"`
	Strengths    []string `json:"strengths,omitempty"`
	Accepted     bool     `json:"accepted"`       // it can answer this
	Rank         int      `json:"rank,omitempty"` // its place in the chain, from 1; 0: not in it
	Reasons      []string `json:"reasons"`        // why it was refused, or stands where it stands

	Breaker string `json:"breaker,omitempty"` // closed, half_open or open
	// Score is what balanced picks go by, the smaller the better: share of the cost and of the time, weighted by mode.
	Score        float64     `json:"score"`
	CostScore    float64     `json:"cost_score"`    // expected cost as a share of the dearest candidate's
	LatencyScore float64     `json:"latency_score"` // time to the first token as a share of the slowest one's
	FirstMS      int64       `json:"first_token_ms"`
	Warm         bool        `json:"warm,omitempty"` // this conversation is in its cache
	Low          usage.Money `json:"cost_low_nano"`
	Expected     usage.Money `json:"cost_expected_nano"`
	High         usage.Money `json:"cost_high_nano"`
	Unpriced     bool        `json:"unpriced,omitempty"` // what it costs is not known
}

// What is expected where nothing is known.
const (
	// answerShare of what an answer may have at most is what it is expected to have.
	answerShare = 4
	// How much the cost counts in a score, the time to the first token being the rest.
	costWeightInteractive = 0.4
	costWeightBatch       = 0.8
)

// firstBySpeed is the time to the first token where it was never measured.
var firstBySpeed = map[string]time.Duration{
	SpeedVeryFast: 400 * time.Millisecond, SpeedFast: 800 * time.Millisecond, SpeedMedium: 1500 * time.Millisecond, SpeedSlow: 3 * time.Second,
	"": 1500 * time.Millisecond,
}

// market is what is on offer for one question. A model is looked at when it is asked for.
type market struct {
	c     *catalog
	q     *Question
	when  time.Time
	seen  map[string]*Candidate
	order []string
	real  bool // somebody serves models that are no simulation
}

func (c *catalog) market(q *Question) *market {
	return &market{
		c: c, q: q, when: c.now(), seen: map[string]*Candidate{},
		real: slices.ContainsFunc(c.providers, func(p Provider) bool { return !p.Simulated }),
	}
}

// of looks at one model, named as an entry of a chain names it.
func (m *market) of(model string) *Candidate {
	if have := m.seen[model]; have != nil {
		return have
	}
	a := &Candidate{Model: model, Reasons: []string{}}
	m.seen[model] = a
	m.order = append(m.order, model)
	routes := m.c.serving(model, m.q.Mode)
	k := m.c.roster.find(m.c.bare(model))
	if k != nil {
		a.Tier, a.Speed, a.Strengths = k.tier, k.speed, k.strengths
	}
	if len(routes) == 0 {
		a.Reasons = append(a.Reasons, "no provider serves it")
		return a
	}
	r := routes[0]
	s := m.c.stands(r, m.q.Session)
	a.Provider, a.Simulated, a.Subscription = r.to.Name(), r.to.Simulated, r.to.Subscription
	a.Breaker, a.Warm, a.FirstMS = s.state, s.warm, s.first.Milliseconds()
	if a.FirstMS == 0 {
		a.FirstMS = firstBySpeed[a.Speed].Milliseconds()
	}
	m.quote(a, r, s.warm)
	if a.Reasons = m.refuse(r.known); len(a.Reasons) > 0 {
		return a
	}
	a.Accepted = true
	return a
}

// answer is how many tokens the answer of a model may have at most.
func (m *market) answer(k *known) int64 { return answerTokens(k, m.q.MaxTokens) }

// answerTokens bounds the answer of a model: as it is asked for, else the default; never more than the model can.
func answerTokens(k *known, asked int) int64 {
	n := int64(asked)
	if n <= 0 {
		n = TokensDefault
		if k != nil && k.reasoning {
			n = TokensReasoningDefault
		}
	}
	if k != nil && k.outputTokens > 0 {
		n = min(n, int64(k.outputTokens))
	}
	return n
}

// quote says what a call would cost: at least, probably, at most.
func (m *market) quote(a *Candidate, r route, warm bool) {
	p := m.c.price(r, m.when)
	if p == nil {
		a.Unpriced = r.to.Subscription == ""
		return
	}
	in, out := m.q.InputTokens, m.answer(r.known)
	least, likely := usage.Tokens{Input: in, Output: 1}, usage.Tokens{Input: in, Output: max(out/answerShare, 1)}
	if warm && r.known.can(CapCaching) {
		least.Input, least.CacheRead = 0, in
		likely.Input, likely.CacheRead = 0, in
	}
	a.Low, a.Expected, a.High = r.cost(p, least), r.cost(p, likely), r.atMost(p, in, out)
}

// refuse says why a model cannot answer the question. None: it can, as far as anybody knows.
func (m *market) refuse(k *known) []string {
	reasons := []string{}
	if k == nil {
		return reasons
	}
	for _, need := range m.q.Needs {
		if !k.can(need) {
			reasons = append(reasons, map[string]string{
				CapTools: "it calls no tools", CapSchema: "it has no structured output", CapVision: "it sees no pictures",
			}[need])
		}
	}
	if need := m.q.InputTokens + min(m.answer(k), k.contextTokens/8); k.contextTokens > 0 && need > k.contextTokens {
		reasons = append(reasons, fmt.Sprintf("its window of %d tokens is too small for about %d", k.contextTokens, need))
	}
	return reasons
}

// able keeps the entries of a chain whose models can answer, in their order.
func (m *market) able(chain workflow.Chain) workflow.Chain {
	able := chain
	able.Entries = nil
	for _, e := range chain.Entries {
		if m.of(e.Model).Accepted {
			able.Entries = append(able.Entries, e)
		}
	}
	return able
}

// all looks at every model of the roster and gives those that can answer and are known to be good at something: nobody
// wants to be sent to the others unasked. A simulation stands in for nobody where there are real models.
func (m *market) all() []*Candidate {
	for _, k := range m.c.roster.models {
		m.of(k.name)
	}
	var able []*Candidate
	for _, name := range m.order {
		if a := m.seen[name]; a.Accepted && len(a.Strengths) > 0 && (!a.Simulated || !m.real) {
			able = append(able, a)
		}
	}
	m.score(able)
	return able
}

// score compares candidates. Those that no price is known of count as the dearest.
func (m *market) score(able []*Candidate) {
	dearest, slowest := usage.Money(1), int64(1)
	for _, a := range able {
		dearest, slowest = max(dearest, a.Expected), max(slowest, a.FirstMS)
	}
	w := costWeightBatch
	if m.q.Mode == ModeInteractive {
		w = costWeightInteractive
	}
	for _, a := range able {
		a.CostScore = float64(a.Expected) / float64(dearest)
		if a.Unpriced {
			a.CostScore = 1
		}
		a.LatencyScore = float64(a.FirstMS) / float64(slowest)
		a.Score = w*a.CostScore + (1-w)*a.LatencyScore
	}
}

// breakerRank has those that answer before those that are tried, and these before those that are not let through.
var breakerRank = map[string]int{breakerClosed.String(): 0, breakerHalfOpen.String(): 1, breakerOpen.String(): 2}

// pick chooses models that can answer and, if it says so, are strong at a class: first those whose breaker is closed,
// then by what the pick goes by; of equals, the name decides. An unpriced model is never the cheapest.
func (m *market) pick(by, strong string) []string {
	able := m.all()
	able = slices.DeleteFunc(slices.Clone(able), func(a *Candidate) bool {
		return strong != "" && !slices.Contains(a.Strengths, strong) || a.Unpriced && by == PickCheapest
	})
	slices.SortStableFunc(able, func(a, b *Candidate) int {
		first := cmp.Or(m.avoided(a)-m.avoided(b), cmp.Compare(breakerRank[a.Breaker], breakerRank[b.Breaker]))
		switch by {
		case PickCheapest:
			first = cmp.Or(first, cmp.Compare(a.Expected, b.Expected))
		case PickBest:
			first = cmp.Or(first, cmp.Compare(b.Tier, a.Tier))
		}
		return cmp.Or(first, cmp.Compare(a.Score, b.Score), strings.Compare(a.Model, b.Model))
	})
	return namesOf(able[:min(len(able), pickedMax)])
}

func (m *market) avoided(a *Candidate) int { return asLast(m.c.isAvoided(m.q.Avoid, a.Model)) }

// paidFor are the models that can answer and cost at most so much in the worst case, the cheapest first.
func (m *market) paidFor(amount usage.Money) []string {
	able := slices.DeleteFunc(m.all(), func(a *Candidate) bool {
		if a.Unpriced || a.High > amount {
			a.Reasons = append(a.Reasons, fmt.Sprintf("it may cost $%s, and $%s are left", a.High, amount))
			return true
		}
		return false
	})
	slices.SortStableFunc(able, func(a, b *Candidate) int {
		return cmp.Or(cmp.Compare(breakerRank[a.Breaker], breakerRank[b.Breaker]), cmp.Compare(a.High, b.High), cmp.Compare(a.Score, b.Score), strings.Compare(a.Model, b.Model))
	})
	return namesOf(able[:min(len(able), pickedMax)])
}

func namesOf(list []*Candidate) []string {
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.Model
	}
	return names
}

// refusals tells of the first few refusals.
func (m *market) refusals() string {
	var said []string
	for _, name := range m.order {
		if a := m.seen[name]; len(a.Reasons) > 0 && a.Provider != "" {
			said = append(said, a.Model+": "+a.Reasons[0])
		}
	}
	switch {
	case len(said) == 0:
		return "no provider serves any model of the roster"
	case len(said) > 3:
		said = append(said[:3], "…")
	}
	return strings.Join(said, "; ")
}

// affordable are the models that a budget with so much left still pays for, the cheapest first: those of the entries
// that are left before the rest of the roster.
func (c *catalog) affordable(left []*entry, req Request, amount usage.Money) []*entry {
	q := questionOf("", req.Caller, req.Ask)
	q.InputTokens += q.InputTokens / 10
	m := c.market(&q)
	var list []*entry
	for _, e := range left {
		a := m.of(e.Model)
		if p := c.price(e.route, m.when); a.Accepted && (e.route.to.Subscription != "" || p != nil && e.route.atMost(p, q.InputTokens, m.answer(e.route.known)) <= amount) {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b *entry) int { return cmp.Compare(m.of(a.Model).High, m.of(b.Model).High) })
	depth := len(req.Chain.Entries)
	for _, e := range entriesOf(m.paidFor(amount), &Rule{}) {
		if slices.ContainsFunc(list, func(have *entry) bool { return have.Model == e.Model }) {
			continue
		}
		if routes := c.serving(e.Model, req.Caller.Mode); len(routes) > 0 {
			list = append(list, &entry{ChainEntry: e, route: routes[0], depth: depth})
			depth++
		}
	}
	return list
}
