// Package ledger keeps budgets and the lines of calls that belong to no run. It is what stands between the gateway and
// the tables: one transaction of a node is under way at any time, and what is reserved or settled meanwhile goes into
// the next. An idle node adds no wait, a busy one shares each commit among hundreds of calls.
//
// What a budget holds is decided by Postgres alone, under a lock on its row; this package only knows which budgets
// apply to a call.
package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
)

// Paces and limits of the ledger.
const (
	refreshEvery = 2 * time.Second  // budgets made or changed through another node are kept to from then on
	staleAfter   = 30 * time.Second // a list of budgets older than that is not trusted: no call is made
	retryWait    = 250 * time.Millisecond
	drainLimit   = 10 * time.Second // for what is left when the node stops

	// needsMax bounds the budgets that the reservations of a batch are about, but for those of the last one: places among
	// them are sent as int2.
	needsMax = 16_384

	// BacklogMax bounds the settled calls that wait to be written. Beyond it calls are refused that belong to no run, as
	// nothing else keeps their lines; those that are being made are settled all the same.
	BacklogMax = 10_000
)

// What can happen to a budget.
const (
	NoteSoft          = "soft"          // a soft limit was passed
	NoteUnderestimate = "underestimate" // a call cost more than was set aside for it
	NoteLost          = "lost"          // a call's node died before it was settled
	NoteRecovered     = "recovered"     // …and what it cost stood in its run's log
)

// Metrics is what the ledger counts; telemetry.Metrics is one.
type Metrics interface {
	BudgetDenied(scope, onHard string)
	BudgetNoted(note string, n int)
	BudgetLevels(levels []telemetry.BudgetLevel, lag time.Duration) // all that are exported, every 2 s
}

// Config of a Ledger.
type Config struct {
	Store   *store.DB
	Node    uuid.UUID
	Metrics Metrics      // nothing is counted
	Log     *slog.Logger // silent
}

// Ledger implements gateway.Budgets. It is safe for concurrent use.
type Ledger struct {
	cfg     Config
	log     *slog.Logger
	metrics Metrics
	booker  *store.Booker
	roster  atomic.Pointer[roster]

	work chan struct{} // nudges the flusher

	mu      sync.Mutex
	reserve []*reservation // in the order they came
	ends    []store.HoldEnd
	voids   []uuid.UUID
	calls   []store.CallLine
	oldest  time.Time // since when something settled waits; zero: nothing does
	closed  bool
}

// New makes a Ledger. Nothing is reserved before Run.
func New(c Config) *Ledger {
	l := &Ledger{cfg: c, log: c.Log, metrics: c.Metrics, booker: c.Store.Booker(), work: make(chan struct{}, 1)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.metrics == nil {
		l.metrics = uncounted{}
	}
	return l
}

// Run keeps the ledger until ctx is done; then it writes what is left, which takes at most 10 s. Whoever makes calls must
// have stopped by then.
func (l *Ledger) Run(ctx context.Context) error {
	defer l.booker.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { l.flush(ctx); return nil })
	group.Go(func() error { l.refresh(ctx); return nil })
	group.Go(func() error { l.sweep(ctx); return nil })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("keep ledger: %w", err)
	}
	return nil
}

// Ready is nil while calls can be reserved: the list of budgets is known.
func (l *Ledger) Ready() error {
	if r := l.roster.Load(); r == nil || time.Since(r.read) > staleAfter {
		return unavailable("budgets_unknown", "which budgets there are has not been known for %s: the database does not answer", staleAfter)
	}
	return nil
}

// Lag is how long the oldest settled call waits to be written.
func (l *Ledger) Lag() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.oldest.IsZero() {
		return 0
	}
	return time.Since(l.oldest)
}

// Refresh reads the budgets now: they were changed through this node.
func (l *Ledger) Refresh(ctx context.Context) error {
	asked := time.Now()
	rows, err := l.cfg.Store.AllBudgets(ctx)
	if err != nil {
		return err
	}
	r := newRoster(rows, asked)
	for old := l.roster.Load(); old == nil || old.read.Before(asked); old = l.roster.Load() {
		if l.roster.CompareAndSwap(old, r) {
			l.metrics.BudgetLevels(r.levels, l.Lag())
			break
		}
	}
	return nil
}

// refresh reads the budgets every 2 s.
func (l *Ledger) refresh(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.Refresh(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("refresh budgets", "error", err)
		}
		pause(ctx, refreshEvery)
	}
}

// Applies reports whether such a call has to be reserved: a budget bounds it, or it is not known which budgets there are,
// or too many calls like it wait to be written.
func (l *Ledger) Applies(c gateway.Charge) bool {
	return l.Ready() != nil || len(c.Caller.Budgets()) > 0 || len(l.roster.Load().of(c)) > 0 || c.Caller.Run == uuid.Nil && l.behind()
}

// Reserve sets the amount aside in every budget that applies, or in none.
func (l *Ledger) Reserve(ctx context.Context, c gateway.Charge) (gateway.Hold, error) {
	if err := l.Ready(); err != nil {
		return gateway.Hold{}, err
	}
	if c.Caller.Run == uuid.Nil && l.behind() {
		return gateway.Hold{}, unavailable("ledger_behind", "%d calls wait to be written to the ledger, and that is the limit", BacklogMax)
	}
	budgets := l.roster.Load().of(c)
	r, err := newReservation(c, budgets)
	if err != nil {
		return gateway.Hold{}, err
	}
	if r.needs() == 0 {
		return gateway.Hold{}, nil
	}
	if err := l.enqueue(r); err != nil {
		return gateway.Hold{}, err
	}
	select {
	case err = <-r.done:
	case <-ctx.Done():
		if !r.leave() {
			err = <-r.done // it was being answered
			break
		}
		return gateway.Hold{}, fmt.Errorf("reserve: %w", context.Cause(ctx))
	}
	if err != nil {
		return gateway.Hold{}, err
	}
	return gateway.Hold{ID: r.hold.ID, Amount: r.hold.Amount, Tokens: r.hold.Tokens}, nil
}

// Settle replaces what was set aside by what was spent. It does not block: a call is settled even when more wait to be
// written than there should, because Reserve lets no more of them begin.
func (l *Ledger) Settle(s gateway.Settlement) {
	made := s.Call.Try > 0
	held := s.Hold.ID != uuid.Nil
	keep := made && s.Caller.Run == uuid.Nil
	if !held && !keep {
		return
	}
	if made && held && (s.Call.Cost > s.Hold.Amount || s.Call.Tokens.Total() > s.Hold.Tokens) {
		l.metrics.BudgetNoted(NoteUnderestimate, 1)
	}
	l.mu.Lock()
	if held {
		l.ends = append(l.ends, endOf(s))
	}
	if keep {
		l.calls = append(l.calls, lineOf(s))
	}
	if l.oldest.IsZero() {
		l.oldest = time.Now()
	}
	closed := l.closed
	l.mu.Unlock()
	if closed {
		l.log.Error("a call was settled after the ledger was closed: its reservation is taken as spent in full", "hold", s.Hold.ID)
	}
	nudge(l.work)
}

func endOf(s gateway.Settlement) store.HoldEnd {
	if s.Call.Try == 0 {
		return store.HoldEnd{ID: s.Hold.ID}
	}
	return store.HoldEnd{ID: s.Hold.ID, Spent: s.Call.Cost, Tokens: s.Call.Tokens.Total()}
}

func lineOf(s gateway.Settlement) store.CallLine {
	line := store.CallLine{
		ID: uuid.Must(uuid.NewV7()), Tenant: s.Caller.Tenant, At: time.Now(), Agent: s.Caller.Agent, Workflow: s.Caller.Workflow,
		Labels: s.Caller.Labels, Call: s.Call,
	}
	if line.Call.Hold == uuid.Nil {
		line.Call.Hold = s.Hold.ID
	}
	return line
}

func (l *Ledger) behind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)+len(l.ends) >= BacklogMax
}

func (l *Ledger) enqueue(r *reservation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return unavailable("ledger_closed", "the node is stopping")
	}
	l.reserve = append(l.reserve, r)
	nudge(l.work)
	return nil
}

func unavailable(code, format string, args ...any) error {
	f := fault.New(fault.KindUnavailable, code, format, args...)
	f.RetryAfter = time.Second
	return f
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// uncounted counts nothing.
type uncounted struct{}

func (uncounted) BudgetDenied(string, string)                         {}
func (uncounted) BudgetNoted(string, int)                             {}
func (uncounted) BudgetLevels([]telemetry.BudgetLevel, time.Duration) {}
