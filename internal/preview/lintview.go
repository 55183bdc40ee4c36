package preview

import (
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// linter is what the rules look at: the workflow, and what is worked out of it once.
type linter struct {
	w      *workflow.Workflow
	roster workflow.Roster
	models map[string]knownModel // the roster is asked once for each

	end   []int    // by Step.Index: the index behind the last step inside it
	past  [][]bool // by Step.Index: the steps that are settled before it begins, by index; nil: not worked out yet
	feeds [][]feed // by Step.Index: who reads it
	loads []*load  // by Step.Index: how much its output is; nil: not worked out yet

	schemas map[*workflow.Schema]seen

	code  string // of the rule that is asked
	count int    // of its warnings
	found []Warning
}

// feed is one use of a step's values by another step.
type feed struct {
	to    *workflow.Step // nil: the output of the run
	read  workflow.Read
	whole bool // the whole output, or the only field that it has
}

// knownModel is what the roster says.
type knownModel struct {
	facts workflow.ModelFacts
	ok    bool
}

func newLinter(w *workflow.Workflow, roster workflow.Roster) *linter {
	n := len(w.Steps)
	l := &linter{
		w: w, roster: roster, models: map[string]knownModel{}, schemas: map[*workflow.Schema]seen{},
		end: make([]int, n), past: make([][]bool, n), feeds: make([][]feed, n), loads: make([]*load, n),
	}
	for i := range w.Steps {
		for s := w.Steps[i]; s != nil; s = around(s) {
			l.end[s.Index] = i + 1
		}
	}
	for _, s := range w.Steps {
		for _, r := range s.Reads {
			l.feeds[r.Step.Index] = append(l.feeds[r.Step.Index], feed{s, r, l.isWhole(r)})
		}
		l.unwritten(s)
	}
	l.resultFeeds()
	return l
}

// unwritten adds what a step reads without an expression that says so.
func (l *linter) unwritten(s *workflow.Step) {
	add := func(from *workflow.Step, place string) {
		l.feeds[from.Index] = append(l.feeds[from.Index], feed{s, workflow.Read{Step: from, Field: "output", Place: place, Whole: true, Pos: s.Pos}, true})
	}
	for _, in := range l.handedOut(s) {
		add(in, "output")
	}
	if s.Merge != nil {
		for _, slot := range s.Merge.Of {
			add(s.Body.Steps[slot], "of")
		}
	}
}

// handedOut are the steps inside a container whose outputs are its own because it has no output template: the last one
// listed, of a group all of them.
func (l *linter) handedOut(s *workflow.Step) []*workflow.Step {
	last := func(list []*workflow.Step, output *workflow.Template) []*workflow.Step {
		if output != nil || len(list) == 0 {
			return nil
		}
		return list[len(list)-1:]
	}
	switch {
	case s.Map != nil:
		return last(s.Map.Body.Main, s.Map.Output)
	case s.Loop != nil:
		return last(s.Loop.Body.Main, s.Loop.Output)
	case s.Group != nil && s.Group.Output == nil:
		return s.Group.Steps
	case s.Switch != nil:
		var all []*workflow.Step
		for _, c := range s.Switch.Cases {
			all = append(all, last(c.Steps, c.Output)...)
		}
		return all
	}
	return nil
}

// resultFeeds adds what the output of the run reads.
func (l *linter) resultFeeds() {
	if l.w.Output == nil {
		if n := len(l.w.Main); n > 0 {
			last := l.w.Main[n-1]
			l.feeds[last.Index] = append(l.feeds[last.Index], feed{nil, workflow.Read{Step: last, Field: "output", Place: "output", Whole: true}, true})
		}
		return
	}
	for _, e := range expressions(l.w.Output) {
		for _, ref := range e.Refs() {
			if ref.Root != "steps" || len(ref.Names) == 0 {
				continue
			}
			if s := l.w.Body.Step(ref.Names[0]); s != nil {
				l.feeds[s.Index] = append(l.feeds[s.Index], feed{nil, workflow.Read{Step: s, Place: "output"}, len(ref.Names) < 3})
			}
		}
	}
}

// around is the container a step stands in directly, or nil.
func around(s *workflow.Step) *workflow.Step {
	if s.Parent != nil {
		return s.Parent
	}
	return s.Body.Owner
}

// inside is a container with all its contents, or just the step.
func (l *linter) inside(s *workflow.Step) []*workflow.Step { return l.w.Steps[s.Index:l.end[s.Index]] }

func (l *linter) anyInside(s *workflow.Step, is func(*workflow.Step) bool) bool {
	return slices.ContainsFunc(l.inside(s), is)
}

// settledBefore says by index which steps are settled before s begins. Edges only lead to earlier ones: the definition
// has no cycles.
func (l *linter) settledBefore(s *workflow.Step) []bool {
	if l.past[s.Index] == nil {
		past := make([]bool, len(l.w.Steps))
		l.past[s.Index] = past // of a container that is asked while it is worked out
		for _, e := range s.Edges {
			l.settled(past, s.Body.Steps[e.Slot])
		}
		if a := around(s); a != nil {
			join(past, l.settledBefore(a))
		}
	}
	return l.past[s.Index]
}

// settled adds a step that is settled, all inside it, and all that came before.
func (l *linter) settled(past []bool, s *workflow.Step) {
	for _, in := range l.inside(s) {
		past[in.Index] = true
		join(past, l.settledBefore(in))
	}
}

func join(into, from []bool) {
	for i, yes := range from {
		if yes {
			into[i] = true
		}
	}
}

// parallel reports whether two steps may be at work at once.
func (l *linter) parallel(a, b *workflow.Step) bool {
	return a != b && !l.settledBefore(a)[b.Index] && !l.settledBefore(b)[a.Index] && !exclusive(a, b)
}

// exclusive: two cases of a switch never both run.
func exclusive(a, b *workflow.Step) bool {
	for x := a; x != nil; x = around(x) {
		for y := b; y != nil; y = around(y) {
			if x.Parent != nil && x.Parent == y.Parent && x.Parent.Switch != nil && x.Case != y.Case {
				return true
			}
		}
	}
	return false
}

// working are the agents that may do a step: one, or those that its expression chooses from.
func working(s *workflow.Step) []*workflow.Agent {
	switch {
	case s.Agent == nil:
		return nil
	case s.Agent.By == nil:
		return []*workflow.Agent{&s.Agent.Agent}
	}
	list := make([]*workflow.Agent, 0, len(s.Agent.Choices))
	for _, name := range sortedKeys(s.Agent.Choices) {
		list = append(list, s.Agent.Choices[name])
	}
	return list
}

// The roles of agents.
const (
	orchestrator = "orchestrator"
	grinder      = "grinder"
	validator    = "validator"
)

// reviewing are names of agents and steps that say so themselves, where no role does.
var reviewing = []string{"review", "critic", "critique", "judge", "verif", "valid", "check", "audit", "grader", "evaluat"}

func saysReview(name string) bool {
	return slices.ContainsFunc(reviewing, func(word string) bool { return strings.Contains(name, word) })
}

// reviewer reports whether a step judges the work of others: by its role, or, without any, by its name.
func reviewer(s *workflow.Step) bool {
	return slices.ContainsFunc(working(s), func(a *workflow.Agent) bool {
		return a.Role == validator || a.Role == "" && (saysReview(a.Name) || saysReview(s.ID))
	})
}

// author is an agent step that makes something.
func author(s *workflow.Step) bool { return s.Agent != nil && !reviewer(s) }

// shown reports whether an agent is shown what was read: it stands in the prompt, not in a condition.
func shown(f feed) bool {
	return f.to != nil && f.to.Agent != nil && (f.read.Place == "prompt" || f.read.Place == "input")
}

// paying steps call models.
func paying(s *workflow.Step) bool {
	return s.Agent != nil || s.Plan != nil || s.Workflow != nil || s.Merge != nil && s.Merge.Agent != nil
}

// acting steps do something that can be seen outside of the run, or wait for what comes from there: their order means
// something, whether anything of them is read or not.
func acting(s *workflow.Step) bool {
	switch s.Kind {
	case workflow.KindTool:
		return s.Tool.SideEffect != workflow.SideEffectNone || strings.HasPrefix(s.Tool.Ref, builtinTool)
	case workflow.KindApproval, workflow.KindWait, workflow.KindEmit, workflow.KindWorkflow, workflow.KindPlan:
		return true
	default:
		return false
	}
}

// builtinTool begins the names of tools that fetch nothing: they wait, fail or keep something.
const builtinTool = "builtin:"

// model asks the roster, once.
func (l *linter) model(name string) (workflow.ModelFacts, bool) {
	m, seen := l.models[name]
	if !seen && l.roster != nil {
		m.facts, m.ok = l.roster.Model(name)
		l.models[name] = m
	}
	return m.facts, m.ok
}

// first is the model that is asked first; empty: a routing rule chooses it.
func first(a *workflow.Agent) string {
	if len(a.Chain.Entries) == 0 {
		return ""
	}
	return a.Chain.Entries[0].Model
}
