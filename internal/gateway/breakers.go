package gateway

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// breakers are all of them, by provider and model.
type breakers struct {
	mu   sync.RWMutex
	all  map[string]*breaker
	lots lots
}

// of finds the breaker of a model at a provider. Names come from outside, so what is remembered is bounded: the ones
// longest unused are forgotten, unless they are shut.
func (s *breakers) of(r route, now time.Time) *breaker {
	return s.named(r.to.Name(), r.model, now)
}

func (s *breakers) named(provider, model string, now time.Time) *breaker {
	id := provider + "/" + model
	s.mu.RLock()
	b := s.all[id]
	s.mu.RUnlock()
	if b != nil {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b = s.all[id]; b != nil {
		return b
	}
	if s.all == nil {
		s.all = map[string]*breaker{}
	}
	if len(s.all) >= breakersMax {
		s.forget(now)
	}
	b = &breaker{provider: provider, model: model, lastUse: now, lots: s.lots}
	s.all[id] = b
	return b
}

// forget drops a tenth.
func (s *breakers) forget(now time.Time) {
	type candidate struct {
		id   string
		shut bool
		last time.Time
	}
	list := make([]candidate, 0, len(s.all))
	for id, b := range s.all {
		c := candidate{id: id, shut: !b.shut(now).IsZero()}
		b.mu.Lock()
		c.last = b.lastUse
		b.mu.Unlock()
		list = append(list, c)
	}
	slices.SortFunc(list, func(x, y candidate) int {
		if x.shut != y.shut {
			if y.shut {
				return -1
			}
			return 1
		}
		return x.last.Compare(y.last)
	})
	for _, c := range list[:max(1, len(list)/10)] {
		delete(s.all, c.id)
	}
}

// Breakers shows every breaker of this node that has seen a call, by name.
func (g *Gateway) Breakers() []Breaker {
	now := time.Now()
	g.breakers.mu.RLock()
	list := make([]Breaker, 0, len(g.breakers.all))
	for _, b := range g.breakers.all {
		list = append(list, b.view(now))
	}
	g.breakers.mu.RUnlock()
	slices.SortFunc(list, func(a, b Breaker) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// ResetBreaker closes a breaker (provider/model), here and, through Config.OnBreaker, on the other nodes. False: no
// provider is named so.
func (g *Gateway) ResetBreaker(id string) bool {
	return g.orderBreaker(BreakerNews{ID: id, Action: BreakerReset})
}

// HoldBreaker keeps a breaker open until it is released or reset. False: no provider is named so.
func (g *Gateway) HoldBreaker(id string, hold bool, reason string) bool {
	if hold {
		return g.orderBreaker(BreakerNews{ID: id, Action: BreakerHeld, Reason: reason})
	}
	return g.orderBreaker(BreakerNews{ID: id, Action: BreakerReleased})
}

func (g *Gateway) orderBreaker(n BreakerNews) bool {
	b := g.breakerByID(n.ID)
	if b == nil {
		return false
	}
	n.At = time.Now()
	b.heard(n, n.At)
	g.tell(&n)
	return true
}

// Heard takes what other nodes found out. It is safe to be told the same twice.
func (g *Gateway) Heard(news []BreakerNews) {
	now := time.Now()
	for _, n := range news {
		if b := g.breakerByID(n.ID); b != nil {
			b.heard(n, now)
		}
	}
}

// breakerByID finds or makes the breaker of a provider that is configured here.
func (g *Gateway) breakerByID(id string) *breaker {
	for i := range g.providers {
		name := g.providers[i].Name()
		if len(id) > len(name)+1 && id[:len(name)] == name && id[len(name)] == '/' {
			return g.breakers.named(name, id[len(name)+1:], time.Now())
		}
	}
	return nil
}

// breakerState is the word for where a breaker stands.
func (g *Gateway) breakerState(id string) string {
	g.breakers.mu.RLock()
	b := g.breakers.all[id]
	g.breakers.mu.RUnlock()
	if b == nil {
		return breakerClosed.String()
	}
	return b.view(time.Now()).State
}

func (g *Gateway) tell(n *BreakerNews) {
	if n == nil {
		return
	}
	g.log.Info("breaker", "breaker", n.ID, "action", n.Action, "reason", n.Reason, "until", n.Until)
	g.metrics.BreakerChanged(n.ID, n.Action, g.breakerState(n.ID))
	if g.onBreaker != nil {
		g.onBreaker(*n)
	}
}
