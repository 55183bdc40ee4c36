package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/fermata-run/fermata/internal/flow"
)

// closedLoop keeps n runs in flight for d, then waits for the last; it answers how many ended well. Any other end is
// an error: what failed fast would look fast.
func (b *bench) closedLoop(ctx context.Context, n int, d time.Duration) (int, error) {
	var ended atomic.Int64
	until := time.Now().Add(d)
	group, ctx := errgroup.WithContext(ctx)
	for range n {
		group.Go(func() error {
			for time.Now().Before(until) {
				if err := b.one(ctx); err != nil {
					return err
				}
				ended.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return int(ended.Load()), err
}

func (b *bench) one(ctx context.Context) error {
	id, err := b.submit(ctx)
	if err != nil {
		return err
	}
	return b.mustSucceed(ctx, id)
}

func (b *bench) mustSucceed(ctx context.Context, id uuid.UUID) error {
	status, err := b.ended.wait(ctx, id)
	if err == nil && status != flow.RunStatusSucceeded {
		err = fmt.Errorf("run %s ended as %s", id, status)
	}
	return err
}

// openLoop submits at a steady rate for d, whatever the service does, and measures how long each submission took.
func (b *bench) openLoop(ctx context.Context, perSecond float64, d time.Duration) (samples, error) {
	const slice = 5 * time.Millisecond
	var mu sync.Mutex
	var took samples
	group, ctx := errgroup.WithContext(ctx)
	ticker := time.NewTicker(slice)
	defer ticker.Stop()
	began := time.Now()
	for sent := 0; time.Since(began) < d && ctx.Err() == nil; <-ticker.C {
		for ; float64(sent) < perSecond*time.Since(began).Seconds(); sent++ {
			group.Go(func() error {
				at := time.Now()
				id, err := b.submit(ctx)
				if err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(at))
				mu.Unlock()
				return b.mustSucceed(ctx, id)
			})
		}
	}
	err := group.Wait()
	return took, err
}
