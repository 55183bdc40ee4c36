package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// topical greets by its input; what it is greeted with shows where the message went.
const topical = `{"spec":"workflow/v1","name":"topical","input":{"type":"object","required":["topic"],"properties":{"topic":{"type":"string"},"n":{"type":"integer","default":7}}},` +
	`"steps":[{"id":"hello","set":{"text":"${{ 'hello ' + input.topic }}"}}],"output":"${{ steps.hello.output.text }}"}`

func (s *service) publish(t fataler, definitions ...string) {
	t.Helper()
	for _, d := range definitions {
		s.send(t, "POST", "/v1/workflows", `{"definition":`+d+`}`).want(http.StatusCreated)
	}
}

// onlyRun is the one run there is, once everybody waits for it.
func (s *service) onlyRun(t testing.TB) RunID {
	t.Helper()
	synctest.Wait()
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	for id := range s.mem.runs {
		return formatRunID(id)
	}
	t.Fatal("there is no run")
	return ""
}

// A workflow is run, and its output is the answer.
func TestChatWithWorkflow(t *testing.T) {
	s, m := newChat(t, nil)
	s.publish(t, topical, greeting)
	a := s.chatting(t, chatBody("workflow/topical@1", `,"user":"u1","metadata":{"team":"a"}`)).want(200)
	want := `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"workflow/topical@1","choices":[{"index":0,"message":{"role":"assistant","content":"hello hello","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},` +
		`"fermata":{"run":"run_1","depth":0,"degraded":false,"simulated":false,"cost_usd":"0.00","baseline_usd":"0.00"}}` + "\n"
	if d := cmp.Diff(want, steady(a.body)); d != "" {
		t.Error(d)
	}
	var run Run
	s.send(t, "GET", "/v1/runs/"+a.header.Get("Fermata-Run"), nil).want(200).json(&run)
	if run.Workflow != "topical" || run.Version != 1 || run.Mode != "interactive" || run.Labels["user"] != "u1" || run.Labels["team"] != "a" || m.times() != 0 {
		t.Errorf("ran %+v", run)
	}
	var got chatCompletion
	if s.chatting(t, chatBody("workflow/greet", "")).want(200).json(&got); *got.Choices[0].Message.Content != `{"text":"hello"}` {
		t.Errorf("an output that is no text is compact JSON, not %q", *got.Choices[0].Message.Content)
	}
}

// Where a chat goes in the input of a run.
func TestInputOfChat(t *testing.T) {
	schema := func(properties, required string) string {
		return fmt.Sprintf(`{"type":"object","properties":{%s},"required":[%s]}`, properties, required)
	}
	const text, number = `{"type":"string"}`, `{"type":"number"}`
	for name, c := range map[string]struct{ schema, said, metadata, want string }{
		"messages":              {schema(`"messages":{"type":"array"},"topic":`+text, `"topic"`), "hi", "", `{"messages":[{"role":"system","content":"be"},{"role":"user","content":"hi"}]}`},
		"the only text":         {schema(`"topic":`+text+`,"n":`+number, `"topic","n"`), `say "hi"`, "", `{"topic":"say \"hi\""}`},
		"an object":             {schema(`"a":`+text+`,"b":`+text, `"a","b"`), ` {"a":"x","b":"y"}`, "", ` {"a":"x","b":"y"}`},
		"nothing is required":   {schema(`"a":`+text, ``), `{"a":"x"}`, "", `{"a":"x"}`},
		"no place":              {schema(`"a":`+text+`,"b":`+text, `"b","a"`), "hi", "", ""},
		"no object":             {schema(`"n":`+number, `"n"`), "7", "", ""},
		"null is no object":     {schema(`"n":`+number, `"n"`), "null", "", ""},
		"no schema":             {"", "hi", "", `{"messages":[{"role":"system","content":"be"},{"role":"user","content":"hi"}]}`},
		"no schema, an object":  {"", `{"a":1}`, "", `{"a":1}`},
		"given":                 {schema(`"topic":`+text, `"topic"`), "hi", `{"topic":"tides"}`, `{"topic":"tides"}`},
		"given in a string":     {schema(`"topic":`+text, `"topic"`), "hi", `"{\"topic\":\"tides\"}"`, `{"topic":"tides"}`},
		"given, and not JSON":   {"", "hi", `"tides"`, ""},
		"given, and any value":  {"", "hi", `[1]`, `[1]`},
		"given as null: absent": {"", `{"a":1}`, `null`, `{"a":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			body := map[string]any{"messages": []map[string]string{{"role": "system", "content": "be"}, {"role": "user", "content": c.said}}}
			if c.metadata != "" {
				body["metadata"] = map[string]any{"input": json.RawMessage(c.metadata)}
			}
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			raw = []byte(strings.ReplaceAll(string(raw), `{"content":"be","role":"system"},{"content":"hi","role":"user"}`, `{"role":"system","content":"be"},{"role":"user","content":"hi"}`))
			req, err := readChat(raw)
			if err != nil {
				t.Fatal(err)
			}
			var shape *workflow.Schema
			if c.schema != "" {
				w, err := workflow.Compile([]byte(`{"spec":"workflow/v1","name":"t","input":` + c.schema + `,"steps":[{"id":"a","set":{"x":1}}]}`))
				if err != nil {
					t.Fatal(err)
				}
				shape = w.Input
			}
			got, err := req.input(shape)
			if string(got) != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
			if f := fault.Of(err); err != nil && (f == nil || f.Kind != fault.KindMalformed) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An input that breaks the schema is the caller's fault, and leaves no run behind.
func TestChatInputIsChecked(t *testing.T) {
	s, _ := newChat(t, nil)
	s.publish(t, topical)
	e := openAIErrorIn(t, s.chatting(t, chatBody("workflow/topical", `,"metadata":{"input":{"topic":7}}`)).want(422))
	if *e.Code != "input_invalid" || e.Param == nil || *e.Param != "input.topic" {
		t.Errorf("got %+v", e)
	}
	if len(s.mem.runs) != 0 {
		t.Error("there is a run")
	}
}

// A stream of a workflow: the role at once with the run's name, its steps for who wants them, the output, the end.
func TestChatStreamOfWorkflow(t *testing.T) {
	const account = `,"fermata":{"run":"run_1","depth":0,"degraded":false,"simulated":false,"cost_usd":"0.00","baseline_usd":"0.00"}`
	step := func(seq int, event, name string) string {
		return fmt.Sprintf(`"choices":[],"fermata":{"run":"run_1","seq":%d,"event":%q,"step":%q}`, seq, event, name)
	}
	s, _ := newChat(t, nil)
	s.publish(t, topical)
	got, header := s.streaming(t, chatBody("workflow/topical", `,"stream":true`), "Fermata-Progress: steps")
	want := transcript("workflow/topical", chunk(role), step(2, "step_succeeded", "hello"), chunk(`"content":"hello hello"`), last("stop", account), "[DONE]")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !strings.HasPrefix(header.Get("Fermata-Run"), "run_") || s.streams.Load() != 0 {
		t.Errorf("got %v, %d streams", header, s.streams.Load())
	}
	got, _ = s.streaming(t, chatBody("workflow/topical", `,"stream":true`))
	if want := transcript("workflow/topical", chunk(role), chunk(`"content":"hello hello"`), last("stop", account), "[DONE]"); want != got {
		t.Error(cmp.Diff(want, got))
	}
}

// A run that fails is told with its step, and no client repeats it by itself.
func TestChatRunFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newChat(t, nil)
		s.publish(t, oneTool)
		done := make(chan *answered, 1)
		go func() { done <- s.chatting(t, chatBody("workflow/one_tool", "")) }()
		s.mem.report(t, s.onlyRun(t), "work", failed("server"))
		a := (<-done).want(502)
		if a.header.Get("X-Should-Retry") != "false" || a.header.Get("Fermata-Run") == "" {
			t.Errorf("got %v", a.header)
		}
		if e := openAIErrorIn(t, a); !strings.Contains(e.Message, " has failed at step work: ") || *e.Code != "run_failed" || e.Fermata.Class != "server" {
			t.Errorf("got %+v", e)
		}
	})
}

func TestChatStreamOfRunFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newChat(t, nil)
		s.publish(t, oneTool)
		done := make(chan string, 1)
		go func() {
			got, _ := s.streaming(t, chatBody("workflow/one_tool", `,"stream":true`))
			done <- got
		}()
		s.mem.report(t, s.onlyRun(t), "work", failed("server"))
		if got := <-done; !strings.Contains(got, `"error":{"message":"the run run_1 has failed at step work: `) || strings.Contains(got, "[DONE]") {
			t.Errorf("got %s", got)
		}
	})
}

// A budget that is used up is told as such, whoever met it.
func TestChatRunOutOfBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newChat(t, nil)
		s.publish(t, oneTool)
		done := make(chan *answered, 1)
		go func() { done <- s.chatting(t, chatBody("workflow/one_tool", "")) }()
		s.mem.report(t, s.onlyRun(t), "work", failed("budget_exceeded"))
		if e := openAIErrorIn(t, (<-done).want(403)); *e.Code != "budget_exhausted" || e.Type != "insufficient_quota" {
			t.Errorf("got %+v", e)
		}
	})
}

// The wait for a run is over some day; heartbeats keep the line open until then.
func TestChatRunTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newChat(t, nil)
		s.poll = time.Minute
		s.publish(t, oneTool)
		a := s.chatting(t, chatBody("workflow/one_tool", "")).want(504)
		if e := openAIErrorIn(t, a); !strings.Contains(e.Message, "it goes on: see /v1/runs/"+a.header.Get("Fermata-Run")) {
			t.Errorf("got %+v", e)
		}
		done := make(chan string, 1)
		go func() {
			got, _ := s.streaming(t, chatBody("workflow/one_tool", `,"stream":true`), "Idempotency-Key: k")
			done <- got
		}()
		time.Sleep(3*heartbeatEvery + time.Second)
		s.mem.mu.Lock()
		runs := slices.Collect(maps.Keys(s.mem.runs))
		s.mem.mu.Unlock()
		for _, id := range runs {
			s.mem.report(t, formatRunID(id), "work", flow.Outcome{Output: json.RawMessage(`{}`)})
		}
		if got := <-done; strings.Count(got, ": still here\n\n") != 3 || !strings.HasSuffix(got, "[DONE]\n\n") {
			t.Errorf("got %s", got)
		}
	})
}

// The caller's leaving does not stop a run; with the key the request had, a repetition follows the same one.
func TestChatRunOutlivesItsCaller(t *testing.T) {
	s, _ := newChat(t, nil)
	s.publish(t, oneTool)
	server := s.serve(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/v1/chat/completions", strings.NewReader(chatBody("workflow/one_tool", `,"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaJSON)
	req.Header.Set("Idempotency-Key", "k")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	run := resp.Header.Get("Fermata-Run") // the stream begins before the run has ended
	leave()
	resp.Body.Close()

	done := make(chan string, 1)
	go func() {
		got, header := s.streaming(t, chatBody("workflow/one_tool", `,"stream":true`), "Idempotency-Key: k")
		if header.Get("Fermata-Run") != run || header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("got %v, want run %s", header, run)
		}
		done <- got
	}()
	s.mem.report(t, run, "work", flow.Outcome{Output: json.RawMessage(`{}`)})
	if got := <-done; !strings.HasSuffix(got, "[DONE]\n\n") || len(s.mem.runs) != 1 {
		t.Errorf("%d runs: %s", len(s.mem.runs), got)
	}
}

// A refused submission leaves its key free; one whose outcome is open finds the run that was made.
func TestChatRunKeys(t *testing.T) {
	s, _ := newChat(t, nil)
	s.publish(t, greeting)
	body := chatBody("workflow/greet", "")
	s.mem.submitErr = fault.New(fault.KindUnavailable, "database_unavailable", "the database does not answer")
	s.chatting(t, body, "Idempotency-Key: k").want(503)
	s.mem.submitErr, s.mem.submitLost = nil, fmt.Errorf("connection lost")
	s.chatting(t, body, "Idempotency-Key: k").want(500)
	s.mem.submitLost = nil
	s.chatting(t, body, "Idempotency-Key: k").want(200)
	if len(s.mem.runs) != 1 {
		t.Errorf("there are %d runs", len(s.mem.runs))
	}
}

// A node that shuts down lets its callers go; the run goes on.
func TestChatRunWhileDraining(t *testing.T) {
	s, _ := newChat(t, nil)
	s.publish(t, oneTool)
	s.Drain()
	a := s.chatting(t, chatBody("workflow/one_tool", "")).want(503)
	if e := openAIErrorIn(t, a); *e.Code != "draining" || e.Fermata.Run != a.header.Get("Fermata-Run") || a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("got %v %s", a.header, a.body)
	}
	a = s.chatting(t, chatBody("workflow/one_tool", ""), "Idempotency-Key: k").want(503)
	if a.header.Get("X-Should-Retry") != "" {
		t.Error("a repetition with a key does no harm")
	}
	got, _ := s.streaming(t, chatBody("workflow/one_tool", `,"stream":true`), "Fermata-Progress: steps")
	if !strings.Contains(got, `"code":"draining"`) || strings.Contains(got, "[DONE]") {
		t.Errorf("got %s", got)
	}
}

func TestChatRunsAreLimited(t *testing.T) {
	s, _ := newChat(t, nil)
	s.publish(t, greeting)
	s.streams.Store(streamsMax)
	if e := openAIErrorIn(t, s.chatting(t, chatBody("workflow/greet", "")).want(429)); *e.Code != "too_many_streams" {
		t.Errorf("got %+v", e)
	}
	if s.streams.Load() != streamsMax || len(s.mem.runs) != 0 {
		t.Errorf("%d streams, %d runs", s.streams.Load(), len(s.mem.runs))
	}
}

// A run that waits for money may wait for days: whoever asked it as a model is told so, and which run it is.
func TestChatRunWithoutMoney(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newChat(t, nil)
		s.publish(t, oneTool)
		done := make(chan *answered, 1)
		go func() { done <- s.chatting(t, chatBody("workflow/one_tool", "")) }()
		run := s.onlyRun(t)
		s.mem.report(t, run, "work", flow.Outcome{
			Held: flow.HeldBudget, Failure: &flow.Failure{Class: "budget_exceeded", Message: `budget "run" (run) is exhausted`},
		})
		a := (<-done).want(403)
		if e := openAIErrorIn(t, a); *e.Code != "budget_exhausted" || !strings.Contains(e.Message, run) || a.header.Get("X-Should-Retry") != "false" {
			t.Errorf("got %+v", e)
		}
	})
}
