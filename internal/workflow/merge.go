package workflow

import (
	"slices"
	"strconv"
)

var (
	mergeKeys  = keySet{known: []string{"of", "strategy", "by", "quorum", "agent", "output"}}
	strategies = []Strategy{StrategyCollect, StrategyFirst, StrategyMajority, StrategyConsensus, StrategyJudge}
	// strategiesComparing are those that ask whether outputs are equal.
	strategiesComparing = []Strategy{StrategyMajority, StrategyConsensus}
)

func (c *compiler) mergeStep(d *draftStep) {
	m := &MergeStep{}
	d.step.Merge = m
	n := d.node.get("merge")
	if !c.p.object(n, "a merge", mergeKeys) {
		return
	}
	if of := c.p.need(n, "of", "a merge"); of != nil {
		d.members = c.namesIn(of)
		if of.kind == nodeList && len(of.items) == 0 {
			c.p.add(of.spot(), codeRequired, "a merge needs at least one step to merge")
		}
	}
	if v := c.p.need(n, "strategy", "a merge"); v != nil {
		m.Strategy = Strategy(c.p.oneOf(v, wordsOf(strategies)...))
	}
	if v := n.get("quorum"); v != nil {
		m.Quorum = c.p.integer(v, 1, StepsMax, 0)
		if members := len(d.members); m.Quorum > max(members, 1) {
			c.p.suggest(v.spot(), strconv.Itoa(members), codeValue, "a quorum of %d cannot be reached: %s merged", m.Quorum, countAre(members, "step"))
		}
	}
	if by := n.get("by"); by != nil {
		o := d.owner()
		o.further = furtherOutput
		m.By = c.bare(by, o, wantAny)
	}
	if m.Strategy != "" {
		c.mergeFits(m, n)
	}
	if m.Strategy == StrategyJudge {
		c.mergeJudge(d, n)
	}
}

// mergeFits refuses keys that mean nothing to the strategy.
func (c *compiler) mergeFits(m *MergeStep, n *node) {
	refuse := func(key, why string) {
		for _, in := range n.members {
			if in.name == key {
				c.p.add(in.spot(), codeConflict, "the strategy %s %s; %q has no meaning with it", m.Strategy, why, key)
			}
		}
	}
	if !slices.Contains(strategiesComparing, m.Strategy) {
		refuse("by", "compares nothing")
	}
	if m.Strategy == StrategyFirst {
		refuse("quorum", "takes one answer")
	}
	if m.Strategy != StrategyJudge {
		refuse("agent", "asks nobody")
		refuse("output", "takes the outputs as they are")
	}
}

// mergeJudge reads who judges. What a judge answers is its output, or the one written here.
func (c *compiler) mergeJudge(d *draftStep, n *node) {
	d.step.Merge.Agent = &AgentStep{}
	named := c.p.need(n, "agent", "a merge by a judge")
	if named == nil {
		return
	}
	draft := c.agentAt(named, d.step.ID)
	if draft == nil {
		return
	}
	a := &d.step.Merge.Agent.Agent
	*a, draft.used = draft.agent, true
	if output := n.get("output"); output != nil {
		a.Output = c.contract(output, "output of step "+d.step.Path, contractKeys)
	}
	if draft.bare {
		c.reportBare(draft)
	}
	c.chainFits(d, a, named)
}

// linkMembers finds the steps that a merge joins.
func (c *compiler) linkMembers(d *draftStep, edges map[int]string) {
	seen := map[string]bool{}
	for _, n := range d.members {
		if seen[n.text] {
			c.p.add(n.spot(), codeConflict, "%q stands in the list already", n.text)
			continue
		}
		seen[n.text] = true
		other := c.beside(d, n, "a merge")
		if other == nil {
			continue
		}
		d.step.Merge.Of = append(d.step.Merge.Of, other.step.Slot)
		other.step.Member = true
		if other.merge == nil {
			other.merge = d
		}
		addEdge(edges, other.step.Slot, EdgeMember)
	}
}
