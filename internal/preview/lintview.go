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

	workers [][]*workflow.Agent // by Step.Index: who may do it
	judges  []bool              // by Step.Index: it judges the work of others
	checked []bool              // by Step.Index: somebody looks at what it makes, or it is not known yet: see asked
	asked   []bool

	end   []int    // by Step.Index: the index behind the last step inside it
	past  []steps  // by Step.Index: see before; nil: not worked out yet
	done  []steps  // by Step.Index: see with; nil: not worked out yet
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
		end: make([]int, n), past: make([]steps, n), done: make([]steps, n), feeds: make([][]feed, n), loads: make([]*load, n),
		workers: make([][]*workflow.Agent, n), judges: make([]bool, n), checked: make([]bool, n), asked: make([]bool, n),
	}
	for i := range w.Steps {
		for s := w.Steps[i]; s != nil; s = around(s) {
			l.end[s.Index] = i + 1
		}
	}
	for _, s := range w.Steps {
		l.workers[s.Index] = working(s)
		l.judges[s.Index] = reviews(s, l.agents(s))
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

// steps are some of the steps of a workflow, a bit for each index.
type steps []uint64

func (s steps) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s steps) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s steps) join(more steps) {
	for i, word := range more {
		s[i] |= word
	}
}

func (l *linter) noSteps() steps { return make(steps, (len(l.w.Steps)+63)/64) }

// before are the steps that are settled before s begins. The definition has no cycles.
func (l *linter) before(s *workflow.Step) steps {
	if l.past[s.Index] == nil {
		past := l.noSteps()
		l.past[s.Index] = past
		for _, e := range s.Edges {
			past.join(l.with(s.Body.Steps[e.Slot]))
		}
		if a := around(s); a != nil {
			past.join(l.before(a))
		}
	}
	return l.past[s.Index]
}

// with are the steps that are settled when s is: itself, all inside it, and all that came before them.
func (l *linter) with(s *workflow.Step) steps {
	if l.done[s.Index] == nil {
		done := l.noSteps()
		l.done[s.Index] = done
		for _, in := range l.inside(s) {
			done.add(in.Index)
			done.join(l.before(in))
		}
	}
	return l.done[s.Index]
}

// parallel reports whether two steps may be at work at once.
func (l *linter) parallel(a, b *workflow.Step) bool {
	return a != b && !l.before(a).has(b.Index) && !l.before(b).has(a.Index) && !exclusive(a, b)
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

// agents are those that may do a step: one, or those that its expression chooses from.
func (l *linter) agents(s *workflow.Step) []*workflow.Agent { return l.workers[s.Index] }

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
func (l *linter) reviewer(s *workflow.Step) bool { return l.judges[s.Index] }

func reviews(s *workflow.Step, agents []*workflow.Agent) bool {
	return slices.ContainsFunc(agents, func(a *workflow.Agent) bool {
		return a.Role == validator || a.Role == "" && (saysReview(a.Name) || saysReview(s.ID))
	})
}

// author is an agent step that makes something.
func (l *linter) author(s *workflow.Step) bool { return s.Agent != nil && !l.reviewer(s) }

// shown reports whether an agent is shown what a step made: it stands in the prompt, not in a condition.
func shown(f feed) bool {
	return f.to != nil && f.to.Agent != nil && (f.read.Place == "prompt" || f.read.Place == "input") && slices.Contains(contents, f.read.Field)
}

// contents are the fields of a step that hold what it made.
var contents = []string{"output", "summary", "artifacts"}

// paying steps call models.
func paying(s *workflow.Step) bool {
	return s.Agent != nil || s.Plan != nil || s.Workflow != nil || s.Merge != nil && s.Merge.Agent != nil
}

// acting steps do something that can be seen outside of the run, or wait for what comes from there: their order means
// something, whether anything of them is read or not.
func acting(s *workflow.Step) bool {
	switch s.Kind {
	case workflow.KindTool:
		return s.Tool.SideEffect != workflow.SideEffectNone || s.Tool.Ref == "builtin:sleep" || s.Tool.Ref == "builtin:fail"
	case workflow.KindApproval, workflow.KindWait, workflow.KindEmit, workflow.KindWorkflow, workflow.KindPlan:
		return true
	default:
		return false
	}
}

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
