package workflow

import "slices"

// OnErrorMax bounds the entries of on_error.
const OnErrorMax = 20

// toPerson is who decides an escalation that is not for an agent.
const toPerson = "approval"

var (
	onErrorKeys = keySet{known: []string{"classes", "do", "agent", "chain", "value", "to", "level"}}
	actions     = []Action{ActionFallback, ActionEscalate, ActionDegrade, ActionSkip, ActionFail}
	actionKeys  = map[Action][]string{
		ActionFallback: {"agent", "chain", "value"}, ActionEscalate: {"to"}, ActionDegrade: {"level"},
	}
)

// stepOnError reads what becomes of a step's failures: as it says itself, else, of agents and tools, by default.
func (c *compiler) stepOnError(d *draftStep) {
	n := d.node.get("on_error")
	if n == nil && (d.step.Agent != nil || d.step.Tool != nil) {
		n, d.defaults = c.root.get("defaults").get("on_error"), true
	}
	if d.step.Kind == "" || !c.p.kind(n, nodeList) {
		return
	}
	if len(n.items) > OnErrorMax {
		c.p.add(n.spot(), codeLimit, "on_error has at most %d entries, not %d", OnErrorMax, len(n.items))
	}
	var before []*node
	for _, item := range n.items {
		if !c.p.object(item, "an entry of on_error", onErrorKeys) {
			continue
		}
		e, ok := c.onError(d, item)
		if !ok {
			continue
		}
		c.unreached(d.step.OnError, before, e, item)
		d.step.OnError, before = append(d.step.OnError, e), append(before, item)
	}
	d.errors = before
}

// onError reads one entry. A default that only agents can follow is not for tools.
func (c *compiler) onError(d *draftStep, n *node) (e OnError, ok bool) {
	if list := c.p.need(n, "classes", "an entry of on_error"); c.p.kind(list, nodeList) {
		if len(list.items) == 0 {
			c.p.add(list.spot(), codeRequired, "an entry of on_error names at least one class")
		}
		e.Classes = c.classes(list, "handled")
	}
	e.Do = Action(c.p.oneOf(c.p.need(n, "do", "an entry of on_error"), wordsOf(actions)...))
	if e.Do == "" {
		return e, false
	}
	for _, key := range []string{"agent", "chain", "value", "to", "level"} {
		if v := n.get(key); v != nil && !slices.Contains(actionKeys[e.Do], key) {
			c.p.add(v.spot(), codeConflict, "%q does not belong to %q", key, e.Do)
		}
	}
	switch e.Do {
	case ActionFallback:
		return e, c.fallback(d, n, &e)
	case ActionEscalate:
		e.To = c.decider(n.get("to"))
	case ActionDegrade:
		e.Level = c.p.integer(n.get("level"), 1, RungsMax, 0)
	case ActionSkip, ActionFail:
	}
	return e, true
}

// unreached reports an entry all of whose classes are taken by the ones before it.
func (c *compiler) unreached(earlier []OnError, before []*node, e OnError, n *node) {
	if len(e.Classes) == 0 {
		return
	}
	for _, class := range errorClasses {
		if !Covers(e.Classes, class) || classGroups[class] != nil || class == "any" {
			continue
		}
		if !slices.ContainsFunc(earlier, func(b OnError) bool { return Covers(b.Classes, class) }) {
			return
		}
	}
	c.p.add(n.spot(), codeConflict, "this entry is never reached: its classes are taken before (line %d)", before[len(before)-1].line)
}

// fallback reads what is done instead: another agent or chain, or a value.
func (c *compiler) fallback(d *draftStep, n *node, e *OnError) bool {
	var given []string
	for _, key := range actionKeys[ActionFallback] {
		if n.get(key) != nil {
			given = append(given, key)
		}
	}
	if len(given) != 1 {
		c.p.add(n.spot(), codeRequired, `a fallback needs exactly one of "agent", "chain" and "value"`)
		return false
	}
	if given[0] != "value" && d.step.Agent == nil {
		if d.defaults {
			c.namesWho(n)
			return false
		}
		c.p.add(n.get(given[0]).spot(), codeConflict, "%s cannot fall back to another %s; give it a value", aStep(d.step.Kind), given[0])
		return false
	}
	e.Agent, e.Chain, e.Value = c.instead(d, n)
	return true
}

// namesWho checks the names in a default that the step at hand has no use for.
func (c *compiler) namesWho(n *node) {
	if v := n.get("agent"); v != nil {
		c.answering(v)
	}
	c.chainValue(n.get("chain"))
}

// instead reads who or what stands in for a step: another agent, with the step's contract and gate, a chain or a value.
func (c *compiler) instead(d *draftStep, n *node) (agent *Agent, chain *Chain, value *Template) {
	if v := n.get("agent"); v != nil && c.knownAgent(v) != nil {
		a := *c.answering(v)
		if d.step.Agent.By == nil {
			a.Output = d.step.Agent.Agent.Output
		}
		c.gateOf(d, &a)
		agent = &a
	}
	if v := n.get("chain"); v != nil {
		chain = c.chainValue(v)
	}
	if v := n.get("value"); v != nil && v.kind != nodeBad {
		value = c.template(v, d.owner())
		c.meets(v, value, d.contractSchema())
	}
	return agent, chain, value
}

// contractSchema is what the output of a step must meet, where that is said.
func (d *draftStep) contractSchema() *Schema {
	switch {
	case d.step.Agent != nil:
		return d.step.Agent.Agent.Output.Schema
	case d.step.Tool != nil:
		return d.step.Tool.Output.Schema
	}
	return nil
}

// meets holds a value that has no expressions against a schema.
func (c *compiler) meets(n *node, t *Template, schema *Schema) {
	if t.constant == nil || schema == nil || schema.compiled == nil {
		return
	}
	filled, err := schema.Fill(t.constant)
	if err != nil {
		c.p.add(n.spot(), codeValue, "%v", err)
		return
	}
	for _, issue := range schema.Check(filled) {
		at, _ := refPath("#" + issue.Pointer)
		c.p.add(n.at(at).spot(), codeValue, "it does not meet its schema: %s", issue.Detail)
	}
}

// decider reads who decides an escalation; nil: a person.
func (c *compiler) decider(n *node) *Agent {
	switch {
	case n == nil:
		return c.w.Orchestrator
	case n.kind == nodeText && n.text == toPerson:
		return nil
	}
	return c.answering(n)
}

// usesLadder checks that who goes down the ladder stands on the level it goes to.
func (c *compiler) usesLadder(d *draftStep) {
	for i, e := range d.step.OnError {
		if e.Do != ActionDegrade {
			continue
		}
		n := d.errors[i]
		at := n.get("level")
		if at == nil {
			at = n.get("do")
		}
		switch {
		case len(c.w.Degrade) == 0:
			c.p.add(at.spot(), codeRequired, `there is no ladder to go down; write its levels under "degrade"`)
		case e.Level > len(c.w.Degrade):
			c.p.add(at.spot(), codeValue, "there is no level %d; the ladder has %s", e.Level, count(len(c.w.Degrade), "level"))
		case e.Level > 0 && !c.w.Degrade[e.Level-1].touches(d.step):
			c.p.add(at.spot(), codeConflict, "level %d (%s) neither omits nor sets %q; it would fail there again", e.Level, clip(c.w.Degrade[e.Level-1].Name), d.step.ID)
		case e.Level == 0 && !slices.ContainsFunc(c.w.Degrade, func(r Rung) bool { return r.touches(d.step) }):
			c.p.add(at.spot(), codeConflict, "no level of the ladder omits or sets %q; it would fail again", d.step.ID)
		}
	}
}
