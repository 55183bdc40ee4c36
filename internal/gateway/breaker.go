package gateway

import (
	"slices"
	"sync"
	"time"

	"github.com/fermata-run/fermata/internal/gateway/provider"
)

// When a breaker opens and for how long. Simulated against outages of a minute: an entry is asked again within 30 s of
// their end every time.
const (
	breakerWindow      = time.Minute
	breakerBuckets     = 12
	breakerSamplesMin  = 10 // in the window, before the share of failures says anything
	breakerShare       = 0.5
	breakerConsecutive = 5
	breakerOpenFirst   = 10 * time.Second
	breakerOpenFactor  = 1.5
	breakerOpenMax     = 20 * time.Second
	breakerJitter      = 0.2
	breakerPasses      = 2 // answered probes in a row that close it
	breakerRecent      = 20
	disabledFor        = 10 * time.Minute // after a refusal that waiting a little does not mend
	lastResortEvery    = time.Second      // an open breaker lets a last resort through this often

	breakersMax = 1_000 // remembered; those with nothing to say are forgotten first
)

// breakerState is where a breaker stands.
type breakerState uint8

const (
	breakerClosed breakerState = iota
	breakerOpen
	breakerHalfOpen
)

func (s breakerState) String() string { return [...]string{"closed", "open", "half_open"}[s] }

// What happened to a breaker, in BreakerNews.
const (
	BreakerOpened    = "opened"
	BreakerDisabled  = "disabled"
	BreakerThrottled = "throttled"
	BreakerReset     = "reset"
	BreakerHeld      = "held"
	BreakerReleased  = "released"
)

// BreakerNews is what one node tells the others of a breaker.
type BreakerNews struct {
	ID     string    `json:"id"` // provider/model
	Node   string    `json:"node,omitempty"`
	Action string    `json:"action"`
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	At     time.Time `json:"at"`
}

// Breaker is how a model at a provider fares on this node.
type Breaker struct {
	ID             string    `json:"id"` // provider/model
	Provider       string    `json:"provider"`
	Model          string    `json:"model"`
	State          string    `json:"state"` // closed, open or half_open
	Held           bool      `json:"held,omitempty"`
	Until          time.Time `json:"until,omitzero"`           // open until then
	ThrottledUntil time.Time `json:"throttled_until,omitzero"` // the provider asked to be left alone until then
	DisabledUntil  time.Time `json:"disabled_until,omitzero"`  // it refuses what a while does not mend: credential, quota, no such model
	Reason         string    `json:"reason,omitempty"`
	Samples        int       `json:"samples"`  // of the last minute
	Failures       int       `json:"failures"` // of those
	Recent         []string  `json:"recent"`   // the last 20 outcomes, newest last: ok or the class of the failure
	ChangedAt      time.Time `json:"changed_at,omitzero"`
}

// breaker keeps one model at one provider from being asked while that is no use. It is told the time.
//
//	closed     half of at least 10 requests of the last minute failed, or 5 in a row: open
//	open       for 10 s, half as long again each time it opens anew, 20 s at most: half-open
//	half-open  one request at a time is let through: 2 answered close it, one failure opens it
//
// Two further times keep it shut without a failure rate: throttled (429) and disabled (credential, quota, no such model).
type breaker struct {
	mu              sync.Mutex
	provider, model string
	lots            lots

	state     breakerState
	until     time.Time     // of open
	openFor   time.Duration // how long it was open last
	probing   bool          // of half-open: somebody is through
	forced    time.Time     // the last last resort
	passed    int           // of half-open: probes answered in a row
	failed    int           // failures in a row
	counts    [breakerBuckets]outcomes
	throttled time.Time
	disabled  time.Time
	held      bool
	why       struct{ open, throttled, disabled, held string }
	term      int // raised when it opens and when it closes: what was let through before says nothing of what is now
	recent    []string
	changed   time.Time
	lastUse   time.Time
	pace      pace
}

type outcomes struct {
	epoch      int64 // which 5 seconds these are
	total, bad int
}

// pass lets a request through a breaker; it must be ended by observe or giveBack.
type pass struct {
	b     *breaker
	term  int
	probe bool
}

// refusal is why no request is let through.
type refusal struct {
	class    provider.Class
	reason   string
	until    time.Time // zero: until somebody resets it
	forcible bool      // a last resort may try all the same
}

// refuses says why no request would be let through now, or nil. Nothing changes by asking.
func (b *breaker) refuses(now time.Time) *refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refusal(now)
}

func (b *breaker) refusal(now time.Time) *refusal {
	switch {
	case b.held:
		return &refusal{class: provider.ClassUnavailable, reason: "held open by an operator: " + b.why.held}
	case b.disabled.After(now):
		return &refusal{class: provider.ClassUnavailable, reason: "shut off: " + b.why.disabled, until: b.disabled}
	case b.throttled.After(now):
		return &refusal{class: provider.ClassRateLimited, reason: "the provider asked to be left alone", until: b.throttled}
	case b.state == breakerOpen && b.until.After(now):
		return &refusal{class: provider.ClassUnavailable, reason: "its breaker is open: " + b.why.open, until: b.until, forcible: true}
	case b.state == breakerHalfOpen && b.probing:
		return &refusal{class: provider.ClassUnavailable, reason: "its breaker is being tried by another call", until: now.Add(time.Second)}
	}
	return nil
}

// admit lets a request through, or says why not. Forced, an open breaker lets its probe through before its time: the
// last resort of a chain of which every entry is shut. It does so once a second: if every call were a last resort, an
// open breaker would keep nobody out.
func (b *breaker) admit(now time.Time, forced bool) (pass, *refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastUse = now
	if refused := b.refusal(now); refused != nil {
		if !forced || !refused.forcible || now.Sub(b.forced) < lastResortEvery {
			return pass{}, refused
		}
		b.forced = now
	}
	if b.state == breakerOpen {
		b.move(breakerHalfOpen, now)
		b.passed = 0
	}
	b.probing = b.state == breakerHalfOpen
	return pass{b: b, term: b.term, probe: b.probing}, nil
}

// giveBack ends a pass that was not used, or whose outcome says nothing of the provider.
func (p pass) giveBack() {
	if p.b == nil || !p.probe {
		return
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.term == p.b.term {
		p.b.probing = false
	}
}

// begun says that a probe's answer has begun: the provider is there, and the next probe need not wait for the end.
func (p pass) begun() { p.giveBack() }

// observe ends a pass with its outcome; nil is an answer. It tells what the other nodes should know, if anything. A
// request from before the breaker opened or closed does not count: what is known since then is newer.
func (p pass) observe(now time.Time, failure *provider.Error) *BreakerNews {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remember(failure)
	current := p.term == b.term
	if current && p.probe {
		b.probing = false
	}
	rule := breakerAnswered
	if failure != nil {
		rule = ruleOf(failure.Class).breaker
	}
	switch rule {
	case breakerAnswered:
		if current {
			b.answered(now, p.probe)
		}
	case breakerFailure:
		if current {
			return b.failure(now, p.probe, failure)
		}
	case breakerDisables:
		return b.disable(now, failure)
	case breakerThrottles:
		return b.throttle(now, failure)
	case breakerIgnores:
	}
	return nil
}

// throttle leaves the provider alone for as long as it asks to be; a shorter wish does not shorten a longer one.
func (b *breaker) throttle(now time.Time, failure *provider.Error) *BreakerNews {
	until := now.Add(failure.RetryAfter)
	if failure.RetryAfter <= 0 || !until.After(b.throttled) {
		return nil
	}
	b.throttled, b.why.throttled, b.changed = until, failure.Message, now
	return b.news(BreakerThrottled, failure.Message, until, now)
}

func (b *breaker) answered(now time.Time, probe bool) {
	b.failed = 0
	b.count(now, false)
	if !probe || b.state != breakerHalfOpen {
		return
	}
	if b.passed++; b.passed >= breakerPasses {
		b.close(now)
	}
}

func (b *breaker) failure(now time.Time, probe bool, failure *provider.Error) *BreakerNews {
	b.failed++
	b.count(now, true)
	total, bad := b.rate(now)
	switch {
	case b.state == breakerHalfOpen && probe:
	case b.state == breakerClosed && b.failed >= breakerConsecutive:
	case b.state == breakerClosed && total >= breakerSamplesMin && float64(bad) >= breakerShare*float64(total):
	default:
		return nil
	}
	b.why.open = string(failure.Class) + ": " + failure.Message
	b.open(now, now.Add(b.nextOpen()))
	return b.news(BreakerOpened, b.why.open, b.until, now)
}

// nextOpen is how long it stays open now: longer each time, until it has been closed for good.
func (b *breaker) nextOpen() time.Duration {
	if b.openFor == 0 {
		b.openFor = breakerOpenFirst
	} else {
		b.openFor = min(time.Duration(float64(b.openFor)*breakerOpenFactor), breakerOpenMax)
	}
	return time.Duration(float64(b.openFor) * (1 + breakerJitter*(2*b.lots.draw()-1)))
}

// open never shortens a time that already stands.
func (b *breaker) open(now, until time.Time) {
	if until.After(b.until) {
		b.until = until
	}
	b.term++
	b.probing = false
	b.move(breakerOpen, now)
}

func (b *breaker) close(now time.Time) {
	b.term++
	b.probing = false
	b.move(breakerClosed, now)
	b.until, b.openFor, b.failed, b.why.open = time.Time{}, 0, 0, ""
	b.counts = [breakerBuckets]outcomes{}
}

func (b *breaker) move(to breakerState, now time.Time) {
	if b.state != to {
		b.state, b.changed = to, now
	}
}

// disable shuts it for what a little while does not mend; the provider may say for how long.
func (b *breaker) disable(now time.Time, failure *provider.Error) *BreakerNews {
	until := now.Add(max(disabledFor, failure.RetryAfter))
	if failure.Class == provider.ClassQuotaExhausted && failure.RetryAfter > 0 {
		until = now.Add(failure.RetryAfter)
	}
	if !until.After(b.disabled) {
		return nil
	}
	b.disabled, b.changed = until, now
	b.why.disabled = string(failure.Class) + ": " + failure.Message
	return b.news(BreakerDisabled, b.why.disabled, until, now)
}

func (b *breaker) news(action, reason string, until, now time.Time) *BreakerNews {
	return &BreakerNews{ID: b.provider + "/" + b.model, Action: action, Reason: reason, Until: until, At: now}
}

func (b *breaker) remember(failure *provider.Error) {
	outcome := "ok"
	if failure != nil {
		outcome = string(failure.Class)
	}
	if len(b.recent) == breakerRecent {
		b.recent = append(b.recent[:0], b.recent[1:]...)
	}
	b.recent = append(b.recent, outcome)
}

func (b *breaker) count(now time.Time, bad bool) {
	epoch := now.UnixNano() / int64(breakerWindow/breakerBuckets)
	c := &b.counts[epoch%breakerBuckets]
	if c.epoch != epoch {
		*c = outcomes{epoch: epoch}
	}
	if c.total++; bad {
		c.bad++
	}
}

// rate sums the last minute up.
func (b *breaker) rate(now time.Time) (total, bad int) {
	epoch := now.UnixNano() / int64(breakerWindow/breakerBuckets)
	for _, c := range b.counts {
		if c.epoch > epoch-breakerBuckets {
			total, bad = total+c.total, bad+c.bad
		}
	}
	return total, bad
}

// heard takes what another node, or an operator, says.
func (b *breaker) heard(n BreakerNews, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reason := n.Reason
	if n.Node != "" {
		reason += " (seen by node " + n.Node + ")"
	}
	switch n.Action {
	case BreakerOpened:
		if n.Until.After(now) && b.state == breakerClosed {
			b.why.open = reason
			// Whatever the other node's clock says, no breaker stays open for longer than one does here.
			b.open(now, earlier(n.Until, now.Add(breakerOpenMax*12/10)))
		}
	case BreakerDisabled:
		if until := earlier(n.Until, now.Add(provider.RetryAfterMax)); until.After(b.disabled) {
			b.disabled, b.why.disabled, b.changed = until, reason, now
		}
	case BreakerThrottled:
		if until := earlier(n.Until, now.Add(provider.RetryAfterMax)); until.After(b.throttled) {
			b.throttled, b.why.throttled, b.changed = until, reason, now
		}
	case BreakerReset:
		b.close(now)
		b.throttled, b.disabled, b.held, b.changed = time.Time{}, time.Time{}, false, now
	case BreakerHeld:
		b.held, b.why.held, b.changed = true, n.Reason, now
	case BreakerReleased:
		b.held, b.why.held, b.changed = false, "", now
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// reason is why it is shut, the weightiest cause first.
func (b *breaker) reason(now time.Time) string {
	switch {
	case b.held:
		return b.why.held
	case b.disabled.After(now):
		return b.why.disabled
	case b.throttled.After(now):
		return b.why.throttled
	}
	return b.why.open
}

// shut is until when no request is let through; zero: it is not shut.
func (b *breaker) shut(now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	until := slices.MaxFunc([]time.Time{b.throttled, b.disabled, b.until}, time.Time.Compare)
	switch {
	case b.held:
		return now.Add(disabledFor)
	case !until.After(now):
		return time.Time{}
	}
	return until
}

func (b *breaker) view(now time.Time) Breaker {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := Breaker{
		ID: b.provider + "/" + b.model, Provider: b.provider, Model: b.model, State: b.state.String(), Held: b.held,
		Reason: b.reason(now), Recent: slices.Clone(b.recent), ChangedAt: b.changed,
	}
	v.Samples, v.Failures = b.rate(now)
	if b.held {
		v.State = breakerOpen.String()
	}
	later := func(t time.Time) time.Time {
		if t.After(now) {
			return t
		}
		return time.Time{}
	}
	v.Until, v.ThrottledUntil, v.DisabledUntil = later(b.until), later(b.throttled), later(b.disabled)
	if b.disabled.After(now) {
		v.State = breakerOpen.String()
	}
	if b.state == breakerOpen && v.Until.IsZero() && !b.held {
		v.State = breakerHalfOpen.String() // the next request is its probe
	}
	return v
}
