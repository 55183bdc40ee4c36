package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/fermata-run/fermata/api"
	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/incident"
	"github.com/fermata-run/fermata/internal/ledger"
	"github.com/fermata-run/fermata/internal/peers"
	"github.com/fermata-run/fermata/internal/pgembed"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/worker"
)

// MainConfig of a Main.
type MainConfig struct {
	Listen            string
	DatabaseURL       string          // or Embedded
	Embedded          *pgembed.Config // nil: the database of DatabaseURL
	Node              string          // empty: host:port
	Models            configFile
	Shards, Workers   int // 0: the defaults of engine and worker
	DrainTimeout      time.Duration
	AllowUnsafeCommit bool
	NoIncidents       bool // agents that keep failing alike are not held
	Log               *slog.Logger
	Build             telemetry.Build
}

// Limits of starting and stopping.
const (
	retryFirst       = 100 * time.Millisecond
	retryMax         = 2 * time.Second
	readyPoll        = 10 * time.Millisecond
	shutdownTimeout  = 5 * time.Second  // for requests at work, after the engine has drained
	postgresStopTime = 30 * time.Second // for the embedded Postgres
)

// Main is one node of the service as a value: made of its configuration, run, ended by its context.
type Main struct {
	cfg      MainConfig
	url      string
	database string
	ready    chan struct{}
}

// NewMain makes a Main; Run starts it.
func NewMain(cfg MainConfig) *Main { return &Main{cfg: cfg, ready: make(chan struct{})} }

// Ready is closed once the node takes requests.
func (m *Main) Ready() <-chan struct{} { return m.ready }

// URL is where the node can be reached; known once it is ready.
func (m *Main) URL() string { return m.url }

// Database says what the node works on, without secrets; known once it is ready.
func (m *Main) Database() string { return m.database }

// Models says which providers are asked.
func (m *Main) Models() string { return providersOf(m.cfg.Models.Providers) }

// Simulated reports whether no real model can be called.
func (m *Main) Simulated() bool {
	for _, p := range m.cfg.Models.Providers {
		if p.Kind != providerSimulated {
			return false
		}
	}
	return true
}

// Run serves until ctx is done, then drains: not ready any more, no new submissions, attempts at work may end, what is
// left is handed back. While Postgres is away it stays up and not ready.
func (m *Main) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", m.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	m.url = urlOf(listener)
	log := m.cfg.Log
	log.Info("listening", "address", listener.Addr().String())

	front := &front{}
	server := api.Server(api.ServerConfig{Addr: m.cfg.Listen, Log: log}, front)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("serve: %w", err))
		}
	})
	// Requests at work are let end before what they stand on is taken away.
	closing := sync.OnceFunc(func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			log.Warn("requests were cut off", "error", err)
			_ = server.Close()
		}
	})
	err = m.work(ctx, front, listener, closing)
	closing()
	serving.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// work brings up everything behind the door, runs the engine until ctx is done and it has drained, and takes it down.
func (m *Main) work(ctx context.Context, front *front, listener net.Listener, closing func()) error {
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

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := telemetry.New(registry, m.cfg.Build)
	node := store.Node{
		ID: uuid.Must(uuid.NewV7()), Name: nodeName(m.cfg.Node, listener), Address: listener.Addr().String(), Version: m.cfg.Build.Version,
	}
	models, err := m.models(ctx, db, node, metrics)
	if err != nil {
		return err
	}
	defer models.close()
	working := worker.Config{Gateway: models.gateway, Roster: models.gateway, Metrics: metrics, Log: m.cfg.Log, AgentsMax: m.cfg.Workers}
	if !m.cfg.NoIncidents {
		working.Incidents = models.incidents
	}
	work := worker.New(working)
	eng := engine.New(engine.Config{
		Store: db, Worker: work, Metrics: metrics, Log: m.cfg.Log, Shards: m.cfg.Shards, DrainTimeout: m.cfg.DrainTimeout, Node: node,
	})
	door, err := api.New(api.Config{
		Store: db, Engine: eng, Models: models.gateway, Gateway: models.gateway, Ledger: models.ledger, Metrics: metrics, Log: m.cfg.Log,
		Version: m.cfg.Build.Version, Listen: m.cfg.Listen, Templates: templates(),
	})
	if err != nil {
		return fmt.Errorf("make the API: %w", err)
	}
	front.open(door.Handler())
	go m.awaitReady(ctx, eng)
	context.AfterFunc(ctx, func() {
		m.cfg.Log.Info("draining", "limit", m.cfg.DrainTimeout.String())
		door.Drain()
	})
	defer closing()
	return eng.Run(ctx)
}

// models is the gateway and what it stands on: the ledger that keeps its budgets, and the news of other nodes.
type models struct {
	gateway   *gateway.Gateway
	ledger    *ledger.Ledger
	incidents *incident.Board
	close     func() // settles what is not durable yet
}

func (m *Main) models(ctx context.Context, db *store.DB, node store.Node, metrics *telemetry.Metrics) (models, error) {
	providers, err := connect(m.cfg.Models.Providers)
	if err != nil {
		return models{}, err
	}
	book := ledger.New(ledger.Config{Store: db, Node: node.ID, Metrics: metrics, Log: m.cfg.Log})
	tracer, closeTracer, err := telemetry.Tracer(ctx, m.cfg.Build, node.Name, os.LookupEnv)
	if err != nil {
		return models{}, err
	}
	var others *peers.Peers
	asked, err := gateway.New(gateway.Config{
		Providers: providers, Prices: m.cfg.Models.Prices, Rules: m.cfg.Models.Routing, Budgets: book, Metrics: metrics, Tracer: tracer, Log: m.cfg.Log,
		OnBreaker: func(n gateway.BreakerNews) { others.Tell(n) },
	})
	if err != nil {
		return models{}, err
	}
	trouble := incident.New(incident.Config{Store: db, Node: node.Name, Metrics: metrics, Log: m.cfg.Log})
	others = peers.New(peers.Config{Store: db, Node: node.ID, Gateway: asked, Incidents: trouble, Log: m.cfg.Log})
	// They outlive the signal to stop: calls that are still at work have to be settled.
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{"ledger": book.Run, "peers": others.Run} {
		running.Go(func() {
			if err := run(keep); err != nil {
				m.cfg.Log.Error("the "+name+" ended", "error", err)
			}
		})
	}
	return models{asked, book, trouble, func() {
		stop()
		running.Wait()
		closeTracer()
	}}, nil
}

func (m *Main) awaitReady(ctx context.Context, eng *engine.Engine) {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for eng.Ready() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	close(m.ready)
}

// postgres finds the database: the one that was named, or one of our own that is kept running.
func (m *Main) postgres(ctx context.Context) (url string, leave func(), err error) {
	if m.cfg.Embedded == nil {
		m.database = databaseName(m.cfg.DatabaseURL)
		return m.cfg.DatabaseURL, func() {}, nil
	}
	cluster, err := pgembed.Open(ctx, *m.cfg.Embedded)
	if err != nil {
		return "", nil, err
	}
	m.database = fmt.Sprintf("embedded PostgreSQL %d in %s", cluster.Version(), m.cfg.Embedded.Dir)
	// It must outlive the drain, so it does not hang on ctx.
	background := context.WithoutCancel(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() { cluster.Keep(background) })
	return cluster.URL(), func() {
		grace, cancel := context.WithTimeout(background, postgresStopTime)
		defer cancel()
		if err := cluster.Close(grace); err != nil {
			m.cfg.Log.Error("leave the embedded Postgres", "error", err)
		}
		keeping.Wait()
	}, nil
}

// store opens the database and brings its schema up to date. It tries for as long as the database is away; nil without
// an error means that ctx ended first.
func (m *Main) store(ctx context.Context, url string) (*store.DB, error) {
	var db *store.DB
	err := m.retry(ctx, func() (err error) {
		db, err = store.Open(ctx, store.Config{URL: url, AllowUnsafeCommit: m.cfg.AllowUnsafeCommit, Log: m.cfg.Log})
		return err
	})
	if err != nil || db == nil {
		return nil, err
	}
	migrated := false
	err = m.retry(ctx, func() error {
		if err := db.Migrate(ctx); err != nil {
			return err
		}
		migrated = true
		return nil
	})
	if err != nil || !migrated {
		db.Close()
		return nil, err
	}
	return db, nil
}

// retry repeats what fails because something is away, until ctx is done.
func (m *Main) retry(ctx context.Context, do func() error) error {
	for pause := retryFirst; ; pause = min(2*pause, retryMax) {
		err := do()
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case !away(err):
			return err
		}
		m.cfg.Log.Warn("Postgres is away, trying again", "error", err, "in", pause.String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// away reports whether waiting may help. A wrong password or name does not mend itself.
func away(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:min(2, len(pg.Code))] {
		case "08", "53", "57", "58": // connection, resources, operator, system
			return true
		}
		return false
	}
	var connecting *pgconn.ConnectError
	return errors.As(err, &connecting) || pgconn.Timeout(err) || fault.Is(err, fault.KindUnavailable)
}

// front answers while there is nothing behind the door yet.
type front struct{ behind atomic.Pointer[http.Handler] }

func (f *front) open(h http.Handler) { f.behind.Store(&h) }

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := f.behind.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	if r.URL.Path == "/livez" || r.URL.Path == "/healthz" {
		fmt.Fprintln(w, "ok")
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintf(w, `{"type":"https://fermata.run/problems/starting","title":"Service Unavailable","status":503,"code":"starting",`+
		`"detail":"this node is starting: it waits for its database","instance":%q,"request_id":"","retryable":true,"retry_after":1}`+"\n", r.URL.Path)
}

// parseDatabase reads a database URL.
func parseDatabase(url string) (*pgconn.Config, error) { return pgconn.ParseConfig(url) }
