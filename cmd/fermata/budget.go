package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/fermata-run/fermata/api/client"
)

type budgetCommand struct {
	Ls  budgetListCommand   `cmd:"" help:"List budgets with where they stand."`
	Set budgetSetCommand    `cmd:"" help:"Create a budget, or change it; raising one wakes the runs that wait for money."`
	Rm  budgetRemoveCommand `cmd:"" help:"Delete a budget."`
}

type budgetListCommand struct{ remoteFlags }

// Run lists budgets.
func (c *budgetListCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	budgets := []client.Budget{}
	for params := (client.ListBudgetsParams{}); ; {
		page, err := remote.Budgets(ctx, params)
		if err != nil {
			return err
		}
		budgets = append(budgets, page.Data...)
		if page.NextCursor == "" {
			break
		}
		params.Cursor = &page.NextCursor
	}
	if s.json {
		return s.showJSON(budgets)
	}
	if len(budgets) == 0 {
		s.say("no budgets; make one:  %s budget set NAME --scope tenant --usd 10 --window day", program())
		return nil
	}
	rows := make([][]string, len(budgets))
	for i, b := range budgets {
		rows[i] = budgetRow(b)
	}
	return s.table([]string{"BUDGET", "LIMITS", "WINDOW", "LIMIT", "SPENT", "RESERVED", "LEFT", "RESETS", "THEN"}, rows)
}

func budgetRow(b client.Budget) []string {
	resets := "never"
	if !b.ResetsAt.IsZero() {
		resets = b.ResetsAt.Local().Format("01-02 15:04")
	}
	limits := string(b.Scope)
	if b.Of != "" {
		limits += " " + b.Of
	}
	inMoney, inTokens := b.Limit.USD != "", b.Limit.Tokens != nil
	return []string{
		b.Name, cut(oneLine(limits), 28), string(b.Window), limitText(b.Limit), amountText(b.Spent, inMoney, inTokens),
		amountText(b.Reserved, inMoney, inTokens), limitText(b.Left), resets, string(b.OnHard),
	}
}

// limitText shows what is limited, in money, in tokens, or in both.
func limitText(a client.BudgetAmount) string { return amountText(a, a.USD != "", a.Tokens != nil) }

func amountText(a client.BudgetAmount, inMoney, inTokens bool) string {
	var parts []string
	if inMoney {
		parts = append(parts, "$"+a.USD)
	}
	if inTokens && a.Tokens != nil {
		parts = append(parts, grouped(*a.Tokens)+" tok")
	}
	return strings.Join(parts, ", ")
}

type budgetSetCommand struct {
	remoteFlags
	Name     string `arg:"" help:"The budget's name."`
	Scope    string `enum:",tenant,workflow,agent,provider,model,label" default:"" placeholder:"SCOPE" help:"What it limits: tenant (everything, the default), workflow, agent, provider, model or label."`
	Of       string `placeholder:"NAME" help:"Which one; of a label NAME=VALUE."`
	USD      string `name:"usd" placeholder:"AMOUNT" help:"The limit in US dollars."`
	Tokens   int64  `placeholder:"N" help:"The limit in tokens."`
	Window   string `enum:",lifetime,day,week,month" default:"" placeholder:"WINDOW" help:"When it begins anew: day, week, month (the default), or lifetime for never."`
	TimeZone string `placeholder:"ZONE" help:"Where its windows begin: Europe/Berlin; UTC if not given."`
	Soft     []int  `placeholder:"PERCENT" help:"Shares of the limit that are told when they are crossed; 50, 80 and 95 if not given."`
	OnHard   string `enum:",pause,reject,clamp,downgrade" default:"" placeholder:"WHAT" help:"What becomes of calls it has no money for: pause (the default), reject, clamp or downgrade."`
	Export   bool   `help:"Show it in the metrics."`
}

// Run makes or changes a budget. Of one that is there, what is not given stays.
func (c *budgetSetCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	req := client.BudgetRequest{Scope: client.BudgetScopeTenant, Window: client.BudgetWindowMonth, OnHard: client.OnHardPause}
	former, err := remote.Budget(ctx, c.Name)
	var problem *client.Problem
	switch {
	case err == nil:
		req = requestOf(former)
	case !errors.As(err, &problem) || problem.Status != http.StatusNotFound:
		return err
	case c.USD == "" && c.Tokens <= 0:
		return usageError("give a limit: --usd AMOUNT, --tokens N, or both")
	}
	c.apply(&req)
	b, err := remote.PutBudget(ctx, c.Name, req)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(b)
	}
	s.print("%s", budgetSentence(*b))
	return nil
}

// requestOf is what makes a budget as it is.
func requestOf(b *client.Budget) client.BudgetRequest {
	req := client.BudgetRequest{
		Scope: b.Scope, Of: b.Of, Window: b.Window, TimeZone: b.TimeZone, OnHard: b.OnHard, Export: b.Export, SoftPercents: &b.SoftPercents,
		Limit: client.RunBudgetRequest{USD: b.Limit.USD},
	}
	if b.Limit.Tokens != nil {
		req.Limit.Tokens = *b.Limit.Tokens
	}
	return req
}

// apply lays what was given over what there is.
func (c *budgetSetCommand) apply(req *client.BudgetRequest) {
	req.Scope = cmp.Or(client.BudgetScope(c.Scope), req.Scope)
	req.Of = cmp.Or(c.Of, req.Of)
	req.Window = cmp.Or(client.BudgetWindow(c.Window), req.Window)
	req.TimeZone = cmp.Or(c.TimeZone, req.TimeZone)
	req.OnHard = cmp.Or(client.OnHard(c.OnHard), req.OnHard)
	req.Limit.USD = cmp.Or(c.USD, req.Limit.USD)
	req.Limit.Tokens = cmp.Or(c.Tokens, req.Limit.Tokens)
	req.Export = req.Export || c.Export
	if len(c.Soft) > 0 {
		req.SoftPercents = &c.Soft
	}
}

// budgetSentence says all of a budget in a line.
func budgetSentence(b client.Budget) string {
	limits := string(b.Scope)
	if b.Of != "" {
		limits += " " + b.Of
	}
	each := "in all"
	if b.Window != client.BudgetWindowLifetime {
		each = "a " + string(b.Window)
	}
	said := fmt.Sprintf("%s: %s %s for the %s, then %s; %s left", b.Name, limitText(b.Limit), each, limits, b.OnHard, limitText(b.Left))
	if !b.ResetsAt.IsZero() {
		said += ", until it begins anew at " + b.ResetsAt.Local().Format("2006-01-02 15:04 MST")
	}
	return said
}

type budgetRemoveCommand struct {
	remoteFlags
	Name string `arg:"" help:"The budget's name."`
}

// Run deletes a budget.
func (c *budgetRemoveCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	if err := remote.DeleteBudget(ctx, c.Name); err != nil {
		return err
	}
	s.say("%s is deleted", c.Name)
	return nil
}
