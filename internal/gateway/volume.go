package gateway

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// volumesMax bounds the agents whose calls are counted. When there are more, those that were quiet for a day are
// forgotten; if there are none, new ones count as seldom asked.
const volumesMax = 10_000

// volumes counts the calls of each agent over the last 24 hours, on this node, since it started.
type volumes struct {
	mu sync.Mutex
	of map[volumeKey]*volume
}

type volumeKey struct {
	tenant          uuid.UUID
	workflow, agent string
}

// volume is a ring of hours.
type volume struct {
	hours [24]int64
	last  int64 // the hour that was counted last
}

// add counts a call and says how many there were in the last 24 hours, this one included.
func (v *volumes) add(c Caller, now time.Time) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	hour := now.Unix() / 3600
	key := volumeKey{c.Tenant, c.Workflow, c.Agent}
	n := v.of[key]
	if n == nil {
		if len(v.of) >= volumesMax {
			v.forget(hour)
		}
		if len(v.of) >= volumesMax {
			return 1
		}
		if v.of == nil {
			v.of = map[volumeKey]*volume{}
		}
		n = &volume{last: hour}
		v.of[key] = n
	}
	n.turn(hour)
	n.hours[hour%24]++
	sum := int64(0)
	for _, calls := range n.hours {
		sum += calls
	}
	return sum
}

// turn empties the hours that have passed since the last call.
func (n *volume) turn(hour int64) {
	for h := max(n.last+1, hour-23); h <= hour; h++ {
		n.hours[h%24] = 0
	}
	n.last = max(n.last, hour)
}

func (v *volumes) forget(hour int64) {
	for key, n := range v.of {
		if hour-n.last >= 24 {
			delete(v.of, key)
		}
	}
}
