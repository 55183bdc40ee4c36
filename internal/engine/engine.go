// Package engine owns runs and drives them: shards (a lease, a loop, a flusher and the runs bound to it), claims,
// timers, the inbox, takeover and draining. The rules are flow's; the engine only decides when to ask them, makes
// their events durable, and then does what they order.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
)

// Worker does one attempt and reports on it: any number of turns, then the outcome, once, last. It must return soon
// after ctx is done, and report the outcome even then.
type Worker interface {
	Do(ctx context.Context, a flow.Attempt, report func(flow.Report))
}

// Config of an Engine. Zero values take the defaults named here.
type Config struct {
	Store   *store.DB
	Worker  Worker
	Metrics *telemetry.Metrics
	Log     *slog.Logger
	Node    store.Node // a zero ID gets a new one: a node is one life of a process

	Shards       int           // 4
	RunsMax      int           // runs held in memory by this node: 20,000
	LeaseTTL     time.Duration // 15 s; renewed every third of it
	DrainTimeout time.Duration // 60 s, for attempts at work to end

	// Finished, if set, is called after the commit that ends a run on this node. It must not block.
	Finished func(run uuid.UUID, status flow.RunStatus)
}

// Limits and paces of the engine.
const (
	shardsDefault       = 4
	runsMaxDefault      = 20_000
	leaseTTLDefault     = 15 * time.Second
	drainTimeoutDefault = 60 * time.Second

	batchMax      = 256 // changes of one commit
	arrivalsMax   = 1_024
	claimMax      = 100 // runs claimed and loaded at once
	crashesMax    = 3   // takeovers with an open attempt before a run is set aside
	claimEvery    = time.Second
	inboxEvery    = 250 * time.Millisecond
	inboxMax      = 500
	reconcileTime = 10 * time.Second
	timersHorizon = time.Minute // timers further away are found by a sweep through memory
	retryWaitMax  = time.Second
	sampleEvery   = 15 * time.Second
)

// Engine runs the shards of one node.
type Engine struct {
	cfg         Config
	log         *slog.Logger
	metrics     *telemetry.Metrics
	shards      []*shard
	next        atomic.Uint32 // shard of the next submission
	draining    atomic.Bool
	suspect     atomic.Pointer[shard] // that holds, or is about to claim, the node's one suspected run
	definitions *definitions
	watch       watchers
	inboxNudge  chan struct{}
	eaten       eaten
}

// New makes an Engine; Run starts it.
func New(cfg Config) *Engine {
	if cfg.Shards <= 0 {
		cfg.Shards = shardsDefault
	}
	if cfg.RunsMax <= 0 {
		cfg.RunsMax = runsMaxDefault
	}
	if cfg.LeaseTTL <= 0 {
		cfg.LeaseTTL = leaseTTLDefault
	}
	if cfg.DrainTimeout <= 0 {
		cfg.DrainTimeout = drainTimeoutDefault
	}
	if cfg.Node.ID == uuid.Nil {
		cfg.Node.ID = uuid.Must(uuid.NewV7())
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg: cfg, log: cfg.Log, metrics: cfg.Metrics,
		definitions: newDefinitions(cfg.Store), inboxNudge: make(chan struct{}, 1),
	}
	for i := range cfg.Shards {
		e.shards = append(e.shards, newShard(e, i))
	}
	return e
}

// Run works until ctx is done, then drains: attempts at work may end, the rest is handed back. It returns when
// nothing of this node is at work any more.
func (e *Engine) Run(ctx context.Context) error {
	// What keeps the node alive must outlive the signal to stop, until the shards have handed back their runs.
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	e.register(ctx)
	var shards, rest sync.WaitGroup
	for _, s := range e.shards {
		shards.Go(func() { s.run(keep) })
	}
	rest.Go(func() { e.pollInbox(keep) })
	rest.Go(func() { e.sweep(keep) })
	rest.Go(func() { e.sample(keep) })

	<-ctx.Done()
	e.draining.Store(true)
	for _, s := range e.shards {
		s.drain()
	}
	shards.Wait()
	stop()
	rest.Wait()
	return nil
}

// register makes the node known, and its predecessor of the same name history. It tries until Postgres answers.
func (e *Engine) register(ctx context.Context) {
	e.retry(ctx, "register node", func(ctx context.Context) error { return e.cfg.Store.Register(ctx, e.cfg.Node) })
}

// retry repeats until fn succeeds or ctx is done.
func (e *Engine) retry(ctx context.Context, what string, fn func(context.Context) error) bool {
	for wait := 20 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, retryWaitMax) {
		err := fn(ctx)
		if err == nil {
			return true
		}
		e.log.Warn("not done, trying again", "what", what, "error", err)
		pause(ctx, wait)
	}
	return false
}

// Ready says why the engine takes no submissions now, or nil.
func (e *Engine) Ready() error {
	if e.draining.Load() {
		return errDraining()
	}
	for _, s := range e.shards {
		if s.trusted() {
			return nil
		}
	}
	return errNoLease()
}

func errDraining() error {
	err := fault.New(fault.KindUnavailable, "draining", "this node is shutting down")
	err.RetryAfter = time.Second
	return err
}

func errNoLease() error {
	err := fault.New(fault.KindUnavailable, "database_unavailable", "this node has no lease: Postgres is away, or was until just now")
	err.RetryAfter = time.Second
	return err
}

// Submit makes a run durable and, where there is room, starts it. It returns after COMMIT. A *fault.Error says what
// is wrong with the submission, or that it cannot be taken now; any other error leaves it open whether the run exists.
// A run that exists already is durable, and nothing happens.
func (e *Engine) Submit(ctx context.Context, sub *flow.Submission) error {
	err := e.submit(ctx, sub)
	var refused *store.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	switch exists, asked := e.cfg.Store.HasEvent(ctx, sub.ID, 1); {
	case asked != nil:
		return fmt.Errorf("look for run %s, which was refused: %s", sub.ID, asked.Error()) // and no fault: it may exist
	case exists:
		return nil
	}
	return refusal(err)
}

func (e *Engine) submit(ctx context.Context, sub *flow.Submission) error {
	if e.draining.Load() {
		return errDraining()
	}
	s := e.pick()
	if s == nil {
		return errNoLease()
	}
	done := make(chan error, 1)
	if err := s.arrive(ctx, arrival{submit: &submission{sub: sub, done: done}}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-s.stopped: // whatever was taken up has been answered before
		select {
		case err := <-done:
			return err
		default:
			return errDraining()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pick takes the shards in turn, passing over those without a trusted lease.
func (e *Engine) pick() *shard {
	first := int(e.next.Add(1))
	for i := range e.shards {
		if s := e.shards[(first+i)%len(e.shards)]; s.trusted() {
			return s
		}
	}
	return nil
}

// Tell puts a message into a run's inbox. The run's owner applies it, wherever that is.
func (e *Engine) Tell(ctx context.Context, tenant uuid.UUID, m store.Message) error {
	if err := e.cfg.Store.Send(ctx, tenant, m); err != nil {
		return err
	}
	e.metrics.Intervention(m.Kind)
	e.Look()
	return nil
}

// Look lets this node look for messages now: some were sent, to whichever runs. Others look often enough.
func (e *Engine) Look() {
	nudge(e.inboxNudge)
	e.nudgeClaims()
}

func (e *Engine) nudgeClaims() {
	for _, s := range e.shards {
		nudge(s.claimNudge)
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sample refreshes the gauges that only the database knows.
func (e *Engine) sample(ctx context.Context) {
	for ctx.Err() == nil {
		if counts, err := e.cfg.Store.CountLive(ctx); err == nil {
			e.metrics.RunsByState(counts)
		}
		if n, oldest, err := e.cfg.Store.OpenApprovals(ctx); err == nil {
			e.metrics.ApprovalsOpen(n, oldest)
		}
		leases := 0
		for _, s := range e.shards {
			if _, ok := s.lease(); ok {
				leases++
			}
		}
		e.metrics.Leases(leases)
		pause(ctx, sampleEvery)
	}
}

// pause waits, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

var errStopped = errors.New("engine stopped")
