package preview

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// needlessSequence fires where an agent step, or a container with agents, waits for another one although nothing of it is
// read: by an edge that needs or sequential makes, with no other way from one to the other. Order that means something
// is not meant: where either of them acts on the world or waits for it (see acting), or the first is a reviewer or has a
// gate, which lets through only what is good.
func (l *linter) needlessSequence() {
	type pair struct{ before, after *workflow.Step }
	lists := map[*workflow.Step][]pair{} // of sequential lists, by the group around
	for _, s := range l.w.Steps {
		for _, e := range s.Edges {
			before := s.Body.Steps[e.Slot]
			if e.Why != workflow.EdgeNeeds && e.Why != workflow.EdgeSequence || !l.needless(before, s) {
				continue
			}
			if e.Why == workflow.EdgeSequence {
				lists[s.Parent] = append(lists[s.Parent], pair{before, s})
				continue
			}
			l.step(s, "needs: "+l.needsWithout(s, e.Slot), "%s waits for %s and reads nothing of it: without the edge both are at work at once", s.ID, before.ID)
		}
	}
	for _, s := range append([]*workflow.Step{nil}, l.w.Steps...) {
		pairs := lists[s]
		if len(pairs) == 0 {
			continue
		}
		p, more := pairs[0], ""
		if len(pairs) > 1 {
			more = fmt.Sprintf(" (%d more like it)", len(pairs)-1)
		}
		const edit, format = "sequential: false", "%s waits for %s only because the list is sequential, and reads nothing of it%s: without that, each step begins when what it reads is there"
		if s == nil {
			l.top("/sequential", edit, format, p.after.ID, p.before.ID, more)
		} else {
			l.step(s, edit, format, p.after.ID, p.before.ID, more)
		}
	}
}

// needless reports whether a step could begin before another one is settled.
func (l *linter) needless(before, s *workflow.Step) bool {
	agents := func(s *workflow.Step) bool { return s.Agent != nil }
	checks := func(s *workflow.Step) bool { return acting(s) || gateAt(s) != nil || l.reviewer(s) }
	return s.Section == workflow.SectionMain && l.anyInside(before, agents) && l.anyInside(s, agents) &&
		!l.anyInside(before, checks) && !l.anyInside(s, acting) && !l.readsOf(s, before) && !l.anotherWay(before, s)
}

// readsOf reports whether anything in s takes anything of what is in before.
func (l *linter) readsOf(s, before *workflow.Step) bool {
	return l.anyInside(s, func(in *workflow.Step) bool {
		return slices.ContainsFunc(in.Reads, func(r workflow.Read) bool {
			return r.Step.Index >= before.Index && r.Step.Index < l.end[before.Index]
		}) || slices.ContainsFunc(in.Edges, func(e workflow.Edge) bool {
			return in.Body.Steps[e.Slot] == before && (e.Why == workflow.EdgeMember || e.Why == workflow.EdgeFamily)
		})
	})
}

// anotherWay reports whether s waits for the other step even without the edge between them.
func (l *linter) anotherWay(before, s *workflow.Step) bool {
	for _, e := range slices.Backward(s.Edges) { // a later one has most behind it
		if on := s.Body.Steps[e.Slot]; on != before && l.with(on).has(before.Index) {
			return true
		}
	}
	a := around(s)
	return a != nil && l.before(a).has(before.Index)
}

// needsWithout writes the needs of a step without one of them.
func (l *linter) needsWithout(s *workflow.Step, without int) string {
	var ids []string
	for _, e := range s.Edges {
		if e.Why == workflow.EdgeNeeds && e.Slot != without {
			ids = append(ids, s.Body.Steps[e.Slot].ID)
		}
	}
	return "[" + strings.Join(ids, ", ") + "]"
}

// partsMax bounds the parts of one step that are compared with each other.
const partsMax = 50

// parallelWithoutContract fires at an agent step that joins, whole, what two or more authors make at the same time, each
// in a form of its own: their answers have no schema, and there is no earlier output that all of them are shown and could
// have agreed on. Reviewers compare, they do not join. Also at a merge by majority or consensus whose members answer in
// free text: no two texts are equal.
func (l *linter) parallelWithoutContract() {
	for _, s := range l.w.Steps {
		if s.Merge != nil {
			l.mergedText(s)
			continue
		}
		if !l.author(s) {
			continue
		}
		var parts []*workflow.Step
		for _, r := range s.Reads {
			if l.free(r.Step) && shown(feed{to: s, read: r}) && l.isWhole(r) && !slices.Contains(parts, r.Step) {
				parts = append(parts, r.Step)
			}
		}
		parts = l.atOnce(parts[:min(len(parts), partsMax)])
		if len(parts) > 1 && !agreed(parts) {
			l.step(s, fmt.Sprintf("output: {contract: part}   # of %s, with contracts: {part: {type: object, …}}", names(ids(parts))),
				"%s joins what %s make at the same time, and no contract says in what form: each assumes another one", s.ID, names(ids(parts)))
		}
	}
}

// atOnce are those of some steps that may be at work together with another of them.
func (l *linter) atOnce(list []*workflow.Step) []*workflow.Step {
	var found []*workflow.Step
	for _, s := range list {
		if slices.ContainsFunc(list, func(other *workflow.Step) bool { return l.parallel(s, other) }) {
			found = append(found, s)
		}
	}
	return found
}

func (l *linter) mergedText(s *workflow.Step) {
	if s.Merge.By != nil || s.Merge.Strategy != workflow.StrategyMajority && s.Merge.Strategy != workflow.StrategyConsensus {
		return
	}
	for _, slot := range s.Merge.Of {
		if member := s.Body.Steps[slot]; l.free(member) {
			l.step(s, "by: output.verdict", "%s compares texts, such as that of %s: no two are equal; give them a contract and compare a field of it", s.ID, member.ID)
			return
		}
	}
}

// free: the answer of an author has no schema.
func (l *linter) free(s *workflow.Step) bool {
	return s.Agent != nil && !l.reviewer(s) && !slices.ContainsFunc(l.agents(s), func(a *workflow.Agent) bool { return a.Output.Schema != nil })
}

// agreed reports whether all steps are shown an output of one and the same step.
func agreed(steps []*workflow.Step) bool {
	return slices.ContainsFunc(steps[0].Reads, func(common workflow.Read) bool {
		return !slices.ContainsFunc(steps, func(s *workflow.Step) bool {
			return !slices.ContainsFunc(s.Reads, func(r workflow.Read) bool { return r.Step == common.Step && shown(feed{to: s, read: r}) })
		})
	})
}

func ids(steps []*workflow.Step) []string {
	list := make([]string, len(steps))
	for i, s := range steps {
		list[i] = s.ID
	}
	return list
}

// unusedStep fires at a main step that only makes a value (an agent, a set, a fetch, a merge, or a container of such)
// which nobody reads: no expression, no merge, not the output of the run; and which nobody needs. A gate makes a step a
// check, which is use enough.
func (l *linter) unusedStep() {
	for _, s := range l.w.Steps {
		if s.Section != workflow.SectionMain || l.used(s) {
			continue
		}
		if a := around(s); a != nil && !l.used(a) {
			continue // told of the container
		}
		l.step(s, fmt.Sprintf("output: {%s: \"${{ steps.%[1]s.output }}\"}", s.ID), "nobody reads what %s makes, and the run does not return it: it costs and is thrown away", s.ID)
	}
}

func (l *linter) used(s *workflow.Step) bool {
	return len(l.feeds[s.Index]) > 0 || l.anyInside(s, acting) || gateAt(s) != nil || l.readInside(s) ||
		slices.ContainsFunc(s.Dependants, func(slot int) bool {
			return slices.ContainsFunc(s.Body.Steps[slot].Edges, func(e workflow.Edge) bool {
				return e.Slot == s.Slot && e.Why != workflow.EdgeSequence
			})
		})
}

// readInside reports whether somebody else reads a step that stands in a group or a switch.
func (l *linter) readInside(s *workflow.Step) bool {
	if s.Group == nil && s.Switch == nil {
		return false
	}
	inside := l.inside(s)
	return slices.ContainsFunc(inside[1:], func(in *workflow.Step) bool {
		return slices.ContainsFunc(l.feeds[in.Index], func(f feed) bool { return f.to == nil || !slices.Contains(inside, f.to) })
	})
}

// unusedContract fires at a contract that no answer has to meet, no form, and no expression reads.
func (l *linter) unusedContract() {
	if len(l.w.Contracts) == 0 {
		return
	}
	used := map[*workflow.Schema]bool{}
	for _, a := range l.w.Agents {
		used[a.Output.Schema] = true
	}
	for d := range l.duties() {
		used[d.agent.Output.Schema] = true
	}
	for _, s := range l.w.Steps {
		switch {
		case s.Tool != nil:
			used[s.Tool.Output.Schema] = true
		case s.Approval != nil:
			used[s.Approval.Form] = true
		case s.Plan != nil:
			for name := range s.Plan.Vocabulary.Contracts {
				used[l.w.Contracts[name]] = true
			}
		}
	}
	for _, name := range sortedKeys(l.w.Contracts) {
		if !used[l.w.Contracts[name]] && !strings.Contains(string(l.w.Source), "contracts."+name) {
			l.top("/contracts/"+name, "output: {contract: "+name+"}", "no answer has to meet the contract %s: name it where it was meant to hold, or leave it out", name)
		}
	}
}

// unreachable fires at what can never happen: a step or a case whose condition is false, or compares a value of a list
// (an enum of the input or of a contract, run.stakes, run.mode) with a word that is not in it; a case behind one with
// the same condition or with true. What the compiler refuses (else before the last case, on_error in vain) does not come here.
func (l *linter) unreachable() {
	for _, s := range l.w.Steps {
		if s.When != nil {
			if why, edit := l.never(s.When, s.Body); why != "" {
				l.step(s, edit, "%s never runs: %s", s.ID, why)
			}
		}
		if s.Switch != nil {
			l.unreachableCases(s)
		}
	}
}

func (l *linter) unreachableCases(s *workflow.Step) {
	seen := map[string]int{}
	for i, c := range s.Switch.Cases {
		if c.When == nil {
			continue
		}
		at := s
		if len(c.Steps) > 0 {
			at = c.Steps[0]
		}
		source := strings.TrimSpace(c.When.Source)
		before, doubled := seen[source]
		always, isAlways := seen["true"]
		switch why, edit := l.never(c.When, s.Body); {
		case why != "":
			l.step(at, edit, "the case %d of %s never runs: %s", i+1, s.ID, why)
		case doubled:
			l.step(at, "when: …", "the case %d of %s never runs: the case %d has the same condition", i+1, s.ID, before+1)
		case isAlways:
			l.step(at, "else: true", "the case %d of %s never runs: the case %d always does", i+1, s.ID, always+1)
		default:
			seen[source] = i
		}
	}
}

// compared is a condition that compares one value with one word.
var compared = regexp.MustCompile(`^([a-z_.?]+) == (?:'([^'\\]*)'|"([^"\\]*)")$`)

// never says why a condition cannot hold, and what may be meant; empty: it can.
func (l *linter) never(e *workflow.Expr, in *workflow.Body) (why, edit string) {
	source := strings.TrimSpace(e.Source)
	if source == "false" {
		return "its condition is false", "when: true"
	}
	m := compared.FindStringSubmatch(source)
	if m == nil || len(e.Refs()) != 1 {
		return "", ""
	}
	given := m[2] + m[3]
	known := l.wordsOf(e.Refs()[0], in)
	if len(known) == 0 || slices.Contains(known, given) {
		return "", ""
	}
	edit = m[1] + " == …   # one of " + strings.Join(known, ", ")
	if meant := fault.Nearest(given, known); meant != "" {
		edit = m[1] + " == '" + meant + "'"
	}
	return fmt.Sprintf("%s is never %q; it is %s", m[1], given, strings.Join(known, ", ")), edit
}

// wordsOf are the words that a value is one of, or none if that is not known.
func (l *linter) wordsOf(ref workflow.Ref, in *workflow.Body) []string {
	names := ref.Names
	switch {
	case ref.Root == "run" && len(names) == 1 && names[0] == "stakes":
		return []string{"low", "normal", "high"}
	case ref.Root == "run" && len(names) == 1 && names[0] == "mode":
		return []string{"interactive", "batch"}
	case ref.Root == "input" && l.w.Input != nil:
		return enumAt(l.schema(l.w.Input).of, names)
	case ref.Root == "steps" && len(names) > 1 && names[1] == "output":
		if s := find(in, ref); s != nil && s.Agent != nil && s.Agent.Agent.Output.Schema != nil && s.Agent.By == nil {
			return enumAt(l.schema(s.Agent.Agent.Output.Schema).of, names[2:])
		}
	}
	return nil
}

// enumAt are the words that a schema lists under some names. One that lists anything else lists nothing.
func enumAt(schema map[string]any, path []string) []string {
	for _, name := range path {
		properties, _ := schema["properties"].(map[string]any) //nolint:errcheck // nothing is found in what is none
		schema, _ = properties[name].(map[string]any)          //nolint:errcheck // as above
	}
	list, _ := schema["enum"].([]any) //nolint:errcheck // as above
	var all []string
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		all = append(all, s)
	}
	return all
}
