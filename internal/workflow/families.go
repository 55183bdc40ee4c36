package workflow

import (
	"cmp"
	"slices"
	"strings"
)

// extended is an agent with the keys of what it extends, where it has none of its own. Who answers is one thing: a model
// of its own replaces the chain of what it extends.
func (c *compiler) extended(n *node, depth int) *node {
	parent := n.get("extends")
	if parent == nil || c.circular[parent] {
		return n
	}
	name := c.p.word(parent)
	base := c.root.get("agents").get(name)
	switch {
	case name == "":
		return n
	case base == nil:
		if plain, _, ok := strings.Cut(name, "@"); ok && c.root.get("agents").get(plain) != nil {
			c.p.suggest(parent.spot(), plain, codeUnknownAgent, "there is no agent %q; that of this definition has no version: %q", clip(name), plain)
			return n
		}
		tail, edit := didYouMean(name, memberNames(c.root.get("agents")))
		c.p.suggest(parent.spot(), edit, codeUnknownAgent, "there is no agent %q in this definition%s", clip(name), tail)
		return n
	case depth >= ExtendsMax:
		c.p.add(parent.spot(), codeLimit, "agents extend each other through more than %d; that is the limit", ExtendsMax)
		return n
	case base.kind != nodeObject:
		return n
	}
	merged := *n
	merged.members = slices.Clone(n.members)
	for _, m := range c.extended(base, depth+1).members {
		if n.get(m.name) == nil && !(namesAnswerer(n) && slices.Contains(answererKeys, m.name)) {
			merged.members = append(merged.members, m)
		}
	}
	slices.SortFunc(merged.members, func(a, b member) int { return cmp.Compare(a.name, b.name) })
	return &merged
}

// memberNames are the names of an object's members.
func memberNames(n *node) []string {
	var names []string
	if n != nil {
		for _, m := range n.members {
			names = append(names, m.name)
		}
	}
	return names
}

// extendsCircles reports agents that extend each other in a circle.
func (c *compiler) extendsCircles(agents *node) {
	next := map[string][]string{}
	for _, m := range agents.members {
		if parent := m.value.get("extends"); parent != nil && parent.kind == nodeText {
			next[m.name] = []string{parent.text}
		}
	}
	for _, circle := range circles(memberNames(agents), next) {
		at := agents.get(circle[0]).get("extends")
		c.p.add(at.spot(), codeCycle, "agents extend each other in a circle: %s", strings.Join(circle, " → "))
		for _, name := range circle {
			c.circular[agents.get(name).get("extends")] = true
		}
	}
}

// delegates reads whom an agent may hand tasks to.
func (c *compiler) delegates(a *Agent, n *node) {
	list := n.get("delegates")
	if !c.p.kind(list, nodeList) {
		return
	}
	if len(list.items) > DelegatesMax {
		c.p.add(list.spot(), codeLimit, "an agent has at most %d delegates, not %d", DelegatesMax, len(list.items))
		return
	}
	a.Delegates = nil
	for _, item := range list.items {
		if c.knownAgent(item) == nil {
			continue
		}
		delegate := c.answering(item)
		if slices.Contains(a.Delegates, delegate) {
			c.p.add(item.spot(), codeConflict, "%q is named twice", delegate.Name)
			continue
		}
		a.Delegates = append(a.Delegates, delegate)
	}
	if len(a.Delegates) > 0 && a.MaxTurns == 0 {
		a.MaxTurns = TurnsDefault
	}
}

// delegateCircles reports agents whose tasks could come back to them.
func (c *compiler) delegateCircles() {
	next := map[string][]string{}
	for name, d := range c.agents {
		for _, delegate := range d.agent.Delegates {
			next[name] = append(next[name], delegate.Name)
		}
	}
	for _, circle := range circles(keysOf(c.agents), next) {
		c.reportDelegates(c.agents[circle[0]].node.get("delegates"), circle)
	}
}

func (c *compiler) reportDelegates(at *node, circle []string) {
	c.p.add(at.spot(), codeCycle, "an agent's tasks come back to it through its delegates: %s", strings.Join(circle, " → "))
}

// reaches is the way from an agent to the one of a name through its delegates, or nothing.
func (a *Agent) reaches(name string, seen map[*Agent]bool) []string {
	for _, d := range a.Delegates {
		if d.Name == name {
			return []string{name}
		}
		if seen[d] {
			continue
		}
		seen[d] = true
		if way := d.reaches(name, seen); way != nil {
			return append([]string{d.Name}, way...)
		}
	}
	return nil
}

// circles finds circles among names, each as a way from its first name in the order of the alphabet back to it.
func circles(names []string, next map[string][]string) [][]string {
	s := &circleSearch{next: next, state: map[string]byte{}}
	for _, name := range slices.Sorted(slices.Values(names)) {
		s.visit(name)
	}
	return s.found
}

type circleSearch struct {
	next  map[string][]string
	state map[string]byte // 1: on the way, 2: done
	way   []string
	found [][]string
}

func (s *circleSearch) visit(name string) {
	switch s.state[name] {
	case 1:
		circle := slices.Clone(s.way[slices.Index(s.way, name):])
		first := slices.Index(circle, slices.Min(circle))
		circle = slices.Concat(circle[first:], circle[:first])
		if len(s.found) < cyclesShownMax {
			s.found = append(s.found, append(circle, circle[0]))
		}
		return
	case 2:
		return
	}
	s.state[name] = 1
	s.way = append(s.way, name)
	for _, n := range s.next[name] {
		s.visit(n)
	}
	s.way = s.way[:len(s.way)-1]
	s.state[name] = 2
}
