package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/upstream"
)

// modelService is a service whose models are played by two servers: alpha misbehaves, beta does not.
type modelService struct {
	*service
	alpha, beta *upstream.Server
}

func startModelService(t *testing.T, extra string) modelService {
	t.Helper()
	m := modelService{alpha: &upstream.Server{}, beta: &upstream.Server{}}
	servers := map[string]*upstream.Server{"alpha": m.alpha, "beta": m.beta}
	config := "providers:\n"
	for name, s := range servers {
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		config += fmt.Sprintf("  - {name: %s, kind: openai, base_url: %s/v1, api_key_env: E2E_KEY}\n", name, server.URL)
		if name == "alpha" {
			config += fmt.Sprintf("  - {name: claude, kind: anthropic, base_url: %s, api_key_env: E2E_KEY}\n", server.URL)
		}
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config+extra), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("E2E_KEY", secretKey)
	s, err := startService(filepath.Join(filepath.Dir(dataDir), "models-"+strings.ReplaceAll(t.Name(), "/", "-")), "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(syscall.SIGTERM) })
	m.service = s
	return m
}

// secretKey must not be found in anything the service says.
const secretKey = "sk-e2e-do-not-tell-0123456789"

// post sends JSON and reads the answer.
func (s *service) post(t *testing.T, path string, body any, header ...string) (int, http.Header, []byte) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, got
}

// endedRun is what the API says of a run, as far as these tests read it.
type endedRun struct {
	ID     string
	Status string
	Output any
	Error  *struct{ Class, Message string }
	Cost   struct{ Nano int64 }
}

// askedCall is one request in the record of a step.
type askedCall struct {
	Provider, Model, Outcome string
	Depth, Try               int
	Tokens                   struct{ Input, Output int64 }
	Estimated                bool
}

// runChain runs one agent over a chain to the end.
func (m modelService) runChain(t *testing.T, chain []map[string]any) (endedRun, []askedCall) {
	t.Helper()
	status, _, body := m.post(t, "/v1/runs", map[string]any{
		"definition": map[string]any{
			"spec": "workflow/v1", "name": "failover", "chains": map[string]any{"tested": chain},
			"agents": map[string]any{"writer": map[string]any{"chain": "tested"}},
			"steps":  []any{map[string]any{"id": "write", "agent": "writer", "prompt": "Say something.", "retry": "none", "timeout": "40s"}},
		},
		"input": map[string]any{},
	}, "Prefer", "wait=60")
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	run := decode[endedRun](t, string(body))
	_, page := m.get(t, "/v1/runs/"+run.ID+"/steps/write")
	return run, decode[struct{ Calls []askedCall }](t, page).Calls
}

func outcomes(calls []askedCall) string {
	words := make([]string, len(calls))
	for i, c := range calls {
		words[i] = c.Provider + ":" + c.Outcome
	}
	return strings.Join(words, " ")
}

// The sixteen scenarios of the public benchmarks of failover: what a user of the chain must see, and what the servers
// were asked.
func TestFailover(t *testing.T) {
	m := startModelService(t, "")
	problem := func(kind, message string) string {
		return fmt.Sprintf(`{"error":{"message":%q,"type":%q,"code":%q}}`, message, kind, kind)
	}
	limited := func(wait string) upstream.Step {
		return upstream.Step{Status: 429, Header: map[string]string{"Retry-After": wait}, Body: problem("rate_limit_exceeded", "slow down")}
	}
	for _, c := range []struct {
		name  string
		steps []upstream.Step
		entry map[string]any // of alpha, besides its model
		want  string         // requests and their outcomes, in order
		fails string         // class of the run's error; empty: it succeeds
		check func(t *testing.T, calls []askedCall, seen []upstream.Call)
	}{
		{
			name: "S01 429 with Retry-After", steps: []upstream.Step{limited("1"), {}}, entry: map[string]any{"retries": 1},
			want: "alpha:rate_limited alpha:ok",
			check: func(t *testing.T, _ []askedCall, seen []upstream.Call) {
				if gap := seen[1].At.Sub(seen[0].At); gap < time.Second {
					t.Errorf("asked again after %s, before the second that was asked for", gap)
				}
			},
		},
		{name: "S02 429 for a long time", steps: []upstream.Step{limited("120")}, entry: map[string]any{"retries": 2}, want: "alpha:rate_limited beta:ok"},
		{name: "S03 500 once", steps: []upstream.Step{{Status: 500, Body: "boom"}, {}}, entry: map[string]any{"retries": 1}, want: "alpha:server alpha:ok"},
		{
			name: "S04 503 for ever", steps: []upstream.Step{{Status: 503, Body: problem("overloaded", "too busy")}}, entry: map[string]any{"retries": 1},
			want: "alpha:overloaded alpha:overloaded beta:ok",
		},
		{name: "S05 reset before headers", steps: []upstream.Step{{Reset: true}}, entry: map[string]any{"retries": 1}, want: "alpha:network alpha:network beta:ok"},
		{name: "S06 silence", steps: []upstream.Step{{Silent: true}}, entry: map[string]any{"retries": 2, "timeout": "500ms"}, want: "alpha:timeout beta:ok"},
		{
			name: "S07 slow first token", steps: []upstream.Step{{First: 20 * time.Second}}, entry: map[string]any{"retries": 2, "ttft": "400ms"},
			want: "alpha:timeout beta:ok",
			check: func(t *testing.T, _ []askedCall, seen []upstream.Call) {
				if !seen[0].Abandoned {
					t.Error("the slow call was not cut")
				}
			},
		},
		{name: "S08 stream cut", steps: []upstream.Step{{Cut: true}}, entry: map[string]any{"retries": 2}, want: "alpha:stream_interrupted beta:ok"},
		{name: "S09 stall", steps: []upstream.Step{{Stall: true}}, entry: map[string]any{"retries": 2, "idle": "400ms"}, want: "alpha:stream_interrupted beta:ok"},
		{name: "S10 malformed chunk", steps: []upstream.Step{{Garble: true}}, entry: map[string]any{"retries": 2}, want: "alpha:stream_interrupted beta:ok"},
		{name: "S11 no [DONE]", steps: []upstream.Step{{NoDone: true}}, want: "alpha:ok"},
		{
			name: "S12 context length", steps: []upstream.Step{{Status: 400, Body: problem("context_length_exceeded", "maximum context length is 8192 tokens")}},
			entry: map[string]any{"retries": 2}, want: "alpha:context_length beta:ok",
		},
		{
			name: "S13 content filter", steps: []upstream.Step{{Finish: "content_filter"}}, entry: map[string]any{"retries": 2},
			want: "alpha:content_policy", fails: "content_policy",
		},
		{
			name: "S14 prefill rejected", steps: []upstream.Step{{Status: 400, Body: problem("invalid_request_error", "assistant message prefill is not supported by this model")}},
			entry: map[string]any{"retries": 2}, want: "alpha:capability_mismatch beta:ok",
		},
		{
			name: "S15 flapping", entry: map[string]any{"retries": 1},
			steps: []upstream.Step{{Status: 502, Body: "<html>bad gateway</html>"}, {}, {Status: 500}, {}},
			want:  "alpha:server alpha:ok",
		},
		{
			name: "S16 accounting", steps: []upstream.Step{{Cut: true}}, want: "alpha:stream_interrupted beta:ok",
			check: func(t *testing.T, calls []askedCall, _ []upstream.Call) {
				if c := calls[0]; !c.Estimated || c.Tokens.Input == 0 || c.Tokens.Output == 0 {
					t.Errorf("what was made before the cut is not counted, or not marked as counted here: %+v", c)
				}
				if c := calls[1]; c.Estimated || c.Tokens.Input != upstream.InputTokens || c.Tokens.Output != upstream.OutputTokens {
					t.Errorf("what was reported is not what is recorded: %+v", c)
				}
			},
		},
		{name: "529 once", steps: []upstream.Step{{Status: 529, Body: `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`}, {}}, entry: map[string]any{"retries": 1, "model": "claude"}, want: "claude:overloaded claude:ok"},
		{name: "overloaded inside a stream", steps: []upstream.Step{{ErrorEvent: "overloaded_error"}, {}}, entry: map[string]any{"retries": 1, "model": "claude"}, want: "claude:overloaded claude:ok"},
		{name: "overloaded after tokens", steps: []upstream.Step{{ErrorEvent: "overloaded_error", Cut: true}}, entry: map[string]any{"model": "claude"}, want: "claude:overloaded beta:ok"},
		{name: "out of money", steps: []upstream.Step{{Status: 429, Body: problem("insufficient_quota", "You exceeded your current quota, please check your plan and billing details")}}, entry: map[string]any{"retries": 2}, want: "alpha:quota_exhausted beta:ok"},
		{name: "wrong key", steps: []upstream.Step{{Status: 401, Body: problem("invalid_api_key", "Incorrect API key provided: "+secretKey)}}, entry: map[string]any{"retries": 2}, want: "alpha:auth beta:ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// A model of its own: what happens here must not open the breaker of another scenario.
			model := strings.NewReplacer(" ", "-", "[", "", "]", "").Replace(strings.ToLower(c.name))
			m.alpha.Script(model, c.steps...)
			first := map[string]any{"model": "alpha/" + model}
			for key, value := range c.entry {
				if key == "model" {
					value = fmt.Sprintf("%s/%s", value, model)
				}
				first[key] = value
			}
			run, calls := m.runChain(t, []map[string]any{first, {"model": "beta/" + model}})
			if got := outcomes(calls); got != c.want {
				t.Errorf("asked %s\n want %s", got, c.want)
			}
			switch {
			case c.fails == "" && run.Status != "succeeded":
				t.Errorf("%s: %+v", run.Status, run.Error)
			case c.fails != "" && (run.Error == nil || run.Error.Class != c.fails):
				t.Errorf("%s %+v, want %s", run.Status, run.Error, c.fails)
			}
			if n := strings.Count(c.want, "beta"); m.beta.Count(model) != n {
				t.Errorf("beta was asked %d times", m.beta.Count(model))
			}
			if c.check != nil {
				c.check(t, calls, m.alpha.Calls(model))
			}
		})
	}
	t.Cleanup(func() { // after the parallel scenarios
		if said := m.talk.String(); strings.Contains(said, secretKey) {
			t.Errorf("the key is in the log:\n%s", said)
		}
	})
}
