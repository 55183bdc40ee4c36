package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// What is sent as an amount comes back as the same amount, to the nano-dollar.
func TestDollarsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := usage.Money(rapid.Int64Range(0, 999_999_999_999_999_999).Draw(t, "nano"))
		if got, err := parseDollars(m.String()); err != nil || got != m {
			t.Fatalf("%s is read as %d (%v), is %d", m, got, err, m)
		}
	})
	for text, want := range map[string]usage.Money{"0": 0, "12": 12 * usage.USD, "0.5": usage.USD / 2, "0.000000001": 1, "999999999.999999999": 999_999_999_999_999_999} {
		if got, err := parseDollars(text); err != nil || got != want {
			t.Errorf("%s is read as %d, %v", text, got, err)
		}
	}
}

func TestSavings(t *testing.T) {
	s := savingsOf(usage.USD, 4*usage.USD, usage.USD/2)
	if s.Saved.USD != "3.00" || s.CacheSaved.USD != "0.50" || s.RoutingSaved.USD != "2.50" || orZero(s.Percent) != 75 || s.Formula == "" {
		t.Errorf("got %+v", s)
	}
	if s := savingsOf(usage.USD, 0, 0); s.Percent != nil || s.Saved.USD != "-1.00" {
		t.Errorf("without a baseline: got %+v", s)
	}
}

func TestBudgets(t *testing.T) {
	s := newService(t, func(c *Config) {})
	s.ledger = s.mem
	var b Budget
	a := s.send(t, "PUT", "/v1/budgets/team-a", `{"scope":"label","of":"team=a","window":"day","time_zone":"Europe/Berlin","limit":{"usd":"10"}}`).want(http.StatusCreated)
	a.json(&b)
	want := Budget{
		Name: "team-a", Scope: BudgetScopeLabel, Of: "team=a", Window: BudgetWindowDay, TimeZone: "Europe/Berlin", OnHard: OnHardPause,
		Limit: amountOf(10*usage.USD, 0, true, false), Left: amountOf(10*usage.USD, 0, true, false),
		Spent: amountOf(0, 0, true, true), Reserved: amountOf(0, 0, true, true), SoftPercents: []int{50, 80, 95}, Crossings: []Crossing{},
	}
	if d := cmp.Diff(want, b, cmpopts.IgnoreFields(Budget{}, "CreatedAt", "UpdatedAt")); d != "" {
		t.Error(d)
	}
	if at := a.header.Get("Location"); at != "/v1/budgets/team-a" {
		t.Errorf("it is at %q", at)
	}
	row := s.mem.money.budgets["team-a"]
	row.Spent, row.Reserved, row.SpentTokens = 9_810_000_000, 170_000_000, 4_100
	row.Crossed = []store.BudgetCrossing{{Percent: 50, At: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}}
	s.mem.money.budgets["team-a"] = row
	s.send(t, "GET", "/v1/budgets/team-a", nil).want(http.StatusOK).json(&b)
	if b.Left.USD != "0.02" || b.Left.Tokens != nil || orZero(b.Spent.Tokens) != 4_100 || len(b.Crossings) != 1 {
		t.Errorf("got %+v", b)
	}
	s.send(t, "PUT", "/v1/budgets/team-a", `{"scope":"label","of":"team=a","limit":{"usd":"20.5","tokens":100},"soft_percents":[],"on_hard":"clamp"}`).want(http.StatusOK).json(&b)
	if b.Limit.USD != "20.50" || orZero(b.Left.Tokens) != 0 || b.OnHard != OnHardClamp || b.Window != BudgetWindowMonth || len(b.SoftPercents) != 0 {
		t.Errorf("got %+v", b)
	}
	s.send(t, "PUT", "/v1/budgets/team-a", `{"scope":"tenant","limit":{"usd":"20.5"}}`).wantProblem(http.StatusConflict, "budget_scope_fixed")
	s.mem.money.ledgerErr = errLedger // it is durable all the same, and the nodes will see it
	s.send(t, "PUT", "/v1/budgets/all", `{"scope":"tenant","limit":{"tokens":5}}`).want(http.StatusCreated)
	var page BudgetPage
	s.send(t, "GET", "/v1/budgets?limit=1", nil).want(http.StatusOK).json(&page)
	if len(page.Data) != 1 || page.Data[0].Name != "all" || page.NextCursor == "" {
		t.Fatalf("got %+v", page)
	}
	var rest BudgetPage
	s.send(t, "GET", "/v1/budgets?cursor="+page.NextCursor, nil).want(http.StatusOK).json(&rest)
	if len(rest.Data) != 1 || rest.Data[0].Name != "team-a" || rest.NextCursor != "" {
		t.Errorf("got %+v", rest)
	}
	s.send(t, "DELETE", "/v1/budgets/all", nil).want(http.StatusNoContent)
	s.send(t, "DELETE", "/v1/budgets/all", nil).wantProblem(http.StatusNotFound, "budget_not_found")
	if s.mem.money.refreshed != 4 {
		t.Errorf("the ledger was told %d times", s.mem.money.refreshed)
	}
}

// Who is refused for money is told by which budget, where it stands and when it begins anew.
func TestBudgetRefusal(t *testing.T) {
	resets := time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)
	err := refuseBudget(&gateway.BudgetError{
		Budget: "team-a", Scope: "label team=a", OnHard: gateway.OnHardReject, Limit: 10 * usage.USD, Spent: 9 * usage.USD, Need: 2 * usage.USD, Resets: resets,
	})
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/chat/completions", nil)
	p, _ := explain(r, err)
	if p.Status != http.StatusForbidden || p.Code != "budget_exhausted" || p.Retryable || !strings.Contains(p.Detail, `"team-a"`) {
		t.Errorf("got %+v", p)
	}
	if b := p.Budget; b.Name != "team-a" || b.Limit.USD != "10.00" || b.Spent.USD != "9.00" || b.Need.USD != "2.00" || b.Limit.Tokens != nil || !b.ResetsAt.Equal(resets) {
		t.Errorf("got %+v", b)
	}
}

func TestSubscriptions(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "PUT", "/v1/subscriptions/max", `{"monthly":"200","from":"2026-01-01T00:00:00Z"}`).want(http.StatusCreated)
	var plan Subscription
	s.send(t, "PUT", "/v1/subscriptions/max", `{"monthly":"100.50","from":"2026-01-01T00:00:00Z","until":"2026-02-01T00:00:00Z"}`).want(http.StatusOK).json(&plan)
	s.send(t, "GET", "/v1/subscriptions/max", nil).want(http.StatusOK).json(&plan)
	if plan.Monthly.USD != "100.50" || plan.Until.Month() != time.February {
		t.Errorf("got %+v", plan)
	}
	s.send(t, "PUT", "/v1/subscriptions/max", `{"monthly":"1","from":"2026-03-01T00:00:00Z","until":"2026-02-01T00:00:00Z"}`).wantProblem(http.StatusUnprocessableEntity, "subscription_invalid")
	s.send(t, "GET", "/v1/subscriptions/none", nil).wantProblem(http.StatusNotFound, "subscription_not_found")
	s.send(t, "DELETE", "/v1/subscriptions/max", nil).want(http.StatusNoContent)
	var page SubscriptionPage
	if s.send(t, "GET", "/v1/subscriptions", nil).want(http.StatusOK).json(&page); len(page.Data) != 0 {
		t.Errorf("got %+v", page)
	}
}

// A plan costs in a window what of its month falls into it.
func TestShareOfAPlan(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2026, 1, d, 0, 0, 0, 0, time.UTC) }
	until := day(11)
	for _, c := range []struct {
		plan     store.SubscriptionRow
		from, to time.Time
		want     usage.Money
		hours    float64
	}{
		{store.SubscriptionRow{Monthly: 730_500_000_000, From: day(1)}, day(1), day(2), 24 * usage.USD, 24},
		{store.SubscriptionRow{Monthly: 730_500_000_000, From: day(10)}, day(1), day(12), 48 * usage.USD, 48},
		{store.SubscriptionRow{Monthly: 730_500_000_000, From: day(1), Until: &until}, day(10), day(20), 24 * usage.USD, 24},
		{store.SubscriptionRow{Monthly: 730_500_000_000, From: day(20)}, day(1), day(10), 0, 0},
		{store.SubscriptionRow{Monthly: 999_999_999 * usage.USD, From: day(1)}, day(1), day(1).AddDate(0, 1, 0), 1_018_480_491_794_661_191, 744},
	} {
		got, hours := shareOf(c.plan, c.from, c.to)
		if got != c.want || hours != c.hours {
			t.Errorf("%+v from %s to %s: got %s for %v h, want %s", c.plan, c.from, c.to, got, hours, c.want)
		}
	}
}

func raised(t *testing.T, s *service, usd string) RunAccepted {
	t.Helper()
	definition := `{"spec":"workflow/v1","name":"one_tool","budget":{"usd":"1"},"steps":[{"id":"work","tool":"builtin:noop","retry":"none"}]}`
	var run RunAccepted
	s.send(t, "POST", "/v1/runs", `{"definition":`+definition+`,"budget":{"usd":"`+usd+`"}}`).want(http.StatusAccepted).json(&run)
	return run
}

// A submission lowers its workflow's budget, and may not raise it.
func TestBudgetOfASubmission(t *testing.T) {
	s := newService(t, nil)
	run := raised(t, s, "0.5")
	var got Run
	s.send(t, "GET", "/v1/runs/"+run.ID, nil).want(http.StatusOK).json(&got)
	if got.Budget.Limit.USD != "0.50" || got.Budget.Warned {
		t.Errorf("got %+v", got.Budget)
	}
	definition := `{"spec":"workflow/v1","name":"x","budget":{"usd":"1","tokens":10},"steps":[{"id":"a","set":{"x":1}}]}`
	p := s.send(t, "POST", "/v1/runs", `{"definition":`+definition+`,"budget":{"usd":"1.000000001","tokens":11}}`).wantProblem(http.StatusUnprocessableEntity, "budget_above_workflow")
	if len(p.Errors) != 2 || p.Errors[0].Pointer != "/budget/usd" || p.Errors[1].Pointer != "/budget/tokens" {
		t.Errorf("got %+v", p.Errors)
	}
	s.send(t, "POST", "/v1/runs", `{"definition":`+greeting+`,"budget":{"tokens":1}}`).want(http.StatusAccepted)
	s.send(t, "POST", "/v1/runs", `{"definition":`+greeting+`,"budget":{"usd":"0.00"}}`).wantProblem(http.StatusUnprocessableEntity, "budget_invalid")
}

// A run that waits for money says so in a sentence, can be given more, and goes on.
func TestRunThatWaitsForMoney(t *testing.T) {
	s := newService(t, nil)
	run := raised(t, s, "0.5")
	s.mem.report(t, run.ID, "work", flow.Outcome{
		Held: flow.HeldBudget, Failure: &flow.Failure{Class: "budget_exceeded", Message: `budget "run" (run) is exhausted: spent $0.49`},
	})
	var got Run
	s.send(t, "GET", "/v1/runs/"+run.ID, nil).want(http.StatusOK).json(&got)
	if got.Status != RunStatusWaiting || got.WaitingFor.Kind != "budget" || got.WaitingFor.Step != "work" ||
		!strings.Contains(got.WaitingFor.Sentence, "spent $0.49") || got.WaitingFor.Until.IsZero() || got.Links.Resume == "" {
		t.Fatalf("got %s %+v %+v", got.Status, got.WaitingFor, got.Links)
	}
	resume := "/v1/runs/" + run.ID + "/resume"
	s.send(t, "POST", resume, `{"budget":{"usd":"0.4"}}`).wantProblem(http.StatusUnprocessableEntity, "budget_not_raised")
	s.send(t, "POST", resume, `{"set":{"steps.work.output":{}},"budget":{"usd":"2"}}`).wantProblem(http.StatusConflict, "run_not_failed")
	s.send(t, "POST", resume, `{"budget":{"usd":"2"}}`).want(http.StatusAccepted)
	var again Run
	s.send(t, "GET", "/v1/runs/"+run.ID, nil).want(http.StatusOK).json(&again)
	if again.Status != RunStatusRunning || again.Budget.Limit.USD != "2.00" || again.WaitingFor.Kind != "" {
		t.Errorf("got %s %+v %+v", again.Status, again.Budget, again.WaitingFor)
	}
	s.send(t, "POST", resume, `{}`).wantProblem(http.StatusConflict, "run_not_failed")
}

// The bill of a run: each call checks by itself, and every sum is that of its lines.
func TestRunCost(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool)
	s.mem.money.level.Reserved = 5_000_000
	rates := &usage.Rates{Input: 250_000, CacheRead: 25_000, CacheWrite: 250_000, CacheWrite1h: 250_000, Output: 2_000_000, Reasoning: 2_000_000}
	s.mem.report(t, run.ID, "work", flow.Outcome{Output: json.RawMessage(`{}`), Calls: []usage.Call{
		{Provider: "openai", Model: "gpt-5-mini", Class: "server", Message: "broken", Try: 1, Cost: 10},
		{Provider: "openai", Model: "gpt-5-mini", Try: 2, Tokens: usage.Tokens{Input: 800, Output: 120, CacheWrite1h: 7}, Cost: 440_000, Baseline: 4_200_000, CacheSaved: 40_000, Rates: rates, Price: "list of 2026-07-29"},
		{Provider: "local", Model: "llama", Try: 1, Unpriced: true, Simulated: true},
	}})
	var bill RunCost
	s.send(t, "GET", "/v1/runs/"+run.ID+"/cost", nil).want(http.StatusOK).json(&bill)
	if len(bill.Lines) != 3 || len(bill.ByStep) != 1 || len(bill.ByAttempt) != 1 || len(bill.ByModel) != 2 || !bill.Simulated || bill.Reserved.USD != "0.005" {
		t.Fatalf("got %+v", bill)
	}
	if c := bill.Totals; c.Cost.NanoUSD != 440_010 || c.Cost.UnpricedCalls != 1 || c.Savings.Saved.NanoUSD != 3_759_990 || orZero(c.Savings.Percent) != 89.5 || c.Calls != 3 {
		t.Errorf("got %+v", c)
	}
	line := bill.Lines[1]
	if line.Rates.Input != "0.25" || line.Rates.Output != "2" || line.Tokens.CacheWrite != 7 || line.TokensApart.CacheWrite1H != 7 || line.Saved.NanoUSD != 3_760_000 ||
		line.Price == "" || line.Step != "work" || line.Attempt != 1 || line.Seq == 0 {
		t.Errorf("got %+v", line)
	}
	for _, list := range [][]CostSum{bill.ByStep, bill.ByAttempt, bill.ByModel} {
		var sum int64
		for _, c := range list {
			sum += c.Cost.NanoUSD
		}
		if sum != bill.Totals.Cost.NanoUSD {
			t.Errorf("%+v adds up to %d", list, sum)
		}
	}
	var got Run
	s.send(t, "GET", "/v1/runs/"+run.ID, nil).want(http.StatusOK).json(&got)
	if d := cmp.Diff(bill.Totals.Savings, got.Savings); d != "" {
		t.Errorf("the run says something else:\n%s", d)
	}
}
