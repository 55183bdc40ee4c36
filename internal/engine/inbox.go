package engine

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/store"
)

// reading is what the inbox held for this node's runs at some time.
type reading struct {
	asked    time.Time // before it was read
	messages []store.Message
}

// readingMax is how long a reading may be on its way to a shard; an older one is passed over, and read again.
const readingMax = 5 * time.Second

// stale: what has been eaten since may be in it, and be forgotten.
func (r *reading) stale() bool { return time.Since(r.asked) > readingMax }

// eaten remembers the messages that were applied and deleted, as long as a reading from before may be on its way:
// a run may have gone and come back meanwhile, to another shard.
type eaten struct {
	mu    sync.Mutex
	at    map[int64]time.Time
	swept time.Time
}

func (e *eaten) add(ids []int64) {
	if len(ids) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if e.at == nil {
		e.at = map[int64]time.Time{}
	}
	for _, id := range ids {
		e.at[id] = now
	}
	if now.Sub(e.swept) < readingMax {
		return
	}
	e.swept = now
	for id, at := range e.at {
		if now.Sub(at) > readingMax {
			delete(e.at, id)
		}
	}
}

func (e *eaten) has(id int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.at[id]
	return ok
}

// pollInbox brings messages to the runs this node owns.
func (e *Engine) pollInbox(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-e.inboxNudge:
		case <-time.After(jittered(inboxEvery)):
		case <-ctx.Done():
			return
		}
		if err := e.readInbox(ctx); err != nil && ctx.Err() == nil && !e.draining.Load() {
			e.log.Warn("read inbox", "error", err)
			pause(ctx, retryWaitMax)
		}
	}
}

func (e *Engine) readInbox(ctx context.Context) error {
	byLease := map[uuid.UUID]*shard{}
	var leases []uuid.UUID
	for _, s := range e.shards {
		if lease, ok := s.lease(); ok {
			byLease[lease.ID] = s
			leases = append(leases, lease.ID)
		}
	}
	if len(leases) == 0 {
		return nil
	}
	r := &reading{asked: time.Now()}
	var err error
	if r.messages, err = e.cfg.Store.Inbox(ctx, leases, inboxMax); err != nil || len(r.messages) == 0 {
		return err
	}
	for _, s := range byLease { // a shard passes over the messages of runs it does not hold
		if err := s.arrive(ctx, arrival{read: r}); err != nil {
			return err
		}
	}
	return nil
}
