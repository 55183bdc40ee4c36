package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const run = "run_0195f0a6b1c87d3e9a4f0c2b7d6e5f41"

func newClient(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := New(Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(w http.ResponseWriter, status int, body any) {
	media := "application/json"
	if status >= 400 {
		media = "application/problem+json"
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func TestProblemsAreErrors(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 422, Problem{Status: 422, Code: "workflow_invalid", Detail: "1 problem", Errors: []Issue{
			{Pointer: "/steps/3/agent", Line: 19, Col: 12, Code: "unknown_agent", Detail: `unknown agent "reviwer"`, Suggest: "reviewer"},
		}})
	})
	_, err := c.Validate(t.Context(), []byte("x"))
	var p *Problem
	if !errors.As(err, &p) || p.Code != "workflow_invalid" {
		t.Fatalf("got %v", err)
	}
	want := "workflow_invalid: 1 problem\n  19:12 /steps/3/agent unknown agent \"reviwer\" (did you mean reviewer?)"
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
}

func TestAnswerOfSomebodyElse(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>no upstream</html>")
	})
	_, err := c.Run(t.Context(), run)
	var p *Problem
	if !errors.As(err, &p) || p.Code != "not_fermata" || p.Status != 502 {
		t.Fatalf("got %v", err)
	}
}

func TestURLIsChecked(t *testing.T) {
	for _, bad := range []string{"", "localhost:8080", "ftp://x", "http://[::1"} {
		if _, err := New(Config{URL: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// With a key, a submission whose connection broke is sent again; without one it is not.
func TestSubmitAgainWithKey(t *testing.T) {
	var calls atomic.Int32
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		if r.Header.Get("Idempotency-Key") != "k1" || r.Header.Get("Prefer") != "wait=2" {
			t.Errorf("got %v", r.Header)
		}
		answer(w, 202, RunAccepted{ID: run, Status: RunStatusQueued})
	})
	accepted, ended, err := c.Submit(t.Context(), RunRequest{Workflow: "greet"}, SubmitOptions{Key: "k1", Wait: 1500 * time.Millisecond})
	if err != nil || accepted.ID != run || ended != nil {
		t.Fatalf("got %+v %+v %v", accepted, ended, err)
	}
	calls.Store(0)
	if _, _, err := c.Submit(t.Context(), RunRequest{Workflow: "greet"}, SubmitOptions{}); err == nil || calls.Load() != 1 {
		t.Fatalf("%d calls, %v", calls.Load(), err)
	}
}

func TestOnlyWhatIsSetIsSent(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" || r.Header.Get("If-None-Match") != "" {
			t.Errorf("got %s %v", r.URL, r.Header)
		}
		answer(w, 200, RunPage{Data: []RunSummary{}})
	})
	if _, err := c.Runs(t.Context(), ListRunsParams{}); err != nil {
		t.Fatal(err)
	}
}

func send(w http.ResponseWriter, seq int) {
	fmt.Fprintf(w, "id: %d\nevent: step_started\ndata: {\"seq\":%d,\"kind\":\"step_started\",\"run_id\":%q}\n\n", seq, seq, run)
}

// A stream that breaks is taken up after the last event seen; what comes twice is yielded once.
func TestWatchReconnects(t *testing.T) {
	var sittings atomic.Int32
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		n := sittings.Add(1)
		if r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("accepts %q", r.Header.Get("Accept"))
		}
		after := r.URL.Query().Get("after")
		w.Header().Set("Content-Type", "text/event-stream")
		switch n {
		case 1:
			if after != "0" {
				t.Errorf("begins after %s", after)
			}
			send(w, 1)
			send(w, 2)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case 2:
			answer(w, 503, Problem{Status: 503, Code: "draining", Retryable: true})
		case 3:
			if after != "2" {
				t.Errorf("goes on after %s", after)
			}
			send(w, 2)
			send(w, 3) // and the stream ends without saying so
		default:
			if after != "3" {
				t.Errorf("goes on after %s", after)
			}
			send(w, 4)
			fmt.Fprint(w, ": still here\n\nevent: end\ndata: {\"status\":\"succeeded\"}\n\n")
		}
	})
	paused := 0
	c.retrying = func(error, time.Duration) { paused++ }
	var got []int32
	for e, err := range c.Watch(t.Context(), run, 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Seq)
	}
	if d := cmp.Diff([]int32{1, 2, 3, 4}, got); d != "" || sittings.Load() != 4 || paused < 2 {
		t.Errorf("%d sittings, %d pauses: %s", sittings.Load(), paused, d)
	}
}

func TestWatchGivesUp(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 404, Problem{Status: 404, Code: "run_not_found", Detail: "there is no such run"})
	})
	var errs []string
	for _, err := range c.Watch(t.Context(), run, 0) {
		errs = append(errs, err.Error())
	}
	if d := cmp.Diff([]string{"run_not_found: there is no such run"}, errs); d != "" {
		t.Error(d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.Watch(ctx, run, 0) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWatchMayBeLeft(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		send(w, 1)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	for range c.Watch(t.Context(), run, 0) {
		break
	}
}

func TestPublishReplaces(t *testing.T) {
	var seen []string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("If-Match"))
		switch {
		case r.Method == "PUT":
			answer(w, 200, Workflow{Name: "greet", Version: 2})
		case strings.HasSuffix(r.URL.Path, ":validate"):
			answer(w, 200, Validation{Valid: true, Name: "greet"})
		case r.Method == "POST":
			answer(w, 409, Problem{Status: 409, Code: "workflow_exists"})
		default:
			w.Header().Set("ETag", `"1-ab"`)
			answer(w, 200, Workflow{Name: "greet", Version: 1})
		}
	})
	w, err := c.Publish(t.Context(), []byte("name: greet"))
	if err != nil || w.Version != 2 {
		t.Fatalf("got %+v %v", w, err)
	}
	want := []string{"POST /v1/workflows ", "POST /v1/workflows:validate ", "GET /v1/workflows/greet ", `PUT /v1/workflows/greet "1-ab"`}
	if d := cmp.Diff(want, seen); d != "" {
		t.Error(d)
	}
}
