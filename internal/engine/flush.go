package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/store"
)

// flusher commits batches, one after the other, on a connection of its own.
type flusher struct {
	s       *shard
	reign   *reign
	conn    *store.Committer
	batches chan *batch
	done    chan flushed
}

// flushed is a batch that is durable but for the refused changes; or, with an error, not written.
type flushed struct {
	batch   *batch
	refused map[int]error // by index of the change
	took    time.Duration
	err     error // the reign is over
}

func newFlusher(s *shard, r *reign) *flusher {
	return &flusher{s: s, reign: r, conn: s.cfg.Store.Committer(), batches: make(chan *batch, 1), done: make(chan flushed, 1)}
}

func (f *flusher) run(ctx context.Context) {
	defer f.conn.Close()
	for b := range f.batches {
		began := time.Now()
		done := flushed{batch: b, refused: map[int]error{}}
		done.err = f.flush(ctx, b.changes, together(b.changes), done.refused)
		done.took = time.Since(began)
		if errors.Is(done.err, store.ErrLeaseLost) {
			f.s.metrics.StaleWrites(len(b.changes))
			f.s.log.Warn("commit refused: the lease is gone", "shard", f.s.no, "changes", len(b.changes))
		}
		f.done <- done
		if done.err != nil {
			f.reign.lose()
			return
		}
	}
}

// together gathers the changes that must become durable in one commit: a run and those that its steps started in the
// same batch. Else a run could wait for one that is nowhere.
func together(changes []store.Change) [][]int {
	groups := make([][]int, 0, len(changes))
	of := make(map[uuid.UUID]int, len(changes)) // group by run
	for i := range changes {
		c := &changes[i]
		at, known := 0, false
		if c.New != nil {
			at, known = of[c.New.Parent]
		}
		if !known {
			at = len(groups)
			groups = append(groups, nil)
		}
		of[c.Run] = at
		groups[at] = append(groups[at], i)
	}
	return groups
}

// flush makes changes durable, however long it takes. A part that Postgres refuses for its data is halved until the
// guilty ones stand alone; everything else is written. An error ends the reign.
func (f *flusher) flush(ctx context.Context, all []store.Change, groups [][]int, refused map[int]error) error {
	changes := all
	if n := sizeOf(groups); n < len(all) {
		changes = make([]store.Change, 0, n)
		for _, group := range groups {
			for _, i := range group {
				changes = append(changes, all[i])
			}
		}
	}
	err := f.commit(ctx, changes)
	var bad *store.RefusedError
	if !errors.As(err, &bad) {
		return err
	}
	if len(groups) == 1 {
		for _, i := range groups[0] {
			refused[i] = bad
		}
		return nil
	}
	half := len(groups) / 2
	if err := f.flush(ctx, all, groups[:half], refused); err != nil {
		return err
	}
	if err := f.flush(ctx, all, groups[half:], refused); err != nil {
		return fmt.Errorf("%w: a part was written; then: %w", store.ErrUnknown, err)
	}
	return nil
}

func sizeOf(groups [][]int) int {
	n := 0
	for _, group := range groups {
		n += len(group)
	}
	return n
}

// commit sends one statement until its fate is known. What certainly was not written is sent again; what may have
// been is first looked for, after this shard's own epoch was raised so that it cannot land any more.
func (f *flusher) commit(ctx context.Context, changes []store.Change) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, retryWaitMax) {
		err := f.conn.Commit(ctx, f.reign.current(), changes)
		var bad *store.RefusedError
		if err == nil || errors.Is(err, store.ErrLeaseLost) || errors.As(err, &bad) {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		f.s.log.Warn("commit", "shard", f.s.no, "changes", len(changes), "error", err)
		if errors.Is(err, store.ErrUnknown) {
			f.s.metrics.TxRetried("unknown")
			landed, err := f.resolve(ctx, changes)
			if err != nil {
				return fmt.Errorf("%w: %w", store.ErrUnknown, err)
			}
			if landed {
				return nil
			}
			continue
		}
		f.s.metrics.TxRetried("transient")
		pause(ctx, wait)
	}
}

// resolve finds out whether a commit without an answer has landed. Raising the epoch waits for a backend that is
// still at it, and nothing sent under the old epoch can be written afterwards: then one event of the batch tells for
// all, since a batch is atomic.
func (f *flusher) resolve(ctx context.Context, changes []store.Change) (landed bool, err error) {
	for wait := 5 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, retryWaitMax) {
		var lease store.Lease
		if lease, err = f.s.cfg.Store.Raise(ctx, f.reign.raise()); err == nil {
			f.reign.raised(lease)
			break
		}
		if errors.Is(err, store.ErrLeaseLost) {
			return false, err
		}
		pause(ctx, wait)
	}
	for wait := 5 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, retryWaitMax) {
		if landed, err = f.landed(ctx, changes); err == nil {
			f.s.log.Info("unknown commit resolved", "shard", f.s.no, "landed", landed)
			return landed, nil
		}
		pause(ctx, wait)
	}
	return false, ctx.Err()
}

// landed: a change without events (a row, a deleted message) may be repeated without harm, so it proves nothing.
func (f *flusher) landed(ctx context.Context, changes []store.Change) (bool, error) {
	for _, c := range changes {
		if len(c.Events) > 0 {
			return f.s.cfg.Store.HasEvent(ctx, c.Run, c.Events[0].Seq)
		}
	}
	return false, nil
}
