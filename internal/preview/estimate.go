// Package preview says what a workflow would do before it runs: what it would use and cost, what hangs on what, and what
// in it is not wise. Pure: no context, clock, randomness or IO.
package preview

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Estimated is what a run of a workflow would use.
type Estimated struct {
	Amount // of the whole run

	Steps []StepEstimate `json:"steps"` // in the order of Workflow.Steps
	Path  Path           `json:"critical_path"`
	// Unpriced are the models whose price is not known: what they cost is in no amount. An agent that is routed is named
	// by its route.
	Unpriced    []string `json:"unpriced"`
	Tools       []string `json:"tools"`       // that steps may call, sorted
	Assumptions []string `json:"assumptions"` // that the ranges rest on, in words
}

// StepEstimate is what a step would use, in all its items and iterations together; of a container, all in it.
type StepEstimate struct {
	Amount
	Path     string        `json:"path"`
	Kind     workflow.Kind `json:"kind"`
	Times    Span          `json:"times"`   // that it runs
	Seconds  Seconds       `json:"seconds"` // each time; of a container: until all in it is done
	Unpriced []string      `json:"unpriced,omitempty"`
}

// Path is the longest way through a workflow: steps that wait for each other.
type Path struct {
	Steps   Span     `json:"steps"` // one after another, those of items and iterations included
	Seconds Seconds  `json:"seconds"`
	Names   []string `json:"names"` // paths of the steps at the high end of the range
}

// monthDays is how long a month is in projections.
const monthDays = 30

// PerMonth is what so many runs a day cost in a month of 30 days.
func (e Estimated) PerMonth(perDay int) Cost {
	n := product(int64(max(perDay, 0)), monthDays)
	return costOf(e.Cost.span().times(Span{n, n}))
}

// Estimate works out what a run of a workflow would use. The roster says what models cost; nil: nothing is known of them.
// Input is that of the run; empty: any that its schema allows.
//
// The low end is the least that a run which succeeds can use: the first model of each chain answers at once and briefly,
// conditions do not hold, maps have one item and loops one iteration, switches take their cheapest case, gates are
// passed at once. The high end is the most it can use if no call fails: the dearest model of each chain answers at
// length, conditions hold, maps and loops go to their limits, switches take their dearest case, every revision and turn
// there may be is made. Calls that fail, are retried or sent back are counted in CallsMax only. What is known already
// narrows a range: the input and what is computed from it, lists that are written out.
//
// A token is taken as 2.5 to 5 bytes of text. What a step reads of another has the size that the other's contract,
// max_tokens or summary allows, and at most that of an output. A plan costs what its allow.max_usd says. Stakes and mode
// are the definition's. Time is that of models, tools and timers: nobody waits for a place, for a person or a signal.
func Estimate(w *workflow.Workflow, roster workflow.Roster, input json.RawMessage) Estimated {
	return estimate(w, roster, input, &children{map[childRun]Estimated{}, map[*workflow.Workflow]*shape{}})
}

func estimate(w *workflow.Workflow, roster workflow.Roster, input json.RawMessage, known *children) Estimated {
	e := newEstimator(w, roster, input, known)
	e.list(w.Main, Span{1, 1})
	e.list(w.OnFailure, Span{0, 1})
	e.list(w.Finally, Span{1, 1})
	for _, list := range [][]*workflow.Step{w.Main, w.OnFailure, w.Finally} {
		for _, s := range list {
			e.out.Amount = e.out.Amount.plus(e.out.Steps[s.Index].Amount)
		}
	}
	e.unknownPrices()
	e.out.Path = e.path()
	e.out.Assumptions = e.assumed.lines()
	e.out.Tools = append([]string{}, sortedKeys(e.tools)...)
	return e.out
}

// estimator walks a workflow once.
type estimator struct {
	desk
	out     Estimated
	assumed assumptions
	tools   map[string]bool
}

// children is what is known already of workflows that others run: many may run the same.
type children struct {
	runs    map[childRun]Estimated
	outputs map[*workflow.Workflow]*shape
}

// childRun is a workflow with an input; empty: it is not known.
type childRun struct {
	workflow *workflow.Workflow
	input    string
}

// assumptions are gathered with what each is about.
type assumptions struct {
	whats  []string
	abouts map[string][]string
}

func (a *assumptions) add(about, what string) {
	if a.abouts == nil {
		a.abouts = map[string][]string{}
	}
	abouts, known := a.abouts[what]
	if !known {
		a.whats = append(a.whats, what)
	}
	if !slices.Contains(abouts, about) {
		a.abouts[what] = append(abouts, about)
	}
}

// aboutsMax is how many things are named that the same is assumed of.
const aboutsMax = 8

func (a *assumptions) lines() []string {
	lines := make([]string, len(a.whats))
	for i, what := range a.whats {
		about := a.abouts[what]
		if more := len(about) - aboutsMax; more > 0 {
			about = append(slices.Clone(about[:aboutsMax]), fmt.Sprintf("and %d more", more))
		}
		lines[i] = strings.Join(about, ", ") + ": " + what
	}
	return lines
}

func newEstimator(w *workflow.Workflow, roster workflow.Roster, input json.RawMessage, known *children) *estimator {
	e := &estimator{tools: map[string]bool{}}
	e.out = Estimated{Steps: make([]StepEstimate, len(w.Steps))}
	e.desk = desk{reader: newReader(w, roster, input, known, e.assumed.add)}
	return e
}

// list estimates steps that run so many times each, and answers their sum.
func (e *estimator) list(steps []*workflow.Step, times Span) Amount {
	var sum Amount
	for _, s := range steps {
		sum = sum.plus(e.step(s, times))
	}
	return sum
}

// step estimates a step and all in it. Times is how often what is around it runs.
func (e *estimator) step(s *workflow.Step, times Span) Amount {
	switch holds, known := e.holds(s.When, s.Body); {
	case !known:
		times.Low = 0
	case !holds:
		times = Span{}
	}
	out := &e.out.Steps[s.Index]
	out.Path, out.Kind, out.Times = s.Path, s.Kind, times
	switch s.Kind {
	case workflow.KindGroup:
		out.Amount = e.list(s.Group.Steps, times)
	case workflow.KindSwitch:
		out.Amount = e.cases(s, times)
	case workflow.KindMap:
		out.Amount = e.list(s.Map.Body.Main, e.inside(s, times))
	case workflow.KindLoop:
		out.Amount = e.list(s.Loop.Body.Main, e.inside(s, times))
	default:
		e.unpriced, e.tasks = map[string]bool{}, map[task]work{}
		w := e.leaf(s)
		out.Amount, out.Seconds, out.Unpriced = w.amount.times(times), w.seconds, sortedKeys(e.unpriced)
	}
	return out.Amount
}

// unknownPrices gathers the models without a price: of what is in a container at the container, of all at the run.
func (e *estimator) unknownPrices() {
	e.out.Unpriced = []string{}
	for i := len(e.w.Steps) - 1; i >= 0; i-- { // what is in a container stands behind it
		models := e.out.Steps[i].Unpriced
		e.out.Unpriced = joined(e.out.Unpriced, models)
		if c := containerOf(e.w.Steps[i]); c != nil {
			e.out.Steps[c.Index].Unpriced = joined(e.out.Steps[c.Index].Unpriced, models)
		}
	}
}

// joined are the words of two sorted lists, sorted.
func joined(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// inside is how often the body of a map or loop runs.
func (e *estimator) inside(s *workflow.Step, times Span) Span {
	return times.times(e.rounds(s)).atMost(workflow.ExpandedStepsMax)
}

// rounds is how many items a map has, or iterations a loop.
func (e *estimator) rounds(s *workflow.Step) Span {
	if s.Loop != nil {
		n := Span{1, int64(s.Loop.MaxIterations)}
		if n.High > 1 {
			e.assume(s.Path, fmt.Sprintf("at most %s iterations; the range assumes 1 to %s", grouped(n.High), grouped(n.High)))
		}
		return n
	}
	n := e.mapItems(s).count
	if n.Low < n.High {
		e.assume(s.Path, fmt.Sprintf("at most %s items; the range assumes %s to %s", grouped(int64(s.Map.MaxItems)), grouped(n.Low), grouped(n.High)))
	}
	return n
}

// cases estimates a switch: the cheapest and the dearest of its cases, or the one that is known to be taken.
func (e *estimator) cases(s *workflow.Step, times Span) Amount {
	taken := e.taken(s)
	var sum Amount
	complete, first := false, true
	for i, k := range s.Switch.Cases {
		switch {
		case taken == i:
			sum = sum.plus(e.list(k.Steps, times))
		case taken >= -1:
			e.list(k.Steps, Span{})
		default:
			one := e.list(k.Steps, times)
			if first {
				sum, first = one, false
			} else {
				sum = sum.either(one)
			}
			e.perhaps(k.Steps)
		}
		complete = complete || k.When == nil
	}
	if taken < -1 && !complete {
		return sum.maybe()
	}
	return sum
}

// What is known of which case a switch takes.
const (
	noCase      = -1
	caseUnknown = -2
)

// taken is the case that a switch takes, if all conditions up to it are known.
func (e *estimator) taken(s *workflow.Step) int {
	for i, k := range s.Switch.Cases {
		holds, known := e.holds(k.When, s.Body)
		if !known {
			return caseUnknown
		}
		if holds {
			return i
		}
	}
	return noCase
}

// perhaps notes that steps, and all in them, may not run at all.
func (e *estimator) perhaps(steps []*workflow.Step) {
	for _, s := range steps {
		out := &e.out.Steps[s.Index]
		out.Amount, out.Times = out.Amount.maybe(), out.Times.maybe()
		switch s.Kind {
		case workflow.KindGroup:
			e.perhaps(s.Group.Steps)
		case workflow.KindSwitch:
			for _, k := range s.Switch.Cases {
				e.perhaps(k.Steps)
			}
		case workflow.KindMap:
			e.perhaps(s.Map.Body.Main)
		case workflow.KindLoop:
			e.perhaps(s.Loop.Body.Main)
		default:
		}
	}
}

// leaf is what a step that holds no others does when it runs once.
func (e *estimator) leaf(s *workflow.Step) work {
	var w work
	switch s.Kind {
	case workflow.KindAgent:
		w = e.atWork(s, s.Agent, Span{})
	case workflow.KindTool:
		w = e.tool(s)
	case workflow.KindMerge:
		if s.Merge.Agent != nil {
			w = e.atWork(s, s.Merge.Agent, e.members(s))
		}
	case workflow.KindPlan:
		w = e.plan(s)
	case workflow.KindWorkflow:
		w = e.child(s)
	case workflow.KindWait:
		w = e.wait(s)
	case workflow.KindApproval:
		e.assume(s.Path, "the time until a person answers is not counted")
	default: // set and emit take nothing
	}
	if most := s.Timeout.Seconds(); most > 0 && s.Kind != workflow.KindWait {
		w.seconds = Seconds{min(w.seconds.Low, most), min(w.seconds.High, most*float64(timesAnew(s)))}
	}
	return w
}

// timesAnew is how often the timeout of a step begins anew though nothing failed: with each revision.
func timesAnew(s *workflow.Step) int {
	revise := 0
	if s.Gate != nil {
		revise = s.Gate.Revise
	}
	if a := workerOf(s); a != nil {
		if g := gateOf(s, a); g != nil {
			revise = g.Revise
		}
	}
	return 1 + revise
}

// members is what a judge reads of the steps that are merged.
func (e *estimator) members(s *workflow.Step) Span {
	var all Span
	for _, slot := range s.Merge.Of {
		all = all.plus(e.output(s.Body.Steps[slot]).tokens.maybe())
	}
	return all
}

// tool takes up to its timeout. The built-in ones answer at once, but for the one that sleeps.
func (e *estimator) tool(s *workflow.Step) work {
	e.tools[s.Tool.Ref] = true
	var w work
	switch s.Tool.Ref {
	case "builtin:noop", "builtin:fail", "builtin:json", "builtin:time":
		return w
	}
	w.seconds.High = s.Timeout.Seconds()
	return w
}

// plan is the planner, and whatever its plans may cost.
func (e *estimator) plan(s *workflow.Step) work {
	p := s.Plan
	asked := e.template(p.Goal, s.Body).tokens.plus(e.template(p.Input, s.Body).tokens)
	planned := e.talk(&p.Planner, asked, 0)
	steps, rounds := int64(p.Allow.MaxSteps), int64(1+p.Replan)
	answer := Seconds{0, firstTokenHigh + answerTokensDefault/tokensPerSDefault}
	inside := work{
		amount:  Amount{Cost: Cost{0, p.Allow.MaxCost}, Calls: Span{0, steps}},
		seconds: Seconds{0, answer.High * float64(steps)},
	}
	w := planned.then(inside)
	for range p.Replan {
		w = w.then(planned.then(inside).maybe())
	}
	w.amount.CallsMax = product(rounds, repeated(&p.Planner, 1)+product(steps, workflow.AttemptsMax))
	for _, ref := range p.Allow.Tools {
		e.tools[ref] = true
	}
	e.assume(s.Path, fmt.Sprintf("a plan costs at most its allow.max_usd, $%s; each of its %d steps makes one call", p.Allow.MaxCost, steps))
	return w
}

// wait takes as long as it is written to, if that is known.
func (e *estimator) wait(s *workflow.Step) work {
	if s.Wait.For != nil {
		if text, ok := e.rendered(s.Wait.For.Parts(), s.Body); ok {
			if d, ok := workflow.ParseDuration(fmt.Sprint(text)); ok {
				return work{seconds: Seconds{d.Seconds(), d.Seconds()}}
			}
		}
	}
	e.assume(s.Path, "how long it waits is not known, and not counted")
	return work{}
}

// child is another workflow, or one of several.
func (e *estimator) child(s *workflow.Step) work {
	var w work
	input := e.childInput(s)
	for i, ref := range childrenOf(s) {
		one, unpriced := e.childWork(s, ref, input)
		for _, model := range unpriced {
			e.unpriced[model] = true
		}
		if i == 0 {
			w = one
		} else {
			w = w.either(one)
		}
	}
	w.amount.CallsMax = product(w.amount.CallsMax, int64(max(s.Retry.MaxAttempts, 1)))
	return w
}

func (e *estimator) childWork(s *workflow.Step, ref string, input json.RawMessage) (work, []string) {
	child := e.w.Children[ref]
	if child == nil {
		e.assume(s.Path, "the workflow "+ref+" is not at hand, and not counted")
		return work{}, nil
	}
	key := childRun{child, string(input)}
	run, known := e.children.runs[key]
	if !known {
		run = estimate(child, e.roster, input, e.children)
		e.children.runs[key] = run
	}
	for _, tool := range run.Tools {
		e.tools[tool] = true
	}
	for _, what := range run.Assumptions {
		e.assume(s.Path, what)
	}
	seconds := run.Path.Seconds
	seconds.High = min(seconds.High, limit(child.Timeout))
	return work{run.Amount, seconds}, run.Unpriced
}
