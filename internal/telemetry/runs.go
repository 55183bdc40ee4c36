package telemetry

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// runStates are the states the gauge of runs knows: live ones only. Finished runs are counted as they finish.
var runStates = [...]string{"queued", "running", "waiting", "cancelling", "quarantined"}

// runOutcomes are the ways a run ends.
var runOutcomes = [...]string{"succeeded", "failed", "cancelled", "timed_out", "budget_exceeded"}

type runMetrics struct {
	names      *names
	accepted   *cache[[2]string, prometheus.Counter] // workflow, source
	byWorkflow *cache[string, runSeries]
	startDelay prometheus.Histogram
	states     *prometheus.GaugeVec
	owned      prometheus.Gauge
	recovered  *prometheus.CounterVec
	action     *prometheus.CounterVec
	degraded   *cache[string, prometheus.Counter] // workflow
	approvals  prometheus.Gauge
	oldest     prometheus.Gauge
}

// runSeries are the series of one workflow.
type runSeries struct {
	finished [len(runOutcomes)]prometheus.Counter
	other    prometheus.Counter
	took     prometheus.Observer
}

func newRunMetrics(f factory, n *names) runMetrics {
	accepted := f.counters("runs_accepted_total", "Runs accepted: durable and acknowledged.", "workflow", "source")
	finished := f.counters("runs_finished_total", "Runs that ended, by outcome.", "workflow", "outcome")
	took := f.histograms("run_duration_seconds", "Time from acceptance to the end of a run.", bucketsRun(), "workflow")
	degraded := f.counters("runs_degraded_total", "Steps that runs took down their ladder.", "workflow")
	m := runMetrics{
		names:      n,
		degraded:   newCache(func(workflow string) prometheus.Counter { return degraded.WithLabelValues(workflow) }),
		approvals:  f.gauge("approvals_open", "Approvals that wait for a person, as of the last sample; no more than 10,000 are counted."),
		oldest:     f.gauge("oldest_approval_timestamp_seconds", "When the oldest open approval was asked for; NaN: there is none."),
		accepted:   newCache(func(k [2]string) prometheus.Counter { return accepted.WithLabelValues(k[0], k[1]) }),
		startDelay: f.histogram("run_start_delay_seconds", "Time from acceptance of a run to its first attempt.", bucketsDelay()),
		states:     f.gauges("runs", "Runs that have not ended, by state, as of the last sample.", "state"),
		owned:      f.gauge("runs_owned", "Runs this node holds in memory."),
		recovered:  f.counters("runs_recovered_total", "Runs taken over from a node that stopped.", "reason"),
		action:     f.counters("run_interventions_total", "Actions of people and clients on runs.", "action"),
	}
	m.byWorkflow = newCache(func(workflow string) runSeries {
		s := runSeries{other: finished.WithLabelValues(workflow, labelOther), took: took.WithLabelValues(workflow)}
		for i, o := range runOutcomes {
			s.finished[i] = finished.WithLabelValues(workflow, o)
		}
		return s
	})
	touch(m.states, runStates[:]...)
	touch(m.recovered, "lease_expired", "startup", "drain")
	touch(m.action, "resume", "cancel")
	return m
}

// touch makes series appear at 0: the first increment of an unknown series cannot be seen in a rate.
func touch[V interface{ WithLabelValues(...string) M }, M any](vec V, values ...string) {
	for _, v := range values {
		vec.WithLabelValues(v)
	}
}

// RunAccepted counts a run that was durably accepted; source says through which door: api, …
func (m *Metrics) RunAccepted(workflow, source string) {
	if m == nil {
		return
	}
	w := m.runs.names.workflows.value(workflow)
	m.runs.byWorkflow.of(w)
	m.runs.accepted.of([2]string{w, m.runs.names.classes.value(source)}).Inc()
}

// RunStarted observes the time from acceptance to the first attempt.
func (m *Metrics) RunStarted(delay time.Duration) {
	if m == nil {
		return
	}
	m.runs.startDelay.Observe(delay.Seconds())
}

// RunFinished counts the end of a run: succeeded, failed, cancelled, timed_out or budget_exceeded.
func (m *Metrics) RunFinished(workflow, outcome string, took time.Duration) {
	if m == nil {
		return
	}
	s := m.runs.byWorkflow.of(m.runs.names.workflows.value(workflow))
	s.took.Observe(took.Seconds())
	for i, o := range runOutcomes {
		if o == outcome {
			s.finished[i].Inc()
			return
		}
	}
	s.other.Inc()
}

// RunsRecovered counts runs taken over: lease_expired, startup or drain.
func (m *Metrics) RunsRecovered(reason string, n int) {
	if m == nil || n <= 0 {
		return
	}
	m.runs.recovered.WithLabelValues(m.runs.names.classes.value(reason)).Add(float64(n))
}

// Intervention counts an action on a run: resume, cancel, …
func (m *Metrics) Intervention(action string) {
	if m == nil {
		return
	}
	m.runs.action.WithLabelValues(m.runs.names.classes.value(action)).Inc()
}

// RunsByState sets the gauge of live runs. A live state that is absent from counts is set to 0; states that are not
// live are left out.
func (m *Metrics) RunsByState(counts map[string]int) {
	if m == nil {
		return
	}
	for _, state := range runStates {
		m.runs.states.WithLabelValues(state).Set(float64(counts[state]))
	}
}

// RunsOwned sets how many runs this node holds in memory.
func (m *Metrics) RunsOwned(n int) {
	if m == nil {
		return
	}
	m.runs.owned.Set(float64(n))
}

// RunDegraded counts a step down a run's ladder.
func (m *Metrics) RunDegraded(workflow string) {
	if m == nil {
		return
	}
	m.runs.degraded.of(m.runs.names.workflows.value(workflow)).Inc()
}

// ApprovalsOpen sets how many approvals wait for a person, and since when the first of them does.
func (m *Metrics) ApprovalsOpen(n int, oldest time.Time) {
	if m == nil {
		return
	}
	m.runs.approvals.Set(float64(n))
	since := math.NaN() // 0 would be an approval of 1970, and page somebody
	if !oldest.IsZero() {
		since = float64(oldest.UnixMilli()) / 1e3
	}
	m.runs.oldest.Set(since)
}
