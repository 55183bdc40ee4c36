package telemetry

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/internal/usage"
)

// budgetsMax bounds the budgets that are exported.
const budgetsMax = 200

// breakerStates are the states of a breaker: of each, one series is 1 and the others are 0.
func breakerStates() []string { return []string{"closed", "open", "half_open"} }

// gatewayMetrics are about what stands between an agent and its models: breakers, limits, budgets.
type gatewayMetrics struct {
	names *names

	asked    *cache[[2]string, prometheus.Counter] // chain, outcome
	overhead prometheus.Histogram
	queued   *cache[string, prometheus.Observer] // provider
	refused  *cache[string, prometheus.Counter]  // provider
	moved    *cache[[2]string, prometheus.Counter]
	state    *cache[[2]string, prometheus.Gauge]

	limit, spent, reserved *cache[string, prometheus.Gauge] // budget
	denials                *cache[[2]string, prometheus.Counter]
	noted                  *cache[string, prometheus.Counter]
	ledgerLag              prometheus.Gauge
}

func newGatewayMetrics(f factory, n *names) gatewayMetrics {
	asked := f.counters("llm_calls_total", "Logical model calls: each may take several requests over the entries of its chain.", "chain", "outcome")
	queued := f.histograms("llm_queue_wait_seconds", "Time a request waited for the rate limits of its provider.", bucketsDelay(), "provider")
	refused := f.counters("llm_retries_refused_total", "Retries not made because the provider's retry budget was used up.", "provider")
	moved := f.counters("breaker_transitions_total", "What happened to breakers: opened, disabled, throttled, reset, held, released.", "target", "action")
	state := f.gauges("breaker_state", "Where a breaker stands: 1 for its state, 0 for the others.", "target", "state")
	limit := f.gauges("budget_limit_usd", "Limit of an exported budget.", "budget")
	spent := f.gauges("budget_spent_usd", "Spent of an exported budget, in the window that runs.", "budget")
	reserved := f.gauges("budget_reserved_usd", "Set aside of an exported budget for calls in flight.", "budget")
	denials := f.counters("budget_denials_total", "Calls that a budget refused, and what became of them.", "scope", "action")
	noted := f.counters("budget_notes_total", "What happened to budgets: soft, a soft threshold was passed; underestimate, a call cost more than was set aside for it; lost, a node died before its call was settled; recovered, and its cost stood in the log.", "note")
	one := func(v *prometheus.GaugeVec) *cache[string, prometheus.Gauge] {
		return newCache(func(k string) prometheus.Gauge { return v.WithLabelValues(k) })
	}
	m := gatewayMetrics{
		names:    n,
		asked:    newCache(func(k [2]string) prometheus.Counter { return asked.WithLabelValues(k[:]...) }),
		overhead: f.histogram("llm_overhead_seconds", "Time of a logical call that was not spent waiting for providers.", bucketsOverhead()),
		queued:   newCache(func(k string) prometheus.Observer { return queued.WithLabelValues(k) }),
		refused:  newCache(func(k string) prometheus.Counter { return refused.WithLabelValues(k) }),
		moved:    newCache(func(k [2]string) prometheus.Counter { return moved.WithLabelValues(k[:]...) }),
		state:    newCache(func(k [2]string) prometheus.Gauge { return state.WithLabelValues(k[:]...) }),
		limit:    one(limit), spent: one(spent), reserved: one(reserved),
		denials:   newCache(func(k [2]string) prometheus.Counter { return denials.WithLabelValues(k[:]...) }),
		noted:     newCache(func(k string) prometheus.Counter { return noted.WithLabelValues(k) }),
		ledgerLag: f.gauge("ledger_lag_seconds", "Age of the oldest settled call that is not yet durable."),
	}
	for _, note := range []string{"soft", "underestimate", "lost", "recovered"} {
		m.noted.of(note)
	}
	return m
}

func bucketsOverhead() []float64 {
	return []float64{.00005, .0001, .0002, .0005, .001, .002, .005, .01, .025, .05, .1, .5, 1, 5, 30}
}

// ModelAsked counts a logical call and what it took besides waiting for providers. A bare model has no chain: "".
func (m *Metrics) ModelAsked(chain string, overhead time.Duration, answered bool) {
	if m == nil {
		return
	}
	outcome := attemptOK
	if !answered {
		outcome = "failed"
	}
	m.gateway.asked.of([2]string{m.gateway.names.chains.value(chain), outcome}).Inc()
	m.gateway.overhead.Observe(overhead.Seconds())
}

// ModelQueued observes how long a request waited for rate limits.
func (m *Metrics) ModelQueued(provider string, waited time.Duration) {
	if m == nil {
		return
	}
	m.gateway.queued.of(m.gateway.names.providers.value(provider)).Observe(waited.Seconds())
}

// RetryRefused counts a retry that the retry budget did not allow.
func (m *Metrics) RetryRefused(provider string) {
	if m == nil {
		return
	}
	m.gateway.refused.of(m.gateway.names.providers.value(provider)).Inc()
}

// BreakerChanged counts what happened to a breaker (provider/model), and notes where it stands now: closed, open or
// half_open.
func (m *Metrics) BreakerChanged(target, action, state string) {
	if m == nil {
		return
	}
	provider, model, _ := strings.Cut(target, "/")
	target = m.gateway.names.targets.value(m.gateway.names.providers.value(provider) + "/" + m.gateway.names.models.seen(model))
	if action != "" {
		m.gateway.moved.of([2]string{target, m.gateway.names.classes.value(action)}).Inc()
	}
	for _, s := range breakerStates() {
		v := 0.0
		if s == state {
			v = 1
		}
		m.gateway.state.of([2]string{target, s}).Set(v)
	}
}

// BudgetDenied counts a call that a budget refused. Scope is the kind of what it limits, action what became of the call:
// reject, clamp, downgrade or pause.
func (m *Metrics) BudgetDenied(scope, action string) {
	if m == nil {
		return
	}
	m.gateway.denials.of([2]string{m.gateway.names.classes.value(scope), m.gateway.names.classes.value(action)}).Inc()
}

// BudgetNoted counts what happened to budgets: soft (a soft threshold was passed), underestimate (a call cost more than was
// set aside), lost (a node died before its call was settled), recovered (and what it cost stood in its run's log).
func (m *Metrics) BudgetNoted(note string, n int) {
	if m == nil || n <= 0 {
		return
	}
	m.gateway.noted.of(m.gateway.names.classes.value(note)).Add(float64(n))
}

// BudgetLevel is how full a budget is that is exported.
type BudgetLevel struct {
	Name                   string
	Limit, Spent, Reserved usage.Money
}

// BudgetLevels sets where the exported budgets stand, and how long the oldest settled call waits to be written.
func (m *Metrics) BudgetLevels(levels []BudgetLevel, lag time.Duration) {
	if m == nil {
		return
	}
	usd := func(v usage.Money) float64 { return float64(v) / float64(usage.USD) }
	for _, l := range levels {
		name := m.gateway.names.budgets.value(l.Name)
		m.gateway.limit.of(name).Set(usd(l.Limit))
		m.gateway.spent.of(name).Set(usd(l.Spent))
		m.gateway.reserved.of(name).Set(usd(l.Reserved))
	}
	m.gateway.ledgerLag.Set(lag.Seconds())
}
