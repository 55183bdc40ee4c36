package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/internal/telemetry"
)

// fataler is a test, a benchmark or a property.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// service is an API under test.
type service struct {
	*API
	mem     *memory
	handler http.Handler
	log     bytes.Buffer
}

func newService(t testing.TB, change func(*Config)) *service {
	t.Helper()
	s := &service{mem: newMemory()}
	cfg := Config{
		Engine: s.mem, Metrics: telemetry.New(prometheus.NewRegistry(), telemetry.Build{Version: "test"}), Version: "test",
		Log: slog.New(slog.NewJSONHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	a, err := newAPI(cfg, allOf(s.mem))
	if err != nil {
		t.Fatal(err)
	}
	a.poll = 20 * time.Millisecond
	s.API, s.handler = a, a.Handler()
	return s
}

// answered is an answer that has been checked against the spec.
type answered struct {
	t      fataler
	status int
	header http.Header
	body   []byte
}

func (a *answered) json(into any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		a.t.Fatalf("read %s: %v", a.body, err)
	}
}

func (a *answered) problem() Problem {
	a.t.Helper()
	var p Problem
	a.json(&p)
	return p
}

func (a *answered) want(status int) *answered {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("got %d %s, want %d", a.status, a.body, status)
	}
	return a
}

// wantProblem checks status and code.
func (a *answered) wantProblem(status int, code string) Problem {
	a.t.Helper()
	a.want(status)
	p := a.problem()
	if p.Code != code {
		a.t.Fatalf("got %s, want %s: %s", p.Code, code, a.body)
	}
	return p
}

// send sends a request; the body may be a string, or anything to be encoded. Headers are "Name: value".
func (s *service) send(t fataler, method, path string, body any, headers ...string) *answered {
	t.Helper()
	var raw []byte
	media := ""
	switch b := body.(type) {
	case nil:
	case string:
		raw, media = []byte(b), mediaJSON
	case []byte:
		raw, media = b, mediaJSON
	default:
		var err error
		if raw, err = json.Marshal(b); err != nil {
			t.Fatalf("encode request: %v", err)
		}
		media = mediaJSON
	}
	req := httptest.NewRequest(method, path, bytes.NewReader(raw))
	if raw == nil {
		req.Body = http.NoBody
	}
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, req)
	return s.checked(t, req, w)
}

// checked holds an answer against the spec. Every answer ≥ 400 must be a problem document, everywhere.
func (s *service) checked(t fataler, req *http.Request, w *httptest.ResponseRecorder) *answered {
	t.Helper()
	a := &answered{t: t, status: w.Code, header: w.Header(), body: w.Body.Bytes()}
	id := a.header.Get("Request-Id")
	if id == "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("%s %s: the safe headers are missing: %v", req.Method, req.URL, a.header)
	}
	switch {
	case a.status < http.StatusBadRequest:
	case speaksOpenAI(req.URL.Path):
		checkOpenAIError(t, req, a)
	default:
		checkProblem(t, req, a)
	}
	rctx := chi.NewRouteContext()
	path := req.URL.EscapedPath()
	if req.Method == http.MethodHead || !s.router.Match(rctx, req.Method, path) {
		return a
	}
	item := s.doc.Paths.Value(rctx.RoutePattern())
	if item == nil {
		t.Fatalf("route %s is not in the spec", rctx.RoutePattern())
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: req, Route: &routers.Route{Spec: s.doc, PathItem: item, Method: req.Method, Operation: item.GetOperation(req.Method)},
		},
		Status: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), input); err != nil {
		t.Fatalf("%s %s answered %d %s, which is not what the spec says: %.600v", req.Method, req.URL, a.status, a.body, err)
	}
	return a
}

func checkProblem(t fataler, req *http.Request, a *answered) {
	t.Helper()
	if media := a.header.Get("Content-Type"); media != "application/problem+json" {
		t.Fatalf("%s %s answered %d as %q: %s", req.Method, req.URL, a.status, media, a.body)
	}
	p := a.problem()
	bad := ""
	switch {
	case p.Status != a.status:
		bad = "the status differs"
	case p.Code == "" || p.Detail == "" || p.Title == "" || p.Type != problemTypeBase+p.Code:
		bad = "something is missing"
	case p.RequestID != a.header.Get("Request-Id"):
		bad = "the request id differs"
	case p.Retryable != (a.header.Get("Retry-After") != ""):
		bad = "retryable and Retry-After disagree"
	case (a.status == 429 || a.status == 503) && !p.Retryable:
		bad = "it must be retryable"
	}
	if bad != "" {
		t.Fatalf("%s %s: %s: %v %s", req.Method, req.URL, bad, a.header, a.body)
	}
}

// Definitions to test with. Of sets alone, a run ends at once; a tool's attempt is open until it is reported on.
const (
	greeting = `{"spec":"workflow/v1","name":"greet","steps":[{"id":"hello","set":{"text":"hello"}}]}`
	oneTool  = `{"spec":"workflow/v1","name":"one_tool","steps":[{"id":"work","tool":"builtin:noop","retry":"none"},{"id":"after","needs":["work"],"set":{"x":1}}]}`
)

func (s *service) submit(t fataler, definition string, headers ...string) RunAccepted {
	t.Helper()
	var run RunAccepted
	s.send(t, "POST", "/v1/runs", fmt.Sprintf(`{"definition":%s}`, definition), headers...).want(http.StatusAccepted).json(&run)
	return run
}
