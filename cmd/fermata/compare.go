package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/rehearsal"
	"github.com/fermata-run/fermata/internal/usage"
)

type compareCommand struct {
	remoteFlags
	A string `arg:"" name:"run-a" help:"A run: run_…"`
	B string `arg:"" name:"run-b" help:"Another one."`

	All bool `help:"How outputs differ also of steps inside maps and loops."`
}

// Run lays two runs side by side.
func (c *compareCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	a, err := remote.whole(ctx, c.A)
	if err != nil {
		return err
	}
	b, err := remote.whole(ctx, c.B)
	if err != nil {
		return err
	}
	both := rehearsal.Compare(a.ID, accountOf(a), b.ID, accountOf(b))
	if s.json {
		return s.showJSON(both)
	}
	if a.Workflow != b.Workflow {
		s.say("they are of two workflows, %s and %s: steps are compared by their ids", a.Workflow, b.Workflow)
	}
	return showComparison(s, both, func(path string) bool { return c.All || depth(path) == 0 })
}

// accountOf is what came of a run that the service shows.
func accountOf(run *client.Run) *rehearsal.Account {
	a := &rehearsal.Account{
		Status: string(run.Status), Output: run.Output, Error: failureOf(run.Error), Calls: run.Usage.Calls, Tokens: totalTokens(run.Usage.Tokens),
		Cost: usage.Money(run.Cost.NanoUSD), Unpriced: run.Cost.UnpricedCalls, Took: between(run.CreatedAt, run.EndedAt),
	}
	for _, u := range run.Unresolved {
		a.Unresolved = append(a.Unresolved, u.Text)
	}
	made := map[string]client.Provenance{}
	for _, p := range run.Provenance {
		made[p.Step] = p
	}
	for i := range run.Steps {
		step := &run.Steps[i]
		a.Steps = append(a.Steps, rehearsal.StepAccount{
			Path: step.Path, Kind: step.Kind, Status: string(step.Status), Attempts: step.Attempt, Agent: made[step.Path].Agent, Model: made[step.Path].Model,
			Calls: step.Usage.Calls, Tokens: totalTokens(step.Usage.Tokens), Cost: usage.Money(step.Cost.NanoUSD), Unpriced: step.Cost.UnpricedCalls,
			Confidence: step.Confidence, Output: step.Output, Error: failureOf(step.Error),
			Began: between(run.CreatedAt, step.StartedAt), Took: between(step.StartedAt, step.EndedAt),
		})
	}
	return a
}

func failureOf(f client.Failure) *flow.Failure {
	if f.Class == "" {
		return nil
	}
	return &flow.Failure{Class: f.Class, Message: f.Message, Step: f.Step}
}

func between(from, to time.Time) time.Duration {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return to.Sub(from)
}

// differencesShown bounds what is shown of how two outputs differ.
const differencesShown = 10

// showComparison shows two runs step by step: one value where both have the same, else a → b.
// How outputs differ is shown of the steps that are wanted, and of the run.
func showComparison(s *screen, c *rehearsal.Comparison, wanted func(path string) bool) error {
	s.print("%s %s  →  %s %s", s.paint(colorBold, "a"), c.A, s.paint(colorBold, "b"), c.B)
	rows := make([][]string, 0, len(c.Steps)+1)
	for i := range c.Steps {
		rows = append(rows, comparedRow(&c.Steps[i]))
	}
	a, b := c.Of[0], c.Of[1]
	rows = append(rows, []string{
		"the run", both(a.Status, b.Status), "", "", both(fmt.Sprint(a.Calls), fmt.Sprint(b.Calls)), both(grouped(a.Tokens), grouped(b.Tokens)),
		both(money(a.Cost, a.Unpriced, a.Calls), money(b.Cost, b.Unpriced, b.Calls)), both(took(a.Took), took(b.Took)), sameOr(c.Output),
	})
	if err := s.table([]string{"STEP", "STATUS", "MODEL", "TRIES", "CALLS", "TOKENS", "COST", "TOOK", "OUTPUT"}, rows); err != nil {
		return err
	}
	for i := range c.Steps {
		if wanted(c.Steps[i].Path) {
			showDifferences(s, c.Steps[i].Path, c.Steps[i].Output)
		}
	}
	showDifferences(s, "the run", c.Output)
	return nil
}

func comparedRow(of *rehearsal.ComparedSteps) []string {
	a, b := of.A, of.B
	if a == nil {
		a = &rehearsal.StepAccount{Status: "–"}
	}
	if b == nil {
		b = &rehearsal.StepAccount{Status: "–"}
	}
	row := []string{of.Path, both(a.Status, b.Status), both(a.Model, b.Model), bothCounts(a.Attempts, b.Attempts), bothCounts(a.Calls, b.Calls), "", "", "", sameOr(of.Output)}
	if a.Calls+b.Calls > 0 {
		row[5] = both(grouped(a.Tokens), grouped(b.Tokens))
		row[6] = both(money(a.Cost, a.Unpriced, a.Calls), money(b.Cost, b.Unpriced, b.Calls))
	}
	if a.Took+b.Took > 0 {
		row[7] = both(took(a.Took), took(b.Took))
	}
	return row
}

func both(a, b string) string {
	switch {
	case a == b:
		return a
	case a == "":
		a = "–"
	case b == "":
		b = "–"
	}
	return a + " → " + b
}

func bothCounts(a, b int) string {
	if a+b == 0 {
		return ""
	}
	return both(fmt.Sprint(a), fmt.Sprint(b))
}

func sameOr(list []rehearsal.Difference) string {
	if len(list) == 0 {
		return "same"
	}
	return counted(len(list), "difference")
}

func showDifferences(s *screen, of string, list []rehearsal.Difference) {
	if len(list) == 0 {
		return
	}
	s.print("\noutput of %s:", of)
	for i, d := range list {
		if i == differencesShown {
			s.print("  … and %d more", len(list)-i)
			return
		}
		at := d.Pointer
		if at == "" {
			at = "all of it"
		}
		s.print("  %s", at)
		s.print("    %s %s", s.paint(colorRed, "a"), shownSide(d.A))
		s.print("    %s %s", s.paint(colorGreen, "b"), shownSide(d.B))
	}
}

// sideMax bounds what is shown of one side of a difference, in characters.
const sideMax = 300

func shownSide(raw []byte) string {
	if raw == nil {
		return "nothing"
	}
	return cut(oneLine(string(raw)), sideMax)
}
