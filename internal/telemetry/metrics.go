// Package telemetry is what Prometheus sees of the service. Every metric is named fermata_…, counts in base units
// (seconds, dollars) and has no label whose values could grow without end: names that users choose are capped, the
// rest goes to "other" and is counted. Every method of Metrics does nothing on a nil *Metrics, and the ones on the hot
// path do not allocate.
package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// namespace stands before every name.
const namespace = "fermata"

// Metrics holds every metric of the service. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	overflow *overflow
	runs     runMetrics
	steps    stepMetrics
	incident incidentMetrics
	log      logMetrics
	models   modelMetrics
	gateway  gatewayMetrics
	http     httpMetrics
}

// Build says which program this is.
type Build struct {
	Version   string // released version, or "dev"
	Revision  string // of the source
	GoVersion string
}

// New makes the metrics and registers them, at 0 wherever the label values are known beforehand. It panics if they are
// registered already.
func New(reg *prometheus.Registry, build Build) *Metrics {
	m := &Metrics{registry: reg}
	f := factory{reg: reg}
	m.overflow = newOverflow(f)
	names := newNames(m.overflow)
	m.runs = newRunMetrics(f, names)
	m.steps = newStepMetrics(f, names)
	m.incident = newIncidentMetrics(f, names)
	m.log = newLogMetrics(f)
	m.models = newModelMetrics(f, names)
	m.gateway = newGatewayMetrics(f, names)
	m.http = newHTTPMetrics(f, names)
	f.gauges("build_info", "Which build this is; the value is always 1.", "version", "revision", "goversion").
		WithLabelValues(build.Version, build.Revision, build.GoVersion).Set(1)
	return m
}

// Handler serves the registry: text, OpenMetrics or protobuf (native histograms), as the scraper asks.
func (m *Metrics) Handler() http.Handler {
	if m == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// factory makes metrics that are registered at once.
type factory struct{ reg prometheus.Registerer }

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	f.reg.MustRegister(c)
	return c
}

func (f factory) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	f.reg.MustRegister(c)
	return c
}

func (f factory) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	f.reg.MustRegister(g)
	return g
}

func (f factory) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	f.reg.MustRegister(g)
	return g
}

func (f factory) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(histogramOpts(name, help, buckets))
	f.reg.MustRegister(h)
	return h
}

func (f factory) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(histogramOpts(name, help, buckets), labels)
	f.reg.MustRegister(h)
	return h
}

// semantic makes a histogram under a name that is not ours: no namespace stands before it.
func (f factory) semantic(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	opts := histogramOpts(name, help, buckets)
	opts.Namespace = ""
	h := prometheus.NewHistogramVec(opts, labels)
	f.reg.MustRegister(h)
	return h
}

// histogramOpts asks for classic buckets and a native histogram both: who scrapes decides which one is kept.
func histogramOpts(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// The bucket sets. A function each: prometheus keeps what it is given.
func bucketsHTTP() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

func bucketsRun() []float64 {
	return []float64{1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400}
}

func bucketsDelay() []float64 {
	return []float64{.005, .01, .05, .1, .5, 1, 2, 5, 10, 30, 60, 300}
}

func bucketsModel() []float64 {
	return []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68}
}

func bucketsTokens() []float64 {
	return []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304}
}

func bucketsAppend() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5}
}

func bucketsBatch() []float64 {
	return []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096}
}
