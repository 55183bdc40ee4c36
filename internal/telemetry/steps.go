package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// attemptOK is the outcome of an attempt, or of a model call, that was answered.
const attemptOK = "ok"

// stepKinds are the kinds of step in definitions.
var stepKinds = [...]string{
	"agent", "tool", "map", "loop", "group", "switch", "merge", "plan", "workflow", "approval", "wait", "emit", "set",
}

type stepMetrics struct {
	names    *names
	finished *cache[[2]string, prometheus.Counter] // kind, outcome
	took     *cache[string, prometheus.Observer]
	attempts *cache[[2]string, prometheus.Counter] // agent, outcome
	gates    *cache[[2]string, prometheus.Counter] // workflow, result
	queued   prometheus.Histogram
	busy     prometheus.Gauge
}

func newStepMetrics(f factory, n *names) stepMetrics {
	finished := f.counters("steps_finished_total", "Steps that settled, by kind and outcome.", "kind", "outcome")
	took := f.histograms("step_duration_seconds", "Time from the first attempt of a step to its end.", bucketsRun(), "kind")
	attempts := f.counters("step_attempts_total", "Attempts that ended: ok or the class of the error.", "agent", "outcome")
	gates := f.counters("quality_gates_total", "Outputs that came to a gate: pass or fail, after all revisions.", "workflow", "result")
	m := stepMetrics{
		names:    n,
		gates:    newCache(func(k [2]string) prometheus.Counter { return gates.WithLabelValues(k[0], k[1]) }),
		finished: newCache(func(k [2]string) prometheus.Counter { return finished.WithLabelValues(k[0], k[1]) }),
		took:     newCache(func(kind string) prometheus.Observer { return took.WithLabelValues(kind) }),
		attempts: newCache(func(k [2]string) prometheus.Counter { return attempts.WithLabelValues(k[0], k[1]) }),
		queued:   f.histogram("step_queue_delay_seconds", "Time a started attempt waited for a worker.", bucketsDelay()),
		busy:     f.gauge("workers_busy", "Step attempts at work on this node."),
	}
	for _, kind := range stepKinds {
		m.took.of(kind)
		for _, outcome := range []string{"succeeded", "failed", "skipped", "cancelled"} {
			m.finished.of([2]string{kind, outcome})
		}
	}
	return m
}

// StepFinished counts a settled step: succeeded, failed, skipped or cancelled.
func (m *Metrics) StepFinished(kind, outcome string, took time.Duration) {
	if m == nil {
		return
	}
	kind = m.steps.names.classes.value(kind)
	m.steps.finished.of([2]string{kind, m.steps.names.classes.value(outcome)}).Inc()
	m.steps.took.of(kind).Observe(took.Seconds())
}

// AttemptFinished counts the end of an attempt: ok, or the class of its error. A tool step has no agent: "".
func (m *Metrics) AttemptFinished(agent, outcome string) {
	if m == nil {
		return
	}
	k := [2]string{m.steps.names.agents.value(agent), m.steps.names.classes.value(outcome)}
	m.steps.attempts.of(k).Inc()
}

// StepQueued observes how long a started attempt waited for a worker.
func (m *Metrics) StepQueued(delay time.Duration) {
	if m == nil {
		return
	}
	m.steps.queued.Observe(delay.Seconds())
}

// WorkersBusy sets how many attempts are at work on this node.
func (m *Metrics) WorkersBusy(n int) {
	if m == nil {
		return
	}
	m.steps.busy.Set(float64(n))
}

// GateReached counts an output that passed its gate, or did not after all revisions.
func (m *Metrics) GateReached(workflow string, passed bool) {
	if m == nil {
		return
	}
	result := "fail"
	if passed {
		result = "pass"
	}
	m.steps.gates.of([2]string{m.steps.names.workflows.value(workflow), result}).Inc()
}
