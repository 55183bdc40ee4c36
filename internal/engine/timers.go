package engine

import (
	"container/heap"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
)

// timers is a heap of the times that come within the horizon; later ones are found by a sweep through memory, so
// that finished runs do not leave their day-long timeouts behind.
type timers struct {
	due   []timer
	swept time.Time
}

type timer struct {
	at  time.Time
	run uuid.UUID
}

func (t *timers) Len() int           { return len(t.due) }
func (t *timers) Less(i, j int) bool { return t.due[i].at.Before(t.due[j].at) }
func (t *timers) Swap(i, j int)      { t.due[i], t.due[j] = t.due[j], t.due[i] }
func (t *timers) Push(x any)         { t.due = append(t.due, x.(timer)) }
func (t *timers) Pop() any {
	last := t.due[len(t.due)-1]
	t.due = t.due[:len(t.due)-1]
	return last
}

// schedule sets a timer for the run's next time, if it is near and earlier than the one that is set.
func (s *shard) schedule(h *holding) {
	due := h.run.Due()
	if due.Sub(s.clock.now()) > timersHorizon || (!h.scheduled.IsZero() && !due.Before(h.scheduled)) {
		return
	}
	h.scheduled = due
	heap.Push(&s.timers, timer{at: due, run: h.run.ID})
}

// fire decides the runs whose time has come, by the time that the rules are told: a later one would name runs that they
// find nothing to do for.
func (s *shard) fire() {
	now := s.now
	if now.Sub(s.timers.swept) > timersHorizon/2 {
		s.timers.swept = now
		for _, h := range s.runs {
			if !h.leaving {
				s.schedule(h)
			}
		}
	}
	for len(s.timers.due) > 0 && !s.timers.due[0].at.After(now) && !s.batch.full() {
		t := heap.Pop(&s.timers).(timer)
		h := s.runs[t.run]
		if h == nil || h.leaving || !h.scheduled.Equal(t.at) {
			continue
		}
		h.scheduled = time.Time{}
		if h.run.Due().After(now) { // what it was set for has happened otherwise
			s.schedule(h)
			continue
		}
		s.decide(h, flow.Fired{})
	}
}
