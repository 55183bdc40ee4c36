package preview

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// areasMax is how many kinds of work are still one job. The monolith of the books does four: database, API, tests, docs.
const areasMax = 3

// monolithAgent fires at an agent step whose instructions and prompt ask one agent to make things of four or more kinds
// of work (see areas): backend, frontend, tests, documentation … Agents that may delegate, those that judge, and those
// that join what two or more other steps made are not meant: they name the parts, they do not make them.
func (l *linter) monolithAgent() {
	asked := map[string][]string{} // of agents: by their instructions
	for _, s := range l.w.Steps {
		if !l.author(s) || l.partsJoined(s) > 1 {
			continue
		}
		for _, a := range l.agents(s) {
			if len(a.Delegates) > 0 {
				continue
			}
			own, ok := asked[a.Instructions]
			if !ok {
				own = areasOf(a.Instructions)
				asked[a.Instructions] = own
			}
			all := slices.Concat(own, areasOf(written(s.Agent.Prompt)))
			slices.Sort(all)
			if all = slices.Compact(all); len(all) > areasMax {
				l.step(s, fmt.Sprintf("- {id: %s, agent: …, prompt: …}   # one step for each of them", word(all[0])),
					"%s asks one agent for %s: each is a job of its own, and one conversation for all of them does each of them worse", s.ID, names(all))
				break
			}
		}
	}
}

// partsJoined is how many other steps' outputs an agent is shown.
func (l *linter) partsJoined(s *workflow.Step) int {
	seen := map[int]bool{}
	for _, r := range s.Reads {
		if shown(feed{to: s, read: r}) {
			seen[r.Step.Index] = true
		}
	}
	return len(seen)
}

func word(s string) string { return strings.ReplaceAll(s, "-", "_") }

// dearTier is from where a model is expensive: the seed of the roster has its judges there, its workers below.
const dearTier = 4

// expensiveForTrivial fires at an agent step whose answer is trivial (by its contract a few words out of lists, numbers,
// truth values: see trivial) while the model asked first is of tier 4 or 5. Orchestrators, and validators that are shown
// the work of others, decide with such answers: they are not meant. Nor are workflows of high stakes.
func (l *linter) expensiveForTrivial() {
	if l.w.Stakes != nil && string(l.w.Stakes.Source) == `"high"` {
		return
	}
	for _, s := range l.w.Steps {
		if s.Agent == nil || l.reviewer(s) && l.partsJoined(s) > 0 {
			continue
		}
		for _, a := range l.agents(s) {
			if f, ok := l.model(first(a)); ok && f.Tier >= dearTier && a.Role != orchestrator && l.trivial(a) {
				l.step(s, "route: classification", "%s chooses among a few words, and %s (tier %d of 5) is asked to: a small model does that as well", s.ID, first(a), f.Tier)
				break
			}
		}
	}
}

// duty is one thing that an agent does in a workflow.
type duty struct {
	agent *workflow.Agent
	what  string // of the workflow, or of the step
	step  *workflow.Step
}

// The duties of agents.
const (
	dutyLeads     = "is the orchestrator of the workflow"
	dutyWorks     = "works at"
	dutyPlans     = "plans"
	dutyMerges    = "judges what is merged by"
	dutyJudges    = "judges at the gate of"
	dutyDecides   = "decides what becomes of a failure of"
	dutyDelegates = "is a delegate at"
)

// duties are all that agents do: the orchestrator first, then step by step.
func (l *linter) duties() iter.Seq[duty] {
	return func(yield func(duty) bool) {
		if l.w.Orchestrator != nil && !yield(duty{l.w.Orchestrator, dutyLeads, nil}) {
			return
		}
		for _, s := range l.w.Steps {
			if slices.ContainsFunc(l.dutiesAt(s), func(d duty) bool { return !yield(d) }) {
				return
			}
		}
	}
}

func (l *linter) dutiesAt(s *workflow.Step) []duty {
	var all []duty
	add := func(a *workflow.Agent, what string) {
		if a != nil {
			all = append(all, duty{a, what, s})
		}
	}
	gates := func(g *workflow.Gate) {
		if g != nil {
			for _, c := range g.Checks {
				add(c.Judge, dutyJudges)
			}
		}
	}
	for _, a := range l.agents(s) {
		add(a, dutyWorks)
		for _, d := range a.Delegates {
			add(d, dutyDelegates)
		}
		if s.Gate == nil {
			gates(a.Gate)
		}
	}
	gates(s.Gate)
	if s.Plan != nil {
		add(&s.Plan.Planner, dutyPlans)
	}
	if s.Merge != nil && s.Merge.Agent != nil {
		add(&s.Merge.Agent.Agent, dutyMerges)
	}
	for _, e := range s.OnError {
		add(e.To, dutyDecides)
		add(e.Agent, dutyWorks)
	}
	return all
}

// grinderDecides fires where an agent with the role grinder has a duty of judgement: it is the workflow's orchestrator,
// plans, judges at a gate or in a merge, or decides what becomes of a failure. A grinder whose answer a condition reads
// is not meant: it classifies, the workflow decides.
func (l *linter) grinderDecides() {
	for d := range l.duties() {
		role := orchestrator
		switch {
		case d.agent.Role != grinder || d.what == dutyWorks || d.what == dutyDelegates:
			continue
		case d.what == dutyJudges || d.what == dutyMerges:
			role = validator
		}
		at := "the workflow"
		if d.step != nil {
			at = d.step.ID
		}
		if d.what == dutyLeads {
			l.agent(d.agent, nil, "role: orchestrator", "%s is a grinder and %s: whoever does the work should not decide about it", d.agent.Name, d.what)
			continue
		}
		l.step(d.step, "role: "+role, "%s is a grinder and %s %s: whoever does the work should not decide about it", d.agent.Name, d.what, at)
	}
}

// orchestratorGrinds fires at a main agent step done by an orchestrator that neither plans nor judges there: it is shown
// no work of others, no grinder is shown what it says, and it has nobody to delegate to. One alone in its workflow is not
// meant: there is nobody it could leave the work to.
func (l *linter) orchestratorGrinds() {
	others := slices.ContainsFunc(l.w.Steps, func(s *workflow.Step) bool {
		return slices.ContainsFunc(l.agents(s), func(a *workflow.Agent) bool { return a.Role != orchestrator })
	})
	for _, s := range l.w.Steps {
		if s.Agent == nil || s.Section != workflow.SectionMain || !others || s.Agent.By != nil {
			continue
		}
		a := &s.Agent.Agent
		if a.Role == orchestrator && len(a.Delegates) == 0 && l.partsJoined(s) == 0 && !l.directs(s) {
			l.step(s, "agent: …   # a grinder", "%s has the orchestrator %s do the work itself: it is shown nothing to judge, and nobody works by what it says", s.ID, a.Name)
		}
	}
}

// directs reports whether somebody who makes something is shown what a step says, through containers and sets, too.
func (l *linter) directs(s *workflow.Step) bool {
	return l.reaches(s, func(f feed) bool {
		return f.to != nil && (f.to.Plan != nil || f.to.Workflow != nil || f.to.Map != nil && f.read.Place == "items" ||
			shown(f) && slices.ContainsFunc(l.agents(f.to), func(a *workflow.Agent) bool { return a.Role != orchestrator && !l.reviewer(f.to) }))
	})
}

// reaches reports whether a use of the step is of the wanted kind: its own, or one of a container or set that hands its
// output on.
func (l *linter) reaches(s *workflow.Step, wanted func(feed) bool) bool {
	seen := map[int]bool{}
	var from func(*workflow.Step) bool
	from = func(s *workflow.Step) bool {
		if seen[s.Index] {
			return false
		}
		seen[s.Index] = true
		return slices.ContainsFunc(l.feeds[s.Index], func(f feed) bool { return wanted(f) || handsOn(f) && from(f.to) })
	}
	return from(s)
}

// handsOn reports whether what was read becomes part of the reader's own output as it is.
func handsOn(f feed) bool {
	return f.to != nil && (f.read.Place == "output" || f.read.Place == "set" || f.to.Merge != nil && f.to.Merge.Agent == nil)
}

// twoOrchestrators fires at the second agent with the role orchestrator that has a duty in the workflow, and at each
// further one. A plan and another workflow are runs of their own and may have their own.
func (l *linter) twoOrchestrators() {
	leading := ""
	seen := map[string]bool{}
	for d := range l.duties() {
		if d.agent.Role != orchestrator || seen[d.agent.Name] {
			continue
		}
		seen[d.agent.Name] = true
		if leading == "" {
			leading = d.agent.Name
			continue
		}
		l.agent(d.agent, d.step, "role: grinder", "%s and %s are both orchestrators: one of them decides, or they decide against each other", leading, d.agent.Name)
	}
}

// needlessAgent fires where something else does the same for less: a task of one short sentence that an expression does
// (join, count, sort, upper-case, take the first: see mechanical); an agent that is handed one output and told nothing,
// neither by its prompt nor by instructions; a plan that may have a single step.
func (l *linter) needlessAgent() {
	for _, s := range l.w.Steps {
		if s.Plan != nil && s.Plan.Allow.MaxSteps == 1 {
			l.step(s, "agent: …", "%s plans a single step: name the agent, and nobody has to be asked which", s.ID)
		}
		if s.Agent == nil || len(s.Agent.Agent.Delegates) > 0 {
			continue
		}
		told := written(s.Agent.Prompt)
		switch {
		case isMechanical(told) || told == "" && isMechanical(s.Agent.Agent.Instructions):
			l.step(s, "set: {value: ${{ … }}}", "%s asks a model for what an expression does, the same each time and for nothing", s.ID)
		case told == "" && s.Agent.Agent.Instructions == "" && s.Agent.Input == nil && l.partsJoined(s) == 1:
			l.step(s, "instructions: …", "%s is handed one output and told nothing to do with it: read %s where it is needed, without an agent between", s.ID, "the output")
		}
	}
}

// shortTask is how long a task may be that is one sentence.
const shortTask = 120

func isMechanical(told string) bool {
	told = strings.ToLower(strings.TrimSpace(told))
	if told == "" || len(told) > shortTask {
		return false
	}
	verb, _, _ := strings.Cut(told, " ")
	return mechanicalVerbs[verb] && mechanical.MatchString(told)
}

// micromanagedMin is how long instructions may be whatever is asked for, in tokens: half a page.
const micromanagedMin = 150

// micromanagedAgent fires at an agent step whose instructions and prompt, without what its expressions put in, are longer
// than the answer may be, and longer than half a page. Answers that only choose are not meant, nor reviewers: what is to
// be chosen by has to be said.
func (l *linter) micromanagedAgent() {
	warned := map[string]bool{}
	for _, s := range l.w.Steps {
		if !l.author(s) || warned[s.Agent.Agent.Name] {
			continue
		}
		a := &s.Agent.Agent
		told, most := textSize(a.Instructions+written(s.Agent.Prompt)), l.answerMax(a)
		if told > max(most, micromanagedMin) && !l.trivial(a) {
			warned[a.Name] = true
			l.step(s, "instructions: …   # what and why, not how", "%s tells the agent how in about %d tokens for an answer of at most %d: say what is wanted and why, or write it yourself", s.ID, told, most)
		}
	}
}
