package engine

import (
	"testing"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/store"
)

// While the flusher raises the epoch, the others are refused at the one they know; that is not yet the end.
func TestReignOutlivesItsEpoch(t *testing.T) {
	first := store.Lease{ID: uuid.New(), Epoch: 1}
	second := store.Lease{ID: first.ID, Epoch: 2}
	r := &reign{lease: first, lost: make(chan struct{})}
	r.raise()
	if r.gone(first) {
		t.Error("over, while the epoch is raised")
	}
	r.raised(second)
	if r.gone(first) {
		t.Error("over, because of an epoch that was")
	}
	if !r.gone(second) {
		t.Error("goes on without a lease")
	}
	<-r.lost
}
