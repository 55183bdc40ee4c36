package api

import (
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// month fills a month with real, unpriced and simulated calls.
func (m *memory) month() {
	at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	m.money.lines = []spendLine{
		{at, "qc", "reviewer", "anthropic", "claude-sonnet-4-6", false, store.SpendRow{Calls: 100, Cost: 6 * usage.USD, Baseline: 10 * usage.USD, CacheSaved: usage.USD, Tokens: usage.Tokens{Input: 900}, RunsFinished: 40, RunsSucceeded: 30}},
		{at.Add(24 * time.Hour), "qc", "grinder", "openai", "gpt-5-mini", false, store.SpendRow{Calls: 300, Cost: 2 * usage.USD, Baseline: 10 * usage.USD, RunsFinished: 10, RunsSucceeded: 10}},
		{at, "qc", "grinder", "local", "=cmd()", false, store.SpendRow{Calls: 5, Unpriced: 5}},
		{at, "demo", "grinder", "simulated", "claude-sonnet-4-6", true, store.SpendRow{Calls: 50, Cost: 100 * usage.USD, Baseline: 100 * usage.USD, RunsFinished: 3}},
	}
	m.money.plans["max"] = store.SubscriptionRow{Name: "max", Monthly: 730_500_000_000, From: time.Date(2026, 3, 30, 0, 0, 0, 0, time.UTC)}
}

const march = "from=2026-03-01T00:30:00Z&to=2026-03-31T00:00:00Z"

func TestSpend(t *testing.T) {
	s := newService(t, withModels(t))
	s.mem.month()
	var got Spend
	s.send(t, "GET", "/v1/spend?group_by=model&per_day=1000&"+march, nil).want(http.StatusOK).json(&got)
	if !got.From.Equal(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)) || len(got.Data) != 4 {
		t.Fatalf("got %+v", got)
	}
	// Real money: 6 + 2 of calls, 24 of a plan that held for a day of the window; nothing of what was simulated.
	totals := got.Totals
	if totals.Variable.USD != "8.00" || totals.Fixed.USD != "24.00" || totals.Total.USD != "32.00" || totals.CostPerFinishedRun.USD != "0.64" || totals.RunsFinished != 50 {
		t.Errorf("got %+v", totals)
	}
	if saved := totals.Savings; saved.Saved.USD != "12.00" || orZero(saved.Percent) != 60 || saved.CacheSaved.USD != "1.00" || saved.RoutingSaved.USD != "11.00" {
		t.Errorf("got %+v", saved)
	}
	if d := cmp.Diff([]UnpricedModel{{Provider: "local", Model: "=cmd()", Calls: 5}}, totals.Unpriced); d != "" {
		t.Error(d)
	}
	shares := 0.0
	for _, tier := range totals.Tiers {
		shares += tier.SharePercent
	}
	if len(totals.Tiers) < 2 || totals.Tiers[0].Tier != 0 || shares < 99 || shares > 101 {
		t.Errorf("got %+v", totals.Tiers)
	}
	if sim := got.Simulated; sim.Variable.USD != "100.00" || sim.Total.USD != "100.00" || sim.RunsFinished != 3 || sim.Fixed.USD != "" {
		t.Errorf("simulated: got %+v", sim)
	}
	// 8 dollars for 400 priced calls are 2 cents a call; 1,000 calls a day for 30 days.
	if p := got.Projection; p.CostPerCall.USD != "0.02" || p.Cost.USD != "600.00" || p.Simulated {
		t.Errorf("got %+v", p)
	}
	for _, g := range got.Data {
		if g.Keys["model"] == "gpt-5-mini" && (orZero(g.SharePercent) != 25 || g.Simulated) || g.Simulated && orZero(g.SharePercent) != 100 {
			t.Errorf("got %+v", g)
		}
	}
}

// What of a plan belongs to one workflow cannot be told, so nothing of it is.
func TestSpendOfOneWorkflow(t *testing.T) {
	s := newService(t, nil)
	s.mem.month()
	var got Spend
	s.send(t, "GET", "/v1/spend?workflow=demo&interval=day&per_day=1&"+march, nil).want(http.StatusOK).json(&got)
	if got.Totals.Fixed.USD != "" || got.Totals.Total.USD != "0.00" || got.Simulated.Variable.USD != "100.00" || got.Totals.Savings.Percent != nil {
		t.Errorf("got %+v", got)
	}
	if p := got.Projection; !p.Simulated || p.CostPerCall.USD != "2.00" || p.Cost.USD != "60.00" {
		t.Errorf("got %+v", p)
	}
	if len(got.Data) != 1 || got.Data[0].Keys["day"] != "2026-03-02" || got.Data[0].RunsFinished != 3 {
		t.Errorf("got %+v", got.Data)
	}
}

func TestSpendAsCSV(t *testing.T) {
	s := newService(t, nil)
	s.mem.month()
	a := s.send(t, "GET", "/v1/spend?group_by=provider,model&"+march, nil, "Accept: text/csv").want(http.StatusOK)
	records, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	if err != nil || len(records) != 5 || a.header.Get("Content-Type") != mediaCSV {
		t.Fatalf("got %v %v %s", records, err, a.header)
	}
	if d := cmp.Diff([]string{"anthropic", "claude-sonnet-4-6", "false", "100", "0", "900", "0", "0", "0", "0", "6.00", "10.00", "4.00", "1.00", "75", "0", "0"}, records[1]); d != "" {
		t.Error(d)
	}
	if records[2][1] != "'=cmd()" {
		t.Errorf("a spreadsheet would carry out %q", records[2][1])
	}
	s.send(t, "GET", "/v1/spend?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z", nil).wantProblem(http.StatusUnprocessableEntity, "spend_range")
	s.send(t, "GET", "/v1/spend?from=2020-03-02T00:00:00Z", nil).wantProblem(http.StatusUnprocessableEntity, "spend_range")
}
