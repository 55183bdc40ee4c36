package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testKey = "sk-test-0123456789abcdef"

// serve starts a server and a provider that asks it.
func serve(t *testing.T, c OpenAIConfig, h http.HandlerFunc) *OpenAI {
	t.Helper()
	server := httptest.NewServer(h)
	c.BaseURL, c.APIKey = server.URL+"/v1", testKey
	o, err := NewOpenAI(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.Close()
		server.CloseClientConnections() // handlers that hang on purpose
		server.Close()
	})
	return o
}

func simpleCall() Call {
	return Call{Model: "m", MaxTokens: 100, Ask: agent.Ask{Messages: []agent.Message{{Role: "user", Content: "Say something."}}}}
}

func failure(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want *Error", err)
	}
	return e
}

// stream answers with the lines as they are and ends.
func stream(lines string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, lines)
	}
}

// hang answers with the lines and keeps the connection open until the client goes.
func hang(lines string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // then the server notices that the client has gone
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, lines)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func plainBody(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

const (
	good = `data: {"model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":", world"},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

`
	usageChunk = `data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4}}}

`
	done = "data: [DONE]\n\n"
	part = `data: {"choices":[{"index":0,"delta":{"content":"Half an ans"}}]}` + "\n\n"
)

func TestAnswers(t *testing.T) {
	reported := usage.Tokens{Input: 8, CacheRead: 4, Output: 5}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    Reply
	}{
		{"usage in a last chunk without choices", stream(good + usageChunk + done), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{"no [DONE]", stream(good + usageChunk), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{"no usage", stream(good + done), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: usage.Tokens{Input: 10, Output: 3}, Estimated: true}},
		{
			"usage all zeros", stream(good + `data: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}` + "\n\n" + done),
			Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: usage.Tokens{Input: 10, Output: 3}, Estimated: true},
		},
		{"f: hundreds of comments", stream(strings.Repeat(": keep-alive\n\n", 500) + good + usageChunk + done), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{"CRLF", stream(strings.ReplaceAll(good+usageChunk+done, "\n", "\r\n")), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{"CR alone", stream(strings.ReplaceAll(good+usageChunk+done, "\n", "\r")), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{
			"byte order mark, event lines, ids", stream("\xef\xbb\xbf" + strings.ReplaceAll(good, "data:", "event: message\nid: 7\ndata:") + usageChunk + done),
			Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false},
		},
		{
			"data over several lines", stream("data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"Hello, world\"},\ndata: \"finish_reason\":\"stop\"}]}\n\n" + usageChunk + done),
			Reply{Text: "Hello, world", FinishReason: "stop", Model: "", Tokens: reported, Estimated: false},
		},
		{"no line end at the end", stream(good + usageChunk + "data: [DONE]"), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{"finished, then the connection stays open", hang(good + usageChunk + done), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{"a stream under the wrong content type", plainBody(200, "text/plain", good+usageChunk+done), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{
			"content in parts", stream(`data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"Hello"},{"type":"text","text":", world"}]},"finish_reason":"stop"}]}` + "\n\n" + usageChunk + done),
			Reply{Text: "Hello, world", FinishReason: "stop", Model: "", Tokens: reported, Estimated: false},
		},
		{"a second choice is not mixed in", stream(`data: {"choices":[{"index":1,"delta":{"content":"Other"}}]}` + "\n\n" + good + usageChunk + done), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{"null error", stream(strings.ReplaceAll(good, `{"choices"`, `{"error":null,"choices"`) + usageChunk + done), Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false}},
		{
			"whole answer although a stream was asked for", plainBody(200, "application/json",
				`{"model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello, world"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4}}}`),
			Reply{Text: "Hello, world", FinishReason: "stop", Model: "m-1", Tokens: reported, Estimated: false},
		},
		{
			"usage on the finish chunk, as Ollama has it", stream(`data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12.0,"completion_tokens":"5","total_tokens":17}}` + "\n\n" + done),
			Reply{Text: "Hi", FinishReason: "stop", Tokens: usage.Tokens{Input: 12, Output: 5}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serve(t, OpenAIConfig{}, c.handler)
			got, err := o.Complete(t.Context(), simpleCall())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Reply{}, "FirstToken")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The letters are the ones of the list of what OpenAI-compatible servers do and go-openai loses.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		class   Class
		message string // a part of it
	}{
		{"a: error, then the socket stays open", hang(`data: {"error":{"message":"upstream gone","type":"server_error"}}` + "\n"), ClassServer, "upstream gone"},
		{"b: comment and event line before the error", stream(": OPENROUTER PROCESSING\n\nevent: error\ndata: {\"error\":{\"message\":\"slow down\",\"code\":\"rate_limit_exceeded\"}}\n\n"), ClassRateLimited, "slow down"},
		{"c: Anthropic's overloaded, first", stream("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"), ClassOverloaded, "Overloaded"},
		{"c: Anthropic's overloaded, after tokens", stream(part + "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"), ClassOverloaded, "Overloaded"},
		{"c: some error after tokens", stream(part + "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"boom\"}}\n\n"), ClassStreamInterrupted, "boom"},
		{"d: OpenRouter's error beside choices", stream(part + `data: {"error":{"code":429,"message":"limit","metadata":{"raw":"tokens per minute"}},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}` + "\n\n"), ClassRateLimited, "tokens per minute"},
		{"d: spaces", stream(`data: { "error" : { "message" : "boom" } }` + "\n\n"), ClassServer, "boom"},
		{"e: closed without a finish reason", stream(part), ClassStreamInterrupted, "without a finish reason"},
		{"e: [DONE] without a finish reason", stream(part + done), ClassStreamInterrupted, "without a finish reason"},
		{"e: nothing at all", stream(""), ClassStreamInterrupted, "without a finish reason"},
		{"e: finish reason null in words", stream(`data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"null"}]}` + "\n\n" + done), ClassStreamInterrupted, "without a finish reason"},
		{"e: whole answer without a finish reason", plainBody(200, "application/json", `{"choices":[{"message":{"content":"x"}}]}`), ClassStreamInterrupted, "without a finish reason"},
		{"g: 200 with an error body", plainBody(200, "application/json", `{"error":{"message":"no GPU","type":"server_error"}}`), ClassServer, "no GPU"},
		{"g: 200 without choices", plainBody(200, "application/json", `{"id":"x","choices":[]}`), ClassStreamInterrupted, "not a completion"},
		{"h: 200 and an empty body", plainBody(200, "application/json", ""), ClassStreamInterrupted, "empty"},
		{"i: Gemini's array", plainBody(429, "application/json", `[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]`), ClassRateLimited, "exceeded your current quota"},
		{"i: an array under 200", plainBody(200, "application/json", `[{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}]`), ClassOverloaded, "overloaded"},
		{"i: HTML 502", plainBody(502, "text/html", "<html><head><style>p{}</style></head><body><h1>502 Bad Gateway</h1><p>cloudflare</p></body></html>"), ClassServer, "502 Bad Gateway cloudflare"},
		{"i: HTML 200", plainBody(200, "text/html", "<html><body>Log in to the network</body></html>"), ClassServer, "Log in"},
		{"j: xAI's strings", plainBody(400, "application/json", `{"code":"Client specified an invalid argument","error":"Incorrect model: grok-99"}`), ClassInvalidRequest, "Incorrect model"},
		{"j: xAI's money", plainBody(403, "application/json", `{"code":"The caller does not have permission","error":"Your team has used all available credits or reached its monthly spending limit."}`), ClassQuotaExhausted, "credits"},
		{"j: xAI's stream", stream(`data: {"code":"Internal error","error":"worker died"}` + "\n\n"), ClassServer, "worker died"},
		{"an error line without framing", stream(part + `{"error":{"message":"CUDA out of memory"}}` + "\n"), ClassStreamInterrupted, "CUDA"},
		{"an error event that is not JSON", stream("event: error\ndata: upstream connect error\n\n"), ClassServer, "upstream connect error"},
		{"garbage in the stream", stream(part + "data: {\"choices\":[{\"delta\":\n\n"), ClassStreamInterrupted, "not JSON"},
		{"a line without end", stream("data: " + strings.Repeat("x", lineBytesMax+1)), ClassStreamInterrupted, "too long"},
		{"truncated", stream(strings.Replace(good, `"stop"`, `"length"`, 1) + usageChunk + done), ClassOutputTruncated, "limit of 100"},
		{"filtered", stream(strings.Replace(good, `"stop"`, `"content_filter"`, 1) + usageChunk + done), ClassContentPolicy, "withheld"},
		{"refused", stream(`data: {"choices":[{"index":0,"delta":{"refusal":"I cannot help with that."},"finish_reason":"stop"}]}` + "\n\n" + done), ClassContentPolicy, "I cannot help"},

		{"401", plainBody(401, "application/json", `{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","code":"invalid_api_key"}}`), ClassAuth, "Incorrect"},
		{"402", plainBody(402, "application/json", `{"error":{"message":"Insufficient credits"}}`), ClassQuotaExhausted, "credits"},
		{"404 model", plainBody(404, "application/json", `{"error":{"message":"The model `+"`x`"+` does not exist","code":"model_not_found"}}`), ClassNotFound, "does not exist"},
		{"404 Ollama", plainBody(404, "application/json", `{"error":{"message":"model \"x\" not found, try pulling it first","type":"not_found_error"}}`), ClassNotFound, "pulling"},
		{"404 page", plainBody(404, "text/plain", "404 page not found"), ClassNotFound, "page not found"},
		{"429 rate", plainBody(429, "application/json", `{"error":{"message":"Rate limit reached for gpt-4o in organization x on tokens per min (TPM)","type":"tokens","code":"rate_limit_exceeded"}}`), ClassRateLimited, "TPM"},
		{"429 quota", plainBody(429, "application/json", `{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","code":"insufficient_quota"}}`), ClassQuotaExhausted, "quota"},
		{"400 Anthropic's empty purse", plainBody(400, "application/json", `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}`), ClassQuotaExhausted, "credit balance"},
		{"400 context", plainBody(400, "application/json", `{"error":{"message":"This model's maximum context length is 128000 tokens. However, your messages resulted in 140000 tokens.","type":"invalid_request_error","code":"context_length_exceeded"}}`), ClassContextLength, "128000"},
		{"400 context of vLLM", plainBody(400, "application/json", `{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}`), ClassContextLength, "4096"},
		{"400 policy of Azure", plainBody(400, "application/json", `{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","code":"content_filter","status":400}}`), ClassContentPolicy, "filtered"},
		{"400 unsupported", plainBody(400, "application/json", `{"error":{"message":"Unsupported parameter: 'logprobs' is not supported with this model.","type":"invalid_request_error","param":"logprobs","code":"unsupported_parameter"}}`), ClassCapabilityMismatch, "logprobs"},
		{"400 no tools: Ollama", plainBody(400, "application/json", `{"error":{"message":"registry.ollama.ai/library/gemma:2b does not support tools","type":"invalid_request_error"}}`), ClassCapabilityMismatch, "tools"},
		{"400 no tools: vLLM", plainBody(400, "application/json", `{"object":"error","message":"\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set","type":"BadRequestError","code":400}`), ClassCapabilityMismatch, "tool choice"},
		{"400 no images", plainBody(400, "application/json", `{"error":{"message":"Invalid content type. image_url is only supported by certain models.","type":"invalid_request_error"}}`), ClassCapabilityMismatch, "image_url"},
		{"400 stop sequences", plainBody(400, "application/json", `{"error":{"message":"Unsupported parameter: 'stop' is not supported with this model.","code":"unsupported_parameter"}}`), ClassCapabilityMismatch, "stop"},
		{"400 a garbled tool call: Groq", plainBody(400, "application/json", `{"error":{"message":"Failed to call a function. Please adjust your prompt.","type":"invalid_request_error","code":"tool_use_failed"}}`), ClassStreamInterrupted, "Failed to call"},
		{"400 a bad tool", plainBody(400, "application/json", `{"error":{"message":"Invalid 'tools[0].function.name': string does not match pattern.","type":"invalid_request_error"}}`), ClassInvalidRequest, "pattern"},
		{"422 of FastAPI", plainBody(422, "application/json", `{"detail":[{"loc":["body","messages"],"msg":"field required"}]}`), ClassInvalidRequest, "field required"},
		{"500", plainBody(500, "application/json", `{"error":{"message":"The server had an error","type":"server_error"}}`), ClassServer, "had an error"},
		{"503", plainBody(503, "text/plain", "no healthy upstream"), ClassOverloaded, "no healthy upstream"},
		{"529", plainBody(529, "application/json", `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`), ClassOverloaded, "Overloaded"},
		{"a redirect is not followed", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/v1", http.StatusPermanentRedirect)
		}, ClassNotFound, "redirects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serve(t, OpenAIConfig{}, c.handler)
			reply, err := o.Complete(t.Context(), simpleCall())
			if err == nil {
				t.Fatalf("no error, but %+v", reply)
			}
			e := failure(t, err)
			if e.Class != c.class || !strings.Contains(e.Message, c.message) {
				t.Errorf("got %s, want class %s and a message with %q", e, c.class, c.message)
			}
		})
	}
}

func TestChargeOfFailures(t *testing.T) {
	sent := CountAsk(simpleCall().Ask, "m")
	for _, c := range []struct {
		name      string
		handler   http.HandlerFunc
		want      usage.Tokens
		estimated bool
	}{
		{"refused before output: nothing", plainBody(500, "application/json", `{"error":{"message":"x"}}`), usage.Tokens{}, false},
		{"error before output: nothing", stream(`data: {"error":{"message":"x"}}` + "\n\n"), usage.Tokens{}, false},
		{"cut after output: what came", stream(part), usage.Tokens{Input: sent, Output: 3}, true},
		{"truncated: what was reported", stream(strings.Replace(good, `"stop"`, `"length"`, 1) + usageChunk + done), usage.Tokens{Input: 8, CacheRead: 4, Output: 5}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serve(t, OpenAIConfig{}, c.handler)
			_, err := o.Complete(t.Context(), simpleCall())
			e := failure(t, err)
			if e.Tokens != c.want || e.Estimated != c.estimated {
				t.Errorf("charged %+v (estimated: %t), want %+v (%t)", e.Tokens, e.Estimated, c.want, c.estimated)
			}
		})
	}
}

func TestTimers(t *testing.T) {
	role := `data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}` + "\n\n: ping\n\n"
	t.Run("first token: a role and comments are none", func(t *testing.T) {
		o := serve(t, OpenAIConfig{FirstToken: 50 * time.Millisecond, Idle: time.Hour}, hang(role))
		_, err := o.Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Class != ClassTimeout || !e.Estimated || e.Tokens.Input == 0 {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("no headers", func(t *testing.T) {
		o := serve(t, OpenAIConfig{FirstToken: 50 * time.Millisecond}, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
		_, err := o.Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Class != ClassTimeout {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("stall", func(t *testing.T) {
		o := serve(t, OpenAIConfig{FirstToken: time.Hour, Idle: 50 * time.Millisecond}, hang(part))
		_, err := o.Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Class != ClassStreamInterrupted || !strings.Contains(e.Message, "stalled") {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("the caller's deadline", func(t *testing.T) {
		o := serve(t, OpenAIConfig{}, hang(part))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := o.Complete(ctx, simpleCall())
		if e := failure(t, err); e.Class != ClassTimeout || e.Tokens.Output != 3 {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		})
		_, err := o.Complete(ctx, simpleCall())
		if e := failure(t, err); e.Class != ClassCancelled || e.Tokens.Input == 0 {
			t.Errorf("got %+v", e)
		}
	})
}

func TestNetwork(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		o, err := NewOpenAI(OpenAIConfig{BaseURL: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Class != ClassNetwork || e.Tokens.Total() != 0 {
			t.Errorf("got %+v", e)
		}
	})
	abort := func(before string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if before != "" {
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, before)
				w.(http.Flusher).Flush()
			}
			panic(http.ErrAbortHandler)
		}
	}
	t.Run("reset before headers", func(t *testing.T) {
		o := serve(t, OpenAIConfig{}, abort(""))
		_, err := o.Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Class != ClassNetwork {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("reset in the stream", func(t *testing.T) {
		o := serve(t, OpenAIConfig{}, abort(part))
		_, err := o.Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Class != ClassStreamInterrupted {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("reset after the finish", func(t *testing.T) {
		o := serve(t, OpenAIConfig{}, abort(good))
		if r, err := o.Complete(t.Context(), simpleCall()); err != nil || r.Text != "Hello, world" || !r.Estimated {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func TestKeyStaysSecret(t *testing.T) {
	o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+testKey {
			t.Errorf("Authorization is %q", got)
		}
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), testKey) || strings.Contains(r.URL.String(), testKey) {
			t.Error("the key is elsewhere, too")
		}
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"message":"Incorrect API key provided: %s. Also sk-proj-****abcd and Bearer %s\u0000"}}`, testKey, testKey)
	})
	_, err := o.Complete(t.Context(), simpleCall())
	e := failure(t, err)
	if strings.Contains(e.Message, "sk-") || strings.Contains(e.Message, "0123456789") || strings.ContainsRune(e.Message, 0) {
		t.Errorf("the message tells: %q", e.Message)
	}
	if !strings.HasPrefix(e.Message, "Incorrect API key provided") {
		t.Errorf("the message does not tell: %q", e.Message)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		header map[string]string
		want   time.Duration
	}{
		{"none", nil, 0},
		{"seconds", map[string]string{"Retry-After": "2"}, 2 * time.Second},
		{"fraction", map[string]string{"Retry-After": "0.5"}, 500 * time.Millisecond},
		{"date against Date", map[string]string{"Retry-After": "Wed, 21 Oct 2026 07:28:10 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10 * time.Second},
		{"date against our clock", map[string]string{"Retry-After": "Tue, 01 Jan 2030 00:00:07 GMT"}, 7 * time.Second},
		{"date in the past", map[string]string{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0},
		{"an hour", map[string]string{"Retry-After": "3600"}, time.Hour},
		{"for ever", map[string]string{"Retry-After": "1e300"}, RetryAfterMax},
		{"negative", map[string]string{"Retry-After": "-1"}, 0},
		{"garbage", map[string]string{"Retry-After": "soon"}, 0},
		{"NaN", map[string]string{"Retry-After": "NaN"}, 0},
		{"milliseconds first", map[string]string{"Retry-After": "2", "Retry-After-Ms": "1500"}, 1500 * time.Millisecond},
		{"milliseconds of Azure", map[string]string{"X-Ms-Retry-After-Ms": "250"}, 250 * time.Millisecond},
		{"bad milliseconds", map[string]string{"Retry-After-Ms": "x", "Retry-After": "3"}, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serve(t, OpenAIConfig{Now: func() time.Time { return now }}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = nil
				for k, v := range c.header {
					w.Header().Set(k, v)
				}
				w.Header().Set("X-Should-Retry", "false")
				w.WriteHeader(429)
			})
			_, err := o.Complete(t.Context(), simpleCall())
			if e := failure(t, err); e.RetryAfter != c.want || !e.NoRetry {
				t.Errorf("got %s, no retry: %t; want %s", e.RetryAfter, e.NoRetry, c.want)
			}
		})
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var mu sync.Mutex
	from := map[string]bool{}
	o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		stream(good+usageChunk+done)(w, r)
	})
	for range 20 {
		if _, err := o.Complete(t.Context(), simpleCall()); err != nil {
			t.Fatal(err)
		}
	}
	if len(from) != 1 {
		t.Errorf("20 calls one after the other took %d connections", len(from))
	}
}

func TestNewOpenAIRefuses(t *testing.T) {
	for _, c := range []OpenAIConfig{
		{BaseURL: "api.openai.com"},
		{BaseURL: "ftp://x"},
		{BaseURL: "http://user:secret@x/v1"},
		{BaseURL: "http://x/v1?key=secret"},
		{BaseURL: "http://[::1"},
		{APIKey: "sk-a\nb"},
		{APIKey: "sk-ä"},
	} {
		if _, err := NewOpenAI(c); err == nil {
			t.Errorf("%+v is taken", c)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sk-") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}
