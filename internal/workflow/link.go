package workflow

import (
	"slices"
	"strings"
)

// link works out the edges from what steps need and read, and the order in which their expressions can be typed.
func (c *compiler) link() {
	edges := make([]map[int]string, len(c.drafts)) // by index of the step waited for: why
	for i, d := range c.drafts {
		edges[i] = map[int]string{}
		for _, n := range d.needs {
			c.linkNeed(d, n, edges[i])
		}
		if d.before != nil {
			addEdge(edges[i], d.before.step.Index, EdgeSequence)
		}
	}
	for _, s := range c.sites {
		c.linkReads(s, edges)
	}
	for i, d := range c.drafts {
		for on, why := range edges[i] {
			d.step.Edges = append(d.step.Edges, Edge{Slot: on, Why: why})
		}
		slices.SortFunc(d.step.Edges, func(a, b Edge) int { return a.Slot - b.Slot })
		for _, on := range d.step.Edges {
			c.drafts[on.Slot].step.Dependants = append(c.drafts[on.Slot].step.Dependants, i)
		}
	}
}

// addEdge notes why a step waits for another; the first reason stays.
func addEdge(edges map[int]string, on int, why string) {
	if edges[on] == "" {
		edges[on] = why
	}
}

// linkNeed adds the edge of a name in needs.
func (c *compiler) linkNeed(d *draftStep, n *node, edges map[int]string) {
	other := c.w.byPath[n.text]
	switch {
	case c.p.full():
	case other == nil:
		tail, edit := didYouMean(n.text, keysOf(c.w.byPath))
		c.p.suggest(n.spot(), edit, codeUnknownStep, "there is no step %q%s", clip(n.text), tail)
	case other.Section != d.step.Section:
		c.p.add(n.spot(), codeSection, "%q is listed under %s; a step under %s cannot need it", n.text, sectionKey(other.Section), sectionKey(d.step.Section))
	case other == d.step:
		c.p.add(n.spot(), codeCycle, "a step cannot need itself: %s → %s", n.text, n.text)
	case d.within(c.drafts[other.Index]):
		c.p.add(n.spot(), codeContainer, "%q is the %s around this step; what it waits for, everything inside waits for already", n.text, other.Kind)
	case c.drafts[other.Index].within(d):
		c.p.add(n.spot(), codeContainer, "%q is inside this %s; a container cannot wait for its own contents", n.text, d.step.Kind)
	default:
		addEdge(edges, other.Index, EdgeNeeds)
	}
}

// linkReads adds the edges of what an expression reads.
func (c *compiler) linkReads(s *site, edges []map[int]string) {
	reader := s.owner.step
	if reader == nil {
		return
	}
	for _, r := range s.draft.reads.run {
		switch r.field {
		case "now", "time_left_s", "cost_usd", "quality":
			reader.step.Volatile = reader.step.Volatile || s.owner.volatile
		}
	}
	for _, r := range s.draft.reads.steps {
		step := c.w.byPath[r.id]
		if step == nil || step.Section != reader.step.Section {
			continue // unknown ones are reported with the expression; another section is over
		}
		read := c.drafts[step.Index]
		fault := func(code, detail string) {
			c.p.add(c.locate(s.node, s.start, s.draft.offsetOf(r.at)), code, "%s", detail)
		}
		switch {
		case read == reader && !s.owner.closing:
			fault(codeCycle, "a step cannot read itself: "+r.id+" → "+r.id)
		case read == reader:
			fault(codeContainer, "the output of "+r.id+" cannot read "+r.id+" itself")
		case reader.within(read):
			fault(codeContainer, "\""+r.id+"\" is the "+string(step.Kind)+" around this step and is not done before it")
		case read.within(reader) && !s.owner.closing:
			fault(codeContainer, "\""+r.id+"\" is inside this "+string(reader.step.Kind)+"; only its output can read it")
		case read.within(reader): // settled when the container closes
		default:
			addEdge(edges[reader.step.Index], step.Index, EdgeReads)
		}
	}
}

// within reports whether a step stands inside a container, at any depth.
func (d *draftStep) within(container *draftStep) bool {
	for p := d.parent; p != nil; p = p.parent {
		if p == container {
			return true
		}
	}
	return false
}

func sectionKey(s Section) string {
	return [...]string{SectionMain: "steps", SectionOnFailure: "on_failure", SectionFinally: "finally"}[s]
}

// cyclesShownMax bounds the cycles that are reported: mending one often mends others.
const cyclesShownMax = 10

// A step is two nodes of the graph of waiting: its opening and its closing. A leaf closes after it opens; a container
// opens before everything inside, and closes after it.
type order struct {
	drafts []*draftStep
	state  []byte // by node: 0 unseen, 1 on the path, 2 done
	path   []int
	done   []int // nodes in an order in which each stands behind what it waits for
	cycles [][]int
}

func opening(i int) int { return 2 * i }
func closing(i int) int { return 2*i + 1 }

// inOrder sorts the openings and closings of all steps. Cycles are reported; what is in one stands somewhere.
func (c *compiler) inOrder() []int {
	o := &order{drafts: c.drafts, state: make([]byte, 2*len(c.drafts))}
	for i := range c.drafts {
		o.visit(closing(i))
	}
	for _, cycle := range o.cycles[:min(len(o.cycles), cyclesShownMax)] {
		c.reportCycle(cycle)
	}
	return o.done
}

func (o *order) visit(n int) {
	switch o.state[n] {
	case 1:
		o.cycles = append(o.cycles, slices.Clone(o.path[slices.Index(o.path, n):]))
		return
	case 2:
		return
	}
	o.state[n] = 1
	o.path = append(o.path, n)
	d := o.drafts[n/2]
	if n%2 == 1 {
		o.visit(n - 1)
		for _, in := range d.inside {
			o.visit(closing(in.step.Index))
		}
	} else {
		if d.parent != nil {
			o.visit(opening(d.parent.step.Index))
		}
		for _, on := range d.step.Edges {
			o.visit(closing(on.Slot))
		}
	}
	o.path = o.path[:len(o.path)-1]
	o.state[n] = 2
	o.done = append(o.done, n)
}

// reportCycle prints a cycle as the steps wait for each other.
func (c *compiler) reportCycle(nodes []int) {
	var names []string
	at := c.drafts[nodes[0]/2]
	for _, n := range nodes {
		d := c.drafts[n/2]
		if len(names) == 0 || names[len(names)-1] != d.step.ID {
			names = append(names, d.step.ID)
		}
		if d.step.Index < at.step.Index {
			at = d
		}
	}
	if len(names) > 1 && names[0] == names[len(names)-1] {
		names = names[:len(names)-1]
	}
	// The same cycle is the same text, wherever it was entered.
	if i := slices.Index(names, at.step.ID); i > 0 {
		names = append(slices.Clone(names[i:]), names[:i]...)
	}
	names = append(names, names[0])
	spotted := at.node.spot()
	if id := at.node.get("id"); id != nil {
		spotted = id.spot()
	}
	c.p.add(spotted, codeCycle, "steps wait for each other in a circle: %s", strings.Join(names, " → "))
}
