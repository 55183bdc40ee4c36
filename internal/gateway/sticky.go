package gateway

import (
	"sync"
	"time"
)

// How long a provider is taken to have a conversation's prompt in its cache, and how many conversations are remembered.
const (
	warmFor = 5 * time.Minute
	warmMax = 10_000
)

// warmth remembers where conversations were answered last: there their prompts are cached.
type warmth struct {
	mu sync.Mutex
	at map[string]warmPlace
}

type warmPlace struct {
	breaker string // provider/model
	until   time.Time
}

func (w *warmth) answered(session, breaker string, now time.Time) {
	if session == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[string]warmPlace{}
	}
	if len(w.at) >= warmMax {
		for s, p := range w.at {
			if !p.until.After(now) {
				delete(w.at, s)
			}
		}
		if len(w.at) >= warmMax {
			clear(w.at) // a cache of hints: to forget them all costs a little money, never an answer
		}
	}
	w.at[session] = warmPlace{breaker, now.Add(warmFor)}
}

func (w *warmth) is(session, breaker string, now time.Time) bool {
	if session == "" {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.at[session]
	return ok && p.breaker == breaker && p.until.After(now)
}

// stand says how a provider does with a model, from its breaker and its latest answers.
func (g *Gateway) stand(r route, session string) standing {
	s := standing{state: breakerClosed.String()}
	if r.to == nil {
		return s
	}
	id, now := r.to.Name()+"/"+r.model, time.Now()
	s.warm = g.warm.is(session, id, now)
	g.breakers.mu.RLock()
	b := g.breakers.all[id]
	g.breakers.mu.RUnlock()
	if b == nil {
		return s
	}
	if until := b.shut(now); !until.IsZero() {
		s.state, s.until = breakerOpen.String(), until
	}
	v := b.view(now)
	if s.state == breakerClosed.String() {
		s.state = v.State
	}
	s.reason = v.Reason
	b.mu.Lock()
	s.first = b.pace.quantile(0.5)
	b.mu.Unlock()
	return s
}
