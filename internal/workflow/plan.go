package workflow

import (
	"encoding/json"
	"slices"
)

// PlanDepthMax bounds how deep plans may stand in plans.
const PlanDepthMax = 8

var (
	planKeys         = keySet{known: []string{"agent", "goal", "input", "output", "allow", "approval", "replan"}}
	allowKeys        = keySet{known: []string{"kinds", "agents", "tools", "max_steps", "max_depth", "max_usd"}}
	planApprovalKeys = keySet{known: []string{"when"}}
	// kindsPlanned are the kinds that a plan may use: another workflow is named before a run, not while it goes on.
	kindsPlanned = slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return k == KindWorkflow })
)

// planStep reads a plan.
func (c *compiler) planStep(d *draftStep) {
	s := &PlanStep{}
	d.step.Plan = s
	n := d.node.get("plan")
	if !c.p.object(n, "a plan", planKeys) {
		return
	}
	o := d.owner()
	o.volatile = true
	if agent := c.p.need(n, "agent", "a plan"); agent != nil {
		s.Planner = *c.answering(agent)
		c.chainFits(d, &s.Planner, agent)
	}
	if goal := c.p.need(n, "goal", "a plan"); c.p.kind(goal, nodeText) {
		s.Goal = c.template(goal, o)
	}
	s.Input = c.objectTemplate(n.get("input"), o)
	if v := n.get("output"); v != nil && v.kind != nodeBad {
		o := d.owner()
		o.further = furtherOutput
		s.Output = c.template(v, o)
	}
	s.Replan = c.p.integer(n.get("replan"), 0, ReplanMax, 0)
	if v := n.get("approval"); v != nil && c.p.object(v, "the approval of a plan", planApprovalKeys) {
		s.NeedsOK = true
		if when := v.get("when"); when != nil {
			o := d.owner()
			o.further = furtherEstimate
			s.OKWhen = c.condition(when, o)
		}
	}
	if allow := c.p.need(n, "allow", "a plan"); allow != nil && c.p.object(allow, "allow", allowKeys) {
		s.Allow = c.allow(allow)
	}
	s.Vocabulary = c.vocabulary(s)
}

// allow reads what bounds a plan.
func (c *compiler) allow(n *node) Allow {
	a := Allow{
		MaxSteps: c.p.integer(c.p.need(n, "max_steps", "allow"), 1, StepsMax, 0),
		MaxDepth: c.p.integer(c.p.need(n, "max_depth", "allow"), 1, PlanDepthMax, 0),
		MaxCost:  c.p.money(c.p.need(n, "max_usd", "allow"), BudgetMax),
	}
	if list := c.p.need(n, "kinds", "allow"); c.p.kind(list, nodeList) {
		if len(list.items) == 0 {
			c.p.add(list.spot(), codeRequired, "a plan needs at least one kind of step")
		}
		for _, item := range list.items {
			if k := Kind(c.p.oneOf(item, wordsOf(kindsPlanned)...)); k != "" && !slices.Contains(a.Kinds, k) {
				a.Kinds = append(a.Kinds, k)
			}
		}
	}
	if list := n.get("agents"); c.p.kind(list, nodeList) {
		for _, item := range list.items {
			if agent := c.answering(item); agent.Name != "" && !slices.Contains(a.Agents, agent.Name) {
				a.Agents = append(a.Agents, agent.Name)
			}
		}
	}
	if list := n.get("tools"); c.p.kind(list, nodeList) {
		for _, item := range list.items {
			if ref, _ := c.knownTool(item); ref != "" && !slices.Contains(a.Tools, ref) {
				a.Tools = append(a.Tools, ref)
			}
		}
	}
	return a
}

// vocabulary gathers what a planned definition may name: the agents it may use with all that these name, the planner
// where plans may hold plans, and every contract and chain.
func (c *compiler) vocabulary(s *PlanStep) Vocabulary {
	from := &lexicon{agents: c.root.get("agents"), contracts: c.root.get("contracts"), chains: c.root.get("chains")}
	from.chain = c.root.get("defaults").get("chain")
	names := slices.Clone(s.Allow.Agents)
	if slices.Contains(s.Allow.Kinds, KindPlan) {
		names = append(names, s.Planner.Name)
	}
	v := Vocabulary{Agents: map[string]json.RawMessage{}, Contracts: map[string]json.RawMessage{}, Chains: map[string]json.RawMessage{}}
	for _, name := range names {
		from.agent(name)
	}
	for name, agent := range from.named {
		v.Agents[name] = agent.canonical()
	}
	for name, n := range from.contracts.byName() {
		v.Contracts[name] = n.canonical()
	}
	for name, n := range from.chains.byName() {
		v.Chains[name] = n.canonical()
	}
	return v
}

// lexicon is where names that a definition uses are looked up.
type lexicon struct {
	agents, contracts, chains *node
	chain                     *node            // of agents that do not say who answers; nil: they all do
	named                     map[string]*node // agents that are named, each with all that it names
}

// agent adds an agent and those it names.
func (l *lexicon) agent(name string) {
	n := l.agents.get(name)
	if n == nil || l.named[name] != nil {
		return
	}
	if l.named == nil {
		l.named = map[string]*node{}
	}
	l.named[name] = n
	for _, other := range textsUnder(n, agentNamingKeys...) {
		l.agent(other)
	}
	if l.chain != nil && n.kind == nodeObject && !namesAnswerer(n) && n.get("extends") == nil {
		whole := *n
		whole.members = slices.Clone(n.members)
		chain := *l.chain
		whole.put("chain", &chain)
		l.named[name] = &whole
	}
}

// agentNamingKeys are the keys that an agent, or a step, names agents under: what it extends, its delegates and judges,
// who works, who stands in for another, who decides, and whom a plan in a plan may use.
var agentNamingKeys = []string{"agent", "extends", "judge", "to", "delegates", "agents"}

// textsUnder are the texts, and those in lists, that stand under some keys at any depth.
func textsUnder(n *node, keys ...string) []string {
	var texts []string
	for _, v := range n.items {
		texts = append(texts, textsUnder(v, keys...)...)
	}
	for _, m := range n.members {
		if slices.Contains(keys, m.name) {
			for _, v := range append([]*node{m.value}, m.value.items...) {
				if v.kind == nodeText {
					texts = append(texts, v.text)
				}
			}
		}
		texts = append(texts, textsUnder(m.value, keys...)...)
	}
	return texts
}

// byName are the members of an object, or of nothing.
func (n *node) byName() map[string]*node {
	all := map[string]*node{}
	if n != nil {
		for _, m := range n.members {
			all[m.name] = m.value
		}
	}
	return all
}
