package engine_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

const patience = 30 * time.Second // for what must happen; a test that runs into it has failed

// workerFunc is a worker as a function: it answers an attempt.
type workerFunc func(ctx context.Context, a flow.Attempt) *flow.Outcome

func (f workerFunc) Do(ctx context.Context, a flow.Attempt, report func(flow.Report)) {
	report(flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Outcome: f(ctx, a)})
}

// echo succeeds with its input.
func echo(_ context.Context, a flow.Attempt) *flow.Outcome { return &flow.Outcome{Output: a.Input} }

func failure(class string) *flow.Outcome {
	return &flow.Outcome{Failure: &flow.Failure{Class: class, Message: class}}
}

// node is one node of a test: an engine with its own store.
type node struct {
	t      *testing.T
	db     *store.DB
	engine *engine.Engine
	stop   func() // drains; idempotent

	mu    sync.Mutex
	ended map[uuid.UUID]flow.RunStatus
	bell  chan struct{}
}

func newDatabase(t *testing.T) string {
	t.Helper()
	return pgtest.New(t)
}

func openStore(t *testing.T, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func startNode(t *testing.T, url, name string, worker engine.Worker, change func(*engine.Config)) *node {
	t.Helper()
	n := &node{t: t, db: openStore(t, url), ended: map[uuid.UUID]flow.RunStatus{}, bell: make(chan struct{}, 1)}
	cfg := engine.Config{
		Store: n.db, Worker: worker, Shards: 2, LeaseTTL: 3 * time.Second, DrainTimeout: 5 * time.Second,
		Log:      slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Node:     store.Node{ID: uuid.Must(uuid.NewV7()), Name: name, Version: "test"},
		Finished: n.finished,
	}
	if change != nil {
		change(&cfg)
	}
	n.engine = engine.New(cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.engine.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(n.stop)
	n.until("the node is ready", func() bool { return n.engine.Ready() == nil })
	return n
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil { // after the test nobody may log
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (n *node) finished(run uuid.UUID, status flow.RunStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended[run] = status
	select {
	case n.bell <- struct{}{}:
	default:
	}
}

// submit compiles the definition and submits a run of it.
func (n *node) submit(definition, input string) uuid.UUID {
	n.t.Helper()
	id, err := n.trySubmit(definition, input)
	if err != nil {
		n.t.Fatalf("submit: %v", err)
	}
	return id
}

func (n *node) trySubmit(definition, input string) (uuid.UUID, error) {
	n.t.Helper()
	w, err := workflow.Compile([]byte(definition))
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.db.PutDefinition(n.t.Context(), store.TenantDefault, w.Hash, w.Source); err != nil {
		n.t.Fatal(err)
	}
	id := uuid.Must(uuid.NewV7())
	return id, n.engine.Submit(n.t.Context(), &flow.Submission{
		ID: id, Tenant: store.TenantDefault, Workflow: w, Input: json.RawMessage(input), Priority: -1,
	})
}

func (n *node) tell(run uuid.UUID, kind, body string) {
	n.t.Helper()
	if err := n.engine.Tell(n.t.Context(), store.TenantDefault, store.Message{Run: run, Kind: kind, Body: json.RawMessage(body)}); err != nil {
		n.t.Fatal(err)
	}
}

// until waits for what must come; the bell rings with every end of a run, and often enough besides.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-n.bell:
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("in vain waited until %s", what)
		}
	}
}

// status waits until the run's row says it.
func (n *node) status(run uuid.UUID, want flow.RunStatus) store.RunRow {
	n.t.Helper()
	var row store.RunRow
	n.until("run is "+string(want), func() bool {
		var err error
		if row, err = n.db.Run(n.t.Context(), store.TenantDefault, run); err != nil {
			n.t.Fatal(err)
		}
		return row.Status == want
	})
	return row
}

func (n *node) log(run uuid.UUID) []flow.Event {
	n.t.Helper()
	logs, err := n.db.Logs(n.t.Context(), []uuid.UUID{run})
	if err != nil {
		n.t.Fatal(err)
	}
	return logs[run]
}

func count(log []flow.Event, kind flow.Kind) int {
	n := 0
	for _, e := range log {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// exec runs a statement beside the service: the test plays operator or fate.
func exec(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the test is over
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// one asks beside the service for a single value.
func one[T any](t *testing.T, url, sql string, args ...any) (value T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the test is over
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

type engineConfig = engine.Config
