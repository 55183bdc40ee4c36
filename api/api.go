// Package api is the HTTP door: routes, wire types, streams and problem documents. The contract is openapi.yaml; types
// and binding are generated from it, every request is validated against it, and all errors leave through one writer.
package api

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Engine is what the API needs of the engine that runs on this node.
type Engine interface {
	// Submit makes a run durable. A *fault.Error says why it was not; any other error leaves that open.
	Submit(ctx context.Context, s *flow.Submission) error
	// Tell puts a message into a run's inbox.
	Tell(ctx context.Context, tenant uuid.UUID, m store.Message) error
	// Look lets this node look for messages now: some were sent otherwise.
	Look()
	// Observer tells of this node.
	Observer
}

// Observer tells what goes on in the engine.
type Observer interface {
	// Watch hints at new events of a run, of commits on this node only.
	Watch(run uuid.UUID) (changed <-chan struct{}, stop func())
	// Ready says why no submissions are taken now, or nil.
	Ready() error
}

// The parts of the store.
type (
	runStore interface {
		Run(ctx context.Context, tenant, id uuid.UUID) (store.RunRow, error)
		Runs(ctx context.Context, tenant uuid.UUID, f store.RunFilter) ([]store.RunRow, error)
		Unquarantine(ctx context.Context, tenant, run uuid.UUID) (bool, error)
	}
	logStore interface {
		Events(ctx context.Context, tenant, run uuid.UUID, after int32, limit int) ([]flow.Event, error)
		LastEvent(ctx context.Context, tenant, run uuid.UUID) (flow.Event, error)
	}
	definitionStore interface {
		Definition(ctx context.Context, tenant uuid.UUID, hash workflow.Hash) (json.RawMessage, error)
		PutDefinition(ctx context.Context, tenant uuid.UUID, hash workflow.Hash, body json.RawMessage) error
	}
	workflowStore interface {
		Publish(ctx context.Context, tenant uuid.UUID, name string, hash workflow.Hash, body json.RawMessage, expect int) (store.WorkflowRow, bool, error)
		Workflow(ctx context.Context, tenant uuid.UUID, name string, version int) (store.WorkflowRow, error)
		workflowLists
	}
	workflowLists interface {
		Workflows(ctx context.Context, tenant uuid.UUID, after string, limit int) ([]store.WorkflowRow, error)
		WorkflowVersions(ctx context.Context, tenant uuid.UUID, name string, before, limit int) ([]store.WorkflowRow, error)
	}
	healthStore interface {
		Ping(ctx context.Context) error
		Migrated(ctx context.Context) (current, want int64, err error)
	}
)

// Config of an API.
type Config struct {
	Store   *store.DB
	Engine  Engine
	Models  Models    // of this node's gateway; nil: it calls no models
	Gateway Completer // asks models; nil: none can be asked
	Ledger  Ledger    // told of changed budgets; nil: nobody is
	Metrics *telemetry.Metrics
	Log     *slog.Logger // nil: silent
	Version string       // of this build
	Listen  string       // host:port: at a loopback address only requests for this machine's own names are answered
	Hosts   []string     // further names the service goes by there
	// Templates holds the workflows that come with the service: <name>.yaml and <name>.input.json; nil: none.
	Templates fs.FS
}

// API answers requests.
type API struct {
	engine  Engine
	models  Models
	gateway Completer
	ledger  Ledger
	runs    runStore
	events  logStore
	library definitionStore
	shelf   workflowStore
	keys    keyStore
	health  healthStore
	budgets budgetStore
	plans   subscriptionStore
	spend   spendStore
	prices  priceStore
	levels  levelStore
	trouble incidentStore
	asked   approvalStore
	signals signalStore
	metrics *telemetry.Metrics
	log     *slog.Logger

	tenant   uuid.UUID
	version  string
	loopback bool
	hosts    []string
	poll     time.Duration
	beat     time.Duration

	doc         *openapi3.T
	operations  map[string]*operation // by method and path
	router      *chi.Mux
	definitions definitions
	templates   []*template
	streams     atomic.Int64
	folding     chan struct{} // a place for each large run that is folded
	draining    chan struct{}
	drain       sync.Once
}

// New makes an API. The error is of the embedded document: a route without operation or policy.
func New(cfg Config) (*API, error) {
	return newAPI(cfg, allOf(cfg.Store))
}

// parts of the store, each replaceable.
type parts struct {
	runStore
	logStore
	definitionStore
	workflowStore
	keyStore
	healthStore
	budgetStore
	subscriptionStore
	spendStore
	priceStore
	levelStore
	incidentStore
	approvalStore
	signalStore
}

// wholeStore is all parts in one.
type wholeStore interface {
	runStore
	logStore
	definitionStore
	workflowStore
	keyStore
	healthStore
	budgetStore
	subscriptionStore
	spendStore
	priceStore
	levelStore
	incidentStore
	approvalStore
	signalStore
}

func allOf(s wholeStore) parts { return parts{s, s, s, s, s, s, s, s, s, s, s, s, s, s} }

func newAPI(cfg Config, p parts) (*API, error) {
	a := &API{
		engine: cfg.Engine, runs: p.runStore, events: p.logStore, library: p.definitionStore, shelf: p.workflowStore,
		models: cfg.Models, gateway: cfg.Gateway, ledger: cfg.Ledger, keys: p.keyStore, health: p.healthStore, budgets: p.budgetStore,
		plans: p.subscriptionStore, spend: p.spendStore, prices: p.priceStore, levels: p.levelStore, trouble: p.incidentStore,
		asked: p.approvalStore, signals: p.signalStore, metrics: cfg.Metrics, log: cfg.Log, tenant: store.TenantDefault,
		version: cfg.Version, loopback: listensOnLoopback(cfg.Listen), poll: pollEvery, beat: heartbeatEvery, draining: make(chan struct{}),
		folding: make(chan struct{}, foldingMax),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	for _, host := range cfg.Hosts {
		a.hosts = append(a.hosts, strings.ToLower(host))
	}
	var err error
	if a.doc, err = loadSpec(); err != nil {
		return nil, err
	}
	if a.operations, err = operations(a.doc, routes); err != nil {
		return nil, err
	}
	if a.templates, err = loadTemplates(cfg.Templates); err != nil {
		return nil, err
	}
	a.router = a.mount()
	return a, nil
}

// Handler answers every request of the service.
func (a *API) Handler() http.Handler { return a.outermost(a.router) }

// Drain lets this node's callers go: it is not ready any more, streams end so that their callers go to another node,
// waits are cut short. Requests are still answered.
func (a *API) Drain() { a.drain.Do(func() { close(a.draining) }) }

func (a *API) isDraining() bool {
	select {
	case <-a.draining:
		return true
	default:
		return false
	}
}

func (a *API) mount() *chi.Mux {
	mux := chi.NewMux()
	mux.NotFound(a.notFound)
	mux.MethodNotAllowed(a.notAllowed)
	mux.Use(middleware.GetHead)
	checked := mux.With(a.enter)
	a.mountOperations(checked)
	strict := NewStrictHandlerWithOptions(a, nil, StrictHTTPServerOptions{
		RequestErrorHandlerFunc: a.failBinding, ResponseErrorHandlerFunc: a.fail,
	})
	HandlerWithOptions(strict, ChiServerOptions{BaseRouter: checked, ErrorHandlerFunc: a.failBinding})
	return mux
}
