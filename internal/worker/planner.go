package worker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/workflow"
)

// plan has the planner plan, and checks what it planned: against what is allowed, and by what it may cost. What is wrong is
// sent back like an answer that breaks its contract.
func (j *job) plan() *flow.Outcome {
	a := &j.attempt
	ask := agent.Planning{
		Task: j.task, Allow: a.Step.Plan.Allow, Depth: a.Depth,
		Problem: func(planned json.RawMessage) string { _, wrong := j.planned(planned); return wrong },
	}
	for _, name := range ask.Allow.Agents {
		if known := a.Within.Agents[name]; known != nil {
			ask.Agents = append(ask.Agents, known)
		}
	}
	if r := a.Replan; r != nil {
		ask.Failed, ask.Plan, ask.Done = told(r.Failure), r.Plan, r.Done
	}
	talk, first := agent.OpenPlan(a.Agent, ask)
	d := j.open("", a.Agent, talk, first)
	d.avoid = a.Avoid
	done, b := d.answer()
	if b != nil {
		return j.end(b.outcome)
	}
	planned, wrong := j.planned(done.Output)
	if wrong != "" { // it was checked when it came
		return j.end(fail(classInternal, "the plan does not compile any more: "+wrong))
	}
	return j.end(&flow.Outcome{Planned: planned})
}

// planned is a plan as it would run; or what is wrong with it.
func (j *job) planned(answer json.RawMessage) (p *flow.Planned, wrong string) {
	a := &j.attempt
	w, err := workflow.CompilePlan(a.Step.Plan, a.Within, answer, a.Depth)
	if err != nil {
		return nil, problems(err)
	}
	var given flow.Prompted
	if err := json.Unmarshal(a.Input, &given); err != nil {
		return nil, err.Error()
	}
	estimate := preview.Estimate(w, j.w.roster, given.Input)
	if most := a.Step.Plan.Allow.MaxCost; estimate.Cost.High > most {
		return nil, fmt.Sprintf("- /steps: at worst the plan costs $%s; $%s are allowed (max_usd). %s", estimate.Cost.High, most, dearest(estimate))
	}
	most := estimate.Cost.High
	if len(estimate.Unpriced) > 0 { // nobody knows what those models cost; what the plan may spend bounds it
		most = a.Step.Plan.Allow.MaxCost
	}
	p = &flow.Planned{
		Definition: w.Source, Hash: w.Hash.String(),
		Estimate: flow.PlanEstimate{CostMax: most, Steps: len(w.Steps), Tools: estimate.Tools},
	}
	for _, warning := range preview.Lint(w, j.w.roster) {
		p.Warnings = append(p.Warnings, warning.Code+": "+warning.Detail)
	}
	return p, ""
}

// dearest names what costs most.
func dearest(e preview.Estimated) string {
	leaves := slices.DeleteFunc(slices.Clone(e.Steps), func(s preview.StepEstimate) bool {
		return s.Kind != workflow.KindAgent && s.Kind != workflow.KindMerge && s.Kind != workflow.KindPlan
	})
	if len(leaves) == 0 {
		return ""
	}
	s := slices.MaxFunc(leaves, func(a, b preview.StepEstimate) int { return int(min(max(a.Cost.High-b.Cost.High, -1), 1)) })
	return fmt.Sprintf("The dearest step is %s, with $%s.", s.Path, s.Cost.High)
}

// problems lists what is wrong with a plan.
func problems(err error) string {
	f := fault.Of(err)
	if f == nil || len(f.Issues) == 0 {
		return "- " + err.Error()
	}
	var list []string
	for _, i := range f.Issues {
		s := i.Pointer + ": " + i.Detail
		if i.Suggest != "" {
			s += " (" + i.Suggest + ")"
		}
		list = append(list, strings.TrimPrefix(s, ": "))
	}
	return agent.Listed(list)
}
