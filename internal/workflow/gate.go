package workflow

import "slices"

// Limits of gates.
const (
	GateChecksMax = 20
	RubricMax     = 20 // criteria of one judge
	ScoreMax      = 10.0
)

var (
	gateKeys  = keySet{known: []string{"checks", "revise"}}
	checkKeys = keySet{known: []string{"assert", "message", "judge", "rubric", "min_score", "different_family"}}
	judgeKeys = []string{"rubric", "min_score", "different_family"}
)

// noGate is that of an agent that drops the default.
var noGate = &Gate{}

// gate reads what an output must pass; `none` is nil.
func (c *compiler) gate(n *node, o owner) *Gate {
	if n == nil || n.kind == nodeBad || n.kind == nodeText && n.text == "none" {
		return nil
	}
	if n.kind != nodeObject {
		c.p.add(n.spot(), codeType, `must be an object or "none", not %s`, n.kind)
		return nil
	}
	c.p.object(n, "a gate", gateKeys)
	g := &Gate{Revise: c.p.integer(n.get("revise"), 0, ReviseMax, 0)}
	list := c.p.need(n, "checks", "a gate")
	if !c.p.kind(list, nodeList) {
		return g
	}
	if len(list.items) == 0 || len(list.items) > GateChecksMax {
		c.p.add(list.spot(), codeLimit, "a gate has 1 to %d checks, not %d", GateChecksMax, len(list.items))
	}
	for _, item := range list.items {
		if c.p.object(item, "a check", checkKeys) {
			g.Checks = append(g.Checks, c.gateCheck(item, o))
		}
	}
	return g
}

func (c *compiler) gateCheck(n *node, o owner) Check {
	assert, judge := n.get("assert"), n.get("judge")
	switch {
	case assert != nil && judge != nil:
		c.p.add(judge.spot(), codeConflict, `a check has "assert" or "judge", not both; write two checks`)
	case assert == nil && judge == nil:
		c.p.add(n.spot(), codeRequired, `a check needs "assert" or "judge"`)
	case judge != nil:
		return c.judge(n, judge)
	}
	for _, key := range judgeKeys {
		if v := n.get(key); v != nil && judge == nil {
			c.p.add(v.spot(), codeConflict, "%q belongs to a check with a judge", key)
		}
	}
	k := Check{Message: c.p.text(n.get("message"))}
	if assert != nil {
		k.Assert = c.condition(assert, o)
	}
	if k.Assert != nil && k.Message == "" {
		k.Message = "it does not hold: " + k.Assert.Source
	}
	return k
}

func (c *compiler) judge(n, judge *node) Check {
	k := Check{Judge: c.answering(judge), DifferentFamily: c.p.boolean(n.get("different_family"))}
	if v := n.get("message"); v != nil {
		c.p.add(v.spot(), codeConflict, `"message" belongs to a check with an assert; a judge says itself what is wrong`)
	}
	k.MinScore = c.p.number(c.p.need(n, "min_score", "a check with a judge"), 0, ScoreMax, 0)
	rubric := c.p.need(n, "rubric", "a check with a judge")
	if !c.p.kind(rubric, nodeObject) {
		return k
	}
	if len(rubric.members) == 0 || len(rubric.members) > RubricMax {
		c.p.add(rubric.spot(), codeLimit, "a rubric has 1 to %d criteria, not %d", RubricMax, len(rubric.members))
	}
	for _, m := range rubric.members {
		k.Rubric = append(k.Rubric, Criterion{Name: m.name, Text: c.p.word(m.value)})
	}
	return k
}

// stepGate settles what the output of a step must pass: its own gate, else that of its agent, else the default. Every
// agent that may work at the step has the gate that its answer must pass there.
func (c *compiler) stepGate(d *draftStep) {
	s, own := d.step, d.node.get("gate")
	if s.Agent == nil && s.Tool == nil {
		if own != nil && s.Kind != "" {
			c.p.add(own.spot(), codeConflict, "%s has no gate; write it on the steps that call agents and tools", aStep(s.Kind))
		}
		return
	}
	o := d.owner()
	o.further = furtherAnswer
	switch {
	case own != nil:
		s.Gate = c.gate(own, o)
		c.assertsOnly(d, own)
	case s.Agent != nil && s.Agent.Agent.Gate == noGate:
	case s.Agent != nil && s.Agent.Agent.Gate != nil:
		s.Gate = s.Agent.Agent.Gate
	default:
		d.gate = c.gate(c.root.get("defaults").get("gate"), o)
		if s.Tool != nil {
			d.gate = d.gate.withoutJudges()
		}
		if s.Agent == nil || s.Agent.By == nil {
			s.Gate = d.gate
		}
	}
	if s.Agent != nil {
		c.gateOf(d, &s.Agent.Agent)
	}
}

// gateOf gives an agent that works at a step the gate it has there.
func (c *compiler) gateOf(d *draftStep, a *Agent) {
	switch {
	case d.node.get("gate") != nil || d.step.Gate != nil:
		a.Gate = d.step.Gate
	case a.Gate == noGate:
		a.Gate = nil
	case a.Gate == nil:
		a.Gate = d.gate
	}
}

// assertsOnly: a tool is not told what is wrong, and nobody judges what it gives.
func (c *compiler) assertsOnly(d *draftStep, n *node) {
	if d.step.Tool == nil || n.kind != nodeObject {
		return
	}
	if v := n.get("revise"); v != nil && d.step.Gate != nil && d.step.Gate.Revise > 0 {
		c.p.add(v.spot(), codeConflict, "a tool does not revise what it gives; a retry calls it again")
	}
	if list := n.get("checks"); list != nil {
		for _, item := range list.items {
			if v := item.get("judge"); v != nil {
				c.p.add(v.spot(), codeConflict, "what a tool gives is checked by asserts only; let a step with an agent judge it")
			}
		}
	}
}

// withoutJudges is what a tool takes of a default gate.
func (g *Gate) withoutJudges() *Gate {
	if g == nil {
		return nil
	}
	checks := slices.DeleteFunc(slices.Clone(g.Checks), func(k Check) bool { return k.Judge != nil })
	if len(checks) == 0 {
		return nil
	}
	return &Gate{Checks: checks}
}
