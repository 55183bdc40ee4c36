package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// meter is a limit per minute as a bucket that refills evenly (the generic cell rate algorithm, as levels instead of
// times). What was used beyond it is a debt that the refill pays off first. The zero meter has no limit.
type meter struct {
	perMinute float64 // 0: no limit
	level     float64
	at        time.Time
}

func (m *meter) set(perMinute int64, now time.Time) {
	switch {
	case perMinute <= 0 || float64(perMinute) == m.perMinute:
		return
	case m.perMinute == 0:
		m.level = float64(perMinute)
	}
	m.refill(now)
	m.perMinute = float64(perMinute)
	m.level = min(m.level, m.perMinute)
}

func (m *meter) refill(now time.Time) {
	if passed := now.Sub(m.at); passed > 0 && !m.at.IsZero() {
		m.level = min(m.level+m.perMinute*passed.Minutes(), m.perMinute)
	}
	m.at = now
}

// wait is how long until n is there; 0: now. More than a whole minute's worth is let through when the bucket is full.
func (m *meter) wait(n float64, now time.Time) time.Duration {
	if m.perMinute == 0 {
		return 0
	}
	m.refill(now)
	missing := min(n, m.perMinute) - m.level
	if missing <= 1e-9 {
		return 0
	}
	return max(time.Duration(missing/m.perMinute*float64(time.Minute)), time.Microsecond)
}

// take uses n, or gives it back if it is negative.
func (m *meter) take(n float64, now time.Time) {
	if m.perMinute != 0 {
		m.refill(now)
		m.level = min(m.level-n, m.perMinute)
	}
}

// atMost lowers the level to what the provider says is left.
func (m *meter) atMost(left int64, now time.Time) {
	if m.perMinute != 0 {
		m.refill(now)
		m.level = min(m.level, float64(left))
	}
}

// lane is where the calls of one credential, or of one model under it, wait for their turn.
type lane struct {
	mu                              sync.Mutex
	requests, input, output, tokens meter
	atOnce, busy                    int // calls allowed at once (0: any number), and there are
	queue                           fairQueue
	timer                           *time.Timer
}

// estimate is what a call is expected to use.
type estimate struct{ input, output int64 }

func (l *lane) wait(e estimate, now time.Time) time.Duration {
	return max(l.requests.wait(1, now), l.input.wait(float64(e.input), now), l.output.wait(float64(e.output), now),
		l.tokens.wait(float64(e.input+e.output), now))
}

func (l *lane) take(e estimate, now time.Time) {
	l.busy++
	l.requests.take(1, now)
	l.input.take(float64(e.input), now)
	l.output.take(float64(e.output), now)
	l.tokens.take(float64(e.input+e.output), now)
}

// enter waits for a place, at most for the time given. The answer is how long the caller should stay away; 0: it is in
// and must leave.
func (l *lane) enter(ctx context.Context, who string, e estimate, patience time.Duration) (time.Duration, error) {
	now := time.Now()
	l.mu.Lock()
	if l.queue.len() == 0 && (l.atOnce == 0 || l.busy < l.atOnce) && l.wait(e, now) == 0 {
		l.take(e, now)
		l.mu.Unlock()
		return 0, nil
	}
	alone := l.wait(e, now)
	if alone > patience || patience <= 0 || l.queue.len() >= queueMax {
		l.mu.Unlock()
		return max(alone, time.Second), nil
	}
	w := &waiter{who: who, need: e, in: make(chan struct{})}
	l.queue.push(w)
	l.admit(now)
	l.mu.Unlock()
	return l.await(ctx, w, patience)
}

func (l *lane) await(ctx context.Context, w *waiter, patience time.Duration) (time.Duration, error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	var err error
	select {
	case <-w.in:
		return 0, nil
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.queue.remove(w) { // let in at the same moment
		if err != nil {
			l.undo(w.need, now)
		}
		return 0, err
	}
	l.admit(now) // whoever is behind it may fit
	return max(l.wait(w.need, now), time.Second), err
}

// leave gives the place back and settles the estimate: what was not used is given back, what was used beyond it is a
// debt.
func (l *lane) leave(e estimate, used usage.Tokens) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.release(e, estimate{input: used.InputTotal() - used.CacheRead, output: used.OutputTotal()}, time.Now())
}

// cancel gives the place back of a request that was not made.
func (l *lane) cancel(e estimate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undo(e, time.Now())
}

func (l *lane) undo(e estimate, now time.Time) {
	l.requests.take(-1, now)
	l.release(e, estimate{}, now)
}

func (l *lane) release(e, used estimate, now time.Time) {
	l.busy--
	l.input.take(float64(used.input-e.input), now)
	l.output.take(float64(used.output-e.output), now)
	l.tokens.take(float64(used.input+used.output-e.input-e.output), now)
	l.admit(now)
}

// admit lets in whoever is next, as long as there is room; else it looks again when there may be.
func (l *lane) admit(now time.Time) {
	for {
		w := l.queue.peek()
		if w == nil || l.atOnce > 0 && l.busy >= l.atOnce {
			return
		}
		if wait := l.wait(w.need, now); wait > 0 {
			l.lookAgain(wait)
			return
		}
		l.queue.next()
		l.take(w.need, now)
		close(w.in)
	}
}

func (l *lane) lookAgain(wait time.Duration) {
	if l.timer != nil {
		l.timer.Reset(wait)
		return
	}
	l.timer = time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.admit(time.Now())
	})
}

// learn takes over what a provider's headers say: its limits, and what is left of them.
func (l *lane) learn(s provider.Limits) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range []struct {
		m    *meter
		told provider.Limit
	}{{&l.requests, s.Requests}, {&l.tokens, s.Tokens}, {&l.input, s.InputTokens}, {&l.output, s.OutputTokens}} {
		if x.told.Max > 0 {
			x.m.set(x.told.Max, now)
			x.m.atMost(x.told.Left, now)
		}
	}
}

// queueMax bounds who waits in one lane.
const queueMax = 10_000

// waiter waits for a place in a lane.
type waiter struct {
	who  string
	need estimate
	in   chan struct{} // closed when it is let in
}

// fairQueue is first come, first served within a run; runs take turns, so that a wide one does not starve the others.
type fairQueue struct {
	turns []string // runs in the order of their turns
	of    map[string][]*waiter
	n     int
}

func (q *fairQueue) len() int { return q.n }

func (q *fairQueue) push(w *waiter) {
	if q.of == nil {
		q.of = map[string][]*waiter{}
	}
	if len(q.of[w.who]) == 0 {
		q.turns = append(q.turns, w.who)
	}
	q.of[w.who] = append(q.of[w.who], w)
	q.n++
}

func (q *fairQueue) peek() *waiter {
	if q.n == 0 {
		return nil
	}
	return q.of[q.turns[0]][0]
}

// next takes the first waiter out; its run goes to the end of the turns.
func (q *fairQueue) next() *waiter {
	who := q.turns[0]
	line := q.of[who]
	w := line[0]
	line[0] = nil
	q.n--
	q.turns = q.turns[1:]
	if len(line) == 1 {
		delete(q.of, who)
		return w
	}
	q.of[who] = line[1:]
	q.turns = append(q.turns, who)
	return w
}

// remove takes a waiter out that gives up. Its run keeps its turn, if others of it wait.
func (q *fairQueue) remove(w *waiter) bool {
	line := q.of[w.who]
	i := slices.Index(line, w)
	if i < 0 {
		return false
	}
	q.n--
	if len(line) > 1 {
		q.of[w.who] = slices.Delete(line, i, i+1)
		return true
	}
	delete(q.of, w.who)
	q.turns = slices.DeleteFunc(q.turns, func(who string) bool { return who == w.who })
	return true
}

// lanes are the limits of the credentials, as configured, and of the models under them, as learned.
type lanes struct {
	credentials map[string]*lane // by provider, fixed
	mu          sync.RWMutex
	models      map[string]*lane // by provider/model, as far as a provider told of limits
}

func newLanes(providers []Provider, now time.Time) *lanes {
	s := &lanes{credentials: map[string]*lane{}, models: map[string]*lane{}}
	for i := range providers {
		p := &providers[i]
		l := &lane{atOnce: p.Limits.Concurrency}
		l.requests.set(p.Limits.Requests, now)
		l.input.set(p.Limits.InputTokens, now)
		l.output.set(p.Limits.OutputTokens, now)
		s.credentials[p.Name()] = l
	}
	return s
}

func (s *lanes) model(id string) *lane {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.models[id]
}

// learn remembers limits of a model, if the provider told of any. What is remembered is bounded.
func (s *lanes) learn(id string, told provider.Limits) {
	if told.Requests.Max+told.Tokens.Max+told.InputTokens.Max+told.OutputTokens.Max <= 0 {
		return
	}
	l := s.model(id)
	if l == nil {
		s.mu.Lock()
		if l = s.models[id]; l == nil && len(s.models) < breakersMax {
			l = &lane{}
			s.models[id] = l
		}
		s.mu.Unlock()
		if l == nil {
			return
		}
	}
	l.learn(told)
}

// place is a place in the lanes of a call.
type place struct {
	lanes [2]*lane
	need  estimate
}

// of are the lanes of a call: the model's before the credential's, so that who waits for one model does not keep a place
// from the others.
func (s *lanes) of(r route) [2]*lane {
	return [2]*lane{s.model(r.to.Name() + "/" + r.model), s.credentials[r.to.Name()]}
}

// enter waits for a place in both lanes of a call, no longer than patience in all. A wait that would be longer is
// answered at once.
func (s *lanes) enter(ctx context.Context, r route, who string, need estimate, patience time.Duration) (place, time.Duration, error) {
	p := place{need: need}
	began := time.Now()
	for i, l := range s.of(r) {
		if l == nil {
			continue
		}
		if wait, err := l.enter(ctx, who, need, patience-time.Since(began)); wait > 0 || err != nil {
			p.cancel()
			return place{}, wait, err
		}
		p.lanes[i] = l
	}
	return p, 0, nil
}

// counts reports whether tokens bound the calls of a route: then they must be counted first.
func (s *lanes) counts(r route) bool {
	for _, l := range s.of(r) {
		if l == nil {
			continue
		}
		l.mu.Lock()
		counted := l.input.perMinute+l.output.perMinute+l.tokens.perMinute > 0
		l.mu.Unlock()
		if counted {
			return true
		}
	}
	return false
}

// leave ends a request that was made, with what it used.
func (p place) leave(used usage.Tokens) {
	for _, l := range p.lanes {
		if l != nil {
			l.leave(p.need, used)
		}
	}
}

// cancel gives back the place of a request that was not made.
func (p place) cancel() {
	for _, l := range p.lanes {
		if l != nil {
			l.cancel(p.need)
		}
	}
}
