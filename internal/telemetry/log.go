package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// logMetrics are about writing the log of events, and about the leases that guard it.
type logMetrics struct {
	append          prometheus.Histogram
	changes, events prometheus.Histogram
	stale, expired  prometheus.Counter
	leases          prometheus.Gauge
	retried         *prometheus.CounterVec
}

func newLogMetrics(f factory) logMetrics {
	m := logMetrics{
		append:  f.histogram("event_append_duration_seconds", "Time to commit a batch of events: one statement, durable when it ends.", bucketsAppend()),
		changes: f.histogram("event_append_batch_runs", "Runs changed by one batch.", bucketsBatch()),
		events:  f.histogram("event_append_batch_events", "Events appended by one batch.", bucketsBatch()),
		stale:   f.counter("stale_writes_rejected_total", "Writes refused because their lease had been lost."),
		expired: f.counter("lease_expirations_total", "Leases of other nodes found expired and closed."),
		leases:  f.gauge("leases_held", "Leases this node holds."),
		retried: f.counters("db_tx_retries_total", "Transactions begun again, by reason.", "reason"),
	}
	touch(m.retried, "transient", "unknown")
	return m
}

// Committed observes one batch: how long it took, how many runs it changed, how many events it appended.
func (m *Metrics) Committed(took time.Duration, changes, events int) {
	if m == nil {
		return
	}
	m.log.append.Observe(took.Seconds())
	m.log.changes.Observe(float64(changes))
	m.log.events.Observe(float64(events))
}

// StaleWrites counts writes that the fence refused.
func (m *Metrics) StaleWrites(n int) {
	if m == nil || n <= 0 {
		return
	}
	m.log.stale.Add(float64(n))
}

// LeaseExpired counts leases of other nodes that this one found expired and closed.
func (m *Metrics) LeaseExpired(n int) {
	if m == nil || n <= 0 {
		return
	}
	m.log.expired.Add(float64(n))
}

// Leases sets how many leases this node holds.
func (m *Metrics) Leases(n int) {
	if m == nil {
		return
	}
	m.log.leases.Set(float64(n))
}

// TxRetried counts a transaction begun again. The reasons are a short fixed list of the store's.
func (m *Metrics) TxRetried(reason string) {
	if m == nil {
		return
	}
	m.log.retried.WithLabelValues(m.steps.names.classes.value(reason)).Inc()
}
