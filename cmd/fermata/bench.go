package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/api"
	"github.com/fermata-run/fermata/internal/bench"
	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/pgembed"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/worker"
)

type benchCommand struct {
	Workload    string     `enum:"chain10,fanout100,map10000,single,models" default:"chain10" placeholder:"chain10|fanout100|map10000|single|models" help:"Ten steps of 1 KB one after the other, a hundred at once and a join, a map over ten thousand items, one step; or the model gateway."`
	HTTP        bool       `name:"http" help:"Submit through the HTTP API on loopback, not in process."`
	Seconds     int        `default:"10" help:"How long the full load lasts; the other phases are parts of it."`
	Rate        int        `default:"1000" help:"Of models: calls a second."`
	Streams     int        `default:"10000" help:"Of models: streams open at once."`
	InFlight    int        `placeholder:"N" help:"Runs at work at once under full load; by the workload if not given."`
	DatabaseURL string     `env:"DATABASE_URL" placeholder:"URL" help:"The Postgres to measure on; one of its own in a temporary directory if not given."`
	LogLevel    slog.Level `default:"warn" hidden:""`
}

// Run measures one workload and prints what came out.
func (c *benchCommand) Run(ctx context.Context, s *screen) error {
	if c.Seconds < 1 {
		return usageError("--seconds must be at least 1")
	}
	cfg := MainConfig{DatabaseURL: c.DatabaseURL, Log: newLog(s.err, s.talkTTY, c.LogLevel), Build: build()}
	if c.DatabaseURL == "" {
		dir, err := os.MkdirTemp("", "fermata-bench-")
		if err != nil {
			return fmt.Errorf("make a directory for Postgres: %w", err)
		}
		defer os.RemoveAll(dir)
		cfg.Embedded = &pgembed.Config{Dir: dir, Log: cfg.Log}
	}
	m := NewMain(cfg)
	url, leave, err := m.postgres(ctx)
	if err != nil {
		return err
	}
	defer leave()
	db, err := m.store(ctx, url)
	if db == nil || err != nil {
		return err
	}
	defer db.Close()
	metrics := telemetry.New(prometheus.NewRegistry(), m.cfg.Build)
	if c.Workload == workloadModels {
		return c.models(ctx, s, m, db, metrics)
	}
	models, err := m.models(ctx, db, store.Node{ID: uuid.Must(uuid.NewV7()), Name: "bench"}, metrics)
	if err != nil {
		return err
	}
	defer models.close()
	work := worker.New(worker.Config{Gateway: models.gateway, Roster: models.gateway, Metrics: metrics, Log: m.cfg.Log})
	config := bench.Config{
		Store: db, Worker: work, Metrics: metrics, Workload: c.Workload, Seconds: c.Seconds, InFlight: c.InFlight, Log: m.cfg.Log,
		Phase: func(name string) { s.say("%s …", name) },
	}
	if c.HTTP {
		config.Handler = func(e *engine.Engine) (http.Handler, error) {
			door, err := api.New(api.Config{Store: db, Engine: e, Metrics: metrics, Log: m.cfg.Log, Version: m.cfg.Build.Version, Listen: "127.0.0.1:0"})
			if err != nil {
				return nil, err
			}
			return door.Handler(), nil
		}
	}
	result, err := bench.Run(ctx, config)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(result)
	}
	c.show(s, result)
	return nil
}

func (c *benchCommand) show(s *screen, r bench.Result) {
	how := "in process"
	if r.HTTP {
		how = "through HTTP"
	}
	s.print("%s, submitted %s: %d runs of %d steps in %.1f s", r.Workload, how, r.Runs, r.Steps/max(r.Runs, 1), r.Seconds)
	s.print("  steps/s            %9.0f", r.StepsPerSecond)
	s.print("  runs/s             %9.0f", r.RunsPerSecond)
	s.print("  gap between steps  %9.2f ms p50  %7.2f ms p99   one run at a time", r.GapOneP50, r.GapOneP99)
	s.print("                     %9.2f ms p50  %7.2f ms p99   at half load", r.GapP50, r.GapP99)
	s.print("  submission         %9.2f ms p50  %7.2f ms p99   at half load", r.SubmitP50, r.SubmitP99)
	s.print("  WAL per step       %9.0f bytes", r.WALBytesPerStep)
	s.print("  raw appends        %9.0f rows/s bare, %.0f rows/s by the service's own statement (the limits here)", r.RawAppendsPerSecond, r.FullAppendsPerSecond)
	s.print("  ratio to raw       %9.2f", r.RatioToRaw)
}
