package engine

import (
	"math/rand/v2"
	"sync"
	"time"
)

// clock tells the database's time: what it said at the last renewal, plus the monotonic time since. It never goes back.
type clock struct {
	mu   sync.Mutex
	base time.Time // of the database
	at   time.Time // ours when it was told
	last time.Time
}

// set takes a reading of the database; got is when it arrived, so the clock is behind the database, never ahead.
func (c *clock) set(db, got time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.at = db, got
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.base.Add(time.Since(c.at)).UTC().Truncate(time.Microsecond)
	if now.Before(c.last) {
		return c.last
	}
	c.last = now
	return now
}

// jittered spreads a pace by a quarter, so that nodes do not beat together.
func jittered(d time.Duration) time.Duration {
	return d - d/8 + rand.N(d/4) //nolint:gosec // a pace, not a secret
}
