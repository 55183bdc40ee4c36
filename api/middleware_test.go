package api

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow/schema"
)

func TestRequestID(t *testing.T) {
	s := newService(t, nil)
	if got := s.send(t, "GET", "/livez", nil, "Request-Id: mine-1.2_3").header.Get("Request-Id"); got != "mine-1.2_3" {
		t.Errorf("a sane id became %q", got)
	}
	for _, bad := range []string{"a b", "ü", strings.Repeat("x", 129), "<script>"} {
		if got := s.send(t, "GET", "/livez", nil, "Request-Id: "+bad).header.Get("Request-Id"); got == bad || !strings.HasPrefix(got, "req_") {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestAllowIsTold(t *testing.T) {
	s := newService(t, nil)
	for path, want := range map[string]string{"/v1/runs": "GET, POST, HEAD", "/v1/runs/" + noRun + "/cancel": "POST", "/livez": "GET, HEAD"} {
		if got := s.send(t, "PATCH", path, nil).want(405).header.Get("Allow"); got != want {
			t.Errorf("%s allows %q, want %q", path, got, want)
		}
	}
}

func TestHead(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "HEAD", "/v1/runs", nil).want(200)
	s.send(t, "HEAD", "/v1/runs/"+noRun, nil).want(404)
	s.send(t, "HEAD", "/v1/runs:none", nil).want(404)
}

// A service that listens on this machine only answers no pages of strangers, whatever name they gave it. (C13, B80)
func TestHostIsCheckedOnLoopback(t *testing.T) {
	local := newService(t, func(c *Config) { c.Listen, c.Hosts = "127.0.0.1:8080", []string{"Fermata.Test"} })
	for _, host := range []string{"localhost:8080", "127.0.0.1:8080", "[::1]:8080", "127.0.0.9", "x.localhost", "fermata.test:1"} {
		local.send(t, "GET", "/v1/runs", nil, "Host: "+host).want(200)
	}
	for _, host := range []string{"evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1:8080", "localhost.evil.example"} {
		local.send(t, "GET", "/v1/runs", nil, "Host: "+host).wantProblem(403, "foreign_host")
	}
	for origin, want := range map[string]int{"http://localhost:3000": 200, "https://evil.example": 403, "null": 403, "http://127.0.0.1.evil.example": 403} {
		local.send(t, "GET", "/v1/runs", nil, "Host: localhost", "Origin: "+origin).want(want)
	}
	open := newService(t, func(c *Config) { c.Listen = "0.0.0.0:8080" })
	open.send(t, "GET", "/v1/runs", nil, "Host: fermata.example").want(200)
}

func TestNoCORS(t *testing.T) {
	s := newService(t, nil)
	a := s.send(t, "OPTIONS", "/v1/runs", nil, "Origin: https://a.example", "Access-Control-Request-Method: POST").want(405)
	for name := range a.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("%s is set", name)
		}
	}
}

func TestPanicIsAProblem(t *testing.T) {
	s := newService(t, nil)
	s.handler = s.outermost(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("sk-canary") }))
	a := s.send(t, "GET", "/v1/runs", nil)
	if a.wantProblem(500, "internal"); strings.Contains(string(a.body), "canary") {
		t.Errorf("the panic shows: %s", a.body)
	}
	if log := s.log.String(); !strings.Contains(log, "request_panicked") || !strings.Contains(log, "middleware_test.go") {
		t.Errorf("no stack in the log: %s", log)
	}
	s.handler = s.outermost(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("half"))
		panic("late")
	}))
	defer func() {
		if got := recover(); got != http.ErrAbortHandler { //nolint:errorlint // panics are compared as they are
			t.Errorf("half an answer passed for a whole one: %v", got)
		}
	}()
	s.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// Of an error without a kind nothing is shown; the log has it.
func TestInternalErrorsAreHidden(t *testing.T) {
	s := newService(t, nil)
	s.mem.down = errors.New("pq: password=sk-canary")
	a := s.send(t, "GET", "/v1/runs", nil)
	if p := a.wantProblem(500, "internal"); strings.Contains(string(a.body), "canary") || p.Retryable {
		t.Errorf("got %s", a.body)
	}
	if !strings.Contains(s.log.String(), "canary") {
		t.Error("the log does not have it")
	}
}

// Postgres away: 503 with Retry-After everywhere, not ready, alive. (B43)
func TestUnavailable(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "GET", "/readyz", nil).want(200)
	s.mem.down = fault.New(fault.KindUnavailable, "database_unavailable", "the database does not answer")
	s.mem.submitErr = s.mem.down
	s.send(t, "GET", "/v1/runs", nil).wantProblem(503, "database_unavailable")
	s.send(t, "GET", "/v1/runs/"+noRun, nil).wantProblem(503, "database_unavailable")
	s.send(t, "GET", "/v1/runs/"+noRun+"/events", nil, "Accept: text/event-stream").wantProblem(503, "database_unavailable")
	s.send(t, "POST", "/v1/runs", `{"definition":`+greeting+`}`).wantProblem(503, "database_unavailable")
	s.send(t, "POST", "/v1/workflows", `{"definition":`+greeting+`}`).wantProblem(503, "database_unavailable")
	p := s.send(t, "GET", "/readyz", nil).wantProblem(503, "not_ready")
	if len(p.Errors) != 2 || !strings.HasPrefix(p.Errors[0].Detail, "database:") {
		t.Errorf("got %+v", p.Errors)
	}
	s.send(t, "GET", "/livez", nil).want(200)
}

func TestReadiness(t *testing.T) {
	s := newService(t, nil)
	if got := string(s.send(t, "GET", "/readyz?verbose", nil).want(200).body); !strings.Contains(got, "[+]database ok\n[+]schema ok\n[+]engine ok\n") {
		t.Errorf("got %q", got)
	}
	if got := string(s.send(t, "GET", "/readyz?verbose=false", nil).want(200).body); got != "ok\n" {
		t.Errorf("got %q", got)
	}
	s.mem.schema = 0
	s.send(t, "GET", "/readyz", nil).wantProblem(503, "not_ready")
	s.mem.schema = 7 // a newer node migrated
	s.send(t, "GET", "/readyz", nil).want(200)
	s.mem.ready = fault.New(fault.KindUnavailable, "draining", "this node is shutting down")
	s.send(t, "GET", "/readyz", nil).wantProblem(503, "not_ready")
	s.mem.ready = nil
	s.Drain()
	s.Drain() // twice does no harm
	s.send(t, "GET", "/readyz", nil).wantProblem(503, "not_ready")
}

func TestOperations(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "GET", "/v1/runs/"+noRun, nil).want(404)
	s.send(t, "GET", "/none", nil).want(404)
	metrics := string(s.send(t, "GET", "/metrics", nil).want(200).body)
	for _, line := range []string{
		`fermata_http_requests_total{code="404",method="GET",route="/v1/runs/{id}"} 1`,
		`fermata_http_requests_total{code="404",method="GET",route="unmatched"} 1`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("no %s", line)
		}
	}
	for path, want := range map[string][]byte{"/openapi.yaml": specSource, "/schemas/workflow-v1.json": schema.JSON()} {
		got := s.send(t, "GET", path, nil).want(200)
		if !bytes.Equal(got.body, want) {
			t.Errorf("%s differs", path)
		}
		s.send(t, "GET", path, nil, "If-None-Match: "+got.header.Get("ETag")).want(304)
	}
	var index map[string]any
	if s.send(t, "GET", "/", nil).want(200).json(&index); index["name"] != "fermata" || index["version"] != "test" {
		t.Errorf("got %v", index)
	}
	for _, path := range []string{"/livez", "/healthz"} {
		s.send(t, "GET", path, nil).want(200)
	}
}

// One line per request with the route, not the path; none for probes that are well.
func TestLog(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "GET", "/livez", nil)
	s.send(t, "GET", "/metrics", nil)
	if s.log.Len() > 0 {
		t.Errorf("probes are logged: %s", s.log.String())
	}
	s.send(t, "GET", "/v1/runs/"+noRun, nil, "Request-Id: r1")
	log := s.log.String()
	for _, part := range []string{`"msg":"http_request"`, `"route":"/v1/runs/{id}"`, `"code":404`, `"request_id":"r1"`} {
		if strings.Count(log, part) != 1 {
			t.Errorf("%s is there %d times: %s", part, strings.Count(log, part), log)
		}
	}
}
