package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// methods are the ones that get a label value of their own; anybody may invent others.
var methods = [...]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// request is what requests are told apart by. The route is the router's pattern, never the path.
type request struct {
	method, route string
	code          int
}

type httpMetrics struct {
	names       *names
	requests    *cache[request, prometheus.Counter]
	took        *cache[[2]string, prometheus.Observer]
	inFlight    prometheus.Gauge
	streams     *cache[string, prometheus.Gauge]
	idempotency *prometheus.CounterVec
}

func newHTTPMetrics(f factory, n *names) httpMetrics {
	requests := f.counters("http_requests_total", "HTTP requests answered; the route is the pattern, or unmatched.", "method", "route", "code")
	took := f.histograms("http_request_duration_seconds", "Time to answer an HTTP request; streams are not in it.", bucketsHTTP(), "method", "route")
	streams := f.gauges("http_streams_open", "Streams of events being sent.", "kind")
	m := httpMetrics{
		names: n,
		requests: newCache(func(k request) prometheus.Counter {
			return requests.WithLabelValues(k.method, k.route, strconv.Itoa(k.code))
		}),
		took:        newCache(func(k [2]string) prometheus.Observer { return took.WithLabelValues(k[:]...) }),
		inFlight:    f.gauge("http_requests_in_flight", "HTTP requests being answered."),
		streams:     newCache(func(kind string) prometheus.Gauge { return streams.WithLabelValues(kind) }),
		idempotency: f.counters("idempotency_results_total", "Requests with an Idempotency-Key, by what the key was found to be.", "result"),
	}
	m.streams.of(n.streams.value("run"))
	touch(m.idempotency, "new", "replay", "conflict", "mismatch")
	return m
}

// HTTPRequest counts an answered request. The route is the router's pattern, or "unmatched". A negative took counts
// the request without timing it: for streams, whose length says nothing.
func (m *Metrics) HTTPRequest(method, route string, code int, took time.Duration) {
	if m == nil {
		return
	}
	method, route = methodLabel(method), m.http.names.routes.value(route)
	if code < 100 || code > 599 {
		code = 500
	}
	m.http.requests.of(request{method, route, code}).Inc()
	if took >= 0 {
		m.http.took.of([2]string{method, route}).Observe(took.Seconds())
	}
}

func methodLabel(method string) string {
	for _, known := range methods {
		if method == known {
			return known
		}
	}
	return labelOther
}

// HTTPInFlight moves the number of requests being answered.
func (m *Metrics) HTTPInFlight(delta int) {
	if m == nil {
		return
	}
	m.http.inFlight.Add(float64(delta))
}

// StreamsOpen moves the number of open event streams of a kind: run, …
func (m *Metrics) StreamsOpen(kind string, delta int) {
	if m == nil {
		return
	}
	m.http.streams.of(m.http.names.streams.value(kind)).Add(float64(delta))
}

// Idempotency counts what an Idempotency-Key was found to be: new, replay, conflict or mismatch.
func (m *Metrics) Idempotency(result string) {
	if m == nil {
		return
	}
	m.http.idempotency.WithLabelValues(m.http.names.classes.value(result)).Inc()
}
