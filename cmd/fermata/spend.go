package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
)

type spendCommand struct {
	remoteFlags
	GroupBy  []string `sep:"," default:"workflow" placeholder:"KEY,…" help:"Divide by these: workflow, agent, provider, model, label:NAME."`
	Interval string   `enum:",hour,day" default:"" placeholder:"hour|day" help:"Divide by time, too."`
	Since    string   `default:"7d" placeholder:"7d" help:"From so long ago on (90m, 24h, 7d), or from a day on (2026-03-01)."`
	Workflow string   `placeholder:"NAME" help:"Only of this workflow."`
	PerDay   int64    `placeholder:"N" help:"What a month would cost with so many calls a day."`
	CSV      bool     `name:"csv" help:"As a table for spreadsheets."`
}

// Run shows what was spent and what was saved.
func (c *spendCommand) Run(ctx context.Context, s *screen) error {
	from, err := since(c.Since, time.Now())
	if err != nil {
		return err
	}
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	params := client.GetSpendParams{From: &from, GroupBy: &c.GroupBy}
	if c.Interval != "" {
		interval := client.GetSpendParamsInterval(c.Interval)
		params.Interval = &interval
	}
	if c.Workflow != "" {
		params.Workflow = &c.Workflow
	}
	if c.PerDay > 0 {
		params.PerDay = &c.PerDay
	}
	if c.CSV {
		table, err := remote.SpendCSV(ctx, params)
		if err != nil {
			return err
		}
		_, err = s.out.Write(table)
		return err
	}
	report, err := remote.Spend(ctx, params)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(report)
	}
	return showSpend(s, report)
}

// since reads how long ago, or on which day, something began.
func since(text string, now time.Time) (time.Time, error) {
	if day, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return day, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return time.Time{}, usageError("--since %s: neither a time span (90m, 24h, 7d) nor a day (2026-03-01)", cut(text, 40))
	}
	return now.Add(-d), nil
}

func showSpend(s *screen, r *client.Spend) error {
	s.print("%s – %s", r.From.Local().Format("2006-01-02 15:04"), r.To.Local().Format("2006-01-02 15:04"))
	head := make([]string, 0, len(r.GroupBy)+8)
	for _, key := range r.GroupBy {
		head = append(head, strings.ToUpper(strings.TrimPrefix(key, "label:")))
	}
	head = append(head, "CALLS", "TOKENS", "COST", "SHARE", "SAVED", "RUNS", "PER RUN", "NOTE")
	rows := make([][]string, len(r.Data))
	for i, g := range r.Data {
		rows[i] = spendRow(r.GroupBy, g)
	}
	if len(rows) == 0 {
		s.print("nothing was spent")
	} else if err := s.table(filled(head, rows)); err != nil {
		return err
	}
	s.print("")
	showTotals(s, "", r.Totals)
	if r.Simulated.Calls > 0 {
		s.print("")
		showTotals(s, "simulated ", r.Simulated)
	}
	if p := r.Projection; p.Days > 0 {
		kind := ""
		if p.Simulated {
			kind = " (by simulated calls: there are no others)"
		}
		s.print("\n%s calls a day: $%s in %d days, at $%s a call%s", grouped(p.CallsPerDay), p.Cost.USD, p.Days, p.CostPerCall.USD, kind)
	}
	return nil
}

func spendRow(keys []string, g client.SpendGroup) []string {
	row := make([]string, 0, len(keys)+8)
	for _, key := range keys {
		name := oneLine(g.Keys[key])
		if name == "" {
			name = "–"
		}
		row = append(row, cut(name, 28))
	}
	runs, perRun := "", ""
	if g.RunsFinished > 0 {
		runs, perRun = grouped(g.RunsFinished), "$"+g.CostPerFinishedRun.USD
	}
	var notes []string
	if g.Simulated {
		notes = append(notes, "simulated")
	}
	if g.UnpricedCalls > 0 {
		notes = append(notes, fmt.Sprintf("+ %d unpriced", g.UnpricedCalls))
	}
	return append(row, grouped(g.Calls), grouped(totalTokens(g.Tokens)), "$"+g.Cost.USD, percent(g.SharePercent), "$"+g.Saved.USD, runs, perRun, strings.Join(notes, ", "))
}

// filled leaves out columns that have nothing in any row: runs cannot be told by model, for one.
func filled(head []string, rows [][]string) ([]string, [][]string) {
	keep := make([]bool, len(head))
	for _, row := range rows {
		for i, cell := range row {
			keep[i] = keep[i] || cell != ""
		}
	}
	only := func(cells []string) []string {
		var out []string
		for i, cell := range cells {
			if keep[i] {
				out = append(out, cell)
			}
		}
		return out
	}
	out := make([][]string, len(rows))
	for i, row := range rows {
		out[i] = only(row)
	}
	return only(head), out
}

// percent shows a share; nothing of nothing.
func percent(share *float64) string {
	if share == nil {
		return ""
	}
	return strconv.FormatFloat(*share, 'f', 1, 64) + "%"
}

// showTotals of the real calls, or of the simulated ones.
func showTotals(s *screen, kind string, t client.SpendTotals) {
	line := fmt.Sprintf("%stotal $%s", kind, t.Total.USD)
	if t.Fixed.NanoUSD > 0 {
		line += fmt.Sprintf(" = calls $%s + flat plans $%s", t.Variable.USD, t.Fixed.USD)
	}
	s.print("%s", s.paint(colorBold, line))
	for _, p := range t.Subscriptions {
		s.print("  flat plan %s: $%s for %g days", p.Name, p.Cost.USD, p.Days)
	}
	showSavings(s, t.Savings)
	if t.RunsFinished > 0 {
		s.print("  %s finished, %s succeeded: $%s a finished run", counted(int(t.RunsFinished), "run"), grouped(t.RunsSucceeded), t.CostPerFinishedRun.USD)
	}
	for _, tier := range t.Tiers {
		name := fmt.Sprintf("cost tier %d", tier.Tier)
		if tier.Tier == 0 {
			name = "models not in the roster"
		}
		s.print("  %s: %.1f%% of the calls, $%s", name, tier.SharePercent, tier.Cost.USD)
	}
	for _, u := range t.Unpriced {
		s.print("  %s", s.paint(colorYellow, fmt.Sprintf("price not known: %s of %s, %s not in any amount", u.Model, u.Provider, counted(int(u.Calls), "call"))))
	}
}

func showSavings(s *screen, v client.Savings) {
	if v.Percent == nil {
		return
	}
	s.print("  saved $%s (%s) of the baseline's $%s: caching $%s, cheaper routes $%s", v.Saved.USD, percent(v.Percent), v.Baseline.USD, v.CacheSaved.USD, v.RoutingSaved.USD)
}

type costCommand struct {
	remoteFlags
	ID    string `arg:"" name:"run" help:"The run: run_…"`
	Lines bool   `help:"Every call, with its rates and where they are from."`
}

// Run shows what a run cost.
func (c *costCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	bill, err := remote.Cost(ctx, c.ID)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(bill)
	}
	s.print("%s  %s  %s", s.paint(colorBold, bill.ID), bill.Workflow, bill.Status)
	if err := showSums(s, "STEP", bill.ByStep, func(c client.CostSum) string { return c.Step }); err != nil {
		return err
	}
	s.print("")
	if err := showSums(s, "MODEL", bill.ByModel, func(c client.CostSum) string { return c.Provider + "/" + c.Model }); err != nil {
		return err
	}
	if c.Lines {
		s.print("")
		if err := showLines(s, bill); err != nil {
			return err
		}
	}
	showBill(s, bill)
	return nil
}

func showBill(s *screen, bill *client.RunCost) {
	t := bill.Totals
	total := fmt.Sprintf("\ntotal $%s for %s, %s tokens", t.Cost.USD, counted(t.Calls, "model call"), grouped(totalTokens(t.Tokens)))
	if t.Cost.UnpricedCalls > 0 {
		total += fmt.Sprintf(" + %d calls whose price is not known", t.Cost.UnpricedCalls)
	}
	if bill.Simulated {
		total += " (simulated models: what the real ones would have cost)"
	}
	s.print("%s", s.paint(colorBold, total))
	showSavings(s, t.Savings)
	if bill.Reserved.USD != "" {
		s.print("  reserved now: $%s", bill.Reserved.USD)
	}
	if limit := limitText(bill.Budget.Limit); limit != "" {
		s.print("  budget: %s", limit)
	}
}

func showSums(s *screen, what string, list []client.CostSum, name func(client.CostSum) string) error {
	if len(list) == 0 {
		s.print("no model was called by its own steps")
		return nil
	}
	rows := make([][]string, len(list))
	for i, c := range list {
		cost := "$" + c.Cost.USD
		if c.Cost.UnpricedCalls > 0 {
			cost += fmt.Sprintf(" + %d unpriced", c.Cost.UnpricedCalls)
		}
		rows[i] = []string{
			cut(name(c), 40), fmt.Sprint(c.Calls), grouped(totalTokens(c.Tokens)), cost, "$" + c.Savings.Baseline.USD, percent(c.Savings.Percent),
		}
	}
	return s.table([]string{what, "CALLS", "TOKENS", "COST", "BASELINE", "SAVED"}, rows)
}

// priced shows tokens with the rate they were charged at.
func priced(tokens int64, rate string) string {
	if tokens == 0 || rate == "" {
		return grouped(tokens)
	}
	return grouped(tokens) + " × " + rate
}

func showLines(s *screen, bill *client.RunCost) error {
	rows := make([][]string, len(bill.Lines))
	for i, l := range bill.Lines {
		r, t := l.Rates, l.Tokens
		rows[i] = []string{
			fmt.Sprintf("%s.%d", cut(l.Step, 24), l.Attempt), cut(l.Model, 24), l.Outcome, priced(t.Input, r.Input), priced(t.CacheRead, r.CacheRead),
			priced(t.CacheWrite, r.CacheWrite), priced(t.Output+t.Reasoning, r.Output), "$" + l.Cost.USD, l.Price,
		}
	}
	if err := s.table([]string{"STEP", "MODEL", "OUTCOME", "IN", "CACHE READ", "CACHE WRITE", "OUT", "COST", "PRICE"}, rows); err != nil {
		return err
	}
	if len(rows) > 0 {
		s.print("  tokens × dollars per million")
	}
	if bill.LinesLeftOut > 0 {
		s.say("%d more calls are left out", bill.LinesLeftOut)
	}
	return nil
}
