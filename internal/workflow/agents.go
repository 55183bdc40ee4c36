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
			"role", "model", "chain", "route", "instructions", "output", "max_tokens", "temperature", "context", "description",
		},
		later: []string{"extends", "input", "context_docs", "tools", "delegates", "gate", "max_turns", "session", "memory"},
	}
	contextKeys  = keySet{known: []string{"max_tokens", "overflow"}}
	defaultsKeys = keySet{known: []string{"retry", "timeout", "chain"}, later: []string{"gate", "on_error"}}
)

// Limits of agents.
const (
	MaxTokensMax   = 10_000_000
	TemperatureMax = 2.0
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

// draftAgent is an agent while the definition is compiled.
type draftAgent struct {
	node  *node
	agent Agent
	bare  bool // no model, no chain, no route, no default: each step must say who answers
	used  bool
}

func (c *compiler) namedAgents() {
	n := c.root.get("agents")
	if n != nil && c.p.kind(n, nodeObject) {
		c.w.Agents = make(map[string]*Agent, len(n.members))
		for _, m := range n.members {
			c.p.name(m.spot(), "an agent", m.name)
			d := c.draftAgent(m.value, m.name)
			c.agents[m.name], c.w.Agents[m.name] = d, &d.agent
		}
	}
	if o := c.root.get("orchestrator"); o != nil {
		c.knownAgent(o)
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
		tail, edit := didYouMean(name, keysOf(c.agents))
		c.p.suggest(n.spot(), edit, codeUnknownAgent, "there is no agent %q%s", clip(name), tail)
	}
	return d
}

func (c *compiler) draftAgent(n *node, name string) *draftAgent {
	d := &draftAgent{node: n, agent: Agent{Name: name, Pos: n.position()}}
	if !c.p.object(n, "an agent", agentKeys) {
		return d
	}
	c.p.text(n.get("description"))
	c.overlay(&d.agent, n, "output of agent "+name)
	if !namesAnswerer(n) {
		if c.chain != nil {
			d.agent.Chain = *c.chain
		}
		d.bare = c.chain == nil
	}
	return d
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
		a.Output = c.contract(v, typeName)
	}
	if v := n.get("max_tokens"); v != nil {
		a.MaxTokens = c.p.integer(v, 1, MaxTokensMax, 0)
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
