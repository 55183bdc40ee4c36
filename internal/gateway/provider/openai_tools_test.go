package provider

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// sentBody is what a server of a vendor is sent for a call, and its headers.
func sentBody(t *testing.T, c OpenAIConfig, call Call) (string, http.Header) {
	t.Helper()
	var raw []byte
	var header http.Header
	o := serve(t, c, func(w http.ResponseWriter, r *http.Request) {
		raw, _ = io.ReadAll(r.Body)
		header = r.Header
		stream(good+done)(w, r)
	})
	if _, err := o.Complete(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	return string(raw), header
}

func sameJSON(t *testing.T, want, got string) {
	t.Helper()
	var w, g any
	if json.Unmarshal([]byte(want), &w) != nil || json.Unmarshal([]byte(got), &g) != nil {
		t.Fatalf("not JSON: %s\nor: %s", want, got)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("%s\n%s", diff, got)
	}
}

func TestRequestWithTools(t *testing.T) {
	half := 0.5
	weather := agent.Tool{Name: "weather", Description: "The weather.", Strict: true, Parameters: json.RawMessage(`{"type":"object","required":["city"],"properties":{"city":{"type":"string"}}}`)}
	open := agent.Tool{Name: "note", Strict: true, Parameters: json.RawMessage(`{"type":"object","properties":{"text":{"type":"string"}}}`)}
	call := Call{Model: "gpt-5.4", MaxTokens: 9, Session: "run/step", Ask: agent.Ask{
		Messages: []agent.Message{
			{Role: "user", Content: "What is this?", Images: []string{"https://example.org/a.png", "data:image/png;base64,AA=="}},
			{Role: "assistant", ToolCalls: []agent.ToolCall{{ID: "c1", Name: "weather", Arguments: `{"city":"Bremen"}`}}},
			{Role: "tool", ToolCallID: "c1", Content: "rain"},
			{Role: "assistant", Content: "Wet.", ToolCalls: []agent.ToolCall{{ID: "c2", Name: "note", Arguments: "{}"}}},
			{Role: "tool", ToolCallID: "c2", Content: ""},
		},
		Tools: []agent.Tool{weather, open, {Name: "now"}}, ToolChoice: json.RawMessage(`{"name":"note"}`),
		TopP: &half, Stop: []string{"END"}, Effort: "low",
	}}
	messages := `[
		{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"https://example.org/a.png"}},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]},
		{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Bremen\"}"}}]},
		{"role":"tool","tool_call_id":"c1","content":"rain"},
		{"role":"assistant","content":"Wet.","tool_calls":[{"id":"c2","type":"function","function":{"name":"note","arguments":"{}"}}]},
		{"role":"tool","tool_call_id":"c2","content":""}]`
	tools := `[
		{"type":"function","function":{"name":"weather","description":"The weather.","strict":true,"parameters":{"type":"object","required":["city"],"properties":{"city":{"type":"string"}},"additionalProperties":false}}},
		{"type":"function","function":{"name":"note","parameters":{"type":"object","properties":{"text":{"type":"string"}}}}},
		{"type":"function","function":{"name":"now"}}]`

	t.Run("OpenAI, a model that reasons", func(t *testing.T) {
		body, _ := sentBody(t, OpenAIConfig{Vendor: "openai"}, call)
		sameJSON(t, `{"model":"gpt-5.4","max_completion_tokens":9,"stream":true,"stream_options":{"include_usage":true},"stop":["END"],"reasoning_effort":"low",
			"prompt_cache_key":"`+sessionKey("run/step")+`","tool_choice":{"type":"function","function":{"name":"note"}},"tools":`+tools+`,"messages":`+messages+`}`, body)
	})
	t.Run("any server, a model that does not reason", func(t *testing.T) {
		call := call
		call.Model, call.Ask.ToolChoice = "gpt-4o", json.RawMessage(`"required"`)
		body, header := sentBody(t, OpenAIConfig{}, call)
		sameJSON(t, `{"model":"gpt-4o","max_tokens":9,"stream":true,"stream_options":{"include_usage":true},"stop":["END"],"top_p":0.5,
			"tool_choice":"required","tools":`+tools+`,"messages":`+messages+`}`, body)
		if header.Get("X-Grok-Conv-Id") != "" {
			t.Error("the conversation is told to a server that has no use for it")
		}
	})
	t.Run("xAI: the conversation in a header", func(t *testing.T) {
		call := call
		call.Model = "grok-4"
		body, header := sentBody(t, OpenAIConfig{Vendor: "xai"}, call)
		if got := header.Get("X-Grok-Conv-Id"); got != sessionKey("run/step") || strings.Contains(got, "run") || strings.Contains(body, "prompt_cache_key") || strings.Contains(body, "reasoning_effort") {
			t.Errorf("header %q, body %s", got, body)
		}
	})
	t.Run("no tools: no choice among them", func(t *testing.T) {
		call := simpleCall()
		call.Ask.ToolChoice = json.RawMessage(`"auto"`)
		if body, _ := sentBody(t, OpenAIConfig{}, call); strings.Contains(body, "tool") {
			t.Error(body)
		}
	})
}

const callsUsage = `data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}` + "\n\n" + done

// callChunk is a chunk with a part of tool calls.
func callChunk(parts string) string {
	return `data: {"choices":[{"index":0,"delta":{"tool_calls":[` + parts + `]}}]}` + "\n\n"
}

func finishChunk(reason string) string {
	return `data: {"choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}` + "\n\n"
}

func TestToolCalls(t *testing.T) {
	two := []agent.ToolCall{{ID: "a", Name: "weather", Arguments: `{"city":"Bremen"}`}, {ID: "b", Name: "now", Arguments: "{}"}}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    []agent.ToolCall
		text    string
	}{
		{
			"OpenAI: in parts, interleaved", stream(callChunk(`{"index":0,"id":"a","type":"function","function":{"name":"weather","arguments":""}}`) +
				callChunk(`{"index":0,"function":{"arguments":"{\"city\":"}},{"index":1,"id":"b","type":"function","function":{"name":"now","arguments":""}}`) +
				callChunk(`{"index":0,"function":{"arguments":"\"Bremen\"}"}}`) + finishChunk("tool_calls") + callsUsage), two, "",
		},
		{
			"the id and the name with every part", stream(callChunk(`{"index":0,"id":"a","function":{"name":"weather","arguments":"{\"city\":"}}`) +
				callChunk(`{"index":0,"id":"a","function":{"name":"weather","arguments":"\"Bremen\"}"}}`) + callChunk(`{"index":1,"id":"b","function":{"name":"now","arguments":null}}`) + finishChunk("tool_calls") + callsUsage), two, "",
		},
		{
			"every call at index 0, the finish is stop", stream(callChunk(`{"index":0,"id":"a","function":{"name":"weather","arguments":"{\"city\":\"Bremen\"}"}}`) +
				callChunk(`{"index":0,"id":"b","function":{"name":"now","arguments":"{}"}}`) + finishChunk("stop") + callsUsage), two, "",
		},
		{
			"Gemini: neither index nor id", stream(`data: {"choices":[{"index":0,"delta":{"content":"Let me see."}}]}` + "\n\n" + callChunk(`{"id":"","function":{"name":"weather","arguments":"{\"city\":\"Bremen\"}"}},{"id":"","function":{"name":"now","arguments":""}}`) + finishChunk("stop") + callsUsage),
			[]agent.ToolCall{{ID: "call_1_0", Name: "weather", Arguments: `{"city":"Bremen"}`}, {ID: "call_1_1", Name: "now", Arguments: "{}"}},
			"Let me see.",
		},
		{
			"a whole answer, arguments as JSON", plainBody(200, "application/json", `{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"weather","arguments":{"city":"Bremen"}}},{"id":"b","function":{"name":"now","arguments":""}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":12,"completion_tokens":5}}`),
			two, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := simpleCall()
			heard := map[int]agent.ToolCall{}
			text := ""
			call.Stream = func(d Delta) {
				text += d.Text
				for _, p := range d.ToolCalls {
					was := heard[p.Index]
					heard[p.Index] = agent.ToolCall{ID: was.ID + p.ID, Name: was.Name + p.Name, Arguments: was.Arguments + p.Arguments}
				}
			}
			got, err := serve(t, OpenAIConfig{}, c.handler).Complete(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got.ToolCalls); diff != "" || got.FinishReason != "tool_calls" || got.Text != c.text || got.Tokens != (usage.Tokens{Input: 12, Output: 5}) {
				t.Errorf("%s\n%+v", diff, got)
			}
			for i, want := range c.want {
				if heard[i].Arguments == "" {
					want.Arguments = ""
				}
				if heard[i] != want {
					t.Errorf("streamed %+v, answered %+v", heard[i], want)
				}
			}
			if text != c.text {
				t.Errorf("streamed %q", text)
			}
		})
	}
}

func TestToolCallsThatAreNone(t *testing.T) {
	for name, c := range map[string]string{
		"announced and not there":  finishChunk("tool_calls"),
		"without a name":           callChunk(`{"index":0,"id":"a","function":{"arguments":"{}"}}`) + finishChunk("tool_calls"),
		"garbled, Gemini says":     finishChunk("MALFORMED_FUNCTION_CALL"),
		"more than there may be":   callChunk(strings.TrimSuffix(strings.Repeat(`{"function":{"name":"x"}},`, toolCallsMax+1), ",")),
		"cut before their end":     callChunk(`{"index":0,"id":"a","function":{"name":"weather","arguments":"{\"ci"}}`),
		"arguments without bounds": strings.Repeat(callChunk(`{"index":0,"id":"a","function":{"name":"x","arguments":"`+strings.Repeat("x", 1<<19)+`"}}`), textBytesMax>>19+1),
	} {
		_, err := serve(t, OpenAIConfig{}, stream(c)).Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Class != ClassStreamInterrupted {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// A cut tool call costs what was made of it, and says that the answer had begun.
func TestCutToolCallIsCharged(t *testing.T) {
	_, err := serve(t, OpenAIConfig{}, stream(callChunk(`{"index":0,"id":"a","function":{"name":"weather","arguments":"{\"ci"}}`))).Complete(t.Context(), simpleCall())
	if e := failure(t, err); !e.Begun || !e.Estimated || e.Tokens.Output == 0 {
		t.Errorf("%+v", e)
	}
	_, err = serve(t, OpenAIConfig{}, stream(`data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}`+"\n\n")).Complete(t.Context(), simpleCall())
	if e := failure(t, err); e.Begun {
		t.Errorf("a role is taken for an answer: %+v", e)
	}
}

func TestStreamTellsEverythingInOrder(t *testing.T) {
	var heard []Delta
	call := simpleCall()
	call.Stream = func(d Delta) { heard = append(heard, d) }
	reasoning := `data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm. "}}]}` + "\n\n"
	got, err := serve(t, OpenAIConfig{}, stream(": wait\n\n"+reasoning+good+usageChunk+done)).Complete(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Delta{{Reasoning: "Hm. "}, {Text: "Hello"}, {Text: ", world"}}, heard); diff != "" {
		t.Error(diff)
	}
	if got.FirstToken <= 0 {
		t.Error("no time of the first token")
	}
	heard = nil
	whole := plainBody(200, "application/json", `{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}`)
	if got, err = serve(t, OpenAIConfig{NoStream: true}, whole).Complete(t.Context(), call); err != nil || got.FirstToken != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if diff := cmp.Diff([]Delta{{Text: "Hello"}}, heard); diff != "" {
		t.Error(diff)
	}
}

func TestTimersOfACall(t *testing.T) {
	o := serve(t, OpenAIConfig{}, hang(part))
	call := simpleCall()
	call.Idle = 30 * time.Millisecond
	_, err := o.Complete(t.Context(), call)
	if e := failure(t, err); e.Class != ClassStreamInterrupted || !strings.Contains(e.Message, "30ms") {
		t.Errorf("%+v", e)
	}
	o = serve(t, OpenAIConfig{}, hang(": ping\n\n"))
	call.FirstToken = 40 * time.Millisecond
	_, err = o.Complete(t.Context(), call)
	if e := failure(t, err); e.Class != ClassTimeout || !strings.Contains(e.Message, "40ms") {
		t.Errorf("%+v", e)
	}
}

func TestRequestIDAndLimits(t *testing.T) {
	headers := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for k, v := range map[string]string{
				"X-Request-Id": "req_ 1", "X-Ratelimit-Limit-Requests": "500", "X-Ratelimit-Remaining-Requests": "499", "X-Ratelimit-Reset-Requests": "120ms",
				"X-Ratelimit-Limit-Tokens": "30000", "X-Ratelimit-Remaining-Tokens": "0", "X-Ratelimit-Reset-Tokens": "6m0s",
			} {
				w.Header()[k] = []string{v}
			}
			h(w, r)
		}
	}
	want := Limits{Requests: Limit{500, 499, 120 * time.Millisecond}, Tokens: Limit{Max: 30_000, Reset: 6 * time.Minute}}
	got, err := serve(t, OpenAIConfig{}, headers(stream(good+done))).Complete(t.Context(), simpleCall())
	if err != nil || got.RequestID != "req_1" || got.Limits != want {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = serve(t, OpenAIConfig{}, headers(plainBody(429, "text/plain", "slow down"))).Complete(t.Context(), simpleCall())
	if e := failure(t, err); e.RequestID != "req_1" || e.Limits != want || e.RetryAfter != 6*time.Minute {
		t.Errorf("%+v", e)
	}
	_, err = serve(t, OpenAIConfig{}, headers(plainBody(429, "application/json", `{"error":{"message":"Rate limit reached. Please try again in 1m2.5s. Visit …"}}`))).Complete(t.Context(), simpleCall())
	if e := failure(t, err); e.RetryAfter != 62*time.Second+500*time.Millisecond {
		t.Errorf("%+v", e)
	}
	withID := strings.Replace(good, `{"model"`, `{"id":"gen-7","model"`, 1)
	if got, err = serve(t, OpenAIConfig{}, stream(withID+done)).Complete(t.Context(), simpleCall()); err != nil || got.RequestID != "gen-7" || got.Limits != (Limits{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestResetAfter(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"1s": time.Second, "6m0s": 6 * time.Minute, "120ms": 120 * time.Millisecond, "2m59.56s": 2*time.Minute + 59560*time.Millisecond, "1h0m0s": time.Hour,
		"7.5": 7500 * time.Millisecond, "1793534430": 30 * time.Second, "1793534430000": 30 * time.Second, "1793530000": 0, "999999h": RetryAfterMax,
		"": 0, "soon": 0, "-3": 0, "-3s": 0, "NaN": 0, "Inf": RetryAfterMax, "1e300": RetryAfterMax,
	} {
		if got := resetAfter(s, now); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
	for name, headers := range map[string]map[string]string{
		"Mistral":  {"X-Ratelimit-Limit-Req-Minute": "60", "X-Ratelimit-Remaining-Req-Minute": "59", "X-Ratelimit-Limit-Tokens-Minute": "1000"},
		"Together": {"X-Ratelimit-Limit": "60", "X-Ratelimit-Remaining": "59.0", "X-Tokenlimit-Limit": "1000"},
	} {
		h := http.Header{}
		for k, v := range headers {
			h.Set(k, v)
		}
		if got := rateLimits(h, now); got != (Limits{Requests: Limit{Max: 60, Left: 59}, Tokens: Limit{Max: 1000, Left: 1000}}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := rateLimits(http.Header{"X-Ratelimit-Limit-Requests": {"NaN"}, "X-Ratelimit-Limit-Tokens": {"-1"}}, now); got != (Limits{}) {
		t.Errorf("%+v", got)
	}
}
