package telemetry

import "github.com/prometheus/client_golang/prometheus"

// incidentMetrics are about steps that are not attempted for now, because attempts like them failed alike.
type incidentMetrics struct {
	names  *names
	open   prometheus.Gauge
	opened *cache[string, prometheus.Counter] // class
}

func newIncidentMetrics(f factory, n *names) incidentMetrics {
	opened := f.counters("incidents_total", "Incidents this node opened, by the class of the failures.", "class")
	return incidentMetrics{
		names:  n,
		open:   f.gauge("incidents_open", "Incidents that are open, by what this node has heard."),
		opened: newCache(func(class string) prometheus.Counter { return opened.WithLabelValues(class) }),
	}
}

// IncidentOpened counts an incident that this node opened.
func (m *Metrics) IncidentOpened(class string) {
	if m == nil {
		return
	}
	m.incident.opened.of(m.incident.names.classes.value(class)).Inc()
}

// IncidentsOpen sets how many incidents are open.
func (m *Metrics) IncidentsOpen(n int) {
	if m == nil {
		return
	}
	m.incident.open.Set(float64(n))
}
