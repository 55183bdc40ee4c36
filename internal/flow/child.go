package flow

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/workflow"
)

// childDepthMax bounds runs in runs: a workflow that starts workflows that start workflows.
const childDepthMax = 8

// beginChild starts a run of another workflow and waits for it. A retry is a new run.
func (r *Run) beginChild(s *step) {
	w := s.def.Workflow
	ref := w.Ref
	if w.By != nil {
		name, err := w.By.Text(r.scope(s.frame))
		if err != nil {
			r.failExpression(s, "name", err)
			return
		}
		if ref = w.Refs[name]; ref == "" {
			r.failExpression(s, "name", fmt.Errorf("there is no workflow %q", clipped(name)))
			return
		}
	}
	input, err := rendered(w.Input, r.scope(s.frame))
	if err != nil {
		r.failExpression(s, "input", err)
		return
	}
	r.spawn(s, r.w.Children[ref], input, nil)
}

// spawn starts a run for a step. Its first events are committed with those of this run.
func (r *Run) spawn(s *step, w *workflow.Workflow, input json.RawMessage, budget *workflow.Budget) {
	parent := Parent{Run: r.ID, Step: s.path(), Gen: s.gen, Attempt: s.attempt, Depth: r.depth() + 1, Plans: r.plans()}
	if s.def.Workflow != nil {
		parent.Attempt++ // the one that begins with it
	} else {
		parent.Plans++
	}
	parent.Budgets = r.budgetsFor(s)
	sub := Submission{
		ID: r.derived(s, fmt.Sprintf("child/%d", r.seq)), Tenant: r.Tenant, Workflow: w, Input: input, Labels: r.submitted.Labels,
		Stakes: r.submitted.Stakes, Mode: r.submitted.Mode, Priority: r.submitted.Priority, Budget: budget, Parent: &parent,
	}
	if w == nil {
		r.fail(s, &Failed{Failure: Failure{Class: classChildFailed, Message: "the workflow it starts is not carried by the definition"}})
		return
	}
	if parent.Depth > childDepthMax {
		r.fail(s, &Failed{Failure: Failure{Class: classChildFailed, Message: fmt.Sprintf("runs stand in each other more than %d deep", childDepthMax)}})
		return
	}
	if _, err := checkInput(sub); err != nil {
		r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: "input: " + err.Error()}})
		return
	}
	r.wait(s, &Waiting{
		For: WaitingChild, Until: r.until(s.def.Timeout),
		Child: &Child{Run: sub.ID, Workflow: w.Name, Hash: w.Hash.String()},
	})
	r.effects.Children = append(r.effects.Children, sub)
	r.effort.children++
}

func (r *Run) depth() int {
	if r.submitted.Parent == nil {
		return 0
	}
	return r.submitted.Parent.Depth
}

// plans counts the planned runs around this one, itself included.
func (r *Run) plans() int {
	if r.submitted.Parent == nil {
		return 0
	}
	return r.submitted.Parent.Plans
}

// planned goes on from a plan that was made: a person has to approve it, or it is run.
func (r *Run) planned(s *step) {
	p := s.def.Plan
	needed := p.NeedsOK
	if needed && p.OKWhen != nil {
		scope := r.scope(s.frame)
		e := s.plan.Estimate
		tools := make([]any, len(e.Tools))
		for i, t := range e.Tools {
			tools[i] = t
		}
		scope.Extra = map[string]any{"estimate": map[string]any{
			"usd_max": float64(e.CostMax) / 1e9, "steps": int64(e.Steps), "tools": tools,
		}}
		var err error
		if needed, err = p.OKWhen.Bool(scope); err != nil {
			r.failExpression(s, "approval.when", err)
			return
		}
	}
	if !needed {
		r.startPlan(s)
		return
	}
	shown := *s.plan
	shown.Calls = nil
	show, err := json.Marshal(shown)
	if err != nil {
		show = nil
	}
	r.ask(s, &Asked{
		About:   AboutPlan,
		Title:   fmt.Sprintf("Run the plan of %s (steps: %d, at most $%s)?", s.path(), s.plan.Estimate.Steps, s.plan.Estimate.CostMax),
		Show:    show,
		Choices: []string{ChoiceApprove, ChoiceReject},
	}, 0, &Waiting{})
}

// startPlan runs a plan.
func (r *Run) startPlan(s *step) {
	w, err := workflow.Load(s.plan.Definition)
	if err != nil { // it was compiled where it was made
		r.fail(s, &Failed{Failure: Failure{Class: classChildFailed, Message: "the plan cannot be read: " + err.Error()}})
		return
	}
	input, err := rendered(s.def.Plan.Input, r.scope(s.frame))
	if err != nil {
		r.failExpression(s, "input", err)
		return
	}
	r.spawn(s, w, input, &workflow.Budget{Cost: s.def.Plan.Allow.MaxCost, OnExceeded: workflow.OnExceededFail})
}

// toldChild takes the end of a run that a step started.
func (r *Run) toldChild(body json.RawMessage) {
	var b ChildEnded
	if json.Unmarshal(body, &b) != nil || r.status.Ended() {
		return
	}
	d := r.owed[b.Run]
	if d == nil {
		return
	}
	s := d.step
	result := &ChildResult{Run: b.Run, Sum: b.Sum, Unresolved: b.Unresolved}
	switch {
	case s.status != StepStatusWaiting || s.waits.Child == nil || s.waits.Child.Run != b.Run: // it was not waited for any more
		r.emit(KindOutcomeDiscarded, r.standing(s), &Cancelled{Reason: "late", Discarded: b.Status == RunStatusSucceeded, Child: result})
	case r.fate == RunStatusCancelled:
		r.emit(KindStepCancelled, s, &Cancelled{Reason: r.cutReason(), Child: result})
	case b.Status == RunStatusSucceeded:
		r.takeChild(s, b, result)
	default:
		r.childFailed(s, b, result)
	}
}

// waitingFor is the step that waits for a run, or nil.
func (r *Run) waitingFor(child uuid.UUID) *step {
	at := slices.IndexFunc(r.waiting, func(s *step) bool { return s.waits.Child != nil && s.waits.Child.Run == child })
	if at < 0 {
		return nil
	}
	return r.waiting[at]
}

func (r *Run) takeChild(s *step, b ChildEnded, result *ChildResult) {
	output := orNull(b.Output)
	if s.def.Plan != nil && s.def.Plan.Output != nil {
		value, err := workflow.Decode(output)
		if err == nil {
			scope := r.scope(s.frame)
			scope.Extra = map[string]any{"output": value}
			output, err = s.def.Plan.Output.Render(scope)
		}
		if err != nil {
			r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: "output: " + err.Error()}, Child: result})
			return
		}
	}
	r.emit(KindStepSucceeded, s, &Succeeded{Output: output, Child: result})
}

// childFailed retries, lets the planner plan anew, or fails.
func (r *Run) childFailed(s *step, b ChildEnded, result *ChildResult) {
	failure := Failure{Class: classChildFailed, Message: fmt.Sprintf("%s is %s", RunName(b.Run), b.Status), Cause: b.Error}
	if b.Error != nil {
		failure.Message += ": " + b.Error.Message
	}
	switch {
	case s.def.Plan != nil && s.replans < s.def.Plan.Replan && b.Status == RunStatusFailed && r.mayGoOn(s):
		replan := &Replan{Failure: failure, Done: b.Done}
		if s.plan != nil {
			replan.Plan = s.plan.Definition
		}
		r.emit(KindAttemptFailed, s, &AttemptFailed{Failure: failure, RetryAt: r.now, Child: result, Replan: replan, Afresh: true})
		s.queued = true
		r.ready = append(r.ready, todo{step: s})
	default:
		r.retryChild(s, failure, result)
	}
}

// retryChild lets a new run follow one that came to nothing, or fails.
func (r *Run) retryChild(s *step, failure Failure, result *ChildResult) {
	if r.mayRetry(s, failure.Class) {
		r.emit(KindAttemptFailed, s, &AttemptFailed{Failure: failure, RetryAt: r.now.Add(r.backoff(s)), Child: result})
		return
	}
	r.fail(s, &Failed{Failure: failure, Child: result})
}

// debt is the cost of a run that its step started and that has not ended.
type debt struct {
	step *step
	old  bool // the section that it is from is over: it is not waited for
}

// isOwed reports whether a run that is waited for by no step has yet to say what it cost: the run waits for it.
func (r *Run) isOwed() bool {
	for _, d := range r.owed {
		if !d.old {
			return true
		}
	}
	return false
}

// owes notes that what a run costs is still to be counted, whether or not the step that started it waits for it.
func (r *Run) owes(run uuid.UUID, s *step) {
	if r.owed == nil {
		r.owed = map[uuid.UUID]*debt{}
	}
	r.owed[run] = &debt{step: s}
}

// standing is a step, or what it stood in before a resume began that anew.
func (r *Run) standing(s *step) *step {
	for r.at(s.path()) != s {
		s = s.frame.owner
	}
	return s
}

// doneBytesMax bounds what a parent is told of the steps of a run that failed.
const doneBytesMax = 32 << 10

// tellParent says to the run that started this one how it ended.
func (r *Run) tellParent() {
	p := r.submitted.Parent
	if p == nil {
		return
	}
	b := &ChildEnded{
		Step: p.Step, Gen: p.Gen, Attempt: p.Attempt, Run: r.ID, Status: r.status, Sum: r.sum,
		Output: r.result.Output, Error: r.result.Error, Unresolved: r.result.Unresolved,
	}
	if r.status != RunStatusSucceeded {
		b.Output, b.Done = nil, map[string]json.RawMessage{}
		for i, left := 0, doneBytesMax; i < len(r.root.steps); i++ {
			s := &r.root.steps[i]
			if s.status == StepStatusSucceeded && len(s.output()) <= left {
				b.Done[s.path()] = s.output()
				left -= len(s.output())
			}
		}
	}
	r.tell(p.Run, ToldChild, b)
}
