package workflow

import (
	"strings"
	"time"
)

var (
	agentKeys = keySet{
		known: []string{"role", "model", "chain", "instructions", "output", "max_tokens", "temperature", "description"},
		later: []string{
			"extends", "input", "route", "context_docs", "tools", "delegates", "gate", "max_turns", "session", "memory", "context",
		},
	}
	chainEntryKeys = keySet{known: []string{"model", "timeout", "retries", "retry_timeouts"}, later: []string{"accept"}}
	defaultsKeys   = keySet{known: []string{"retry", "timeout", "chain"}, later: []string{"gate", "on_error"}}
)

// Limits of agents and chains.
const (
	EntryRetriesMax = 10
	MaxTokensMax    = 10_000_000
	TemperatureMax  = 2.0
)

// builtinChains are there when a definition does not define chains of the same name.
func builtinChains() map[string]*Chain {
	entry := func(model string, seconds, retries int) ChainEntry {
		return ChainEntry{Model: model, Timeout: time.Duration(seconds) * time.Second, Retries: retries, RetryTimeouts: true}
	}
	return map[string]*Chain{
		"reasoning": {Name: "reasoning", Entries: []ChainEntry{
			entry("claude-opus-4-6", 60, 1), entry("gpt-4o", 45, 1), entry("claude-sonnet-4-6", 30, 2), entry("gemini-2.5-pro", 45, 1),
		}},
		"production": {Name: "production", Entries: []ChainEntry{
			entry("claude-sonnet-4-6", 30, 2), entry("gpt-4o", 30, 1), entry("grok-3", 20, 1),
		}},
		"classification": {Name: "classification", Entries: []ChainEntry{
			entry("claude-haiku-4-5", 10, 3), entry("claude-sonnet-4-6", 15, 1),
		}},
	}
}

func (c *compiler) chains() {
	c.w.Chains = builtinChains()
	n := c.root.get("chains")
	if n == nil || !c.p.kind(n, nodeObject) {
		return
	}
	for _, m := range n.members {
		c.p.name(m.spot(), "a chain", m.name)
		c.w.Chains[m.name] = &Chain{Name: m.name, Entries: c.entries(m.value)}
	}
}

func (c *compiler) entries(n *node) []ChainEntry {
	if !c.p.kind(n, nodeList) {
		return nil
	}
	if len(n.items) == 0 || len(n.items) > ChainEntriesMax {
		c.p.add(n.spot(), codeLimit, "a chain has 1 to %d entries, not %d", ChainEntriesMax, len(n.items))
	}
	var entries []ChainEntry
	for _, item := range n.items {
		if !c.p.object(item, "a chain entry", chainEntryKeys) {
			continue
		}
		e := ChainEntry{
			Model:         c.p.word(c.p.need(item, "model", "a chain entry")),
			Timeout:       c.p.duration(item.get("timeout"), TimeoutMax, 0),
			Retries:       c.p.integer(item.get("retries"), 0, EntryRetriesMax, 0),
			RetryTimeouts: c.p.boolean(item.get("retry_timeouts")),
		}
		for _, before := range entries {
			if e.Model != "" && before.Model == e.Model {
				c.p.add(item.get("model").spot(), codeConflict, "%q stands twice in the chain; give the first more retries", clip(e.Model))
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// chainValue reads the key chain: a name, or a list of entries.
func (c *compiler) chainValue(n *node) *Chain {
	switch {
	case n == nil || n.kind == nodeBad:
		return nil
	case n.kind == nodeList:
		return &Chain{Entries: c.entries(n)}
	case n.kind != nodeText:
		c.p.add(n.spot(), codeType, "must be the name of a chain or a list of entries, not %s", n.kind)
		return nil
	}
	name := c.p.word(n)
	if chain, ok := c.w.Chains[name]; ok {
		return chain
	}
	if name != "" {
		tail, edit := didYouMean(name, keysOf(c.w.Chains))
		c.p.suggest(n.spot(), edit, codeUnknownChain, "there is no chain %q%s", clip(name), tail)
	}
	return &Chain{Name: name, Entries: nil}
}

// models reads model or chain of an agent or step; nil: neither is there.
func (c *compiler) models(n *node) *Chain {
	model, chain := n.get("model"), n.get("chain")
	if model != nil && chain != nil {
		c.p.add(chain.spot(), codeConflict, `"model" and "chain" exclude each other; a chain names its models itself`)
	}
	if model != nil {
		return &Chain{Entries: []ChainEntry{{Model: c.p.word(model)}}}
	}
	return c.chainValue(chain)
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
	bare  bool // no model, no chain, no default: each step must say who answers
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
	d := &draftAgent{node: n, agent: Agent{Name: name}}
	if !c.p.object(n, "an agent", agentKeys) {
		return d
	}
	c.p.text(n.get("description"))
	c.overlay(&d.agent, n, "output of agent "+name)
	if n.get("model") == nil && n.get("chain") == nil {
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
	if chain := c.models(n); chain != nil {
		a.Chain = *chain
	}
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
