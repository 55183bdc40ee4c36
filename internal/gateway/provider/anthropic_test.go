package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

const anthropicKey = "sk-ant-api03-0123456789abcdef_AA"

// serveAnthropic starts a server of the Messages API and a provider that asks it.
func serveAnthropic(t testing.TB, c AnthropicConfig, h http.HandlerFunc) *Anthropic {
	t.Helper()
	server := httptest.NewServer(h)
	c.BaseURL, c.APIKey = server.URL, anthropicKey
	a, err := NewAnthropic(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		server.CloseClientConnections() // handlers that hang on purpose
		server.Close()
	})
	return a
}

// sse writes a stream as Anthropic does: each event under its name.
func sse(list ...string) string {
	var s strings.Builder
	for _, data := range list {
		var e struct {
			Type string `json:"type"`
		}
		_ = json.Unmarshal([]byte(data), &e)
		fmt.Fprintf(&s, "event: %s\ndata: %s\n\n", e.Type, data)
	}
	return s.String()
}

const (
	evStart     = `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-4-6-x","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}`
	evPing      = `{"type":"ping"}`
	evText      = `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`
	evHello     = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}`
	evWorld     = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":", world"}}`
	evBlockStop = `{"type":"content_block_stop","index":0}`
	evEnd       = `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}`
	evStop      = `{"type":"message_stop"}`
	evOverload  = `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`
)

var (
	greeting = sse(evStart, evPing, evText, evHello, evWorld, evBlockStop, evEnd, evStop)
	halfway  = sse(evStart, evText, evHello)
	ignore   = cmpopts.IgnoreFields(Reply{}, "FirstToken")
)

// stopping is a stream that ends for a reason.
func stopping(reason string) string {
	return sse(evStart, evText, evHello, evBlockStop, strings.Replace(evEnd, "end_turn", reason, 1), evStop)
}

func TestAnthropicAnswers(t *testing.T) {
	hello := Reply{Text: "Hello, world", FinishReason: "stop", Model: "claude-opus-4-6-x", Tokens: usage.Tokens{Input: 12, Output: 5}}
	counted := hello
	counted.Tokens, counted.Estimated = usage.Tokens{Input: 12, Output: CountTokens("Hello, world", "claude-opus-4-6")}, true
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    Reply
	}{
		{"a stream", stream(greeting), hello},
		{"CRLF", stream(strings.ReplaceAll(greeting, "\n", "\r\n")), hello},
		{"no event lines", stream(strings.ReplaceAll(greeting, "event: ", ": ")), hello},
		{"the type in the event line alone", stream(strings.Replace(greeting, `"type":"message_stop"`, `"x":1`, 1)), hello},
		{"finished, then the connection stays open", hang(greeting), hello},
		{"the end of the stream is lost after the stop reason", stream(strings.TrimSuffix(greeting, sse(evStop))), hello},
		{"events that nobody knows yet", stream(sse(evStart, `{"type":"message_hint","hint":[1]}`, evText, evHello, `{"type":"content_block_start","index":7,"content_block":{"type":"novelty","x":1}}`, `{"type":"content_block_delta","index":7,"delta":{"type":"novelty_delta","y":2}}`, evWorld, evEnd, evStop)), hello},
		{"a thousand pings", stream(strings.Replace(greeting, sse(evPing), strings.Repeat(sse(evPing), 1000), 1)), hello},
		{"a stop sequence", stream(strings.Replace(greeting, "end_turn", "stop_sequence", 1)), hello},
		{"usage without numbers at the end", stream(strings.Replace(greeting, `{"output_tokens":5}`, `{"output_tokens":null}`, 1)), counted},
		{"no usage at the end", stream(strings.Replace(greeting, `,"usage":{"output_tokens":5}`, "", 1)), counted},
		{
			"a whole answer although a stream was asked for", plainBody(200, "application/json", `{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-4-6-x","content":[{"type":"text","text":"Hello"},{"type":"text","text":", world"}],"stop_reason":"end_turn","usage":{"input_tokens":12,"output_tokens":5}}`), hello,
		},
		{
			"an empty answer", stream(sse(evStart, strings.Replace(evEnd, "5", "0", 1), evStop)),
			Reply{FinishReason: "stop", Model: "claude-opus-4-6-x", Tokens: usage.Tokens{Input: 12, Output: 1}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := serveAnthropic(t, AnthropicConfig{}, c.handler)
			call := simpleCall()
			call.Model = "claude-opus-4-6"
			got, err := a.Complete(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, ignore); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The same call in Anthropic's shapes: what is cached is not among the input, thinking is among the output.
func TestAnthropicUsage(t *testing.T) {
	for _, c := range []struct {
		name       string
		hour       bool
		start, end string
		want       usage.Tokens
		estimated  bool
	}{
		{name: "plain", start: `{"input_tokens":1000,"output_tokens":1}`, end: `{"output_tokens":200}`, want: usage.Tokens{Input: 1000, Output: 200}},
		{name: "read and written", start: `{"input_tokens":100,"cache_read_input_tokens":700,"cache_creation_input_tokens":200,"output_tokens":1}`, end: `{"output_tokens":200}`, want: usage.Tokens{Input: 100, CacheRead: 700, CacheWrite: 200, Output: 200}},
		{
			name: "written for an hour and for minutes", hour: true,
			start: `{"input_tokens":100,"cache_creation_input_tokens":248,"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100},"output_tokens":1}`, end: `{"input_tokens":100,"cache_creation_input_tokens":248,"output_tokens":200}`,
			want: usage.Tokens{Input: 100, CacheWrite: 148, CacheWrite1h: 100, Output: 200},
		},
		{name: "written, and not said for how long", hour: true, start: `{"input_tokens":100,"cache_creation_input_tokens":248,"output_tokens":1}`, end: `{"output_tokens":200}`, want: usage.Tokens{Input: 100, CacheWrite1h: 248, Output: 200}},
		{name: "thinking", start: `{"input_tokens":100,"output_tokens":1}`, end: `{"output_tokens":200,"output_tokens_details":{"thinking_tokens":150}}`, want: usage.Tokens{Input: 100, Output: 50, Reasoning: 150}},
		{name: "nulls", start: `{"input_tokens":100,"cache_creation":null,"cache_read_input_tokens":null,"output_tokens":1}`, end: `{"input_tokens":null,"output_tokens":200,"output_tokens_details":null}`, want: usage.Tokens{Input: 100, Output: 200}},
		{name: "cumulative at the end", start: `{"input_tokens":100,"output_tokens":25}`, end: `{"input_tokens":300,"cache_read_input_tokens":50,"output_tokens":200}`, want: usage.Tokens{Input: 300, CacheRead: 50, Output: 200}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := serveAnthropic(t, AnthropicConfig{Cache1h: c.hour}, stream(sse(
				`{"type":"message_start","message":{"type":"message","model":"m","usage":`+c.start+`}}`, evText, evHello,
				`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":`+c.end+`}`, evStop)))
			got, err := a.Complete(t.Context(), simpleCall())
			if err != nil {
				t.Fatal(err)
			}
			if got.Tokens != c.want || got.Estimated != c.estimated {
				t.Errorf("got %+v (estimated: %t), want %+v", got.Tokens, got.Estimated, c.want)
			}
		})
	}
}

func anthropicError(status int, kind, message string) http.HandlerFunc {
	return plainBody(status, "application/json", fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q},"request_id":"req_1"}`, kind, message))
}

func TestAnthropicFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		class   Class
		message string // a part of it
	}{
		{"overloaded first", stream(sse(evOverload)), ClassOverloaded, "Overloaded"},
		{"overloaded after the head", hang(sse(evStart, evPing, evOverload)), ClassOverloaded, "Overloaded"},
		{"overloaded after tokens", hang(halfway + sse(evOverload)), ClassOverloaded, "Overloaded"},
		{"an error after tokens", stream(halfway + sse(`{"type":"error","error":{"type":"api_error","message":"Internal server error"}}`)), ClassStreamInterrupted, "Internal"},
		{"an error before tokens", stream(sse(evStart, `{"type":"error","error":{"type":"api_error","message":"Internal server error"}}`)), ClassServer, "Internal"},
		{"an error event that is not JSON", stream("event: error\ndata: upstream connect error\n\n"), ClassServer, "upstream connect error"},
		{"an error without a type", stream(halfway + "data: {\"error\":{\"message\":\"CUDA out of memory\"}}\n\n"), ClassStreamInterrupted, "CUDA"},
		{"an error line without framing", stream(halfway + evOverload + "\n"), ClassOverloaded, "Overloaded"},
		{"cut after tokens", stream(halfway), ClassStreamInterrupted, "without a stop reason"},
		{"message_stop without a stop reason", stream(halfway + sse(evBlockStop, evStop)), ClassStreamInterrupted, "without a stop reason"},
		{"a stop reason of null", stream(strings.Replace(greeting, `"end_turn"`, "null", 1)), ClassStreamInterrupted, "without a stop reason"},
		{"nothing at all", stream(""), ClassStreamInterrupted, "without a stop reason"},
		{"200 and an empty body", plainBody(200, "application/json", ""), ClassStreamInterrupted, "empty"},
		{"200 with an error body", anthropicError(200, "overloaded_error", "Overloaded"), ClassOverloaded, "Overloaded"},
		{"200 with a page", plainBody(200, "text/html", "<html><body>Log in to the network</body></html>"), ClassServer, "Log in"},
		{"200 with something else", plainBody(200, "application/json", `{"choices":[]}`), ClassStreamInterrupted, "not a message"},
		{"garbage in the stream", stream(halfway + "data: {\"type\":\n\n"), ClassStreamInterrupted, "not JSON"},
		{"JSON of another kind", stream(halfway + "data: [1]\n\n"), ClassStreamInterrupted, "none of a message"},
		{"a part of a block that was not begun", stream(sse(evStart, evHello)), ClassStreamInterrupted, "not begun"},
		{"a line without end", stream("data: " + strings.Repeat("x", lineBytesMax+1)), ClassStreamInterrupted, "too long"},
		{"an answer without end", stream(sse(evStart, evText) + strings.Repeat(sse(strings.Replace(evHello, "Hello", strings.Repeat("x", 1<<19), 1)), 9)), ClassStreamInterrupted, "more than"},
		{"blocks without end", stream(sse(evStart) + strings.Repeat(sse(evText), anthropicPartsMax+1)), ClassStreamInterrupted, "blocks"},
		{"a call with half its arguments", stream(sse(evStart, `{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}}`, `{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}`, strings.Replace(evEnd, "end_turn", "tool_use", 1), evStop)), ClassStreamInterrupted, "arguments"},
		{"tool_use without a call", stream(stopping("tool_use")), ClassStreamInterrupted, "holds none"},
		{"max_tokens", stream(stopping("max_tokens")), ClassOutputTruncated, "limit of 100"},
		{"refusal", stream(stopping("refusal")), ClassContentPolicy, "refused"},
		{"refusal with a reason", stream(strings.Replace(stopping("refusal"), `"stop_sequence":null}`, `"stop_details":{"type":"refusal","category":"cyber","explanation":"Not this."}}`, 2)), ClassContentPolicy, "Not this."},
		{"the end of the context", stream(stopping("model_context_window_exceeded")), ClassContextLength, "context window"},
		{"pause_turn", stream(stopping("pause_turn")), ClassStreamInterrupted, "paused"},
		{"a reason that nobody knows yet", stream(stopping("bored")), ClassUnknown, "bored"},

		{"400", anthropicError(400, "invalid_request_error", "messages.0.role: Input should be 'user' or 'assistant'"), ClassInvalidRequest, "messages.0.role"},
		{"400 prompt too long", anthropicError(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), ClassContextLength, "210000"},
		{"400 prompt and answer too long", anthropicError(400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length or `max_tokens` and try again"), ClassContextLength, "178959"},
		{"400 empty purse", anthropicError(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."), ClassQuotaExhausted, "credit balance"},
		{"400 spending limit", anthropicError(400, "invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2026-04-01 at 00:00 UTC."), ClassQuotaExhausted, "regain"},
		{"400 output blocked", anthropicError(400, "invalid_request_error", "Output blocked by content filtering policy"), ClassContentPolicy, "blocked"},
		{"400 forced tool", anthropicError(400, "invalid_request_error", `tool_choice: type "tool" and "any" are not supported for this model.`), ClassCapabilityMismatch, "tool_choice"},
		{"401", anthropicError(401, "authentication_error", "invalid x-api-key"), ClassAuth, "invalid x-api-key"},
		{"402", anthropicError(402, "billing_error", "Payment failed"), ClassQuotaExhausted, "Payment"},
		{"403", anthropicError(403, "permission_error", "Your API key does not have permission to use the specified resource"), ClassAuth, "permission"},
		{"404", anthropicError(404, "not_found_error", "model: claude-9"), ClassNotFound, "claude-9"},
		{"413", anthropicError(413, "request_too_large", "Request exceeds the maximum size"), ClassContextLength, "maximum size"},
		{"429", anthropicError(429, "rate_limit_error", "This request would exceed your organization's rate limit of 40,000 input tokens per minute."), ClassRateLimited, "40,000"},
		{"500", anthropicError(500, "api_error", "Internal server error"), ClassServer, "Internal"},
		{"502 of a proxy", plainBody(502, "text/html", "<html><h1>502 Bad Gateway</h1></html>"), ClassServer, "502 Bad Gateway"},
		{"504", anthropicError(504, "timeout_error", "Request timed out"), ClassServer, "timed out"},
		{"529", anthropicError(529, "overloaded_error", "Overloaded"), ClassOverloaded, "Overloaded"},
		{"a redirect is not followed", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/v1", http.StatusPermanentRedirect)
		}, ClassNotFound, "redirects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := serveAnthropic(t, AnthropicConfig{}, c.handler)
			reply, err := a.Complete(t.Context(), simpleCall())
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

func TestAnthropicChargeOfFailures(t *testing.T) {
	for _, c := range []struct {
		name      string
		handler   http.HandlerFunc
		want      usage.Tokens
		estimated bool
		begun     bool
	}{
		{"refused: nothing", anthropicError(500, "api_error", "x"), usage.Tokens{}, false, false},
		{"overloaded before output: nothing", stream(sse(evStart, evOverload)), usage.Tokens{}, false, false},
		{"cut after output: the input as reported, the output as it came", stream(halfway), usage.Tokens{Input: 12, Output: CountTokens("Hello", "m")}, true, true},
		{"overloaded after output: likewise", stream(halfway + sse(evOverload)), usage.Tokens{Input: 12, Output: CountTokens("Hello", "m")}, true, true},
		{"truncated: what was reported", stream(stopping("max_tokens")), usage.Tokens{Input: 12, Output: 5}, false, true},
		{"a refusal: what was reported", stream(stopping("refusal")), usage.Tokens{Input: 12, Output: 5}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := serveAnthropic(t, AnthropicConfig{}, c.handler)
			_, err := a.Complete(t.Context(), simpleCall())
			e := failure(t, err)
			if e.Tokens != c.want || e.Estimated != c.estimated || e.Begun != c.begun {
				t.Errorf("charged %+v (estimated: %t, begun: %t), want %+v (%t, %t)", e.Tokens, e.Estimated, e.Begun, c.want, c.estimated, c.begun)
			}
		})
	}
}

func TestAnthropicTimers(t *testing.T) {
	head := sse(evStart, evPing, evText, evPing)
	short, long := 50*time.Millisecond, time.Hour
	for _, c := range []struct {
		name    string
		config  AnthropicConfig
		call    Call
		handler http.HandlerFunc
		class   Class
		message string
	}{
		{"first token: a head, an empty block and pings are none", AnthropicConfig{FirstToken: short, Idle: long}, Call{}, hang(head), ClassTimeout, "began"},
		{"first token of the call", AnthropicConfig{}, Call{FirstToken: short}, hang(head), ClassTimeout, "50ms"},
		{"stall", AnthropicConfig{FirstToken: long, Idle: short}, Call{}, hang(halfway), ClassStreamInterrupted, "stalled"},
		{"stall of the call", AnthropicConfig{}, Call{Idle: short}, hang(halfway), ClassStreamInterrupted, "50ms"},
		{"no headers", AnthropicConfig{FirstToken: short}, Call{}, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, ClassTimeout, "began"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := serveAnthropic(t, c.config, c.handler)
			call := simpleCall()
			call.FirstToken, call.Idle = c.call.FirstToken, c.call.Idle
			_, err := a.Complete(t.Context(), call)
			e := failure(t, err)
			if e.Class != c.class || !strings.Contains(e.Message, c.message) || e.Tokens.Input == 0 || !e.Estimated {
				t.Errorf("got %+v, want class %s and a message with %q", e, c.class, c.message)
			}
		})
	}
	t.Run("the caller's deadline", func(t *testing.T) {
		a := serveAnthropic(t, AnthropicConfig{}, hang(halfway))
		ctx, cancel := context.WithTimeout(t.Context(), short)
		defer cancel()
		_, err := a.Complete(ctx, simpleCall())
		if e := failure(t, err); e.Class != ClassTimeout || !e.Begun {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a := serveAnthropic(t, AnthropicConfig{}, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		})
		_, err := a.Complete(ctx, simpleCall())
		if e := failure(t, err); e.Class != ClassCancelled {
			t.Errorf("got %+v", e)
		}
	})
}

// What keeps an answer alive, and for how long: the first token may take an hour, the parts a minute.
func TestAnthropicPatience(t *testing.T) {
	thought := `{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`
	signed := `{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}`
	silence := `{"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":"","signature":""}}`
	type beat struct {
		after time.Duration
		event string
	}
	for _, c := range []struct {
		name  string
		beats []beat
		class Class // empty: it is answered
		took  time.Duration
	}{
		{name: "a slow beginning", beats: []beat{{0, evStart}, {59 * time.Minute, evText}, {0, evHello}, {0, evEnd}, {0, evStop}}, took: 59 * time.Minute},
		{name: "pings do not begin an answer", beats: []beat{{0, evStart}, {0, evText}, {50 * time.Minute, evPing}, {9 * time.Minute, evPing}, {2 * time.Minute, evHello}}, class: ClassTimeout, took: time.Hour},
		{name: "pings keep one alive", beats: []beat{{0, evStart}, {0, evText}, {0, evHello}, {59 * time.Second, evPing}, {59 * time.Second, evPing}, {59 * time.Second, evWorld}, {0, evEnd}, {0, evStop}}, took: 177 * time.Second},
		{name: "a stall", beats: []beat{{0, evStart}, {0, evText}, {time.Second, evHello}, {61 * time.Second, evWorld}}, class: ClassStreamInterrupted, took: 61 * time.Second},
		{name: "thinking that is not shown", beats: []beat{{0, evStart}, {0, thought}, {50 * time.Minute, signed}, {0, evBlockStop}, {59 * time.Second, silence}, {50 * time.Minute, evStop}}, class: ClassStreamInterrupted, took: 100*time.Minute + 59*time.Second},
		{name: "thinking that is not shown, for ever", beats: []beat{{0, evStart}, {0, evText}, {0, evHello}, {0, silence}, {61 * time.Minute, evStop}}, class: ClassStreamInterrupted, took: time.Hour},
		{name: "pings after the stop reason are not waited for", beats: []beat{{0, evStart}, {0, evText}, {0, evHello}, {0, evEnd}, {3 * time.Second, evPing}, {3 * time.Second, evPing}, {3 * time.Second, evStop}}, took: usageWait},
		{name: "what follows the stop reason is not waited for", beats: []beat{{0, evStart}, {0, evText}, {0, evHello}, {0, evEnd}, {time.Minute, evStop}}, took: usageWait},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, err := NewAnthropic(AnthropicConfig{})
				if err != nil {
					t.Fatal(err)
				}
				body, w := io.Pipe()
				x, end := exchangeOf(t, a)
				defer end()
				defer context.AfterFunc(x.ctx, func() { w.CloseWithError(x.ctx.Err()) })()
				var writer sync.WaitGroup
				defer writer.Wait()
				writer.Go(func() {
					defer w.Close()
					for _, b := range c.beats {
						time.Sleep(b.after)
						if _, err := io.WriteString(w, sse(b.event)); err != nil {
							return
						}
					}
				})
				began := time.Now()
				_, err = x.read(&http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body})
				took := time.Since(began)
				body.Close()
				var class Class
				if err != nil {
					class = failure(t, err).Class
				}
				if class != c.class || took != c.took {
					t.Errorf("got %q after %s, want %q after %s (%v)", class, took, c.class, c.took, err)
				}
			})
		})
	}
}

// exchangeOf is an exchange without a connection: an hour until the first token, a minute between parts.
func exchangeOf(t *testing.T, a *Anthropic) (*anthropicExchange, func()) {
	ctx, cancel := context.WithCancelCause(t.Context())
	x := &anthropicExchange{a: a, call: simpleCall(), parent: t.Context(), ctx: ctx, cancel: cancel, asked: time.Now(), firstToken: time.Hour, idle: time.Minute}
	x.watch = time.AfterFunc(x.firstToken, x.late)
	return x, func() {
		x.watch.Stop()
		cancel(nil)
	}
}

func TestAnthropicNetwork(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	a, err := NewAnthropic(AnthropicConfig{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Complete(t.Context(), simpleCall())
	if e := failure(t, err); e.Class != ClassNetwork || e.Tokens.Total() != 0 {
		t.Errorf("nobody listens: got %+v", e)
	}
	a = serveAnthropic(t, AnthropicConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, halfway)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	_, err = a.Complete(t.Context(), simpleCall())
	if e := failure(t, err); e.Class != ClassStreamInterrupted || !e.Begun {
		t.Errorf("reset in the stream: got %+v", e)
	}
}

func TestAnthropicLimits(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	header := map[string]string{
		"request-id":                         "req_011CUB2X",
		"Date":                               "Wed, 21 Oct 2026 07:28:00 GMT",
		"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49", "anthropic-ratelimit-requests-reset": "2026-10-21T07:28:01Z",
		"anthropic-ratelimit-tokens-limit": "48000", "anthropic-ratelimit-tokens-remaining": "8000", "anthropic-ratelimit-tokens-reset": "2026-10-21T07:28:40Z",
		"anthropic-ratelimit-input-tokens-limit": "40000", "anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": "2026-10-21T07:28:45.5Z",
		"anthropic-ratelimit-output-tokens-limit": "8000", "anthropic-ratelimit-output-tokens-remaining": "-3", "anthropic-ratelimit-output-tokens-reset": "2026-10-21T07:27:00Z",
	}
	want := Limits{
		Requests: Limit{50, 49, time.Second}, Tokens: Limit{48_000, 8_000, 40 * time.Second},
		InputTokens: Limit{40_000, 0, 45500 * time.Millisecond}, OutputTokens: Limit{8_000, 0, 0},
	}
	for _, c := range []struct {
		name    string
		status  int
		without string
		extra   [2]string
		wait    time.Duration
		noRetry bool
	}{
		{name: "an answer", status: 200},
		{name: "until the limit is full again", status: 429, wait: 45500 * time.Millisecond},
		{name: "as it says", status: 429, extra: [2]string{"Retry-After", "12"}, wait: 12 * time.Second},
		{name: "a wait is of rate limits alone", status: 500},
		{name: "not to be tried again", status: 529, extra: [2]string{"x-should-retry", "false"}, noRetry: true},
		{name: "to be tried again", status: 529, extra: [2]string{"x-should-retry", "true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := serveAnthropic(t, AnthropicConfig{Now: func() time.Time { return now }}, func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range header {
					w.Header().Set(k, v)
				}
				if c.extra[0] != "" {
					w.Header().Set(c.extra[0], c.extra[1])
				}
				w.WriteHeader(c.status)
				if c.status == 200 {
					io.WriteString(w, greeting)
				}
			})
			r, err := a.Complete(t.Context(), simpleCall())
			limits, id := r.Limits, r.RequestID
			if err != nil {
				e := failure(t, err)
				limits, id = e.Limits, e.RequestID
				if e.RetryAfter != c.wait || e.NoRetry != c.noRetry {
					t.Errorf("got %s and %t, want %s and %t", e.RetryAfter, e.NoRetry, c.wait, c.noRetry)
				}
			}
			if diff := cmp.Diff(want, limits); diff != "" || id != "req_011CUB2X" {
				t.Errorf("request %q: %s", id, diff)
			}
		})
	}
	if got := anthropicLimits(http.Header{"Anthropic-Ratelimit-Requests-Limit": {"many"}}, now); got != (Limits{}) {
		t.Errorf("got %+v of what cannot be read", got)
	}
}

func TestAnthropicDeltas(t *testing.T) {
	body := sse(evStart,
		`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}`,
		evBlockStop,
		`{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}`,
		`{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Look"}}`,
		`{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"ing."}}`,
		`{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"find","input":{}}}`,
		`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}`,
		`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"q\":"}}`,
		`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"1}"}}`,
		`{"type":"content_block_stop","index":2}`,
		`{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"now","input":{}}}`,
		`{"type":"content_block_stop","index":3}`,
		`{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":40}}`, evStop)
	a := serveAnthropic(t, AnthropicConfig{}, stream(body))
	var got []Delta
	call := simpleCall()
	call.Stream = func(d Delta) { got = append(got, d) }
	reply, err := a.Complete(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	want := []Delta{
		{Reasoning: "Hm."},
		{Text: "Look"},
		{Text: "ing."},
		{ToolCalls: []ToolCallDelta{{Index: 0, ID: "toolu_1", Name: "find"}}},
		{ToolCalls: []ToolCallDelta{{Index: 0, Arguments: `{"q":`}}},
		{ToolCalls: []ToolCallDelta{{Index: 0, Arguments: `1}`}}},
		{ToolCalls: []ToolCallDelta{{Index: 1, ID: "toolu_2", Name: "now"}}},
		{ToolCalls: []ToolCallDelta{{Index: 1, Arguments: `{}`}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantReply := Reply{
		Text: "Looking.", FinishReason: "tool_calls", Model: "claude-opus-4-6-x", Tokens: usage.Tokens{Input: 12, Output: 40},
		ToolCalls: []agent.ToolCall{{ID: "toolu_1", Name: "find", Arguments: `{"q":1}`}, {ID: "toolu_2", Name: "now", Arguments: `{}`}},
		Hidden:    &agent.Hidden{Provider: "anthropic", Model: "m", Data: json.RawMessage(`[{"type":"thinking","thinking":"Hm.","signature":"c2ln"},{"type":"text","bytes":8},{"type":"tool_use","id":"toolu_1"},{"type":"tool_use","id":"toolu_2"}]`)},
	}
	if diff := cmp.Diff(wantReply, reply, ignore); diff != "" {
		t.Error(diff)
	}
}

func TestAnthropicCountTokens(t *testing.T) {
	var mu sync.Mutex
	var bodies []map[string]any
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/messages/count_tokens" || r.Header.Get("x-api-key") != anthropicKey {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		var m map[string]any
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		mu.Lock()
		bodies = append(bodies, m)
		mu.Unlock()
		io.WriteString(w, `{"input_tokens":2095}`)
	}
	a := serveAnthropic(t, AnthropicConfig{CountTokens: true}, handler)
	warm := 0.5
	call := simpleCall()
	call.Model = "claude-opus-4-5"
	call.Ask.Temperature, call.Ask.Stop, call.Ask.TopP = &warm, []string{"END"}, &warm
	call.Ask.Tools = []agent.Tool{{Name: "f"}}
	n, err := a.CountTokens(t.Context(), call)
	if err != nil || n != 2095 {
		t.Fatalf("got %d, %v", n, err)
	}
	want := map[string]any{
		"model": "claude-opus-4-5", "messages": []any{map[string]any{"role": "user", "content": []any{map[string]any{"type": "text", "text": "Say something."}}}},
		"tools": []any{map[string]any{"name": "f", "input_schema": map[string]any{"type": "object"}}},
	}
	if diff := cmp.Diff([]map[string]any{want}, bodies); diff != "" {
		t.Error(diff)
	}
	t.Run("a server that cannot is not asked again", func(t *testing.T) {
		asked := 0
		a := serveAnthropic(t, AnthropicConfig{CountTokens: true}, func(w http.ResponseWriter, _ *http.Request) {
			asked++
			http.Error(w, "404 page not found", 404)
		})
		for range 3 {
			if _, err := a.CountTokens(t.Context(), call); err == nil {
				t.Error("no error")
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		a := serveAnthropic(t, AnthropicConfig{}, handler)
		_, err := a.CountTokens(t.Context(), call)
		if e := failure(t, err); e.Class != ClassCapabilityMismatch {
			t.Errorf("got %v", e)
		}
	})
	t.Run("failures charge nothing", func(t *testing.T) {
		for _, h := range []http.HandlerFunc{anthropicError(429, "rate_limit_error", "slow down"), plainBody(200, "application/json", `{}`), anthropicError(529, "overloaded_error", "Overloaded")} {
			a := serveAnthropic(t, AnthropicConfig{CountTokens: true}, h)
			_, err := a.CountTokens(t.Context(), call)
			if e := failure(t, err); e.Tokens.Total() != 0 {
				t.Errorf("charged %+v", e)
			}
		}
	})
}

func TestAnthropicKeyStaysSecret(t *testing.T) {
	echo := fmt.Sprintf(`{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key: %s and sk-ant-oat01-zzzzzzzz\u0000"}}`, anthropicKey)
	for name, handler := range map[string]http.HandlerFunc{
		"in a refusal":        plainBody(401, "application/json", echo),
		"in a stream":         stream("event: error\ndata: " + echo + "\n\n"),
		"in an error of text": stream("event: error\ndata: bad key " + anthropicKey + "\n\n"),
		"in a page":           plainBody(200, "text/html", "<p>"+anthropicKey+"</p>"),
		"in a refusal's word": stream(strings.Replace(stopping("refusal"), `"stop_sequence":null}`, `"stop_details":{"explanation":"`+anthropicKey+`"}}`, 2)),
		"in a stop reason":    stream(stopping(anthropicKey)),
	} {
		t.Run(name, func(t *testing.T) {
			a := serveAnthropic(t, AnthropicConfig{}, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get("x-api-key") != anthropicKey || r.Header.Get("anthropic-version") != "2023-06-01" || r.Header.Get("Authorization") != "" {
					t.Errorf("headers %v", r.Header)
				}
				if bytes.Contains(body, []byte(anthropicKey)) || strings.Contains(r.URL.String(), anthropicKey) {
					t.Error("the key is elsewhere, too")
				}
				handler(w, r)
			})
			_, err := a.Complete(t.Context(), simpleCall())
			if e := failure(t, err); strings.Contains(e.Message, "sk-ant") || strings.Contains(e.Message, "0123456789") || strings.ContainsRune(e.Message, 0) || e.Message == "" {
				t.Errorf("the message tells: %q", e.Message)
			}
		})
	}
}

func TestNewAnthropicRefuses(t *testing.T) {
	for _, c := range []AnthropicConfig{
		{BaseURL: "api.anthropic.com"},
		{BaseURL: "ftp://x"},
		{BaseURL: "http://user:secret@x/v1"},
		{BaseURL: "http://x/v1?key=secret"},
		{BaseURL: "http://[::1"},
		{APIKey: "sk-a\nb"},
		{APIKey: "sk-ä"},
	} {
		if _, err := NewAnthropic(c); err == nil {
			t.Errorf("%+v is taken", c)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sk-") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
	for _, base := range []string{"https://x.example", "https://x.example/", "https://x.example/v1", "https://x.example/v1/"} {
		a, err := NewAnthropic(AnthropicConfig{BaseURL: base})
		if err != nil || a.url != "https://x.example/v1/messages" || a.Host() != "x.example" || a.Name() != "anthropic" {
			t.Errorf("%s: %+v, %v", base, a, err)
		}
	}
}

// Calls of every kind of end leave no goroutine and no connection behind, and one after the other they use one.
func TestAnthropicLeaksNothing(t *testing.T) {
	var mu sync.Mutex
	open := map[string]bool{}
	bodies := []string{greeting, halfway, sse(evOverload), stopping("max_tokens"), stopping("refusal"), greeting}
	n := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		body := bodies[n%len(bodies)]
		n++
		mu.Unlock()
		stream(body)(w, r)
	}))
	changed := sync.NewCond(&mu)
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch s {
		case http.StateNew:
			open[c.RemoteAddr().String()] = true
		case http.StateClosed, http.StateHijacked:
			delete(open, c.RemoteAddr().String())
		case http.StateActive, http.StateIdle:
		}
		changed.Broadcast()
	}
	server.Start()
	defer server.Close()
	a, err := NewAnthropic(AnthropicConfig{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 * len(bodies) {
		_, err := a.Complete(t.Context(), simpleCall())
		if err != nil {
			failure(t, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(open) > 2 {
		t.Errorf("%d connections are open", len(open))
	}
	a.Close()
	for len(open) > 0 {
		changed.Wait()
	}
}

// FuzzAnthropicStream: whatever a server sends, nothing panics, and an answer is only one that says why it ended.
func FuzzAnthropicStream(f *testing.F) {
	for _, s := range []string{greeting, halfway, stopping("tool_use"), stopping("refusal"), sse(evOverload), "data: [DONE]\n\n", "event: error\ndata: x\n\n", "{}", "data: {\"type\":\"content_block_start\",\"index\":-1,\"content_block\":{\"type\":\"tool_use\",\"input\":{\"a\":1}}}\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := NewAnthropic(AnthropicConfig{BaseURL: "http://127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"text/event-stream", "application/json"} {
			x, end := exchangeOf(t, a)
			defer end()
			resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(bytes.NewReader(body))}
			reply, err := x.read(resp)
			switch {
			case err != nil:
				failure(t, err)
			case x.stop != "end_turn" && x.stop != "stop_sequence" && x.stop != "tool_use":
				t.Errorf("an answer that stopped for %q: %+v", x.stop, reply)
			case reply.FinishReason != "stop" && reply.FinishReason != "tool_calls" || (reply.FinishReason == "tool_calls") != (len(reply.ToolCalls) > 0):
				t.Errorf("finished for %q with %d calls", reply.FinishReason, len(reply.ToolCalls))
			case reply.Hidden != nil && !json.Valid(reply.Hidden.Data):
				t.Errorf("hidden is not JSON: %s", reply.Hidden.Data)
			}
			if tokens := reply.Tokens; tokens.Input < 0 || tokens.CacheRead < 0 || tokens.CacheWrite < 0 || tokens.CacheWrite1h < 0 || tokens.Output < 0 || tokens.Reasoning < 0 {
				t.Errorf("negative tokens: %+v", tokens)
			}
		}
	})
}
