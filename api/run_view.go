package api

import (
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// status is by the log once that has ended, and by the row between claims.
func (s *shown) status() flow.RunStatus {
	if s.view != nil && (s.view.Status != flow.RunStatusRunning || s.row.Status.Ended()) {
		return s.view.Status
	}
	return s.row.Status
}

// wire is the run as it goes out.
func (s *shown) wire() Run {
	row := s.row
	out := Run{
		ID: formatRunID(row.ID), Workflow: row.Workflow, Version: int32(row.Version), Hash: row.Hash.String(),
		Status: RunStatus(s.status()), Stakes: Stakes(row.Stakes), Mode: Mode(row.Mode), Priority: row.Priority, Labels: row.Labels,
		CreatedAt: row.CreatedAt.UTC(), StartedAt: orZero(row.StartedAt).UTC(), EndedAt: orZero(row.FinishedAt).UTC(),
		LastSeq: s.last.Seq, Progress: Progress{Settled: row.StepsDone, Total: row.StepsTotal},
		Usage: usageOf(row.Sum), Cost: costOf(row.Sum.Cost, row.Sum.Unpriced), Simulated: row.Sum.Simulated > 0,
		Error: failureOf(row.Error), Parent: parentOf(row), Links: linksOf(row.ID, s.status(), row.WaitingFor),
	}
	if row.Sum.Calls > 0 {
		out.Savings = savingsOf(row.Sum.Cost, row.Sum.Baseline, row.Sum.CacheSaved)
	}
	if s.view != nil {
		s.overlay(&out, *s.view)
	}
	if s.result != nil {
		out.Output, out.Error, out.Quality = s.result.Output, failureOf(s.result.Error), qualityOf(s.result.Quality)
		for _, u := range s.result.Unresolved {
			out.Unresolved = append(out.Unresolved, Unresolved(u))
		}
		if s.with(GetRunParamsIncludeProvenance) {
			out.Provenance = []Provenance{}
			for _, p := range s.result.Provenance {
				out.Provenance = append(out.Provenance, provenanceOf(p))
			}
		}
	}
	if s.with(GetRunParamsIncludeInput) {
		out.Input = s.input
	}
	return out
}

// stageShownMax bounds the steps at work that are named.
const stageShownMax = 100

// overlay puts what the log says over what the row said when it was written.
func (s *shown) overlay(out *Run, v flow.View) {
	out.Stage = v.Stage[:min(len(v.Stage), stageShownMax)]
	out.StartedAt, out.EndedAt = v.StartedAt.UTC(), v.EndedAt.UTC()
	out.Progress = Progress{Settled: v.StepsDone, Total: v.Total}
	out.Usage, out.Cost, out.Simulated = usageOf(v.Sum), costOf(v.Sum.Cost, v.Sum.Unpriced), v.Sum.Simulated > 0
	if v.Sum.Calls > 0 {
		out.Savings = savingsOf(v.Sum.Cost, v.Sum.Baseline, v.Sum.CacheSaved)
	}
	if v.Budget != nil && !v.Status.Ended() {
		out.Budget = runBudgetOf(v.Budget.RunBudget, v.Sum, v.Budget.Warned)
	}
	out.WaitingFor, out.Quality = waitingOf(v), qualityOf(v.Quality)
	if v.Error != nil {
		out.Error = failureOf(v.Error)
	}
	if !s.with(GetRunParamsIncludeSteps) {
		return
	}
	steps, truncated := shownSteps(v.Steps)
	out.Steps, out.StepsTruncated = []Step{}, truncated
	for _, step := range steps {
		out.Steps = append(out.Steps, stepOf(step, false))
	}
}

func qualityOf(q *flow.Quality) Quality {
	if q == nil {
		return Quality{}
	}
	return Quality{Level: q.Level, Name: q.Name, Omitted: q.Omitted, Reasons: q.Reasons}
}

// parentOf is the step that started a run, where one did.
func parentOf(row store.RunRow) RunParent {
	if row.Parent == nil {
		return RunParent{}
	}
	return RunParent{Run: formatRunID(*row.Parent), Step: row.ParentStep}
}
