package workflow

import "slices"

// RungsMax bounds the levels of the ladder.
const RungsMax = 10

var (
	rungKeys    = keySet{known: []string{"name", "omit", "set", "note"}}
	rungSetKeys = keySet{known: []string{"agent", "chain", "value"}}
)

// ladder reads the levels that a run goes down instead of failing.
func (c *compiler) ladder() {
	n := c.root.get("degrade")
	if c.p.kind(n, nodeList) {
		if len(n.items) == 0 || len(n.items) > RungsMax {
			c.p.add(n.spot(), codeLimit, "a ladder has 1 to %d levels, not %d", RungsMax, len(n.items))
		}
		for _, item := range n.items {
			if c.p.object(item, "a level", rungKeys) {
				c.w.Degrade = append(c.w.Degrade, c.rung(item))
			}
		}
	}
	if v := c.root.get("budget").get("on_exceeded"); n == nil && c.w.Budget != nil && c.w.Budget.OnExceeded == OnExceededDegrade {
		c.p.add(v.spot(), codeRequired, `there is no ladder to go down; write its levels under "degrade"`)
	}
	for _, d := range c.drafts {
		c.usesLadder(d)
	}
}

func (c *compiler) rung(n *node) Rung {
	r := Rung{Name: c.p.word(c.p.need(n, "name", "a level")), Note: c.p.text(n.get("note"))}
	if r.Name != "" {
		c.p.name(n.get("name").spot(), "a level", r.Name)
		if slices.ContainsFunc(c.w.Degrade, func(other Rung) bool { return other.Name == r.Name }) {
			c.p.add(n.get("name").spot(), codeConflict, "%q is the name of another level", clip(r.Name))
		}
	}
	if list := n.get("omit"); c.p.kind(list, nodeList) {
		for _, item := range list.items {
			if d := c.rungStep(item.spot(), c.p.word(item)); d != nil && !slices.Contains(r.Omit, d.step.Index) {
				r.Omit = append(r.Omit, d.step.Index)
			}
		}
	}
	if set := n.get("set"); c.p.kind(set, nodeObject) {
		r.Set = map[int]RungSet{}
		for _, m := range set.members {
			c.rungSet(&r, m)
		}
	}
	if len(r.Omit) == 0 && len(r.Set) == 0 && n.get("omit") == nil && n.get("set") == nil {
		c.p.add(n.spot(), codeRequired, `a level changes something: it needs "omit", "set" or both`)
	}
	return r
}

// rungStep finds a step that a level changes.
func (c *compiler) rungStep(at spot, name string) *draftStep {
	if name == "" {
		return nil
	}
	s := c.w.Body.Step(name)
	_, container := c.hidden(c.body, name)
	switch {
	case s == nil && container != nil:
		c.p.suggest(at, container.step.ID, codeContainer, "%q is inside the %s %s; a level changes that as a whole", name, container.step.Kind, container.step.ID)
	case s == nil:
		tail, edit := didYouMean(name, keysOf(c.w.Body.byID))
		c.p.suggest(at, edit, codeUnknownStep, "there is no step %q%s", clip(name), tail)
	case s.Section != SectionMain:
		c.p.add(at, codeSection, "%q is listed under %s; a level changes main steps only", name, sectionKey(s.Section))
	default:
		return c.drafts[s.Index]
	}
	return nil
}

// rungSet reads what a level does of a step otherwise.
func (c *compiler) rungSet(r *Rung, m member) {
	d := c.rungStep(m.spot(), m.name)
	if !c.p.object(m.value, "a change of a step", rungSetKeys) || d == nil {
		return
	}
	if slices.Contains(r.Omit, d.step.Index) {
		c.p.add(m.spot(), codeConflict, "%q is omitted on this level", m.name)
	}
	if len(m.value.members) != 1 {
		c.p.add(m.spot(), codeRequired, `a level gives a step exactly one of "agent", "chain" and "value"`)
		return
	}
	if key := m.value.members[0].name; (key == "agent" || key == "chain") && d.step.Agent == nil {
		c.p.add(m.value.members[0].spot(), codeConflict, "%q is no step with an agent: it can only be given a value", m.name)
		return
	}
	agent, chain, value := c.instead(d, m.value)
	r.Set[d.step.Index] = RungSet{Agent: agent, Chain: chain, Value: value}
}

// touches reports whether a level leaves out a step, or does it otherwise: the step or what is around it.
func (r *Rung) touches(s *Step) bool {
	for s != nil {
		if _, set := r.Set[s.Index]; set || slices.Contains(r.Omit, s.Index) {
			return true
		}
		if around := s.Parent; around != nil {
			s = around
		} else {
			s = s.Body.Owner
		}
	}
	return false
}
