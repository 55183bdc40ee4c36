package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel/propagation"
)

const (
	headerRequestID  = "Request-Id"
	requestIDMax     = 128
	unmatchedRoute   = "unmatched"
	stackBytesMax    = 16 << 10
	streamKindOfRuns = "run"
)

// answer watches what is written, for the log and the metrics.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

func (a *answer) began() bool { return a.status != 0 }

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// outermost gives every request its exchange, its id and its safe headers; it catches panics, and logs and counts the
// answer once.
func (a *API) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &answer{ResponseWriter: w}
		x := &exchange{requestID: requestID(r), w: seen}
		secure(w.Header(), x.requestID)
		// A caller's trace goes on with the model calls that are made for it.
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		r = r.WithContext(context.WithValue(ctx, exchangeKey{}, x))
		a.metrics.HTTPInFlight(1)
		defer a.metrics.HTTPInFlight(-1)
		defer func() { a.note(seen, r, x, time.Since(start)) }()
		defer func() {
			if cause := recover(); cause != nil {
				a.caught(seen, r, cause)
			}
		}()
		if err := a.checkHost(r); err != nil {
			a.fail(seen, r, err)
			return
		}
		next.ServeHTTP(seen, r)
	})
}

// secure sets what holds for every answer. There is no CORS: other origins get nothing.
func secure(h http.Header, id string) {
	h[headerRequestID] = []string{id}
	h["X-Request-Id"] = []string{id} // the one that OpenAI's clients look for
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Content-Security-Policy"] = []string{"default-src 'none'; frame-ancestors 'none'"}
	h["Referrer-Policy"] = []string{"no-referrer"}
	h["Cross-Origin-Resource-Policy"] = []string{"same-origin"}
	h["Cache-Control"] = []string{"no-store"}
}

// requestID keeps a sane id that came along, and makes one otherwise.
func requestID(r *http.Request) string {
	if id := r.Header.Get(headerRequestID); id != "" && len(id) <= requestIDMax && strings.IndexFunc(id, strange) < 0 {
		return id
	}
	return fmt.Sprintf("req_%016x", rand.Uint64())
}

func strange(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c))
}

// caught answers for a handler that panicked. Where the answer had begun, the connection is cut: half an answer must
// not pass for a whole one.
func (a *API) caught(seen *answer, r *http.Request, cause any) {
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	stack := debug.Stack()
	a.log.ErrorContext(r.Context(), "request_panicked", "method", r.Method, "path", r.URL.Path,
		"request_id", exchangeOf(r.Context()).requestID, "panic", fmt.Sprint(cause), "stack", string(stack[:min(len(stack), stackBytesMax)]))
	if seen.status != 0 {
		panic(http.ErrAbortHandler)
	}
	exchangeOf(r.Context()).w = seen // not what a handler put in between
	a.fail(seen, r, fmt.Errorf("panic: %v", cause))
}

// note writes the one line of the log and counts the answer.
func (a *API) note(seen *answer, r *http.Request, x *exchange, took time.Duration) {
	route := unmatchedRoute
	if x.op != nil {
		route = x.op.path
	}
	timed := took
	if x.stream {
		timed = -1
	}
	a.metrics.HTTPRequest(r.Method, route, seen.status, timed)
	if x.op != nil && x.op.policy == scopePublic && seen.status < http.StatusBadRequest {
		return // probes and scrapes
	}
	a.log.LogAttrs(r.Context(), slog.LevelInfo, "http_request", slog.String("method", r.Method), slog.String("route", route),
		slog.Int("code", seen.status), slog.Float64("ms", float64(took.Microseconds())/1000), slog.Int64("bytes", seen.bytes),
		slog.String("request_id", x.requestID))
}

// checkHost keeps web pages of strangers away from a service that listens on this machine only: by DNS rebinding a
// page may come to speak with it under a name of its own.
func (a *API) checkHost(r *http.Request) error {
	if !a.loopback {
		return nil
	}
	if !a.isOurs(r.Host) {
		return refuse(http.StatusForbidden, "foreign_host", "this service listens on this machine only, and answers to localhost, 127.0.0.1 and [::1] alone")
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !a.isOurs(u.Host) {
			return refuse(http.StatusForbidden, "foreign_origin", "pages of other origins may not use this service")
		}
	}
	return nil
}

func (a *API) isOurs(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	return isLoopback(host) || slices.Contains(a.hosts, host)
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// notFound and notAllowed answer for what the router does not know.
func (a *API) notFound(w http.ResponseWriter, r *http.Request) {
	if speaksOpenAI(r.URL.Path) {
		a.fail(w, r, refuse(http.StatusNotFound, "route_not_found", "of OpenAI's API there are POST /v1/chat/completions, GET /v1/models and GET /v1/models/{model} here"))
		return
	}
	a.fail(w, r, refuse(http.StatusNotFound, "route_not_found", "there is nothing here; the operations are listed in /openapi.yaml"))
}

func (a *API) notAllowed(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath // what the router goes by
	}
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if a.router.Match(chi.NewRouteContext(), method, path) {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		a.notFound(w, r)
		return
	}
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	list := strings.Join(allowed, ", ")
	a.fail(w, r, refuse(http.StatusMethodNotAllowed, "method_not_allowed", "here it is %s", list).with("Allow", list))
}
