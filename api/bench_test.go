package api

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
)

// idle is an engine that takes everything and does nothing: what is measured is the door alone.
type idle struct{}

func (idle) Submit(context.Context, *flow.Submission) error         { return nil }
func (idle) Tell(context.Context, uuid.UUID, store.Message) error   { return nil }
func (idle) Look()                                                  {}
func (idle) Watch(uuid.UUID) (changed <-chan struct{}, stop func()) { return nil, func() {} }
func (idle) Ready() error                                           { return nil }

func benchmark(b *testing.B, body string, headers ...string) {
	mem := newMemory()
	a, err := newAPI(Config{Engine: idle{}, Metrics: telemetry.New(prometheus.NewRegistry(), telemetry.Build{})}, allOf(mem))
	if err != nil {
		b.Fatal(err)
	}
	s := &service{API: a, mem: mem, handler: a.Handler()}
	s.send(b, "POST", "/v1/workflows", `{"definition":`+greeting+`}`).want(201)
	s.send(b, "POST", "/v1/runs", body).want(202)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		req := httptest.NewRequest("POST", "/v1/runs", bytes.NewReader([]byte(body)))
		req.Header.Set("Content-Type", mediaJSON)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, req)
		if w.Code != http.StatusAccepted {
			b.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
}

// The whole way of POST /v1/runs through the door: at 2,000 a second and one core there are 500 µs for everything, the
// engine and Postgres included.
func BenchmarkSubmitByName(b *testing.B) {
	benchmark(b, `{"workflow":"greet","input":{"topic":"tides","n":7},"labels":{"team":"a"}}`)
}

func BenchmarkSubmitInline(b *testing.B) {
	benchmark(b, `{"definition":`+greeting+`,"input":{"topic":"tides","n":7}}`)
}
