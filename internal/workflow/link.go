package workflow

import (
	"slices"
	"strings"
)

// link works out the edges from what steps need, read and join, and the order in which their expressions can be typed.
func (c *compiler) link() {
	edges := make([]map[int]string, len(c.drafts)) // by index: slot of the step waited for → why
	for i, d := range c.drafts {
		edges[i] = map[int]string{}
		for _, n := range d.needs {
			c.linkNeed(d, n, edges)
		}
	}
	for _, s := range c.sites {
		c.linkReads(s, edges)
	}
	for i, d := range c.drafts {
		c.linkMembers(d, edges[i])
		c.linkFamilies(d, edges[i])
		if d.before != nil {
			addEdge(edges[i], d.before.step.Slot, EdgeSequence)
		}
		for on, why := range edges[i] {
			d.step.Edges = append(d.step.Edges, Edge{Slot: on, Why: why})
		}
		slices.SortFunc(d.step.Edges, func(a, b Edge) int { return a.Slot - b.Slot })
		for _, on := range d.step.Edges {
			waited := d.body.drafts[on.Slot].step
			waited.Dependants = append(waited.Dependants, d.step.Slot)
		}
	}
}

// addEdge notes why a step waits for another of its body; the first reason stays.
func addEdge(edges map[int]string, slot int, why string) {
	if edges[slot] == "" {
		edges[slot] = why
	}
}

// waitFor adds the edge of a step to one that it sees: it belongs to the map or loop around it that stands beside that.
func (c *compiler) waitFor(d, other *draftStep, why string, edges []map[int]string) {
	waiting := d.in(other.body)
	addEdge(edges[waiting.step.Index], other.step.Slot, why)
	if pair := [2]*draftStep{waiting, other}; waiting != d && c.causes[pair] == nil {
		c.causes[pair] = d
	}
}

// linkNeed adds the edge of a name in needs.
func (c *compiler) linkNeed(d *draftStep, n *node, edges []map[int]string) {
	other := c.seen(d.body, n.text)
	switch {
	case c.p.full():
	case other == nil:
		c.unseen(d.body, n, placeOf(d.step.Section))
	case other.step.Section != d.step.Section:
		c.p.add(n.spot(), codeSection, "%q is listed under %s; a step under %s cannot need it", n.text, sectionKey(other.step.Section), sectionKey(d.step.Section))
	case other == d:
		c.p.add(n.spot(), codeCycle, "a step cannot need itself: %s → %s", n.text, n.text)
	case d.within(other):
		c.p.add(n.spot(), codeContainer, "%q is the %s around this step; what it waits for, everything inside waits for already", n.text, other.step.Kind)
	case other.within(d):
		c.p.add(n.spot(), codeContainer, "%q is inside this %s; a container cannot wait for its own contents", n.text, d.step.Kind)
	default:
		c.waitFor(d, other, EdgeNeeds, edges)
	}
}

// linkFamilies finds the steps whose models' families an agent is not to share.
func (c *compiler) linkFamilies(d *draftStep, edges map[int]string) {
	for _, n := range d.families {
		other := c.beside(d, n, "different_family")
		switch {
		case other == nil:
		case other.step.Agent == nil:
			c.p.add(n.spot(), codeValue, "%q is a %s; only a step that is an agent's has a model, and its family", n.text, other.step.Kind)
		case !slices.Contains(d.step.Agent.DifferentFamily, other.step.Slot):
			d.step.Agent.DifferentFamily = append(d.step.Agent.DifferentFamily, other.step.Slot)
			addEdge(edges, other.step.Slot, EdgeFamily)
		}
	}
}

// beside finds a step that stands in the same body as d, or reports that there is none to be waited for.
func (c *compiler) beside(d *draftStep, n *node, what string) *draftStep {
	var other *draftStep
	if s := d.step.Body.byID[n.text]; s != nil {
		other = c.drafts[s.Index]
	}
	switch {
	case c.p.full():
		return nil
	case other == nil:
		c.notBeside(d, n, what)
	case other.step.Section != d.step.Section:
		c.p.add(n.spot(), codeSection, "%q is listed under %s; %s under %s cannot name it", n.text, sectionKey(other.step.Section), what, sectionKey(d.step.Section))
	case other == d:
		c.p.add(n.spot(), codeCycle, "a step cannot wait for itself: %s → %s", n.text, n.text)
	case d.within(other):
		c.p.add(n.spot(), codeContainer, "%q is the %s around this step and is not done before it", n.text, other.step.Kind)
	default:
		return other
	}
	return nil
}

func (c *compiler) notBeside(d *draftStep, n *node, what string) {
	if outer := c.seen(d.body.outer, n.text); outer != nil {
		c.p.add(n.spot(), codeContainer, "%q stands outside the %s %s; %s names steps that stand in it, too", n.text, d.body.owner.step.Kind, d.body.owner.step.ID, what)
		return
	}
	c.unseen(d.body, n, placeOf(d.step.Section))
}

// unseen reports a name of a step that means none where it stands.
func (c *compiler) unseen(b *draftBody, n *node, p place) {
	if _, container := c.hidden(b, n.text); container != nil {
		c.p.suggest(n.spot(), container.step.ID, codeContainer, "%q is inside the %s %s; only %s itself can be waited for", n.text, container.step.Kind, container.step.ID, container.step.ID)
		return
	}
	tail, edit := didYouMean(n.text, c.seenNames(b, p))
	c.p.suggest(n.spot(), edit, codeUnknownStep, "there is no step %q%s", clip(n.text), tail)
}

// linkReads notes what an expression reads, and adds the edges of it.
func (c *compiler) linkReads(s *site, edges []map[int]string) {
	reader := s.owner.step
	for _, r := range s.draft.reads.run {
		switch r.field {
		case "now", "time_left_s", "cost_usd", "quality":
			if reader != nil && s.owner.volatile {
				reader.step.Volatile = true
			}
		}
	}
	for _, r := range s.draft.reads.steps {
		read := c.seen(s.owner.body, r.id)
		switch {
		case read == nil:
			c.linkHidden(s, r) // others are reported with the expression
		case reader != nil:
			reader.step.Reads = append(reader.step.Reads, c.noted(s, r, read))
			if read.step.Section == reader.step.Section { // another one is over
				c.linkRead(s, r, read, edges)
			}
		}
	}
}

// noted is a read as the compiled step has it.
func (c *compiler) noted(s *site, r stepRead, read *draftStep) Read {
	at := c.locate(s.node, s.start, s.draft.offsetOf(r.at))
	return Read{
		Step: read.step, Field: r.field, Place: keyOf(s.node, s.owner.step), Whole: r.whole,
		Pos: Position{Pointer: s.node.shortPointer(), Line: at.line, Col: at.col},
	}
}

// keyOf is the key of its step, or of the step's kind, that a node stands under.
func keyOf(n *node, d *draftStep) string {
	var path []string // from the node upwards
	for ; n != nil && n != d.node; n = n.parent {
		if n.parent != nil && n.parent.kind == nodeObject {
			path = append(path, n.name)
		}
	}
	last := len(path) - 1
	nested := last > 0 && path[last] == string(d.step.Kind) && d.step.Kind != KindSet && d.step.Kind != KindAgent
	switch {
	case nested:
		return path[last-1]
	case last >= 0:
		return path[last]
	}
	return ""
}

func (c *compiler) siteFault(s *site, r stepRead, edit, code, detail string) {
	c.p.suggest(c.locate(s.node, s.start, s.draft.offsetOf(r.at)), edit, code, "%s", detail)
}

// linkHidden reports a read into a map or loop from outside.
func (c *compiler) linkHidden(s *site, r stepRead) {
	if s.owner.body == nil || c.p.full() {
		return
	}
	_, container := c.hidden(s.owner.body, r.id)
	if container == nil {
		return
	}
	kind, output := string(container.step.Kind), "steps."+container.step.ID+".output"
	if reader := s.owner.step; reader != nil && (reader == container || reader.within(container)) {
		c.siteFault(s, r, "", codeContainer, "\""+r.id+"\" is inside this "+kind+"; only its output can read it")
		return
	}
	c.siteFault(s, r, output, codeContainer, "\""+r.id+"\" is inside the "+kind+" "+container.step.ID+"; only "+output+" can be read from outside")
}

// linkRead adds the edge of a read of a step of the same section.
func (c *compiler) linkRead(s *site, r stepRead, read *draftStep, edges []map[int]string) {
	reader := s.owner.step
	switch {
	case read == reader && !s.owner.closing:
		c.siteFault(s, r, "", codeCycle, "a step cannot read itself: "+r.id+" → "+r.id)
	case read == reader:
		c.siteFault(s, r, "", codeContainer, "the "+keyOf(s.node, reader)+" of "+r.id+" cannot read "+r.id+" itself")
	case reader.within(read):
		c.siteFault(s, r, "", codeContainer, "\""+r.id+"\" is the "+string(read.step.Kind)+" around this step and is not done before it")
	case read.within(reader) && !s.owner.closing:
		c.siteFault(s, r, "", codeContainer, "\""+r.id+"\" is inside this "+string(reader.step.Kind)+"; only its output can read it")
	case read.within(reader): // settled when the container closes
	default:
		c.waitFor(reader, read, EdgeReads, edges)
	}
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
			o.visit(closing(d.body.drafts[on.Slot].step.Index))
		}
	}
	o.path = o.path[:len(o.path)-1]
	o.state[n] = 2
	o.done = append(o.done, n)
}

// reportCycle prints a cycle as the steps wait for each other.
func (c *compiler) reportCycle(nodes []int) {
	cycle := c.cycleSteps(nodes)
	at := 0
	for i, d := range cycle {
		if d.step.Index < cycle[at].step.Index {
			at = i
		}
	}
	// The same cycle is the same text, wherever it was entered.
	cycle = append(slices.Clone(cycle[at:]), cycle[:at]...)
	var names []string
	for i, d := range cycle {
		names = append(names, d.step.Path)
		if cause := c.causes[[2]*draftStep{d, cycle[(i+1)%len(cycle)]}]; cause != nil {
			names = append(names, cause.step.Path)
		}
	}
	names = append(names, names[0])
	spotted := cycle[0].node.spot()
	if id := cycle[0].node.get("id"); id != nil {
		spotted = id.spot()
	}
	c.p.add(spotted, codeCycle, "steps wait for each other in a circle: %s", strings.Join(names, " → "))
}

// cycleSteps are the steps whose openings and closings a cycle goes through, each once.
func (c *compiler) cycleSteps(nodes []int) []*draftStep {
	var cycle []*draftStep
	for _, n := range nodes {
		if d := c.drafts[n/2]; len(cycle) == 0 || cycle[len(cycle)-1] != d {
			cycle = append(cycle, d)
		}
	}
	if len(cycle) > 1 && cycle[0] == cycle[len(cycle)-1] {
		cycle = cycle[:len(cycle)-1]
	}
	return cycle
}
