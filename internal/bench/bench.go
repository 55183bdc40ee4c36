// Package bench measures the service as it is shipped: the real engine, worker and store on a real Postgres, with
// definitions and expressions, in process or through HTTP; beside it, on the same database in the same run, the raw
// rate of batched appends, which is the limit.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Config of a measurement.
type Config struct {
	Store    *store.DB
	Worker   engine.Worker
	Metrics  *telemetry.Metrics
	Handler  func(*engine.Engine) (http.Handler, error) // the API over an engine; nil: submit in process
	Workload string                                     // chain10, fanout100, single
	Seconds  int                                        // of the full load; the other phases are parts of it
	InFlight int                                        // runs at work at once under full load; 0: by the workload
	Log      *slog.Logger
	Phase    func(name string) // told what is being measured; nil: nobody is
}

// Result is what was measured. Rates are per second of wall clock, all work included until the last run had ended.
type Result struct {
	Workload             string  `json:"workload"`
	HTTP                 bool    `json:"http"`
	Runs                 int     `json:"runs"`
	Steps                int     `json:"steps"`
	Seconds              float64 `json:"seconds"`
	StepsPerSecond       float64 `json:"steps_per_second"`
	RunsPerSecond        float64 `json:"runs_per_second"`
	GapP50               float64 `json:"gap_p50_ms"` // between the end of a step and the start of the next, at half load
	GapP99               float64 `json:"gap_p99_ms"`
	GapOneP50            float64 `json:"gap_one_run_p50_ms"` // with one run at a time
	GapOneP99            float64 `json:"gap_one_run_p99_ms"`
	SubmitP50            float64 `json:"submit_p50_ms"` // until the submission is durable, at half load
	SubmitP99            float64 `json:"submit_p99_ms"`
	WALBytesPerStep      float64 `json:"wal_bytes_per_step"`
	RawAppendsPerSecond  float64 `json:"raw_appends_per_second"`  // bare rows of the workload's output size, in batches
	FullAppendsPerSecond float64 `json:"full_appends_per_second"` // the same through the service's own statement
	RatioToRaw           float64 `json:"ratio_to_raw"`            // steps_per_second / raw_appends_per_second
}

const (
	rawBatch      = 256
	rawCommitters = 4
	rawSeconds    = 3
	warmUp        = time.Second
)

// Run measures one workload.
func Run(ctx context.Context, c Config) (Result, error) {
	load, err := newWorkload(c.Workload)
	if err != nil {
		return Result{}, err
	}
	if c.InFlight <= 0 {
		c.InFlight = load.inFlight
	}
	b := &bench{Config: c, load: load, meter: newMeter(c.Worker), ended: newEndings()}
	stop, err := b.start(ctx)
	if err != nil {
		return Result{}, err
	}
	defer stop()
	result := Result{Workload: c.Workload, HTTP: c.Handler != nil}
	for _, phase := range []struct {
		name string
		do   func(context.Context, *Result) error
	}{
		{"warm up", b.warmUp},
		{"one run at a time", b.oneAtATime},
		{"full load", b.fullLoad},
		{"half load", b.halfLoad},
		{"raw appends", b.rawAppends},
	} {
		if c.Phase != nil {
			c.Phase(phase.name)
		}
		if err := phase.do(ctx, &result); err != nil {
			return result, fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	return result, nil
}

type bench struct {
	Config
	load   workload
	meter  *meter
	ended  *endings
	engine *engine.Engine
	submit func(context.Context) (uuid.UUID, error)
}

// start runs an engine of its own, and for HTTP a server on a free port before it.
func (b *bench) start(ctx context.Context) (stop func(), err error) {
	b.engine = engine.New(engine.Config{
		Store: b.Store, Worker: b.meter, Metrics: b.Metrics, Log: b.Log,
		Node:     store.Node{Name: "bench-" + uuid.NewString()[:8], Version: "bench"},
		RunsMax:  2*b.InFlight + 1_000,
		Finished: b.ended.end,
	})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.engine.Run(ctx) //nolint:errcheck // returns when the bench is over
	}()
	stop = func() { cancel(); <-done }
	for b.engine.Ready() != nil {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return stop, ctx.Err()
		}
	}
	if b.submit, err = b.inProcess(ctx); err != nil {
		stop()
		return nil, err
	}
	if b.Handler != nil {
		close, err := b.serve(ctx)
		if err != nil {
			stop()
			return nil, err
		}
		halt := stop
		stop = func() { close(); halt() }
	}
	return stop, nil
}

func (b *bench) inProcess(ctx context.Context) (func(context.Context) (uuid.UUID, error), error) {
	w, err := workflow.Compile([]byte(b.load.definition))
	if err != nil {
		return nil, err
	}
	if err := b.Store.PutDefinition(ctx, store.TenantDefault, w.Hash, w.Source); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (uuid.UUID, error) {
		id := uuid.Must(uuid.NewV7())
		return id, b.engine.Submit(ctx, &flow.Submission{
			ID: id, Tenant: store.TenantDefault, Workflow: w, Input: json.RawMessage(b.load.input), Priority: -1,
		})
	}, nil
}

func (b *bench) warmUp(ctx context.Context, _ *Result) error {
	_, err := b.closedLoop(ctx, min(64, b.InFlight), warmUp)
	return err
}

func (b *bench) oneAtATime(ctx context.Context, r *Result) error {
	b.meter.reset()
	if _, err := b.closedLoop(ctx, 1, time.Duration(b.Seconds)*time.Second/4); err != nil {
		return err
	}
	r.GapOneP50, r.GapOneP99 = b.meter.gap(0.5), b.meter.gap(0.99)
	return nil
}

func (b *bench) fullLoad(ctx context.Context, r *Result) error {
	b.meter.reset()
	before, err := b.Store.WALBytes(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	runs, err := b.closedLoop(ctx, b.InFlight, time.Duration(b.Seconds)*time.Second)
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	after, err := b.Store.WALBytes(ctx)
	if err != nil {
		return err
	}
	r.Runs, r.Steps, r.Seconds = runs, runs*b.load.steps, took
	r.StepsPerSecond, r.RunsPerSecond = float64(r.Steps)/took, float64(runs)/took
	r.WALBytesPerStep = float64(after-before) / float64(r.Steps)
	return nil
}

func (b *bench) halfLoad(ctx context.Context, r *Result) error {
	b.meter.reset()
	submits, err := b.openLoop(ctx, r.RunsPerSecond/2, time.Duration(b.Seconds)*time.Second/2)
	if err != nil {
		return err
	}
	r.GapP50, r.GapP99 = b.meter.gap(0.5), b.meter.gap(0.99)
	r.SubmitP50, r.SubmitP99 = submits.quantile(0.5), submits.quantile(0.99)
	return nil
}

func (b *bench) rawAppends(ctx context.Context, r *Result) (err error) {
	rows := int(max(r.StepsPerSecond, 5_000)) * rawSeconds
	if r.RawAppendsPerSecond, err = b.Store.RawAppends(ctx, rows, rawBatch, b.load.bytes, rawCommitters, false); err != nil {
		return err
	}
	if r.FullAppendsPerSecond, err = b.Store.RawAppends(ctx, rows, rawBatch, b.load.bytes, rawCommitters, true); err != nil {
		return err
	}
	if r.RawAppendsPerSecond <= 0 {
		return errors.New("no rows were appended")
	}
	r.RatioToRaw = r.StepsPerSecond / r.RawAppendsPerSecond
	return nil
}
