package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

const definitionsMax = 512

// definitions keeps compiled definitions by hash. Definitions never change, so nothing is ever stale.
type definitions struct {
	db *store.DB
	mu sync.Mutex
	by map[workflow.Hash]*workflow.Workflow
}

func newDefinitions(db *store.DB) *definitions {
	return &definitions{db: db, by: map[workflow.Hash]*workflow.Workflow{}}
}

func (d *definitions) get(ctx context.Context, tenant uuid.UUID, hash workflow.Hash) (*workflow.Workflow, error) {
	d.mu.Lock()
	w := d.by[hash]
	d.mu.Unlock()
	if w != nil {
		return w, nil
	}
	body, err := d.db.Definition(ctx, tenant, hash)
	if fault.Is(err, fault.KindNotFound) {
		return nil, &unreadableError{fmt.Errorf("read definition %s: %w", hash, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("read definition %s: %w", hash, err)
	}
	if w, err = workflow.Load(body); err != nil {
		return nil, &unreadableError{fmt.Errorf("compile definition %s: %w", hash, err)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.by) >= definitionsMax {
		for old := range d.by { // any: it is compiled again when it is needed
			delete(d.by, old)
			break
		}
	}
	d.by[hash] = w
	return w, nil
}

// unreadableError: what is stored of a run cannot be gone on with by this binary.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string { return e.err.Error() }
func (e *unreadableError) Unwrap() error { return e.err }
