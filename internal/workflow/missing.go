package workflow

import "fmt"

// fieldsAlways are the fields every step has, whatever became of it.
var fieldsAlways = map[string]bool{"status": true, "cost_usd": true, "usage": true}

// checkMissing refuses strict reads of what may not be there.
func (c *compiler) checkMissing(s *site) {
	if s.owner.place == placeAccept { // no step can be read there at all
		return
	}
	for _, r := range s.draft.reads.steps {
		step := c.w.byPath[r.id]
		if step == nil || !r.strict || fieldsAlways[r.field] {
			continue
		}
		if why := c.mayMiss(c.drafts[step.Index], r.field, s.owner); why != "" {
			edit := "steps." + r.id + ".?" + r.field
			c.p.suggest(c.locate(s.node, s.start, s.draft.offsetOf(r.at)), edit, codeMaybeMissing,
				"steps.%s.%s may be missing: %s; read it with ?: %s", r.id, r.field, why, edit)
		}
	}
}

// mayMiss says why a field of a step may be missing where it is read, or nothing.
func (c *compiler) mayMiss(read *draftStep, field string, reader owner) string {
	if reader.place > placeMain {
		return fmt.Sprintf("in %s any step may not have run", sectionKey(Section(reader.place-placeMain)))
	}
	for d := read; d != nil; d = d.parent {
		if d.hasWhen && !reader.isIn(d, -1) {
			if d == read {
				return "the step has a when"
			}
			return fmt.Sprintf("the %s %s around it has a when", d.step.Kind, d.step.ID)
		}
		if p := d.parent; p != nil && p.step.Kind == KindSwitch && !reader.isIn(p, d.step.Case) {
			return fmt.Sprintf("it is in a case of the switch %s", p.step.ID)
		}
	}
	switch field {
	case "error":
		return "a step that succeeds has none"
	case "confidence":
		return "an agent may not give one"
	case "model":
		return "an output that was set by hand has none"
	case "duration_s":
		return "not every step takes time"
	case "case":
		if !read.hasElse {
			return "the switch has no else"
		}
	}
	return ""
}

// isIn reports whether the reader stands inside a container; kase -1: in whatever case.
func (o owner) isIn(container *draftStep, kase int) bool {
	for d, k := o.inside, o.kase; d != nil; d, k = d.parent, d.step.Case {
		if d == container && (kase < 0 || k == kase) {
			return true
		}
	}
	return false
}
