package workflow

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
)

// draftBody is a Body while the definition is compiled.
type draftBody struct {
	body   *Body
	owner  *draftStep   // the map or loop; nil: the workflow itself
	outer  *draftBody   // the one around it
	prefix string       // of the paths of its steps: the path of the owner and a dot
	as     string       // what a map calls its item; empty: only item
	drafts []*draftStep // by slot

	shapes [placesMax]*cel.Type // of the root steps, by place
}

// bodyOf is the place of the list inside a map or loop. Its steps have names of their own.
func (c *compiler) bodyOf(d *draftStep, a around) (around, bool) {
	a, ok := c.deeper(d, a)
	d.own = &draftBody{
		body:  &Body{Owner: d.step, byID: map[string]*Step{}},
		owner: d, outer: d.body, prefix: d.step.Path + ".",
	}
	a.body = d.own
	return a, ok
}

// bodySteps reads the list of a body.
func (c *compiler) bodySteps(n *node, what string, a around) {
	if list := c.p.need(n, "steps", what); list != nil {
		a.body.body.Main = c.stepList(list, a)
	}
}

// bodyOutput reads the output of one item or iteration, or answers nil.
func (c *compiler) bodyOutput(n *node, a around) *Template {
	output := n.get("output")
	if output == nil {
		return nil
	}
	return c.template(output, a.closing())
}

// closing is the place of what a map or loop reads of the steps inside, when they are done.
func (a around) closing() owner {
	return owner{place: placeOf(a.section), body: a.body, step: a.parent, inside: a.parent, closing: true}
}

// seen finds the step that a name means in a body: one of its own, or of those around it. Nil: none.
func (c *compiler) seen(b *draftBody, id string) *draftStep {
	for ; b != nil; b = b.outer {
		if s := b.body.byID[id]; s != nil {
			return c.drafts[s.Index]
		}
	}
	return nil
}

// seenNames are the names that mean a step in a body, up to a place.
func (c *compiler) seenNames(b *draftBody, p place) []string {
	var names []string
	for ; b != nil; b = b.outer {
		for id, s := range b.body.byID {
			if placeOf(s.Section) <= p {
				names = append(names, id)
			}
		}
	}
	return names
}

// hidden finds a step of a name that stands in a map or loop which is closed to the body, and that map or loop, or the
// outermost one of several around each other: it can be read. Nil: there is none.
func (c *compiler) hidden(b *draftBody, id string) (step, container *draftStep) {
	for _, d := range c.drafts {
		if d.step.ID != id {
			continue
		}
		for in := d.body; in.outer != nil; in = in.outer {
			if b.within(in.outer) && !b.within(in) {
				return d, in.owner
			}
		}
	}
	return nil, nil
}

// within reports whether a body is another one, or stands inside it.
func (b *draftBody) within(other *draftBody) bool {
	for ; b != nil; b = b.outer {
		if b == other {
			return true
		}
	}
	return false
}

// inLoop reports whether a body is that of a loop, or stands in one.
func (b *draftBody) inLoop() bool {
	for ; b != nil && b.owner != nil; b = b.outer {
		if b.owner.step.Loop != nil {
			return true
		}
	}
	return false
}

// in is the step of a body that d is, or stands in. Nil: d stands outside.
func (d *draftStep) in(b *draftBody) *draftStep {
	for ; d != nil; d = d.body.owner {
		if d.body == b {
			return d
		}
	}
	return nil
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

// idsAlongNesting refuses a name that means one thing in a body and another around it.
func (c *compiler) idsAlongNesting() {
	for _, d := range c.drafts {
		if d.step.ID == "" || d.body.outer == nil || d.step.Body.byID[d.step.ID] != d.step {
			continue
		}
		if other := c.seen(d.body.outer, d.step.ID); other != nil {
			c.idTaken(d, other, "what is inside a "+string(d.body.owner.step.Kind)+" reads what is around it, so the names must differ")
		}
	}
}

// asTaken are the names that a map cannot give its item: they mean something in expressions.
var asTaken = slices.Concat(
	[]string{
		"input", "run", "steps", "contracts", "item", "index", "iter", "secrets", "event", "estimate",
		rootOutput, rootConfidence, rootUsage, rootLatency,
	},
	strings.Fields("as break const continue else false for function if import in let loop package namespace null return true var void while"),
)

// itemName reads what a map calls its item.
func (c *compiler) itemName(n *node, outer *draftBody) string {
	if n == nil || !c.p.kind(n, nodeText) {
		return ""
	}
	switch {
	case slices.Contains(asTaken, n.text):
		c.p.add(n.spot(), codeName, "%q means something else in expressions; call the item differently", n.text)
		return ""
	case !idForm.MatchString(n.text):
		c.p.add(n.spot(), codeName, "%q is not a name for an item: a small letter, then small letters, digits and _, at most 63", clip(n.text))
		return ""
	}
	for b := outer; b != nil; b = b.outer {
		if b.as == n.text {
			c.p.add(n.spot(), codeDuplicateID, "the map %s around this one calls its item %q already", b.owner.step.ID, n.text)
			return ""
		}
	}
	return n.text
}
