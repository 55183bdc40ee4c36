package telemetry

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits of label values. A metric whose names overflow stays true in sum: the rest is counted under labelOther.
const (
	workflowsMax = 200
	agentsMax    = 100
	modelsMax    = 150 // the roster has half as many
	providersMax = 20
	routesMax    = 150
	streamsMax   = 10
	classesMax   = 100
	tripletsMax  = 500 // provider × model × agent
	pairsMax     = 100 // model → model
	chainsMax    = 100
	targetsMax   = 200 // provider/model
)

const (
	labelOther = "other" // over a limit
	labelNone  = "none"  // there is none: a tool step has no agent
)

// overflow counts the values that found no room of their own, by the label or labels they were meant for.
type overflow struct{ total *prometheus.CounterVec }

func newOverflow(f factory) *overflow {
	return &overflow{f.counters("metric_label_overflow_total", "Values counted under the label \"other\" because their metric had no room for another name.", "metric")}
}

// names holds what the users' names may be: shared by all metrics, so that a name is known to all or to none.
type names struct {
	workflows, agents, models, providers, routes, streams, classes, chains, targets, budgets *capped
	triplets, pairs                                                                          prometheus.Counter
}

func newNames(o *overflow) *names {
	return &names{
		workflows: newCapped(workflowsMax, o.total.WithLabelValues("workflow")),
		agents:    newCapped(agentsMax, o.total.WithLabelValues("agent")),
		models:    newCapped(modelsMax, o.total.WithLabelValues("model")),
		providers: newCapped(providersMax, o.total.WithLabelValues("provider")),
		routes:    newCapped(routesMax, o.total.WithLabelValues("route")),
		streams:   newCapped(streamsMax, o.total.WithLabelValues("stream")),
		classes:   newCapped(classesMax, o.total.WithLabelValues("outcome")),
		chains:    newCapped(chainsMax, o.total.WithLabelValues("chain")),
		targets:   newCapped(targetsMax, o.total.WithLabelValues("target")),
		budgets:   newCapped(budgetsMax, o.total.WithLabelValues("budget")),
		triplets:  o.total.WithLabelValues("llm_series"),
		pairs:     o.total.WithLabelValues("llm_fallback_series"),
	}
}

// capped is a set of names that lets in the first max and calls all later ones other.
type capped struct {
	mu    sync.RWMutex
	known map[string]struct{}
	max   int
	lost  prometheus.Counter
}

func newCapped(limit int, lost prometheus.Counter) *capped {
	return &capped{known: make(map[string]struct{}, limit), max: limit, lost: lost}
}

// value is the label value of a name: the name itself, none or other.
func (c *capped) value(name string) string {
	switch name {
	case "":
		return labelNone
	case labelOther, labelNone:
		return name
	}
	c.mu.RLock()
	_, ok := c.known[name]
	c.mu.RUnlock()
	if ok || c.admit(name) {
		return name
	}
	c.lost.Inc()
	return labelOther
}

// seen is the label value of a name that may be anything: only one that is known already has its own.
func (c *capped) seen(name string) string {
	if name == "" {
		return labelNone
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if _, ok := c.known[name]; ok {
		return name
	}
	return labelOther
}

func (c *capped) admit(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[name]; ok {
		return true
	}
	if len(c.known) >= c.max {
		return false
	}
	c.known[name] = struct{}{}
	return true
}

// cache keeps the series of a label combination, so that the hot path neither hashes labels nor allocates.
type cache[K comparable, S any] struct {
	mu    sync.RWMutex
	known map[K]S
	make  func(K) S
	max   int // combinations; 0: bounded by their parts
	spill K   // stands for every combination over max
	lost  prometheus.Counter
}

func newCache[K comparable, S any](build func(K) S) *cache[K, S] {
	return &cache[K, S]{known: map[K]S{}, make: build}
}

// bounded limits the combinations; the ones over the limit share the series of spill.
func (c *cache[K, S]) bounded(limit int, spill K, lost prometheus.Counter) *cache[K, S] {
	c.max, c.spill, c.lost = limit, spill, lost
	return c
}

func (c *cache[K, S]) of(k K) S {
	c.mu.RLock()
	s, ok := c.known[k]
	c.mu.RUnlock()
	if ok {
		return s
	}
	return c.add(k)
}

func (c *cache[K, S]) add(k K) S {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.known[k]; ok {
		return s
	}
	if c.max > 0 && len(c.known) >= c.max {
		c.lost.Inc()
		k = c.spill
		if s, ok := c.known[k]; ok {
			return s
		}
	}
	s := c.make(k)
	c.known[k] = s
	return s
}
