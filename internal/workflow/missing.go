package workflow

import (
	"fmt"
	"maps"
	"slices"
)

// fieldsAlways are the fields every step has, whatever became of it.
var fieldsAlways = map[string]bool{"status": true, "cost_usd": true, "usage": true}

// checkMissing refuses strict reads of what may not be there.
func (c *compiler) checkMissing(s *site) {
	if !s.owner.place.inRun() { // no step can be read there at all
		return
	}
	for _, r := range s.draft.reads.steps {
		read := c.seen(s.owner.body, r.id)
		if read == nil || !r.strict || fieldsAlways[r.field] {
			continue
		}
		if why := c.mayMiss(read, r.field, s.owner); why != "" {
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
		if p := d.parent; p != nil && p.step.Kind == KindSwitch && !reader.isIn(p, d.step.Case) {
			return fmt.Sprintf("it is in a case of the switch %s", p.step.ID)
		}
		if reader.isIn(d, -1) {
			continue
		}
		if d != read && c.mayBeReplaced(d) {
			return fmt.Sprintf("the %s %s around it may be given an output instead", d.step.Kind, d.step.ID)
		}
		if why := c.mayNotSucceed(d); why != "" {
			if d == read {
				return "the step " + why
			}
			return fmt.Sprintf("the %s %s around it %s", d.step.Kind, d.step.ID, why)
		}
	}
	return c.fieldMayMiss(read, field)
}

// mayNotSucceed says why a run can go on without an output of the step, or nothing.
func (c *compiler) mayNotSucceed(d *draftStep) string {
	switch {
	case d.hasWhen:
		return "has a when"
	case c.omitted[d.step.Index] != "":
		return "is left out on the level " + c.omitted[d.step.Index]
	case slices.ContainsFunc(d.step.OnError, func(e OnError) bool { return e.Do == ActionSkip }):
		return "may be skipped by its on_error"
	case d.merge != nil:
		return fmt.Sprintf("is merged by %s, which takes its failure", d.merge.step.ID)
	}
	return ""
}

// mayBeReplaced reports whether a container can succeed though what is inside did not.
func (c *compiler) mayBeReplaced(d *draftStep) bool {
	return slices.ContainsFunc(d.step.OnError, func(e OnError) bool { return e.Value != nil || e.Do == ActionEscalate }) ||
		slices.ContainsFunc(c.w.Degrade, func(r Rung) bool { return r.Set[d.step.Index].Value != nil })
}

// omittedSteps are the steps that the ladder leaves out on some level.
func (c *compiler) omittedSteps() map[int]string {
	omitted := map[int]string{}
	for _, rung := range c.w.Degrade {
		for _, i := range rung.Omit {
			omitted[i] = rung.Name
		}
	}
	return omitted
}

// fieldMayMiss says why a step that succeeded may not have a field, or nothing.
func (c *compiler) fieldMayMiss(read *draftStep, field string) string {
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
	case "summary":
		return read.summaryMayMiss()
	case "gate":
		if read.step.Gate == nil {
			return "the step has no gate"
		}
		return "an output that was set by hand passed none"
	case "agreement", "dissent":
		if m := read.step.Merge; m != nil && !slices.Contains(strategiesComparing, m.Strategy) {
			return fmt.Sprintf("the strategy %s compares nothing", m.Strategy)
		}
	}
	return ""
}

// summaryMayMiss says why an agent's output may come without its short form.
func (d *draftStep) summaryMayMiss() string {
	a := d.step.Agent
	if a == nil {
		return ""
	}
	if len(a.Choices) == 0 && a.Agent.Summary == nil { // of a choice, each is looked at below
		return "its agent makes none"
	}
	for _, e := range d.step.OnError {
		if e.Value != nil || e.Do == ActionEscalate || e.Agent != nil && e.Agent.Summary == nil {
			return "an output from on_error may have none"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Choices)) { // of two that make none, always the same
		if a.Choices[name].Summary == nil {
			return fmt.Sprintf("the output of %s has none", name)
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
