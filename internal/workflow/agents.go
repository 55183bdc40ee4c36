package workflow

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

var (
	agentKeys = keySet{
		known: []string{
			"role", "extends", "model", "chain", "route", "instructions", "output", "max_tokens", "temperature", "context", "description",
			"delegates", "gate", "max_turns",
		},
		later: []string{"input", "context_docs", "tools", "session", "memory"},
	}
	// answerKeys are those of the output of an agent; a tool has no summary.
	answerKeys   = keySet{known: []string{"contract", "schema", "format", "summary"}}
	summaryKeys  = keySet{known: []string{"max_tokens", "model"}}
	contextKeys  = keySet{known: []string{"max_tokens", "overflow"}}
	defaultsKeys = keySet{known: []string{"retry", "timeout", "chain", "gate", "on_error"}}
)

// Limits of agents.
const (
	MaxTokensMax   = 10_000_000
	TemperatureMax = 2.0
	DelegatesMax   = 20
	ExtendsMax     = 8 // agents that one extends, one through the other
	TurnsDefault   = 10
)

// routes are the classes of work that choose a chain when an agent is asked; auto leaves the class to the rules.
var routes = []string{"strategy", "production", "coding_and_scoring", "social", "research", "classification", "auto"}

// Routes are the task classes that an agent's route may name; auto is worked out from what is asked.
func Routes() []string { return slices.Clone(routes) }

// answererKeys say who answers for an agent: exactly one of them does.
var answererKeys = []string{"model", "chain", "route"}

func namesAnswerer(n *node) bool {
	return slices.ContainsFunc(answererKeys, func(key string) bool { return n.get(key) != nil })
}

// answerer lays model, chain or route of an agent or step over an agent: whichever is there replaces all three.
func (c *compiler) answerer(a *Agent, n *node) {
	model, chain, route := n.get("model"), n.get("chain"), n.get("route")
	if model != nil && chain != nil {
		c.p.add(chain.spot(), codeConflict, `"model" and "chain" exclude each other; a chain names its models itself`)
	}
	if other := cmp.Or(model, chain); route != nil && other != nil {
		c.p.add(route.spot(), codeConflict, `"route" and %q exclude each other; the class of work chooses the chain`, other.name)
	}
	switch {
	case model != nil:
		a.Chain, a.Route = Chain{Entries: []ChainEntry{{Model: c.p.word(model)}}}, ""
	case chain != nil:
		if k := c.chainValue(chain); k != nil {
			a.Chain, a.Route = *k, ""
		}
	case route != nil:
		a.Chain, a.Route = Chain{}, c.p.oneOf(route, routes...)
	}
}

func (c *compiler) defaults() {
	c.retry = Retry{
		MaxAttempts: 3, Initial: time.Second, Factor: 2, Max: time.Minute, Jitter: true,
		Classes: []string{"transient", "invalid_output", "tool_error"}, Feedback: true,
	}
	n := c.root.get("defaults")
	if n == nil || !c.p.object(n, "defaults", defaultsKeys) {
		return
	}
	c.retry = c.retryOver(c.retry, n.get("retry"))
	c.timeout = int64(c.p.duration(n.get("timeout"), TimeoutMax, 0))
	c.chain = c.chainValue(n.get("chain"))
}

// loneDefaults reads the defaults that no step took: what is wrong with them is said all the same.
func (c *compiler) loneDefaults() {
	n := c.root.get("defaults")
	if !slices.ContainsFunc(c.drafts, func(d *draftStep) bool { return d.gate != nil }) {
		c.gate(n.get("gate"), owner{place: placeMain, further: furtherAnswer, body: c.body})
	}
	if slices.ContainsFunc(c.drafts, func(d *draftStep) bool { return d.defaults }) {
		return
	}
	nobody := &draftStep{step: &Step{Kind: KindAgent, Agent: &AgentStep{}}, node: &node{kind: nodeObject}, body: c.body}
	before := len(c.sites)
	c.stepOnError(nobody)
	for _, s := range c.sites[before:] {
		s.owner.step = nil
	}
}

// draftAgent is an agent while the definition is compiled.
type draftAgent struct {
	node  *node // with the keys of what it extends
	agent Agent
	bare  bool // no model, no chain, no route, no default: each step must say who answers
	used  bool
}

func (c *compiler) namedAgents() {
	n := c.root.get("agents")
	if n != nil && c.p.kind(n, nodeObject) {
		c.w.Agents = make(map[string]*Agent, len(n.members))
		c.extendsCircles(n)
		for _, m := range n.members {
			c.p.name(m.spot(), "an agent", m.name)
			d := c.draftAgent(m.value, m.name)
			c.agents[m.name], c.w.Agents[m.name] = d, &d.agent
		}
		for _, m := range n.members {
			c.settle(c.agents[m.name])
		}
		c.delegateCircles()
	}
	if o := c.root.get("orchestrator"); o != nil {
		if d := c.knownAgent(o); d != nil && !(c.stored && d.bare) { // one that cannot answer was let in once
			c.w.Orchestrator = c.answering(o)
		}
	}
}

// knownAgent finds an agent by the name that stands at n, or reports that there is none.
func (c *compiler) knownAgent(n *node) *draftAgent {
	name := c.p.word(n)
	if name == "" {
		return nil
	}
	d, ok := c.agents[name]
	if !ok {
		c.unknownAgent(n, name, "there is no agent %q")
	}
	return d
}

func (c *compiler) unknownAgent(n *node, name, format string) {
	if c.planned { // it is not allowed to be used, and that is reported
		return
	}
	tail, edit := didYouMean(name, keysOf(c.agents))
	c.p.suggest(n.spot(), edit, codeUnknownAgent, format+"%s", clip(name), tail)
}

// answering finds an agent that works as it is defined, beside a step or instead of its own. It is never nil.
func (c *compiler) answering(n *node) *Agent {
	d := c.knownAgent(n)
	if d == nil {
		return &Agent{}
	}
	if d.bare {
		c.reportBare(d)
	}
	return &d.agent
}

// draftAgent reads what an agent is by itself; settle adds what it says of others.
func (c *compiler) draftAgent(n *node, name string) *draftAgent {
	d := &draftAgent{node: n, agent: Agent{Name: name, Pos: n.position()}}
	if !c.p.object(n, "an agent", agentKeys) {
		return d
	}
	c.p.text(n.get("description"))
	d.node = c.extended(n, 0)
	c.overlay(&d.agent, d.node, "output of agent "+name)
	if !namesAnswerer(d.node) {
		if c.chain != nil {
			d.agent.Chain = *c.chain
		}
		d.bare = c.chain == nil
	}
	return d
}

// settle reads what an agent says of other agents, once all of them are known.
func (c *compiler) settle(d *draftAgent) {
	c.delegates(&d.agent, d.node)
	if n := d.node.get("gate"); n != nil {
		d.agent.Gate = c.gate(n, owner{place: placeAgentGate, further: furtherAnswer, body: c.body, agent: d})
		if d.agent.Gate == nil {
			d.agent.Gate = noGate
		}
	}
}

// overlay lays the keys of n over an agent.
func (c *compiler) overlay(a *Agent, n *node, typeName string) {
	if v := n.get("role"); v != nil {
		a.Role = c.p.oneOf(v, "orchestrator", "grinder", "validator")
	}
	if v := n.get("instructions"); v != nil && c.p.kind(v, nodeText) {
		a.Instructions = v.text
		c.noTemplate(v, "instructions hold no expressions; put them into the prompt of the step")
	}
	c.answerer(a, n)
	if v := n.get("output"); v != nil {
		a.Output, a.Summary = c.contract(v, typeName, answerKeys), c.summary(v.get("summary"))
	}
	if v := n.get("max_tokens"); v != nil {
		a.MaxTokens = c.p.integer(v, 1, MaxTokensMax, 0)
	}
	if v := n.get("max_turns"); v != nil {
		a.MaxTurns = c.p.integer(v, 1, TurnsMax, 0)
	}
	if v := n.get("temperature"); v != nil && c.p.kind(v, nodeNumber) {
		t := c.p.number(v, 0, TemperatureMax, 0)
		a.Temperature = &t
	}
	if v := n.get("context"); v != nil && c.p.object(v, "context", contextKeys) {
		a.ContextTokens = int64(c.p.integer(v.get("max_tokens"), 1, MaxTokensMax, 0))
		a.Overflow = c.overflow(v.get("overflow"))
	}
}

// summary reads how the short form of an output is made.
func (c *compiler) summary(n *node) *Summary {
	if n == nil || !c.p.object(n, "a summary", summaryKeys) {
		return nil
	}
	return &Summary{
		MaxTokens: c.p.integer(c.p.need(n, "max_tokens", "a summary"), 1, MaxTokensMax, 0),
		Model:     c.p.word(n.get("model")),
	}
}

func (c *compiler) overflow(n *node) Overflow {
	if n == nil {
		return OverflowFail
	}
	if n.kind == nodeText && (n.text == "summarize" || n.text == "artifact") {
		c.p.add(n.spot(), codeNotSupported, "the overflow %s is part of the format but this version does not run it", n.text)
		return OverflowFail
	}
	return Overflow(c.p.oneOf(n, string(OverflowFail), string(OverflowTrim)))
}

// noTemplate refuses expressions where the text is taken as it is.
func (c *compiler) noTemplate(n *node, why string) {
	if i := strings.Index(n.text, exprOpen); i >= 0 {
		c.p.add(c.locate(n, i, 0), codeExprPlace, "%s", why)
	}
}

// reportBare says of each agent that nobody can answer for.
func (c *compiler) reportBare(d *draftAgent) {
	c.p.suggest(d.node.spot(), `"chain": "production"`, codeNoModel,
		`the agent %q has neither "model" nor "chain"; give it one, or set defaults.chain (production, reasoning and classification are there)`, d.agent.Name)
}
