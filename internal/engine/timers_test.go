package engine

import (
	"container/heap"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// A timer whose time comes while the loop looks at its timers is left to the next look. The rules go by the time the loop took
// up; when the timers went by a later one, they said that nothing had come, the timer was set again, and the loop asked for
// ever.
func TestTimerDueWhileFiring(t *testing.T) {
	w, err := workflow.Compile([]byte("spec: workflow/v1\nname: short\ntimeout: 1s\nsteps:\n  - {id: a, tool: \"builtin:noop\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().UTC().Truncate(time.Microsecond)
	run, _, err := flow.Open(flow.Submission{ID: uuid.Must(uuid.NewV7()), Workflow: w, Priority: -1}, began)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Shards: 1}).shards[0]
	s.reign.Store(&reign{})
	s.runs, s.batch = map[uuid.UUID]*holding{}, newBatch()
	h := newHolding(run)
	s.hold(h)
	due := run.Due()
	h.scheduled = due
	heap.Push(&s.timers, timer{at: due, run: run.ID})
	s.clock.set(due.Add(time.Millisecond), time.Now())

	s.now = due.Add(-time.Millisecond)
	s.fire()
	if !s.batch.empty() || len(s.timers.due) != 1 {
		t.Fatalf("fired too early: %d changes, %d timers", len(s.batch.changes), len(s.timers.due))
	}
	s.now = s.clock.now()
	s.fire()
	if s.batch.empty() {
		t.Error("the next look did not fire it")
	}
}
