package engine

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/store"
)

const (
	freeChunk    = 1_000 // runs freed by one statement of a takeover
	sweepsPerTTL = 8     // so that the runs of a dead node go on soon after its lease has run out
	upkeepEvery  = 5 * time.Second

	recoveredExpired = "lease_expired"
	recoveredStartup = "startup"
)

// keep renews the reign's lease until ctx is done. A lease that is gone ends the reign.
func (s *shard) keep(ctx context.Context, r *reign) {
	wait := s.cfg.LeaseTTL / 3
	for {
		pause(ctx, wait)
		if ctx.Err() != nil {
			return
		}
		lease := r.current()
		asked := time.Now()
		now, err := s.renew(ctx, lease)
		switch {
		case err == nil:
			s.clock.set(now, time.Now())
			r.renewed(asked)
			wait = s.cfg.LeaseTTL / 3
			nudge(s.renewals)
		case errors.Is(err, store.ErrLeaseLost) && r.gone(lease):
			return
		case ctx.Err() == nil:
			wait = min(retryWaitMax, s.cfg.LeaseTTL/3)
			s.log.Warn("renew lease", "error", err)
		}
	}
}

// renew gives up early: a connection that went silent must not cost the lease.
func (s *shard) renew(ctx context.Context, lease store.Lease) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LeaseTTL/3)
	defer cancel()
	return s.cfg.Store.Renew(ctx, lease, s.cfg.LeaseTTL)
}

// sweep takes over from nodes that stopped: it closes expired leases, frees their runs, and drops them. What another
// sweeper left half done is finished.
func (e *Engine) sweep(ctx context.Context) {
	reason := recoveredStartup
	var kept time.Time
	for ctx.Err() == nil {
		if err := e.takeOver(ctx, reason); err != nil && ctx.Err() == nil {
			e.log.Warn("take over", "error", err)
		}
		if time.Since(kept) > upkeepEvery {
			kept = time.Now()
			e.upkeep(ctx)
		}
		pause(ctx, jittered(e.cfg.LeaseTTL/sweepsPerTTL))
		reason = recoveredExpired
	}
}

func (e *Engine) takeOver(ctx context.Context, reason string) error {
	for _, s := range e.shards {
		lease, ok := s.lease()
		if !ok {
			continue
		}
		expired, err := e.cfg.Store.CloseExpired(ctx, lease, e.cfg.LeaseTTL)
		if err != nil && !errors.Is(err, store.ErrLeaseLost) {
			return err
		}
		if len(expired) > 0 {
			e.metrics.LeaseExpired(len(expired))
			e.log.Warn("leases expired: taking over their runs", "leases", expired)
		}
		break
	}
	closed, err := e.cfg.Store.ClosedLeases(ctx)
	if err != nil {
		return err
	}
	for _, lease := range closed {
		if err := e.free(ctx, lease, reason); err != nil {
			return err
		}
	}
	return nil
}

// free gives the runs of a closed lease to whoever has room, in chunks; then the lease is dropped. The batch that
// closed the lease has waited for the last commit under it, so nothing is added to these runs any more.
func (e *Engine) free(ctx context.Context, lease uuid.UUID, reason string) error {
	total := 0
	for {
		n, err := e.cfg.Store.FreeRuns(ctx, lease, freeChunk)
		if err != nil {
			return err
		}
		total += n
		if n > 0 {
			e.nudgeClaims()
		}
		if n < freeChunk {
			break
		}
	}
	if total > 0 {
		e.metrics.RunsRecovered(reason, total)
		e.log.Info("runs freed", "lease", lease, "runs", total, "reason", reason)
	}
	_, err := e.cfg.Store.DropLease(ctx, lease)
	return err
}

// upkeep keeps the tables in shape.
func (e *Engine) upkeep(ctx context.Context) {
	if err := e.cfg.Store.EnsurePartitions(ctx); err != nil && ctx.Err() == nil {
		e.log.Warn("make partitions", "error", err)
	}
	if _, err := e.cfg.Store.SweepIdempotency(ctx, idempotencyKept, inboxMax); err != nil && ctx.Err() == nil {
		e.log.Warn("sweep idempotency keys", "error", err)
	}
	if _, err := e.cfg.Store.SweepInbox(ctx, inboxMax); err != nil && ctx.Err() == nil {
		e.log.Warn("sweep inbox", "error", err)
	}
	if _, err := e.cfg.Store.SweepEmitted(ctx, inboxMax); err != nil && ctx.Err() == nil {
		e.log.Warn("sweep signals", "error", err)
	}
}

const idempotencyKept = 24 * time.Hour
