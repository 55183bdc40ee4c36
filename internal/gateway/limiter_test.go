package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// However requests come, no minute sees more of them than a full bucket and what refills in it.
func TestMeter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perMinute := rapid.Int64Range(1, 10_000).Draw(t, "per minute")
		var m meter
		now := epoch
		m.set(perMinute, now)
		var used float64
		for range rapid.IntRange(1, 100).Draw(t, "requests") {
			n := float64(rapid.Int64Range(0, 2*perMinute).Draw(t, "n"))
			now = now.Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "ms")) * time.Millisecond)
			if wait := m.wait(n, now); wait > 0 {
				now = now.Add(wait)
				if again := m.wait(n, now); again > time.Millisecond {
					t.Fatalf("after waiting %s there are %s more to wait", wait, again)
				}
			}
			m.take(n, now)
			used += n
			allowed := float64(perMinute)*(1+now.Sub(epoch).Minutes()) + 2*float64(perMinute) // the last may be larger than a bucket
			if used > allowed+1 {
				t.Fatalf("%v used of %v", used, allowed)
			}
		}
	})
}

// Runs take turns, calls of one run are first come, first served.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lane{atOnce: 1}
		if wait, err := l.enter(t.Context(), "wide", estimate{}, time.Minute); wait > 0 || err != nil {
			t.Fatal(wait, err)
		}
		var mu sync.Mutex
		var order []string
		var all sync.WaitGroup
		come := func(who, name string) {
			all.Go(func() {
				if wait, err := l.enter(t.Context(), who, estimate{}, time.Hour); wait > 0 || err != nil {
					t.Error(wait, err)
					return
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(time.Second)
				l.leave(estimate{}, usage.Tokens{})
			})
			synctest.Wait()
		}
		for i := range 4 {
			come("wide", fmt.Sprint("wide", i))
		}
		come("small", "small0")
		come("other", "other0")
		l.leave(estimate{}, usage.Tokens{})
		all.Wait()
		if want := []string{"wide0", "small0", "other0", "wide1", "wide2", "wide3"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
	})
}

// What a call used beyond its estimate is a debt; what it did not use is given back.
func TestSettledTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lane{}
		l.input.set(6_000, time.Now()) // 100 a second
		enter := func(n int64, patience time.Duration) time.Duration {
			wait, err := l.enter(t.Context(), "r", estimate{input: n}, patience)
			if err != nil {
				t.Fatal(err)
			}
			return wait
		}
		enter(6_000, time.Second)
		l.leave(estimate{input: 6_000}, usage.Tokens{Input: 1_000}) // 5,000 back
		if wait := enter(5_000, time.Second); wait != 0 {
			t.Errorf("5,000 are back, and still %s to wait", wait)
		}
		l.leave(estimate{input: 5_000}, usage.Tokens{Input: 11_000, CacheRead: 500}) // a debt of 6,000: a minute; cache reads are free
		if wait := enter(1, time.Second); wait < 55*time.Second || wait > 65*time.Second {
			t.Errorf("a debt of 6,000 at 100 a second: %s", wait)
		}
		began := time.Now()
		if wait := enter(1, 2*time.Minute); wait != 0 {
			t.Errorf("whoever waits long enough is let in: %s", wait)
		}
		if took := time.Since(began); took < 55*time.Second || took > 65*time.Second {
			t.Errorf("waited %s", took)
		}
	})
}

// Limits that a provider tells of are kept to, the smaller of what it says and what is configured.
func TestLearnedLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLanes(nil, time.Now())
		s.learn("p/m", provider.Limits{Requests: provider.Limit{Max: 60, Left: 2}})
		l := s.model("p/m")
		for i := range 3 {
			wait, err := l.enter(t.Context(), "r", estimate{}, 0)
			if err != nil || (wait > 0) != (i == 2) {
				t.Errorf("request %d: wait %s, %v", i, wait, err)
			}
		}
		s.learn("p/other", provider.Limits{}) // nothing was told
		if s.model("p/other") != nil {
			t.Error("a limit was made up")
		}
	})
}

// Who gives up leaves no place behind.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lane{atOnce: 1}
		if wait, err := l.enter(t.Context(), "a", estimate{}, time.Minute); wait > 0 || err != nil {
			t.Fatal(wait, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := l.enter(ctx, "b", estimate{}, time.Hour)
			gone <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; err == nil {
			t.Error("let in, though it gave up")
		}
		l.leave(estimate{}, usage.Tokens{})
		if l.busy != 0 || l.queue.len() != 0 {
			t.Errorf("%d busy, %d wait", l.busy, l.queue.len())
		}
		if wait, err := l.enter(t.Context(), "c", estimate{}, 0); wait > 0 || err != nil {
			t.Error(wait, err)
		}
	})
}

// Retries are a tenth of the requests and three a second, however much fails.
func TestRetryBudget(t *testing.T) {
	var b retryBudget
	now := epoch
	retries := 0
	for range 10_000 { // a thousand a second, for ten seconds
		b.earn(now)
		for b.spend(now) {
			retries++
		}
		now = now.Add(time.Millisecond)
	}
	if retries < 1_000 || retries > 1_000+3*10+retryPerSec {
		t.Errorf("%d retries of 10,000 requests", retries)
	}
}
