package gateway

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/gateway/provider"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func failed(class provider.Class) *provider.Error {
	return &provider.Error{Class: class, Message: "no"}
}

// A breaker's life as a list of what happens to it: "ok" and classes are outcomes of requests, "+10s" is time that
// passes, "=open" what must hold then; "refused" a request that is not let through.
func TestBreaker(t *testing.T) {
	ok10 := strings.Repeat("ok ", 10)
	for name, play := range map[string]string{
		"five in a row open it":                   "server server server server =closed server =open refused",
		"a success between them does not":         "server server server server ok server server =closed",
		"half of ten open it":                     "ok server ok server ok server ok server ok =closed server =open",
		"what is older than a minute is not":      ok10 + "+61s server server server =closed server server =open",
		"after its time one probe is let through": "server*5 =open +13s =half_open ok =half_open ok =closed",
		"a failed probe opens it again":           "server*5 +13s server =open refused",
		"our faults do not count":                 "invalid_request*20 content_policy*20 context_length*20 output_truncated*20 cancelled*20 low_confidence*20 =closed",
		"429 is no failure":                       "rate_limited*30 =closed ok",
		"a credential shuts it for ten minutes":   "auth refused +9m59s refused +2s ok",
		"so does money":                           "quota_exhausted refused +10m1s ok",
		"and a model that is not there":           "not_found refused +10m1s ok",
		"timeouts and cut streams are failures":   "timeout stream_interrupted timeout network overloaded =open",
	} {
		t.Run(name, func(t *testing.T) {
			b, now := &breaker{provider: "p", model: "m"}, epoch
			for _, word := range strings.Fields(play) {
				outcome, times := word, 1
				if w, n, found := strings.Cut(word, "*"); found {
					outcome = w
					if _, err := fmt.Sscan(n, &times); err != nil {
						t.Fatal(err)
					}
				}
				for range times {
					b.act(t, outcome, &now)
				}
			}
		})
	}
}

func (b *breaker) act(t *testing.T, what string, now *time.Time) {
	t.Helper()
	switch {
	case what[0] == '+':
		d, err := time.ParseDuration(what[1:])
		if err != nil {
			t.Fatal(err)
		}
		*now = now.Add(d)
		return
	case what[0] == '=':
		if got := b.view(*now).State; got != what[1:] {
			t.Fatalf("%s at +%s, want %s", got, now.Sub(epoch), what[1:])
		}
		return
	}
	p, refused := b.admit(*now, false)
	switch {
	case what == "refused":
		if refused == nil {
			t.Fatalf("let through at +%s", now.Sub(epoch))
		}
	case refused != nil:
		t.Fatalf("%s: not let through at +%s: %s", what, now.Sub(epoch), refused.reason)
	case what == "ok":
		p.observe(*now, nil)
	default:
		p.observe(*now, failed(provider.Class(what)))
	}
}

// Of a hundred calls that come when an open breaker's time is over, one is let through.
func TestOneProbe(t *testing.T) {
	b := &breaker{provider: "p", model: "m"}
	now := epoch
	for range breakerConsecutive {
		b.act(t, "server", &now)
	}
	now = now.Add(breakerOpenMax)
	var through atomic.Int32
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if _, refused := b.admit(now, false); refused == nil {
				through.Add(1)
			}
		})
	}
	all.Wait()
	if through.Load() != 1 {
		t.Fatalf("%d were let through", through.Load())
	}
}

// A throttled breaker says when to come again; a shorter wish does not shorten a longer one.
func TestThrottle(t *testing.T) {
	b, now := &breaker{provider: "p", model: "m"}, epoch
	for _, wait := range []time.Duration{20 * time.Second, 5 * time.Second} {
		pass{b: b}.observe(now, &provider.Error{Class: provider.ClassRateLimited, RetryAfter: wait})
	}
	if _, refused := b.admit(now.Add(19*time.Second), false); refused == nil || !refused.until.Equal(now.Add(20*time.Second)) {
		t.Fatalf("refused %+v", refused)
	}
	if _, refused := b.admit(now.Add(20*time.Second), false); refused != nil {
		t.Fatalf("still refused: %s", refused.reason)
	}
}

// An operator's word stands above all; a reset forgets everything.
func TestOrders(t *testing.T) {
	b, now := &breaker{provider: "p", model: "m"}, epoch
	b.heard(BreakerNews{Action: BreakerHeld, Reason: "being moved"}, now)
	if _, refused := b.admit(now.Add(time.Hour), true); refused == nil || !strings.Contains(refused.reason, "being moved") {
		t.Fatalf("a held breaker was passed: %+v", refused)
	}
	b.heard(BreakerNews{Action: BreakerReleased}, now)
	b.act(t, "auth", &now)
	b.act(t, "refused", &now)
	b.heard(BreakerNews{Action: BreakerReset}, now)
	b.act(t, "ok", &now)
	// News of another node: an open breaker there is open here, once it is over it is not.
	b.heard(BreakerNews{Action: BreakerOpened, Node: "n2", Reason: "server: no", Until: now.Add(15 * time.Second)}, now)
	b.act(t, "refused", &now)
	b.heard(BreakerNews{Action: BreakerOpened, Node: "n2", Until: now.Add(-time.Second)}, now)
	now = now.Add(16 * time.Second)
	b.act(t, "ok", &now)
}

// Whatever happens: never two probes at once, a shut breaker always opens again, and it is never shut for longer than
// somebody said.
func TestBreakerProperties(t *testing.T) {
	classes := []provider.Class{
		provider.ClassServer, provider.ClassOverloaded, provider.ClassTimeout, provider.ClassRateLimited, provider.ClassAuth, provider.ClassInvalidRequest,
	}
	rapid.Check(t, func(t *rapid.T) {
		b, now := &breaker{provider: "p", model: "m"}, epoch
		var out []pass
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5_000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				if p, refused := b.admit(now, rapid.Bool().Draw(t, "forced")); refused == nil {
					out = append(out, p)
				} else if limit := now.Add(disabledFor + breakerOpenMax); refused.until.After(limit) {
					t.Fatalf("shut for %s", refused.until.Sub(now))
				}
			case 2:
				if len(out) > 0 {
					out[0].observe(now, &provider.Error{Class: rapid.SampledFrom(classes).Draw(t, "class"), RetryAfter: time.Second})
					out = out[1:]
				}
			case 3:
				if len(out) > 0 {
					out[0].observe(now, nil)
					out = out[1:]
				}
			}
			probes := 0
			for _, p := range out {
				if p.probe {
					probes++
				}
			}
			if probes > 1 && b.state == breakerHalfOpen {
				t.Fatalf("%d probes at once", probes)
			}
		}
		for _, p := range out {
			p.giveBack()
		}
		if _, refused := b.admit(now.Add(disabledFor+time.Minute), false); refused != nil {
			t.Fatalf("shut for ever: %s", refused.reason)
		}
	})
}

// Names come from outside: what is remembered of them is bounded, and what is shut is not forgotten first.
func TestBreakersAreBounded(t *testing.T) {
	var s breakers
	now := epoch
	shut := s.named("p", "shut", now)
	for range breakerConsecutive {
		shut.act(t, "server", &now)
	}
	for i := range 3 * breakersMax {
		s.named("p", fmt.Sprint("m", i), now)
	}
	if n := len(s.all); n > breakersMax {
		t.Errorf("%d are remembered", n)
	}
	if s.all["p/shut"] != shut {
		t.Error("the one that is shut was forgotten")
	}
}
