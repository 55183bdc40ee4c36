package gateway

import (
	"sync"
	"time"
)

// A provider gets a tenth of its requests again as retries, and three a second besides: when all of it fails, retries
// must not be what keeps it down.
const (
	retryShare  = 0.1
	retryPerSec = 3
	retryMax    = 30 // saved up at most
)

// retryBudget bounds the retries at one provider.
type retryBudget struct {
	mu    sync.Mutex
	saved float64
	at    time.Time
}

// earn counts a request that is no retry.
func (b *retryBudget) earn(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	b.saved = min(b.saved+retryShare, retryMax)
}

// spend takes a retry out of it, if there is one.
func (b *retryBudget) spend(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	if b.saved < 1 {
		return false
	}
	b.saved--
	return true
}

func (b *retryBudget) refill(now time.Time) {
	if b.at.IsZero() {
		b.saved = retryPerSec
	} else if passed := now.Sub(b.at); passed > 0 {
		b.saved = min(b.saved+retryPerSec*passed.Seconds(), retryMax)
	}
	b.at = now
}
