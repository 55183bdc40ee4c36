package preview

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// unverifiedOutput fires at a main agent step whose answer other agents build on while nobody looks at it: the step has
// no gate, and on no way that its answer takes through prompts, containers and merges does it come to a reviewer, an
// orchestrator, a person, a merge that compares, or a step with a gate. Orchestrators answer for themselves; an answer
// that only chooses (see trivial) is held to its list by its contract.
func (l *linter) unverifiedOutput() {
	for _, s := range l.w.Steps {
		if s.Section != workflow.SectionMain || !l.author(s) || slices.ContainsFunc(l.agents(s), func(a *workflow.Agent) bool { return a.Role == orchestrator || l.trivial(a) }) {
			continue
		}
		if l.builtOn(s) && !l.looked(s) {
			l.step(s, l.gateEdit(), "other agents build on what %s says, and nobody has looked at it: an error in it goes into all that follows", s.ID)
		}
	}
}

// builtOn reports whether an agent that makes something is shown the output.
func (l *linter) builtOn(s *workflow.Step) bool {
	return l.reaches(s, func(f feed) bool { return shown(f) && l.author(f.to) && f.to != s })
}

// looked reports whether somebody looks at an output before it leaves the workflow. It is worked out once for each step.
func (l *linter) looked(s *workflow.Step) bool {
	if !l.asked[s.Index] {
		l.asked[s.Index] = true
		l.checked[s.Index] = gateAt(s) != nil || slices.ContainsFunc(l.feeds[s.Index], l.looks)
	}
	return l.checked[s.Index]
}

// looks reports whether the one who reads an output judges it, or hands it on to one who does.
func (l *linter) looks(f feed) bool {
	switch {
	case f.to == nil:
		return false
	case f.to.Approval != nil, comparing(f.to):
		return true
	case shown(f):
		return l.reviewer(f.to) || slices.ContainsFunc(l.agents(f.to), func(a *workflow.Agent) bool { return a.Role == orchestrator }) || l.looked(f.to)
	}
	return (f.to.Tool != nil && f.read.Place == "args" || handsOn(f)) && l.looked(f.to)
}

// gateAt is the gate of a step, or of the agent that works at it.
func gateAt(s *workflow.Step) *workflow.Gate {
	switch {
	case s.Agent != nil:
		return gateOf(s, &s.Agent.Agent)
	default:
		return s.Gate
	}
}

// comparing merges hold their members against each other.
func comparing(s *workflow.Step) bool {
	return s.Merge != nil && s.Merge.Strategy != workflow.StrategyCollect && s.Merge.Strategy != workflow.StrategyFirst
}

// gateEdit is a gate by a validator that the definition has.
func (l *linter) gateEdit() string {
	judge := "reviewer"
	for _, name := range sortedKeys(l.w.Agents) {
		if l.w.Agents[name].Role == validator {
			judge = name
			break
		}
	}
	return "gate: {checks: [{judge: " + judge + ", rubric: {accuracy: …}, min_score: 7, different_family: true}], revise: 1}"
}

// crossing is how far a reviewer is from the author, by the models that both may be.
type crossing int

const (
	sameModel  crossing = iota // the model asked first is the same
	sameFamily                 // another one of the same family
	sameTail                   // of another family, unless one of them falls through its chain
	crosses
)

// review is one reviewer of an author's work.
type review struct {
	by    *workflow.Step // the step that reviews, or, of a gate, the author's own
	model string
	far   crossing
}

// reviews are those of a step's work: by validators that are shown it as what is to be judged, and by the judges of its
// gate. None where a route chooses a model.
func (l *linter) reviews(s *workflow.Step) []review {
	a := &s.Agent.Agent
	var all []review
	for _, f := range l.feeds[s.Index] {
		if shown(f) && l.reviewer(f.to) && f.to.Agent.By == nil && !l.background(s, f.to) {
			by := &f.to.Agent.Agent
			all = append(all, review{f.to, first(by), l.far(a, by, slices.Contains(f.to.Agent.DifferentFamily, s.Slot))})
		}
	}
	if g := gateAt(s); g != nil {
		for _, c := range g.Checks {
			if c.Judge != nil {
				all = append(all, review{s, first(c.Judge), l.far(a, c.Judge, c.DifferentFamily)})
			}
		}
	}
	return all
}

// background: the reviewer is shown the step's output beside what somebody made of it; that is judged, not this.
func (l *linter) background(s, by *workflow.Step) bool {
	return slices.ContainsFunc(by.Reads, func(r workflow.Read) bool {
		return r.Step != s && l.author(r.Step) && slices.ContainsFunc(r.Step.Reads, func(of workflow.Read) bool { return of.Step == s })
	})
}

// far compares the models of an author and a reviewer. Passed: entries of the author's family are passed over.
func (l *linter) far(of, by *workflow.Agent, passed bool) crossing {
	mine, theirs := l.families(of), l.families(by)
	if slices.Contains(mine, "") || slices.Contains(theirs, "") || len(mine) == 0 || len(theirs) == 0 {
		if len(mine) > 0 && first(of) == first(by) {
			return sameModel
		}
		return crosses // nobody knows
	}
	common := slices.ContainsFunc(theirs, func(f string) bool { return slices.Contains(mine, f) })
	others := slices.ContainsFunc(theirs, func(f string) bool { return f != mine[0] })
	switch {
	case !common, passed && others:
		return crosses
	case mine[0] != theirs[0]:
		return sameTail
	case first(of) == first(by):
		return sameModel
	}
	return sameFamily
}

// families are those of a chain's models, entry by entry; empty: not known.
func (l *linter) families(a *workflow.Agent) []string {
	list := make([]string, len(a.Chain.Entries))
	for i, e := range a.Chain.Entries {
		f, _ := l.model(e.Model)
		list[i] = f.Family
	}
	return list
}

// farthest is the reviewer of a step's work that is farthest from its author; false: there is none.
func (l *linter) farthest(s *workflow.Step) (review, bool) {
	if !l.author(s) || s.Agent.By != nil || s.Section != workflow.SectionMain {
		return review{}, false
	}
	all := l.reviews(s)
	if len(all) == 0 {
		return review{}, false
	}
	return slices.MaxFunc(all, func(a, b review) int { return int(a.far) - int(b.far) }), true
}

// selfReviewOnly fires where an author's work is reviewed, but by no other model than the one that made it: validators
// that are shown the work, and judges of its gate, have the same model first. Where a route chooses, nobody knows, and
// nothing is said.
func (l *linter) selfReviewOnly() {
	for _, s := range l.w.Steps {
		if r, ok := l.farthest(s); ok && r.far == sameModel {
			l.step(r.by, l.crossEdit(s, r.by), "%s is reviewed only by %s, the model that made it: what it does not see when it writes, it does not see when it reads", s.ID, r.model)
		}
	}
}

// sameFamilyReview fires where an author's work is reviewed, and the farthest of its reviewers is another model of the
// author's family; or of another family, but one that both come to when their chains fall through, without
// different_family to pass it over.
func (l *linter) sameFamilyReview() {
	for _, s := range l.w.Steps {
		r, ok := l.farthest(s)
		switch {
		case !ok:
		case r.far == sameFamily:
			l.step(r.by, l.crossEdit(s, r.by), "%s is reviewed by %s, of the same family as the model that made it: they share their blind spots", s.ID, r.model)
		case r.far == sameTail:
			l.step(r.by, familyEdit(s, r.by), "the chains of %s and of its reviewer have a family in common: when one falls through, a model reviews the work of its own family", s.ID)
		}
	}
}

func familyEdit(s, by *workflow.Step) string {
	if s == by {
		return "different_family: true"
	}
	return "different_family: [" + s.ID + "]"
}

// crossEdit names a reviewer of another family: a model that the definition has already, if there is one.
func (l *linter) crossEdit(s, by *workflow.Step) string {
	mine := l.families(&s.Agent.Agent)
	candidates := slices.Concat(l.w.Models, []string{"gpt-4o", "claude-sonnet-4-6"})
	for _, name := range candidates {
		if f, ok := l.model(name); ok && !slices.Contains(mine, f.Family) {
			if s == by {
				return fmt.Sprintf("judge: …   # an agent with model: %s", name)
			}
			return strings.Join([]string{"model: " + name, familyEdit(s, by)}, "\n")
		}
	}
	return familyEdit(s, by)
}
