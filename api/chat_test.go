package api

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// models is a gateway under test: it keeps what it was asked, and answers as it is told.
type models struct {
	mu     sync.Mutex
	asked  []gateway.Request
	answer func(context.Context, gateway.Request) (gateway.Answer, error)
}

func (m *models) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	m.mu.Lock()
	m.asked = append(m.asked, r)
	m.mu.Unlock()
	return m.answer(ctx, r)
}

func (m *models) last(t testing.TB) gateway.Request {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.asked) == 0 {
		t.Fatal("no model was asked")
	}
	return m.asked[len(m.asked)-1]
}

func (m *models) times() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.asked)
}

// newChat is a service whose models answer so; nil: with says("ok").
func newChat(t testing.TB, answer func(context.Context, gateway.Request) (gateway.Answer, error)) (*service, *models) {
	t.Helper()
	if answer == nil {
		answer = says("ok")
	}
	m := &models{answer: answer}
	return newService(t, func(c *Config) { c.Gateway = m }), m
}

// answering is an answer of the second entry of a chain, after one failed call.
func answering(text string) gateway.Answer {
	tokens := usage.Tokens{Input: 10, CacheRead: 4, Output: 5, Reasoning: 2}
	return gateway.Answer{
		Reply:    provider.Reply{Text: text, FinishReason: "stop", Model: "grok-3-0912", Tokens: tokens},
		Provider: "xai", Asked: "grok-3", Depth: 1, Try: 2, Rule: "short",
		Calls: []usage.Call{
			{Provider: "openai", Model: "gpt-4o", Class: "overloaded", Message: "busy", Try: 1, Millis: 12, Cost: 1_000_000},
			{Provider: "xai", Model: "grok-3", Depth: 1, Try: 2, Millis: 40, Tokens: tokens, Cost: 2_000_000, Baseline: 9_000_000},
		},
	}
}

// says answers with texts in turn, the last one for ever; each is told in parts of up to five bytes where they are listened to.
func says(texts ...string) func(context.Context, gateway.Request) (gateway.Answer, error) {
	var mu sync.Mutex
	return func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		text := texts[0]
		if len(texts) > 1 {
			texts = texts[1:]
		}
		for rest := text; r.Stream != nil && rest != ""; {
			n := min(5, len(rest))
			r.Stream(told(provider.Delta{Text: rest[:n]}))
			rest = rest[n:]
		}
		return answering(text), nil
	}
}

func answeringWithTool() []agent.ToolCall {
	return []agent.ToolCall{{ID: "c1", Name: "look", Arguments: `{"n":1}`}}
}

func told(d provider.Delta) gateway.Delta {
	return gateway.Delta{Delta: d, Provider: "xai", Model: "grok-3", Depth: 1}
}

func chatBody(model, more string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hello"}]%s}`, model, more)
}

func (s *service) chatting(t fataler, body string, headers ...string) *answered {
	t.Helper()
	return s.send(t, "POST", "/v1/chat/completions", body, headers...)
}

// varying is what no two answers have alike.
var varying = regexp.MustCompile(`chatcmpl-[0-9a-f]{32}|"created":\d+|run_[0-9a-f]{32}|req_[0-9a-f]{16}`)

func steady(raw []byte) string {
	return varying.ReplaceAllStringFunc(string(raw), func(s string) string {
		if strings.HasPrefix(s, `"created"`) {
			return `"created":1`
		}
		return s[:strings.IndexAny(s, "-_")+1] + "1"
	})
}

func TestChatAnswer(t *testing.T) {
	s, _ := newChat(t, says("it is so"))
	a := s.chatting(t, chatBody("chain/production", "")).want(200)
	want := `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"grok-3-0912","choices":[{"index":0,"message":{"role":"assistant","content":"it is so","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":14,"completion_tokens":7,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2,"audio_tokens":0}},` +
		`"fermata":{"model":"grok-3","provider":"xai","depth":1,"attempt":2,"degraded":true,"simulated":false,"cost_usd":"0.003","baseline_usd":"0.009","rule":"short","attempts":`
	if got := steady(a.body); !strings.HasPrefix(got, want) {
		t.Errorf("%s", cmp.Diff(want, got))
	}
	var completion chatCompletion
	if a.json(&completion); len(completion.Fermata.Attempts) != 2 || completion.Fermata.Attempts[0].Outcome != "overloaded" {
		t.Errorf("got %+v", completion.Fermata.Attempts)
	}
	for name, want := range map[string]string{
		"Fermata-Model": "xai/grok-3", "Fermata-Cost-Usd": "0.003", "Fermata-Fallback-Depth": "1", "Fermata-Simulated": "", "Content-Type": "application/json",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// What no real model said is marked everywhere.
func TestChatSaysThatItIsSimulated(t *testing.T) {
	s, _ := newChat(t, func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
		if r.Stream != nil {
			r.Stream(gateway.Delta{Delta: provider.Delta{Text: "x"}, Provider: "simulated", Model: "gpt-4o", Simulated: true})
		}
		return gateway.Answer{Reply: provider.Reply{Text: "x"}, Provider: "simulated", Asked: "gpt-4o", Calls: []usage.Call{{Provider: "simulated", Model: "gpt-4o", Simulated: true}}}, nil
	})
	a := s.chatting(t, chatBody("gpt-4o", "")).want(200)
	if a.header.Get("Fermata-Simulated") != "true" || !strings.Contains(string(a.body), `"simulated":true`) {
		t.Errorf("got %v %s", a.header, a.body)
	}
	got, header := s.streaming(t, chatBody("gpt-4o", `,"stream":true`))
	if header.Get("Fermata-Simulated") != "true" || !strings.Contains(got, `"simulated":true`) {
		t.Errorf("got %v %s", header, got)
	}
}

func TestChatToolCalls(t *testing.T) {
	s, _ := newChat(t, func(context.Context, gateway.Request) (gateway.Answer, error) {
		a := answering("")
		a.ToolCalls = answeringWithTool()
		return a, nil
	})
	a := s.chatting(t, chatBody("gpt-4o", `,"tools":[{"type":"function","function":{"name":"look"}}]`)).want(200)
	want := `"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"n\":1}"}}]},"logprobs":null,"finish_reason":"tool_calls"}`
	if !strings.Contains(string(a.body), want) {
		t.Errorf("got %s", a.body)
	}
}

// An answer that reached its limit is an answer for OpenAI's clients, streamed or not.
func TestChatCutAtItsLimit(t *testing.T) {
	s, _ := newChat(t, func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
		r.Stream(told(provider.Delta{Text: "begun by one", ToolCalls: []provider.ToolCallDelta{{ID: "c0"}}}))
		if !r.Restarts {
			return gateway.Answer{}, &gateway.FailedError{Class: "output_truncated", Calls: []usage.Call{{Provider: "xai", Model: "grok-3", Tokens: usage.Tokens{Output: 3}}}}
		}
		again := told(provider.Delta{Text: "half an ans", Reasoning: "hm"})
		again.Restart = true
		r.Stream(again)
		r.Stream(told(provider.Delta{ToolCalls: []provider.ToolCallDelta{{Index: 0, ID: "c1", Name: "f"}, {Index: 0, Arguments: `{"a`}, {Index: 999}, {Index: -1}}}))
		return gateway.Answer{}, &gateway.FailedError{Class: "output_truncated", Calls: []usage.Call{{Provider: "xai", Model: "grok-3", Class: "output_truncated", Tokens: usage.Tokens{Output: 3}, Cost: 7_000_000}}}
	})
	a := s.chatting(t, chatBody("gpt-4o", `,"max_tokens":3`)).want(200)
	want := `"message":{"role":"assistant","content":"half an ans","refusal":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a"}}]},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":0,"completion_tokens":3`
	if !strings.Contains(string(a.body), want) || a.header.Get("Fermata-Cost-Usd") != "0.007" {
		t.Errorf("got %s", a.body)
	}
	if got, _ := s.streaming(t, chatBody("gpt-4o", `,"stream":true`)); !strings.Contains(got, `"finish_reason":"length"`) || !strings.HasSuffix(got, "data: [DONE]\n\n") || strings.Contains(got, "error") {
		t.Errorf("got %s", got)
	}
}

// Who is asked, by the id of the model.
func TestChatModels(t *testing.T) {
	s, m := newChat(t, says(`{"pass":true}`))
	s.send(t, "POST", "/v1/workflows", `{"definition":`+reviewing+`}`).want(201)
	for model, want := range map[string]string{
		"gpt-4o":                  "gpt-4o×2",
		"openai/gpt-4o":           "openai/gpt-4o×2",
		"someone/else/entirely":   "someone/else/entirely×2",
		"chain/classification":    "claude-haiku-4-5×3 claude-sonnet-4-6×1",
		"production":              "claude-sonnet-4-6×2 gpt-4o×1 grok-3×1",
		"route/coding":            "route coding",
		"auto":                    "route auto",
		"agent/review/critic":     "gpt-4o×1 grok-3×0",
		"agent/review@1/critic":   "gpt-4o×1 grok-3×0",
		"agent/review/dispatcher": "route social",
		"chain/nothing":           "404", "agent/review/nobody": "404", "agent/nothing/critic": "404", "agent/review@9/critic": "404",
		"agent/review/bare": "404", "agent/x": "404", "agent/": "404", "workflow/nothing": "404", "workflow/a b": "404", "workflow/review@0": "404",
	} {
		a := s.chatting(t, chatBody(model, ""))
		if a.status != http.StatusOK {
			if e := openAIErrorIn(t, a); fmt.Sprint(a.status) != want || *e.Code != "model_not_found" || e.Param == nil || *e.Param != "model" {
				t.Errorf("%s: got %d %s, want %s", model, a.status, a.body, want)
			}
			continue
		}
		r := m.last(t)
		got := strings.TrimSpace("route " + r.Route)
		if r.Route == "" {
			var entries []string
			for _, e := range r.Chain.Entries {
				entries = append(entries, fmt.Sprintf("%s×%d", e.Model, e.Retries))
			}
			got = strings.Join(entries, " ")
		}
		if got != want {
			t.Errorf("%s: asked %s, want %s", model, got, want)
		}
	}
}

// For whom a call is made: budgets, fairness and the ledger go by it.
func TestChatCaller(t *testing.T) {
	s, m := newChat(t, nil)
	s.chatting(t, chatBody("gpt-4o", `,"user":"u1","metadata":{"team":"a"},"seed":7,"prompt_cache_key":"k"`)).want(200)
	r := m.last(t)
	want := gateway.Caller{Tenant: s.tenant, Labels: map[string]string{"user": "u1", "team": "a"}, Mode: "interactive", Stakes: "normal"}
	if d := cmp.Diff(want, r.Caller); d != "" || r.Seed != "chat/7" || r.Session != "k" {
		t.Error(d, r.Seed, r.Session)
	}
	s.chatting(t, chatBody("gpt-4o", ""), "Fermata-Mode: batch").want(200)
	if r := m.last(t); r.Caller.Mode != "batch" {
		t.Errorf("got %+v", r.Caller)
	}
	first := m.last(t).Seed
	s.chatting(t, chatBody("gpt-4o", `,"metadata":{"mode":"batch"}`)).want(200)
	if r := m.last(t); r.Caller.Mode != "batch" || r.Seed == first {
		t.Errorf("got %+v, seeds %s %s", r.Caller, first, r.Seed)
	}
}

// A repetition under a key is given the same answer, and no model is asked again.
func TestChatIsKept(t *testing.T) {
	s, m := newChat(t, says("first", "second"))
	body := chatBody("gpt-4o", "")
	first := s.chatting(t, body, "Idempotency-Key: k").want(200)
	again := s.chatting(t, body, "Idempotency-Key: k").want(200)
	if string(first.body) != string(again.body) || again.header.Get("Idempotent-Replayed") != "true" || m.times() != 1 {
		t.Errorf("asked %d times: %s then %s", m.times(), first.body, again.body)
	}
	if e := openAIErrorIn(t, s.chatting(t, chatBody("gpt-4", ""), "Idempotency-Key: k").want(422)); *e.Code != "idempotency_key_reused" {
		t.Errorf("got %+v", e)
	}
	s, m = newChat(t, func(context.Context, gateway.Request) (gateway.Answer, error) {
		return gateway.Answer{}, &gateway.FailedError{Class: "rate_limited", Message: "slow down"}
	})
	s.chatting(t, body, "Idempotency-Key: k").want(429)
	m.answer = says("now")
	if a := s.chatting(t, body, "Idempotency-Key: k").want(200); a.header.Get("Idempotent-Replayed") != "" {
		t.Error("a refusal was kept")
	}
}

// The caller's leaving cuts the call.
func TestChatDisconnect(t *testing.T) {
	for _, more := range []string{"", `,"stream":true`} {
		asked, cut := make(chan struct{}), make(chan error, 1)
		s, _ := newChat(t, func(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
			r.Stream(told(provider.Delta{Text: "begun"}))
			close(asked)
			<-ctx.Done()
			cut <- ctx.Err()
			return gateway.Answer{}, &gateway.FailedError{Class: "cancelled"}
		})
		server := s.serve(t)
		ctx, leave := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/v1/chat/completions", strings.NewReader(chatBody("gpt-4o", more)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		go func() {
			<-asked
			leave()
		}()
		if resp, err := server.Client().Do(req); err == nil {
			resp.Body.Close()
		}
		if err := <-cut; err != context.Canceled { //nolint:errorlint // as the context gives it
			t.Errorf("got %v", err)
		}
		leave()
	}
}
