package engine

import (
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
)

// watchers are told when new events of a run are durable.
type watchers struct {
	n    atomic.Int32 // so that a commit without watchers costs one load
	mu   sync.Mutex
	runs map[uuid.UUID]map[chan struct{}]struct{}
}

// Watch gives a channel that is signalled after commits of the run on this node. It is a hint: signals are folded
// into one, and another node may own the run, so a watcher also polls. Stop must be called.
func (e *Engine) Watch(run uuid.UUID) (changed <-chan struct{}, stop func()) {
	w := &e.watch
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs == nil {
		w.runs = map[uuid.UUID]map[chan struct{}]struct{}{}
	}
	if w.runs[run] == nil {
		w.runs[run] = map[chan struct{}]struct{}{}
	}
	w.runs[run][c] = struct{}{}
	w.n.Add(1)
	return c, sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.runs[run], c)
		if len(w.runs[run]) == 0 {
			delete(w.runs, run)
		}
		w.n.Add(-1)
	})
}

func (w *watchers) notify(run uuid.UUID) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.runs[run] {
		nudge(c)
	}
}
