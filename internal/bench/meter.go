package bench

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/engine"
	"github.com/fermata-run/fermata/internal/flow"
)

// meter is the worker with a stop watch: how long from the report of one step to the start of the next of its run.
type meter struct {
	worker engine.Worker
	stripe [64]struct {
		mu   sync.Mutex
		last map[uuid.UUID]time.Time
		gaps samples
	}
}

func newMeter(w engine.Worker) *meter {
	m := &meter{worker: w}
	m.reset()
	return m
}

func (m *meter) reset() {
	for i := range m.stripe {
		s := &m.stripe[i]
		s.mu.Lock()
		s.last, s.gaps = map[uuid.UUID]time.Time{}, nil
		s.mu.Unlock()
	}
}

// Do implements engine.Worker.
func (m *meter) Do(ctx context.Context, a flow.Attempt, report func(flow.Report)) {
	s := &m.stripe[a.Run[15]%64]
	now := time.Now()
	s.mu.Lock()
	if last, ok := s.last[a.Run]; ok {
		s.gaps = append(s.gaps, now.Sub(last))
		delete(s.last, a.Run) // of a fan-out only the first start after a report counts
	}
	s.mu.Unlock()
	m.worker.Do(ctx, a, func(r flow.Report) {
		if r.Outcome != nil && len(a.Step.Dependants) > 0 {
			s.mu.Lock()
			s.last[a.Run] = time.Now()
			s.mu.Unlock()
		}
		report(r)
	})
}

// gap is a quantile over all gaps since the reset, in milliseconds.
func (m *meter) gap(q float64) float64 {
	var all samples
	for i := range m.stripe {
		m.stripe[i].mu.Lock()
		all = append(all, m.stripe[i].gaps...)
		m.stripe[i].mu.Unlock()
	}
	return all.quantile(q)
}

// samples are durations; their quantiles are in milliseconds.
type samples []time.Duration

func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(at, 0)]) / float64(time.Millisecond)
}

// endings lets a submitter wait for the end of its run.
type endings struct {
	mu      sync.Mutex
	waiting map[uuid.UUID]chan flow.RunStatus
	early   map[uuid.UUID]flow.RunStatus // ended before anybody waited
}

func newEndings() *endings {
	return &endings{waiting: map[uuid.UUID]chan flow.RunStatus{}, early: map[uuid.UUID]flow.RunStatus{}}
}

func (e *endings) end(run uuid.UUID, status flow.RunStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.waiting[run]; c != nil {
		c <- status
		delete(e.waiting, run)
		return
	}
	e.early[run] = status
}

func (e *endings) wait(ctx context.Context, run uuid.UUID) (flow.RunStatus, error) {
	e.mu.Lock()
	if status, ok := e.early[run]; ok {
		delete(e.early, run)
		e.mu.Unlock()
		return status, nil
	}
	c := make(chan flow.RunStatus, 1)
	e.waiting[run] = c
	e.mu.Unlock()
	select {
	case status := <-c:
		return status, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
