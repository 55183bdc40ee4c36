package api

import (
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
)

// stepOf shows a step; what is long only where one step is looked at.
func stepOf(s flow.StepView, alone bool) Step {
	out := Step{
		Path: s.Path, Kind: string(s.Kind), Section: s.Section, Status: StepStatus(s.Status), Gen: int(s.Gen), Attempt: int(s.Attempt),
		StartedAt: s.StartedAt.UTC(), EndedAt: s.EndedAt.UTC(), RetryAt: s.RetryAt.UTC(), Skipped: s.Skipped, Case: s.Case,
		Output: s.Output, Error: failureOf(s.Error), Confidence: s.Confidence, Unresolved: s.Unresolved,
		ByHand: s.ByHand, Instead: s.Instead, Repaired: s.Repaired, Agent: s.Agent, Duty: string(s.Duty), Summary: s.Summary, Agreement: s.Agreement,
		Inside: insideOf(s.Inside), Waiting: stepWaitingOf(s.Waiting), Plan: planOf(s.Plan, alone),
		Cost: costOf(s.Sum.Cost, s.Sum.Unpriced), Simulated: s.Sum.Simulated > 0,
	}
	if s.Sum.Calls > 0 {
		out.Usage = usageOf(s.Sum)
	}
	if s.Answer != nil {
		out.Answer = answerOf(s.Answer)
	}
	if s.Child != nil {
		out.Child = formatRunID(s.Child.Run)
	}
	if s.Gate != nil {
		out.Gate = GateResult{Score: s.Gate.Score, Rounds: s.Gate.Rounds}
	}
	for _, d := range s.Dissent {
		out.Dissent = append(out.Dissent, Dissent{Step: d.Step, Output: d.Output})
	}
	if !alone {
		return out
	}
	out.Input = s.Input
	for _, f := range s.Failures {
		out.Failures = append(out.Failures, failureOf(&f))
	}
	for _, c := range s.Calls {
		out.Calls = append(out.Calls, callOf(c))
	}
	return out
}

func insideOf(i *flow.Inside) Inside {
	if i == nil {
		return Inside{}
	}
	return Inside{Total: i.Total, AtWork: i.AtWork, Succeeded: i.Succeeded, Failed: i.Failed, Exhausted: i.Exhausted}
}

func stepWaitingOf(w *flow.Waiting) StepWaiting {
	if w == nil {
		return StepWaiting{}
	}
	out := StepWaiting{For: w.For, Until: utcOrZero(w.Until), Signal: w.Signal}
	if w.Asked != nil && w.Asked.Approval != uuid.Nil {
		out.Approval, out.Title, out.Choices = formatApprovalID(w.Asked.Approval), w.Asked.Title, w.Asked.Choices
	}
	if w.Child != nil {
		out.Run = formatRunID(w.Child.Run)
	}
	return out
}

func planOf(p *flow.Planned, alone bool) Plan {
	if p == nil {
		return Plan{}
	}
	out := Plan{Hash: p.Hash, Steps: p.Estimate.Steps, Tools: p.Estimate.Tools, Warnings: p.Warnings}
	if p.Estimate.CostMax > 0 {
		out.CostMax = moneyOf(p.Estimate.CostMax)
	}
	if alone {
		out.Definition = p.Definition
	}
	return out
}

// utcOrZero is a time that may not be there, as it goes out.
func utcOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
