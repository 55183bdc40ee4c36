package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

type getCommand struct {
	remoteFlags
	ID  string `arg:"" name:"run" help:"The run: run_…"`
	All bool   `help:"Every step inside maps and loops, and everything unresolved, too."`
}

// Run shows a run with its steps and their makers.
func (g *getCommand) Run(ctx context.Context, s *screen) error {
	remote, err := g.remote(s)
	if err != nil {
		return err
	}
	run, err := remote.whole(ctx, g.ID)
	if err != nil {
		return err
	}
	return showRun(s, remote, run, g.All)
}

type listCommand struct {
	remoteFlags
	Status   string `enum:",queued,running,waiting,cancelling,succeeded,failed,cancelled,quarantined" default:"" placeholder:"STATUS" help:"Only runs that stand there."`
	Workflow string `placeholder:"NAME" help:"Only runs of this workflow."`
	Parent   string `placeholder:"RUN" help:"Only runs that its steps started, oldest first."`
	Children bool   `help:"Also runs that steps of other runs started."`
	Limit    int    `default:"50" placeholder:"N" help:"How many at most."`
	All      bool   `help:"All of them."`
}

// listPage is how many runs are asked for at once.
const listPage = 200

// Run lists runs.
func (l *listCommand) Run(ctx context.Context, s *screen) error {
	if l.Limit < 1 {
		return usageError("--limit %d: at least 1", l.Limit)
	}
	remote, err := l.remote(s)
	if err != nil {
		return err
	}
	runs, more, err := l.runs(ctx, remote)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(runs)
	}
	if len(runs) == 0 {
		s.say("no runs")
		return nil
	}
	rows := make([][]string, len(runs))
	for i, r := range runs {
		rows[i] = listRow(s, r)
	}
	if err := s.table([]string{"RUN", "STATUS", "WORKFLOW", "CREATED", "TOOK", "COST", "AT"}, rows); err != nil {
		return err
	}
	if more {
		s.say("there are more: --all, or --limit")
	}
	return nil
}

func (l *listCommand) runs(ctx context.Context, remote *remote) (runs []client.RunSummary, more bool, err error) {
	runs = []client.RunSummary{}
	params := client.ListRunsParams{}
	if l.Children {
		params.Children = &l.Children
	}
	if l.Parent != "" {
		params.Parent = &l.Parent
	}
	if l.Status != "" {
		status := client.RunStatus(l.Status)
		params.Status = &status
	}
	if l.Workflow != "" {
		params.Workflow = &l.Workflow
	}
	for {
		limit := listPage
		if !l.All {
			limit = min(listPage, l.Limit-len(runs))
		}
		params.Limit = &limit
		page, err := remote.Runs(ctx, params)
		if err != nil {
			return nil, false, err
		}
		runs = append(runs, page.Data...)
		if page.NextCursor == "" || !l.All && len(runs) >= l.Limit {
			return runs, page.NextCursor != "", nil
		}
		params.Cursor = &page.NextCursor
	}
}

func listRow(s *screen, r client.RunSummary) []string {
	at := r.Stage
	if r.Error.Class != "" {
		at = failure(r.Error.Class, r.Error.Message, r.Error.Step)
	}
	cost := "$" + r.Cost.USD
	if r.Cost.UnpricedCalls > 0 {
		cost += fmt.Sprintf(" + %d unpriced", r.Cost.UnpricedCalls)
	}
	if r.Simulated {
		cost += " (simulated)"
	}
	name := r.Workflow
	if r.Version > 0 {
		name = fmt.Sprintf("%s@%d", r.Workflow, r.Version)
	}
	return []string{r.ID, string(r.Status), name, s.moment(r.CreatedAt), span(r.CreatedAt, r.EndedAt), cost, oneLine(at)}
}

func span(from, to time.Time) string {
	if to.IsZero() {
		return "–"
	}
	return took(to.Sub(from))
}

// unresolvedShownMax is how much of what is unresolved is shown unless all is asked for.
const unresolvedShownMax = 10

// showRun shows a run: a sentence, its steps, and what came of it. With -o json it is the service's answer.
func showRun(s *screen, remote *remote, run *client.Run, all bool) error {
	if s.json {
		return s.showJSON(run)
	}
	sign, color := signOf(string(run.Status))
	s.print("%s  %s", s.paint(colorBold, run.ID), run.Workflow)
	s.paragraph("", color, sign+" "+string(run.Status)+" "+strings.Join(sentence(run), " · "))
	if run.Error.Class != "" {
		s.paragraph("  ", "", failure(run.Error.Class, run.Error.Message, run.Error.Step))
	}
	if run.WaitingFor.Sentence != "" {
		s.paragraph("  ", "", run.WaitingFor.Sentence)
	}
	if q := qualityText(run.Quality); q != "" {
		s.paragraph("  ", colorYellow, q)
	}
	if run.Parent.Run != "" {
		s.print("  started by step %s of %s", run.Parent.Step, run.Parent.Run)
	}
	s.print("")
	if err := showSteps(s, run, all); err != nil {
		return err
	}
	for i, u := range run.Unresolved {
		if i == unresolvedShownMax && !all {
			s.print("… and %d more unresolved: %s get %s --all%s", len(run.Unresolved)-i, program(), run.ID, remote.flag())
			break
		}
		s.paragraph("", "", "unresolved at "+u.Step+": "+u.Text)
	}
	if len(run.Output) > 0 {
		s.print("\noutput:")
		showValue(s, run.Output)
	}
	if answers := waitingAnswers(run.Steps, remote.flag()); len(answers) > 0 {
		s.say("\nanswer it:  %s", strings.Join(answers, "\n            "))
	}
	if run.Status == client.RunStatusFailed {
		s.say("\nlet it go on:  %s resume %s%s", program(), run.ID, remote.flag())
	}
	return nil
}

func sentence(run *client.Run) []string {
	parts := []string{}
	if !run.EndedAt.IsZero() {
		parts = append(parts, "in "+span(run.CreatedAt, run.EndedAt))
	}
	parts = append(parts, fmt.Sprintf("%d/%d steps", run.Progress.Settled, run.Progress.Total))
	if run.Usage.Calls > 0 {
		parts = append(
			parts, counted(run.Usage.Calls, "model call"), grouped(totalTokens(run.Usage.Tokens))+" tokens",
			money(usage.Money(run.Cost.NanoUSD), run.Cost.UnpricedCalls, run.Usage.Calls),
		)
	}
	if p := run.Savings.Percent; p != nil && *p != 0 {
		parts = append(parts, fmt.Sprintf("saved $%s (%.0f %%)", run.Savings.Saved.USD, *p))
	}
	if run.Simulated {
		parts = append(parts, "simulated models")
	}
	return parts
}

func showSteps(s *screen, run *client.Run, all bool) error {
	degraded := map[string]string{}
	for _, p := range run.Provenance {
		if p.Degraded {
			degraded[p.Step] = fmt.Sprintf("%s, number %d of its chain", p.Model, p.FallbackDepth+1)
		}
	}
	var rows [][]string
	steps := run.Steps
	if !all {
		steps = foldedSteps(steps)
	}
	for _, step := range steps {
		if step.Path == run.Error.Step && step.Error == (client.Failure{Class: run.Error.Class, Message: run.Error.Message}) {
			step.Error.Message = "" // it stands above
		}
		spent := spending{
			calls: step.Usage.Calls, unpriced: step.Cost.UnpricedCalls, tokens: totalTokens(step.Usage.Tokens),
			cost: usage.Money(step.Cost.NanoUSD),
		}
		tokens, cost := "", ""
		if spent.calls > 0 {
			tokens, cost = grouped(spent.tokens), money(spent.cost, spent.unpriced, spent.calls)
		}
		note := oneLine(joined(insideText(step.Inside), stepNote(step), insteadOf(step), degraded[step.Path]))
		rows = append(rows, []string{indented(step.Path), step.Kind, string(step.Status), tries(step), stepSpan(step), tokens, cost, note})
	}
	return s.table([]string{"STEP", "KIND", "STATUS", "TRIES", "TOOK", "TOKENS", "COST", "NOTE"}, rows)
}

// insteadOf says that an output is not of the step's own agent or tool, and whose it is.
func insteadOf(step client.Step) string {
	text := insteadText(step.Instead)
	if step.Duty == string(flow.DutyFallback) && step.Agent != "" {
		return joined(text, "works as its fallback: "+step.Agent)
	}
	return text
}

// joined puts what there is to say in a row.
func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " · ")
}

func tries(step client.Step) string {
	if step.Attempt == 0 {
		return ""
	}
	return fmt.Sprint(step.Attempt)
}

func stepSpan(step client.Step) string {
	if step.StartedAt.IsZero() || step.EndedAt.IsZero() {
		return ""
	}
	return took(step.EndedAt.Sub(step.StartedAt))
}

func stepNote(step client.Step) string {
	switch {
	case step.Waiting.For != "":
		return waitingText(step.Waiting)
	case step.Error.Class != "":
		return failure(step.Error.Class, step.Error.Message, "")
	case step.Skipped != "":
		return whySkipped(step.Skipped)
	case step.ByHand:
		return "set by hand"
	case step.Answer.Choice != "":
		return answerText(step.Answer)
	case step.Child != "":
		return "as " + step.Child
	case step.Agreement != nil:
		return fmt.Sprintf("agreement %.0f %%", *step.Agreement*100)
	}
	return joined(gateText(step.Gate), confidenceText(step.Confidence))
}

// gateText says how an output passed its gate; empty: there is none, or nothing to say.
func gateText(g client.GateResult) string {
	text := ""
	if g.Score != nil {
		text = fmt.Sprintf("scored %g", *g.Score)
	}
	if g.Rounds > 0 {
		text = joined(text, counted(g.Rounds, "revision"))
	}
	return text
}

func confidenceText(confidence *float64) string {
	if confidence == nil {
		return ""
	}
	return fmt.Sprintf("confidence %g", *confidence)
}

// showValue prints JSON for a person.
func showValue(s *screen, raw json.RawMessage) {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		s.print("%s", raw)
		return
	}
	s.print("%s", b.Bytes())
}
