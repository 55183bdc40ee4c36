package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// shard owns runs under one lease. Its loop is the only goroutine that touches them.
type shard struct {
	*Engine
	no         int
	clock      clock
	arrivals   chan arrival
	claimNudge chan struct{}
	renewals   chan struct{} // the lease was renewed: what was held back may start
	drained    chan struct{} // closed when the node drains
	stopped    chan struct{} // closed when nothing takes arrivals any more
	reign      atomic.Pointer[reign]
	held       atomic.Int32 // runs in memory
	busy       atomic.Int32 // attempts at work
	backlog    atomic.Bool  // runs wait that no node had room for
	checked    atomic.Int64 // when memory was last compared with the table
	asides     chan aside   // for the claimer

	// Of the reign at hand; the loop's own.
	runs     map[uuid.UUID]*holding
	batch    *batch
	flushing bool
	now      time.Time // of what the loop takes up at once, by the clock of the database
	timers   timers
	atWork   int
	deferred bool               // starts were held back: the lease was not trusted
	refused  map[uuid.UUID]bool // evicted once, because Postgres did not take their data
	broken   []aside            // to be set aside when nothing of them is on its way to Postgres
}

// arrival is one thing for the loop to take up. Exactly one field is set.
type arrival struct {
	report  *report
	submit  *submission
	loaded  []*loaded
	read    *reading
	missing *missing
}

// report is what a worker says, and of which run.
type report struct {
	by     *holding // whose attempt it is: a run that was loaded again has another one
	report flow.Report
	epoch  *reign // under which the attempt was started
}

// submission waits for its run to be durable.
type submission struct {
	sub  *flow.Submission
	done chan error // buffered; nil: a run of the shard started it, and its commit tells
}

func (s *submission) answer(err error) {
	if s.done != nil {
		s.done <- err
	}
}

// reign is the time under one lease.
type reign struct {
	mu       sync.Mutex
	lease    store.Lease
	trust    time.Time // our clock: until then nobody can have taken the lease over
	ttl      time.Duration
	raising  bool // the epoch is on its way up: nobody but the flusher can tell whether the lease is lost
	lost     chan struct{}
	loseOnce sync.Once
}

func (r *reign) current() store.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease
}

// raise is current for the flusher, before it raises the epoch; raised is told how that went.
func (r *reign) raise() store.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raising = true
	return r.lease
}

func (r *reign) raised(l store.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lease, r.raising = l, false
}

// gone ends the reign if the lease that Postgres does not know any more is the one at hand, and says whether it is.
func (r *reign) gone(l store.Lease) bool {
	r.mu.Lock()
	is := r.lease == l && !r.raising
	r.mu.Unlock()
	if is {
		r.lose()
	}
	return is
}

// renewed: the lease lives at least one ttl from when the renewal was asked for; a second is kept for starting work.
func (r *reign) renewed(asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trust = asked.Add(r.ttl - min(time.Second, r.ttl/4))
}

func (r *reign) trusted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.trust)
}

func (r *reign) lose() { r.loseOnce.Do(func() { close(r.lost) }) }

func newShard(e *Engine, no int) *shard {
	return &shard{
		Engine: e, no: no, arrivals: make(chan arrival, arrivalsMax), claimNudge: make(chan struct{}, 1),
		renewals: make(chan struct{}, 1), drained: make(chan struct{}), stopped: make(chan struct{}), asides: make(chan aside, asidesMax),
	}
}

// lease is the shard's lease while it has one.
func (s *shard) lease() (store.Lease, bool) {
	if r := s.reign.Load(); r != nil {
		return r.current(), true
	}
	return store.Lease{}, false
}

// trusted reports whether new work may be started.
func (s *shard) trusted() bool {
	r := s.reign.Load()
	return r != nil && r.trusted()
}

func (s *shard) drain() { close(s.drained) }

func (s *shard) isDraining() bool {
	select {
	case <-s.drained:
		return true
	default:
		return false
	}
}

// arrive hands something to the loop; it waits while the loop is behind.
func (s *shard) arrive(ctx context.Context, a arrival) error {
	select {
	case s.arrivals <- a:
		return nil
	case <-s.stopped:
		return errDraining()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// signal is arrive for goroutines of the shard itself.
func (s *shard) signal(a arrival) {
	select {
	case s.arrivals <- a:
	case <-s.stopped:
	}
}

// run reigns under one lease after the other until the node drains.
func (s *shard) run(ctx context.Context) {
	defer close(s.stopped)
	for ctx.Err() == nil && !s.isDraining() {
		granted := s.until(ctx, s.drained, func(ctx context.Context) {
			s.retry(ctx, "grant lease", func(ctx context.Context) error { return s.grant(ctx) })
		})
		if !granted || s.reign.Load() == nil {
			return
		}
		s.rule(ctx)
		s.reign.Store(nil)
	}
}

// until runs fn with a context that also ends with stop; false when it did.
func (s *shard) until(ctx context.Context, stop <-chan struct{}, fn func(context.Context)) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-stop:
			cancel()
		case <-done:
		}
	}()
	fn(ctx)
	return ctx.Err() == nil
}

func (s *shard) grant(ctx context.Context) error {
	asked := time.Now()
	lease, now, err := s.cfg.Store.Grant(ctx, s.cfg.Node.ID, s.cfg.LeaseTTL)
	if err != nil {
		return err
	}
	s.clock.set(now, time.Now())
	r := &reign{lease: lease, ttl: s.cfg.LeaseTTL, lost: make(chan struct{})}
	r.renewed(asked)
	s.reign.Store(r)
	return nil
}

// rule is the reign: the loop here, the flusher, the keeper and the claimer beside it.
func (s *shard) rule(ctx context.Context) {
	r := s.reign.Load()
	work, stopWork := context.WithCancelCause(ctx) // of the attempts started under this lease
	aside, stopAside := context.WithCancel(ctx)
	flush, stopFlush := context.WithCancel(ctx)
	f := newFlusher(s, r)
	var around sync.WaitGroup
	around.Go(func() { s.keep(aside, r) })
	around.Go(func() { s.claims(aside, r) })
	around.Go(func() { f.run(flush) })

	s.runs, s.batch, s.flushing, s.timers, s.atWork = map[uuid.UUID]*holding{}, newBatch(), false, timers{}, 0
	s.refused, s.broken, s.deferred = map[uuid.UUID]bool{}, nil, false
	s.checked.Store(time.Now().UnixNano())
	handBack := s.loop(ctx, work, r, f)
	stopWork(errStopped)
	s.abandon()
	stopAside()
	close(f.batches)
	// Without a lease the last batch is refused as soon as Postgres answers. A node that drains does not wait for that.
	s.until(ctx, s.drained, func(ctx context.Context) {
		defer context.AfterFunc(ctx, stopFlush)()
		around.Wait()
	})
	stopFlush()
	s.answerLast(f)
	if handBack {
		s.handBack(context.WithoutCancel(ctx), r)
	}
}

// loop takes up arrivals until the lease is lost (false) or the shard has drained (true). While a batch is being
// flushed it decides ahead; what it gathered goes out the moment the flusher is free, never later.
func (s *shard) loop(ctx, work context.Context, r *reign, f *flusher) bool {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	drained, stage, stageEnd := s.drained, drainNot, (<-chan time.Time)(nil)
	for {
		arrivals := s.arrivals
		if s.batch.full() { // the flusher is behind: let the senders wait
			arrivals = nil
		}
		select {
		case a := <-arrivals:
			s.now = s.clock.now() // all that waits is taken up at one time: what it means for a run is stored as one row
			s.take(a)
			s.takeWaiting()
		case done := <-f.done:
			if done.err != nil {
				s.answer(done)
				return false
			}
			s.now = s.clock.now()
			s.committed(work, done)
		case <-s.renewals:
			s.now = s.clock.now()
			s.startDeferred(work)
		case <-tick.C:
			s.now = s.clock.now()
			s.fire()
		case <-r.lost:
			return false
		case <-drained:
			drained, stage, stageEnd = nil, drainWaiting, time.After(s.cfg.DrainTimeout)
		case <-stageEnd:
			if stage == drainCut { // workers that do not come back, or Postgres away: the lease will expire by itself
				return false
			}
			stage, stageEnd = drainCut, time.After(cutWait)
			s.cutAll()
		case <-ctx.Done():
			return false
		}
		s.handOver(f)
		if stage != drainNot && s.atWork == 0 && !s.flushing && s.batch.empty() {
			return true
		}
	}
}

// The stages of draining: attempts at work may end; then they are cut; then they are left behind.
const (
	drainNot = iota
	drainWaiting
	drainCut
)

const (
	tickEvery = 20 * time.Millisecond // grain of timers
	asidesMax = 64
	cutWait   = 5 * time.Second // for workers to come back once their context is done
)

// takeWaiting takes up what else has arrived, so that one commit holds it all.
func (s *shard) takeWaiting() {
	for !s.batch.full() {
		select {
		case a := <-s.arrivals:
			s.take(a)
		default:
			return
		}
	}
}

func (s *shard) handOver(f *flusher) {
	if s.flushing || s.batch.empty() {
		return
	}
	f.batches <- s.batch
	s.batch, s.flushing = newBatch(), true
}

// abandon forgets all runs: they are read again from the log by whoever claims them.
func (s *shard) abandon() {
	s.answer(flushed{batch: s.batch, err: store.ErrLeaseLost})
	if n := len(s.runs); n > 0 && !s.isDraining() {
		s.log.Warn("shard lost its lease: its runs go on elsewhere", slog.Int("shard", s.no), slog.Int("runs", n))
	}
	for _, h := range s.runs {
		for _, cancel := range h.hands {
			cancel()
		}
	}
	s.runs = nil
	s.leavePlace()
	s.held.Store(0)
	s.busy.Store(0)
	s.gauge()
}

// answer tells those who wait for a batch what has become of it.
func (s *shard) answer(done flushed) {
	for _, w := range done.batch.waiting {
		err := done.err
		switch {
		case errors.Is(err, store.ErrLeaseLost) && !errors.Is(err, store.ErrUnknown): // certainly not written
			err = errNoLease()
		case err == nil:
			err = done.refused[w.at]
		}
		w.done <- err
	}
}

// answerLast answers the submissions of a batch whose fate came to be known after the loop had ended.
func (s *shard) answerLast(f *flusher) {
	select {
	case done := <-f.done:
		s.answer(done)
	default:
	}
}

// handBack closes the lease and frees its runs, so that other nodes go on with them at once.
func (s *shard) handBack(ctx context.Context, r *reign) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DrainTimeout)
	defer cancel()
	s.retry(ctx, "hand back runs", func(ctx context.Context) error {
		lease := r.current()
		if err := s.cfg.Store.CloseOwn(ctx, lease); err != nil && !errors.Is(err, store.ErrLeaseLost) { // closed: by us before, or by others
			return err
		}
		return s.free(ctx, lease.ID, "drain")
	})
}
