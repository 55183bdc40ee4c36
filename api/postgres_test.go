package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// hand is a worker whose attempts of "work" fail until it is mended; all others give back their input.
type hand struct {
	broken atomic.Bool
	calls  []usage.Call // of each attempt
}

func (h *hand) Do(ctx context.Context, a flow.Attempt, report func(flow.Report)) {
	out := &flow.Outcome{Output: json.RawMessage(`{"pass":true}`)}
	if h.broken.Load() {
		out = &flow.Outcome{Failure: &flow.Failure{Class: "server", Message: "broken for the test"}}
	}
	if a.Workflow == "slow" {
		<-ctx.Done()
		out = &flow.Outcome{Failure: &flow.Failure{Class: "cancelled", Message: "cut"}}
	}
	out.Calls = h.calls
	report(flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: out})
}

// node is the API on a real engine and a real Postgres, spoken with by its client.
type node struct {
	*client.Client
	service *service
	db      *store.DB
	hand    *hand
}

func newNode(t *testing.T) *node {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: pgtest.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	n := &node{db: db, hand: &hand{}}
	quiet := slog.New(slog.DiscardHandler)
	e := engine.New(engine.Config{Store: db, Worker: n.hand, Log: quiet, Node: store.Node{Name: "n1"}, DrainTimeout: 5 * time.Second})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	cfg := Config{Store: db, Engine: e, Log: quiet, Version: "test"}
	withModels(t)(&cfg)
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.service = &service{API: a, mem: newMemory(), handler: a.Handler()}
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server(ServerConfig{}, n.service.handler)
	server.Start()
	t.Cleanup(server.Close)
	if n.Client, err = client.New(client.Config{URL: server.URL}); err != nil {
		t.Fatal(err)
	}
	for n.Ready(t.Context()) != nil {
		time.Sleep(10 * time.Millisecond)
	}
	return n
}

// ends watches a run to its end and gives the kinds of its events.
func (n *node) ends(t *testing.T, id string, after int32) (kinds []string, last int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	last = after
	for e, err := range n.Watch(ctx, id, after) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != last+1 {
			t.Fatalf("event %d follows %d", e.Seq, last)
		}
		kinds, last = append(kinds, e.Kind), e.Seq
	}
	return kinds, last
}

// The life of runs over HTTP, on Postgres.
func TestOnPostgres(t *testing.T) {
	n := newNode(t)
	t.Run("publish and run", func(t *testing.T) { testPublishAndRun(t, n) })
	t.Run("fail and resume", func(t *testing.T) { testFailAndResume(t, n) })
	t.Run("cancel", func(t *testing.T) { testCancel(t, n) })
	t.Run("one key, one run", func(t *testing.T) { testOneKeyOneRun(t, n) })
	t.Run("money", func(t *testing.T) { testMoney(t, n) })
	t.Run("people answer", func(t *testing.T) { testPeopleAnswer(t, n) })
	t.Run("signals", func(t *testing.T) { testSignals(t, n) })
	t.Run("children", func(t *testing.T) { testChildren(t, n) })
	t.Run("nothing is left", func(t *testing.T) { testNothingIsLeft(t, n) })
}

func testPublishAndRun(t *testing.T, n *node) {
	ctx := t.Context()
	first, err := n.Publish(ctx, []byte(greeting2("one")))
	if err != nil || first.Version != 1 {
		t.Fatalf("got %+v %v", first, err)
	}
	second, err := n.Publish(ctx, []byte(greeting2("two")))
	if err != nil || second.Version != 2 {
		t.Fatalf("got %+v %v", second, err)
	}
	accepted, run, err := n.Submit(ctx, client.RunRequest{Workflow: "greet@1"}, client.SubmitOptions{Wait: 20 * time.Second})
	if err != nil || run == nil || run.Status != client.RunStatusSucceeded || string(run.Output) != `{"text":"one"}` {
		t.Fatalf("got %+v %v", run, err)
	}
	kinds, last := n.ends(t, accepted.ID, 0)
	if kinds[0] != "run_submitted" || kinds[len(kinds)-1] != "run_succeeded" || last != run.LastSeq {
		t.Errorf("got %v", kinds)
	}
	page, err := n.Runs(ctx, client.ListRunsParams{})
	if err != nil || len(page.Data) != 1 || page.Data[0].ID != accepted.ID {
		t.Errorf("got %+v %v", page, err)
	}
}

func testFailAndResume(t *testing.T, n *node) {
	ctx := t.Context()
	n.hand.broken.Store(true)
	accepted, _, err := n.Submit(ctx, client.RunRequest{Definition: json.RawMessage(contracted)}, client.SubmitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kinds, last := n.ends(t, accepted.ID, 0)
	if kinds[len(kinds)-1] != "run_failed" {
		t.Fatalf("got %v", kinds)
	}
	_, err = n.Resume(ctx, accepted.ID, client.ResumeRequest{Set: map[string]json.RawMessage{"steps.work.output": json.RawMessage(`{"pass":"no"}`)}})
	var p *client.Problem
	if !errors.As(err, &p) || p.Code != "resume_invalid" {
		t.Fatalf("got %v", err)
	}
	n.hand.broken.Store(false)
	if _, err := n.Resume(ctx, accepted.ID, client.ResumeRequest{Reason: "mended"}); err != nil {
		t.Fatal(err)
	}
	// The resume has been taken in when it is answered: who watches on sees the run go on, not its first end again.
	if again, _ := n.ends(t, accepted.ID, last); len(again) == 0 || again[0] != "run_resumed" || again[len(again)-1] != "run_succeeded" {
		t.Errorf("got %v", again)
	}
	run, err := n.Run(ctx, accepted.ID, client.GetRunParamsIncludeSteps)
	if err != nil || run.Status != client.RunStatusSucceeded || string(run.Output) != `{"pass":true}` || run.Steps[1].Gen != run.Steps[0].Gen+1 {
		t.Errorf("got %+v %v", run, err)
	}
}

func testCancel(t *testing.T, n *node) {
	ctx := t.Context()
	slow := bytes.Replace([]byte(oneTool), []byte(`"one_tool"`), []byte(`"slow"`), 1)
	accepted, _, err := n.Submit(ctx, client.RunRequest{Definition: slow}, client.SubmitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Cancel(ctx, accepted.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	if kinds, _ := n.ends(t, accepted.ID, 0); kinds[len(kinds)-1] != "run_cancelled" {
		t.Errorf("got %v", kinds)
	}
	_, err = n.Cancel(ctx, accepted.ID, "")
	var p *client.Problem
	if !errors.As(err, &p) || p.Code != "run_terminal" || p.State != "cancelled" {
		t.Errorf("got %v", err)
	}
}

// Of 50 at once with one key, one makes the run; the others wait, and get the same answer. (I2, F20)
func testOneKeyOneRun(t *testing.T, n *node) {
	ctx := t.Context()
	key := uuid.NewString()
	ids := make([]string, 50)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			for ctx.Err() == nil {
				accepted, _, err := n.Submit(ctx, client.RunRequest{Definition: json.RawMessage(oneTool)}, client.SubmitOptions{Key: key})
				var p *client.Problem
				if errors.As(err, &p) && p.Code == "idempotency_in_progress" {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = accepted.ID
				return
			}
		})
	}
	group.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("several runs: %s, %s", ids[0], id)
		}
	}
	page, err := n.Runs(ctx, client.ListRunsParams{Workflow: pointer("one_tool")})
	if err != nil || len(page.Data) != 1 {
		t.Errorf("got %+v %v", page, err)
	}
}

func pointer[T any](v T) *T { return &v }

// Budgets, plans and prices are kept; what a run spends is on its bill and in the report, to the nano-dollar.
func testMoney(t *testing.T, n *node) {
	ctx := t.Context()
	n.hand.calls = []usage.Call{
		{Provider: "simulated", Model: "gpt-4o", Try: 1, Simulated: true, Cost: 7, Baseline: 10},
		{Provider: "openai", Model: "gpt-4o", Try: 1, Cost: 440_001, Baseline: 4_200_000, CacheSaved: 3, Tokens: usage.Tokens{Input: 5}},
	}
	defer func() { n.hand.calls = nil }()
	definition := bytes.Replace([]byte(oneTool), []byte(`"one_tool"`), []byte(`"paid"`), 1)
	req := client.RunRequest{Definition: definition, Labels: client.Labels{"team": "a"}, Budget: client.RunBudgetRequest{USD: "0.000500001"}}
	accepted, run, err := n.Submit(ctx, req, client.SubmitOptions{Wait: 20 * time.Second})
	if err != nil || run == nil || run.Savings.Cost.NanoUSD != 440_008 || run.Savings.Baseline.NanoUSD != 4_200_010 || run.Savings.CacheSaved.NanoUSD != 3 {
		t.Fatalf("got %+v %v", run, err)
	}
	bill, err := n.Cost(ctx, accepted.ID)
	if err != nil || len(bill.Lines) != 2 || bill.Totals.Cost.NanoUSD != 440_008 || bill.Budget.Limit.USD != "0.000500001" || !bill.Budget.Warned {
		t.Errorf("got %+v %v", bill, err)
	}
	testSpend(t, n)
	testBudgets(t, n)
	if _, err := n.PutSubscription(ctx, "max", client.SubscriptionRequest{Monthly: "200"}); err != nil {
		t.Error(err)
	}
	plans, err := n.Subscriptions(ctx)
	if err != nil || len(plans) != 1 || plans[0].Monthly.USD != "200.00" || n.DeleteSubscription(ctx, "max") != nil {
		t.Errorf("got %+v %v", plans, err)
	}
	rows, err := n.PutPrices(ctx, client.PriceRequest{Model: "gpt-4o", Rows: []client.PriceRowRequest{
		{Input: "1", Output: "2", Source: "contract"}, {ContextOver: 1000, Input: "3", Output: "4", Source: "contract"},
	}})
	own := 0
	for _, r := range rows {
		own += map[bool]int{true: 1}[r.Origin == client.PriceRowOriginAPI]
	}
	if err != nil || own != 2 || n.DeletePrices(ctx, "gpt-4o") != nil {
		t.Errorf("got %+v %v", rows, err)
	}
}

func testSpend(t *testing.T, n *node) {
	for _, groups := range [][]string{{"workflow", "model"}, {"label:team", "workflow"}} {
		report, err := n.Spend(t.Context(), client.GetSpendParams{GroupBy: &groups, Workflow: pointer("paid")})
		if err != nil {
			t.Fatal(err)
		}
		// What was simulated is not added to real money.
		if r, s := report.Totals.Variable.NanoUSD, report.Simulated.Variable.NanoUSD; r != 440_001 || s != 7 {
			t.Errorf("by %v: real %d, simulated %d", groups, r, s)
		}
		var sum int64
		for _, g := range report.Data {
			sum += g.Cost.NanoUSD
		}
		if sum != 440_008 {
			t.Errorf("by %v: the groups add up to %d: %+v", groups, sum, report.Data)
		}
	}
	groups := []string{"workflow"}
	table, err := n.SpendCSV(t.Context(), client.GetSpendParams{GroupBy: &groups, Workflow: pointer("paid")})
	if err != nil || bytes.Count(table, []byte("\n")) != 3 {
		t.Errorf("got %s %v", table, err)
	}
}

func testBudgets(t *testing.T, n *node) {
	ctx := t.Context()
	req := client.BudgetRequest{Scope: client.BudgetScopeLabel, Of: "team=a", Window: client.BudgetWindowDay, TimeZone: "Europe/Berlin", Limit: client.RunBudgetRequest{USD: "10.5"}}
	b, err := n.PutBudget(ctx, "team-a", req)
	if err != nil || b.Limit.USD != "10.50" || b.Left.USD != "10.50" || b.ResetsAt.IsZero() || b.OnHard != client.OnHardPause {
		t.Fatalf("got %+v %v", b, err)
	}
	req.TimeZone = "Mars/Olympus"
	var p *client.Problem
	if _, err := n.PutBudget(ctx, "team-a", req); !errors.As(err, &p) || p.Status != http.StatusUnprocessableEntity || len(p.Errors) != 1 || p.Errors[0].Pointer != "/time_zone" {
		t.Errorf("got %v", err)
	}
	req.TimeZone, req.Of = "UTC", "team=b"
	if _, err := n.PutBudget(ctx, "team-a", req); !errors.As(err, &p) || p.Code != "budget_scope_fixed" {
		t.Errorf("got %v", err)
	}
	page, err := n.Budgets(ctx, client.ListBudgetsParams{})
	if err != nil || len(page.Data) != 1 || page.Data[0].Of != "team=a" || n.DeleteBudget(ctx, "team-a") != nil {
		t.Errorf("got %+v %v", page, err)
	}
}

// What is refused leaves nothing behind in any table.
func testNothingIsLeft(t *testing.T, n *node) {
	count := func() int {
		page, err := n.db.Runs(t.Context(), store.TenantDefault, store.RunFilter{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		list, err := n.db.Workflows(t.Context(), store.TenantDefault, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(page)*1000 + len(list)
	}
	before := count()
	key := "Idempotency-Key: " + uuid.NewString()
	n.service.send(t, "POST", "/v1/runs", `{"workflow":"nobody"}`, key).wantProblem(http.StatusNotFound, "workflow_not_found")
	n.service.send(t, "POST", "/v1/runs", `{"definition":`+contracted+`,"input":1e999}`, key).want(http.StatusBadRequest)
	n.service.send(t, "POST", "/v1/workflows", `{"definition":{"spec":"workflow/v1","name":"bad"}}`, key).want(http.StatusUnprocessableEntity)
	n.service.send(t, "GET", "/v1/runs/"+noRun, nil).wantProblem(http.StatusNotFound, "run_not_found")
	n.service.send(t, "POST", "/v1/runs/"+noRun+"/cancel", nil, key).wantProblem(http.StatusNotFound, "run_not_found")
	n.service.send(t, "GET", "/v1/workflows/bad", nil).wantProblem(http.StatusNotFound, "workflow_not_found")
	if d := cmp.Diff(before, count()); d != "" {
		t.Error(d)
	}
	// The key is free again: the same key now makes a run.
	n.service.send(t, "POST", "/v1/runs", `{"definition":`+greeting+`}`, key).want(http.StatusAccepted)
}
