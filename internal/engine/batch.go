package engine

import (
	"errors"
	"slices"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// batch is what the next commit will hold: one change per run, in the order the runs came up.
type batch struct {
	changes []store.Change
	of      []*holding // whose change it is
	waiting []waiting  // submissions to be answered when it is durable
	events  int
}

type waiting struct {
	done chan error
	at   int // index of the change
}

func newBatch() *batch {
	return &batch{changes: make([]store.Change, 0, batchMax), of: make([]*holding, 0, batchMax)}
}

func (b *batch) empty() bool { return len(b.changes) == 0 }
func (b *batch) full() bool  { return len(b.changes) >= batchMax }

// change is the run's change in this batch.
func (b *batch) change(h *holding) *store.Change {
	if h.batch != b {
		h.batch, h.at = b, len(b.changes)
		b.changes = append(b.changes, changeOf(h))
		b.of = append(b.of, h)
	}
	return &b.changes[h.at]
}

func changeOf(h *holding) store.Change {
	return store.Change{Run: h.run.ID, Tenant: h.run.Tenant, Workflow: h.run.Workflow().Name}
}

func (b *batch) add(h *holding, events []flow.Event) *store.Change {
	c := b.change(h)
	if c.Events == nil {
		c.Events = events
	} else {
		c.Events = append(c.Events, events...)
	}
	b.events += len(events)
	return c
}

// without takes the change of a run out again. Who waits for it is told that it was not taken.
func (b *batch) without(h *holding) {
	if h.batch != b {
		return
	}
	b.changes[h.at] = changeOf(h)
	b.waiting = slices.DeleteFunc(b.waiting, func(w waiting) bool {
		if w.at == h.at {
			w.done <- errEvicted
		}
		return w.at == h.at
	})
}

var errEvicted = errors.New("the rules broke over the run")
