package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/api"
	"github.com/fermata-run/fermata/internal/bench"
	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/usage"
)

// workloadModels measures the gateway, not the engine.
const workloadModels = "models"

// benchBudget is more than the benchmark can spend.
const benchBudget = 1_000_000 * usage.USD

// models measures the gateway against a model server in a process of its own.
func (c *benchCommand) models(ctx context.Context, s *screen, m *Main, db *store.DB, metrics *telemetry.Metrics) error {
	url, stop, err := startMockModels(ctx)
	if err != nil {
		return err
	}
	defer stop()
	m.cfg.Models = configFile{
		Providers: []providerConfig{{Name: "upstream", Kind: providerOpenAI, BaseURL: url + "/v1"}},
		Prices:    []gateway.PriceRow{benchPrice(bench.ModelQuick), benchPrice(bench.ModelBroken), benchPrice(bench.ModelHeld)},
	}
	asked, err := m.models(ctx, db, store.Node{ID: uuid.Must(uuid.NewV7()), Name: "bench"}, metrics)
	if err != nil {
		return err
	}
	defer asked.close()
	door, err := api.New(api.Config{
		Store: db, Engine: engine.New(engine.Config{Store: db}), Models: asked.gateway, Gateway: asked.gateway, Ledger: asked.ledger, Metrics: metrics, Log: m.cfg.Log, Listen: "127.0.0.1:0",
	})
	if err != nil {
		return fmt.Errorf("make the API: %w", err)
	}
	result, err := bench.Models(ctx, bench.ModelsConfig{
		Upstream: url, Plain: asked.gateway, Budgeted: asked.gateway, Door: door.Handler(), Rate: c.Rate, Seconds: c.Seconds, Streams: c.Streams,
		// A run's own budget is as durable as any other, and bounds these calls only.
		Caller: gateway.Caller{Tenant: store.TenantDefault, Run: uuid.Must(uuid.NewV7()), Step: "bench", Budget: &gateway.RunBudget{Cost: benchBudget}},
		Calls:  func(model string) (int, error) { return mockCalls(ctx, url, model) },
		Release: func() error {
			_, err := mockAsk(ctx, http.MethodPost, url+"/release")
			return err
		},
		Phase: func(name string) { s.say("%s …", name) },
	})
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(result)
	}
	showModels(s, result)
	return nil
}

// benchPrice is what the models of the benchmark are said to cost.
func benchPrice(model string) gateway.PriceRow {
	return gateway.PriceRow{Model: model, Input: "1", Output: "4", Source: "benchmark", Checked: "2026-01-01"}
}

func showModels(s *screen, r bench.ModelsResult) {
	s.print("the gateway, %d calls a second against a model server on loopback that answers at once", r.Rate)
	line := func(name string, p50, p99, more50, more99 float64) {
		s.print("  %-28s %7.2f ms p50 %7.2f ms p99   added %6.2f and %6.2f", name, p50, p99, more50, more99)
	}
	line("directly", r.DirectP50, r.DirectP99, 0, 0)
	line("gateway", r.PlainP50, r.PlainP99, r.AddedP50, r.AddedP99)
	line("with a durable reservation", r.BudgetedP50, r.BudgetedP99, r.BudgetedAddedP50, r.BudgetedAddedP99)
	line("/v1/chat/completions", r.DoorP50, r.DoorP99, r.DoorAddedP50, r.DoorAddedP99)
	s.print("  requests per logical call    %7.3f at a model that always answers 500, with 3 retries allowed", r.CallsPerLogicalCall)
	if r.Streams > 0 {
		s.print("  %d streams at once        %7.0f bytes each", r.Streams, r.BytesPerStream)
	}
	if r.Failed > 0 {
		s.print("  %d calls failed", r.Failed)
	}
}

// startMockModels starts this program once more, as the model server.
func startMockModels(ctx context.Context) (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	played := exec.CommandContext(ctx, self, "mock-models")
	played.Stderr = os.Stderr
	out, err := played.StdoutPipe()
	if err == nil {
		err = played.Start()
	}
	if err != nil {
		cancel()
		return "", nil, fmt.Errorf("start the model server: %w", err)
	}
	stop = func() {
		cancel()
		_ = played.Wait()
	}
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start the model server: %w", err)
	}
	return strings.TrimSpace(first), stop, nil
}

func mockCalls(ctx context.Context, url, model string) (int, error) {
	answer, err := mockAsk(ctx, http.MethodGet, url+"/calls/"+model)
	return answer, err
}

// mockAsk asks the model server something; the answer is a number or nothing.
func mockAsk(ctx context.Context, method, url string) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if method == http.MethodGet {
		err = json.NewDecoder(answer.Body).Decode(&n)
	}
	return n, err
}
