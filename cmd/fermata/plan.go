package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

type planCommand struct {
	definitionFlag
	remoteFlags
	Input  []string `short:"i" sep:"none" placeholder:"NAME=VALUE" help:"Input, as for run: what is known narrows the ranges. Repeatable."`
	PerDay int      `placeholder:"N" help:"What a month would cost with so many runs a day."`
	Edges  bool     `help:"Say below each step what it waits for, and why."`
}

// planned is the result of plan, as JSON.
type planned struct {
	Name     string             `json:"name"`
	Hash     string             `json:"hash"`
	Estimate preview.Estimated  `json:"estimate"`
	Month    *preview.Cost      `json:"per_month,omitempty"`
	Graph    preview.Graph      `json:"graph"`
	Warnings []fault.Issue      `json:"warnings"`
	workflow *workflow.Workflow // whose plan it is
}

// Run compiles the definition here, without a service, and shows what a run of it would do and cost.
func (p *planCommand) Run(ctx context.Context, s *screen) error {
	if p.PerDay < 0 {
		return usageError("--per-day %d: at least 0", p.PerDay)
	}
	source, err := p.read(s)
	if err != nil {
		return err
	}
	w, err := compile(ctx, s, p.remoteFlags, source)
	if err != nil {
		return definitionError(p.File, err)
	}
	var input json.RawMessage
	if len(p.Input) > 0 {
		if input, err = readInput(s, "-i", p.Input, inputTypes(schemaOf(w))); err != nil {
			return err
		}
	}
	roster, err := knownModels(time.Now)
	if err != nil {
		return err
	}
	return p.show(s, planOf(w, roster, input))
}

// knownModels are the models this build knows, at their list prices: no service is asked.
func knownModels(now func() time.Time) (workflow.Roster, error) {
	models, err := gateway.New(gateway.Config{Now: now})
	if err != nil {
		return nil, fmt.Errorf("read the models: %w", err)
	}
	return models, nil
}

func planOf(w *workflow.Workflow, roster workflow.Roster, input json.RawMessage) planned {
	return planned{
		Name: w.Name, Hash: w.Hash.String(), Estimate: preview.Estimate(w, roster, input), Graph: preview.GraphOf(w),
		Warnings: warningsOf(w, roster), workflow: w,
	}
}

func (p *planCommand) show(s *screen, plan planned) error {
	if p.PerDay > 0 {
		month := plan.Estimate.PerMonth(p.PerDay)
		plan.Month = &month
	}
	if s.json {
		return s.showJSON(plan)
	}
	s.print("%s", s.paint(colorBold, plan.Name))
	if d := oneLine(plan.workflow.Description); d != "" {
		for _, line := range wrapped(d, s.width()) {
			s.print("%s", line)
		}
	}
	s.print("")
	newDrawing(plan, p.Edges).show(s)
	s.print("")
	p.showTotals(s, plan)
	for i, w := range plan.Warnings {
		if i == 0 {
			s.print("")
		}
		s.print("%s", formatWarning(p.File, w))
	}
	return nil
}

func (p *planCommand) showTotals(s *screen, plan planned) {
	e := plan.Estimate
	s.fact("a run", fmt.Sprintf("%s · %s tokens in · %s out · %s (at worst %s)", priceRange(e.Cost), spanText(e.Input), spanText(e.Output),
		callsText(e.Calls), grouped(e.CallsMax)))
	if plan.Month != nil {
		s.fact("a month", fmt.Sprintf("%s, at %s a day", priceRange(*plan.Month), counted(p.PerDay, "run")))
	}
	if b := plan.workflow.Budget; b != nil && b.Cost > 0 {
		s.fact("budget", "$"+b.Cost.String()+" a run"+budgetNote(b.Cost, e.Cost))
	}
	if len(e.Path.Names) > 0 {
		s.fact("longest", fmt.Sprintf("%s one after another, %s – %s: %s", stepsText(e.Path.Steps), secondsText(e.Path.Seconds.Low),
			secondsText(e.Path.Seconds.High), strings.Join(e.Path.Names, " → ")))
	}
	if len(e.Unpriced) > 0 {
		s.fact("not priced", strings.Join(e.Unpriced, ", ")+": what they cost is in no amount")
	}
	for i, line := range e.Assumptions {
		s.fact([]string{"assumed", ""}[min(i, 1)], line)
	}
}

// factIndent is where what is said of a plan begins.
const factIndent = 12

// fact says one thing of a plan, in as many lines as the screen needs.
func (s *screen) fact(name, text string) {
	width := s.width() - factIndent
	for i, line := range wrapped(oneLine(text), width) {
		if i > 0 {
			name = ""
		}
		s.print("%s%s", s.paint(colorDim, fmt.Sprintf("%-*s", factIndent, name)), line)
	}
}

// wrapped breaks a text at spaces into lines of at most n runes; a longer word stands alone. n < 20: it is not broken.
func wrapped(text string, n int) []string {
	if n < 20 {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > n {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// budgetNote holds a budget against what a run may cost.
func budgetNote(limit usage.Money, cost preview.Cost) string {
	switch {
	case limit < cost.Low:
		return ": less than any run costs"
	case limit < cost.High:
		return ": less than a run may cost"
	}
	return ": enough, if no call is repeated"
}

func stepsText(n preview.Span) string {
	if n.High == 1 {
		return "1 step"
	}
	return spanText(n) + " steps"
}

func callsText(n preview.Span) string {
	if n.High == 1 && n.Low == 1 {
		return "1 model call"
	}
	return spanText(n) + " model calls"
}

// spanText writes a range of counts: 1–9, 12k–96k.
func spanText(n preview.Span) string {
	low, high := shortCount(n.Low), shortCount(n.High)
	if low == high {
		return high
	}
	return low + "–" + high
}

func shortCount(n int64) string {
	if n < 10_000 {
		return grouped(n)
	}
	return thousands(n)
}

func secondsText(s float64) string {
	const most = float64(1 << 33) // as long as a time.Duration can be
	return took(time.Duration(min(s, most) * float64(time.Second)))
}

// priceRange writes a range of money in two digits: $0.012–0.31.
func priceRange(c preview.Cost) string {
	low, high := roughly(c.Low), roughly(c.High)
	if low == high {
		return "$" + high
	}
	return "$" + low + "–" + high
}

// roughly writes an amount of dollars in about two digits.
func roughly(m usage.Money) string {
	dollars := float64(m) / float64(usage.USD)
	switch {
	case m == 0:
		return "0"
	case dollars >= 100:
		return grouped(int64(dollars + 0.5))
	case dollars >= 1:
		return fmt.Sprintf("%.2f", dollars)
	}
	places := 2
	for d := dollars; d < 0.1 && places < 9; d *= 10 {
		places++
	}
	return fmt.Sprintf("%.*f", places, dollars)
}
