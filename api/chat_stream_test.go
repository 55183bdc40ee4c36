package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// streaming gives the transcript of a stream, without what no two have alike.
func (s *service) streaming(t fataler, body string, headers ...string) (string, http.Header) {
	t.Helper()
	req := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
	req.Header.Set("Content-Type", mediaJSON)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, req)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != mediaEventStream || w.Header().Get("X-Accel-Buffering") != "no" {
		t.Fatalf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	return steady(w.Body.Bytes()), w.Header()
}

// transcript writes chunks as they go out: each is what stands in it after the model.
func transcript(model string, rest ...string) string {
	var s strings.Builder
	for _, r := range rest {
		if strings.HasPrefix(r, "{") || strings.HasPrefix(r, "[") {
			fmt.Fprintf(&s, "data: %s\n\n", r)
			continue
		}
		fmt.Fprintf(&s, `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":%q,%s}`+"\n\n", model, r)
	}
	return s.String()
}

func chunk(delta string) string {
	return `"choices":[{"index":0,"delta":{` + delta + `},"logprobs":null,"finish_reason":null}]`
}

func last(reason, account string) string {
	return `"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"` + reason + `"}]` + account
}

const role = `"role":"assistant","content":""`

// streams of the answers that are told in one way or another: their transcripts.
func TestChatTranscripts(t *testing.T) {
	end := gateway.Answer{Reply: provider.Reply{Text: "hi you", Tokens: usage.Tokens{Input: 1, Output: 2}}, Provider: "xai", Asked: "grok-3", Try: 1}
	const account = `,"fermata":{"model":"grok-3","provider":"xai","depth":0,"attempt":1,"degraded":false,"simulated":false,"cost_usd":"0.00","baseline_usd":"0.00"}`
	restart := told(provider.Delta{Text: "anew"})
	restart.Restart, restart.Model = true, "gpt-4o"
	broken := &gateway.FailedError{Class: "stream_interrupted", Message: "grok-3 at xai: the stream was cut"}
	const failure = `{"error":{"message":"grok-3 at xai: the stream was cut","type":"server_error","param":null,"code":"all_models_failed","fermata":{"class":"stream_interrupted","request_id":"req_1"}}}`
	for name, c := range map[string]struct {
		more   string
		header string
		deltas []gateway.Delta
		answer gateway.Answer
		err    error
		want   string
	}{
		"text": {
			deltas: []gateway.Delta{told(provider.Delta{}), told(provider.Delta{Text: "hi"}), told(provider.Delta{Text: " \"you\"\n\u2028é"})}, answer: end,
			want: transcript("grok-3", chunk(role), chunk(`"content":"hi"`), chunk(`"content":" \"you\"\n`+"\u2028é"+`"`), last("stop", account), "[DONE]"),
		},
		"with usage": {
			more: `,"stream_options":{"include_usage":true}`, deltas: []gateway.Delta{told(provider.Delta{Text: "hi"})}, answer: end,
			want: transcript("grok-3", chunk(role)+`,"usage":null`, chunk(`"content":"hi"`)+`,"usage":null`, last("stop", `,"usage":null`+account),
				`"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}`, "[DONE]"),
		},
		"thinking and tools": {
			deltas: []gateway.Delta{
				told(provider.Delta{Reasoning: "hm"}),
				told(provider.Delta{ToolCalls: []provider.ToolCallDelta{{Index: 0, ID: "c1", Name: "look"}, {Index: 0, Arguments: `{"n":`}}}),
				told(provider.Delta{ToolCalls: []provider.ToolCallDelta{{Index: 0, Arguments: `1}`}}}),
			},
			answer: gateway.Answer{Reply: provider.Reply{ToolCalls: answeringWithTool()}, Provider: "xai", Asked: "grok-3", Try: 1},
			want: transcript("grok-3", chunk(role), chunk(`"reasoning_content":"hm"`),
				chunk(`"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":""}}]`),
				chunk(`"tool_calls":[{"index":0,"function":{"arguments":"{\"n\":"}}]`), chunk(`"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]`),
				last("tool_calls", account), "[DONE]"),
		},
		"told at once": {
			answer: end,
			want:   transcript("grok-3", chunk(role), chunk(`"content":"hi you"`), last("stop", account), "[DONE]"),
		},
		"tools told at once": {
			answer: gateway.Answer{Reply: provider.Reply{ToolCalls: answeringWithTool()}, Provider: "xai", Asked: "grok-3", Try: 1},
			want: transcript("grok-3", chunk(role), chunk(`"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":"{\"n\":1}"}}]`),
				last("tool_calls", account), "[DONE]"),
		},
		"broken": {
			deltas: []gateway.Delta{told(provider.Delta{Text: "hi"})}, err: broken,
			want: transcript("grok-3", chunk(role), chunk(`"content":"hi"`), failure),
		},
		"begun anew": {
			header: "Fermata-Restart: allow", deltas: []gateway.Delta{told(provider.Delta{Text: "hi"}), restart}, answer: end,
			want: transcript("grok-3", chunk(role), chunk(`"content":"hi"`)) +
				transcript("gpt-4o", `"choices":[],"fermata":{"restart":true}`, chunk(`"content":"anew"`), last("stop", account), "[DONE]"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := newChat(t, func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
				for _, d := range c.deltas {
					r.Stream(d)
				}
				return c.answer, c.err
			})
			headers := []string{"Fermata-Mode: interactive"}
			if c.header != "" {
				headers = append(headers, c.header)
			}
			got, _ := s.streaming(t, chatBody("gpt-4o", `,"stream":true`+c.more), headers...)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if m.last(t).Restarts != (c.header != "") {
				t.Error("restarts are allowed by their header alone")
			}
		})
	}
}

// The headers of a stream name who began it.
func TestChatStreamHeaders(t *testing.T) {
	s, _ := newChat(t, nil)
	_, header := s.streaming(t, chatBody("gpt-4o", `,"stream":true`))
	if header.Get("Fermata-Model") != "xai/grok-3" || header.Get("Fermata-Fallback-Depth") != "1" || header.Get("Request-Id") == "" {
		t.Errorf("got %v", header)
	}
}

// While nothing comes, comments keep the line open; what fails after the first of them is told in the stream.
func TestChatHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newChat(t, func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
			time.Sleep(31 * time.Second)
			r.Stream(told(provider.Delta{Text: "hi"}))
			time.Sleep(16 * time.Second)
			return answering("hi"), nil
		})
		got, _ := s.streaming(t, chatBody("gpt-4o", `,"stream":true`))
		const beat = ": still here\n\n"
		if !strings.HasPrefix(got, beat+beat+"data: {") || strings.Count(got, beat) != 3 || !strings.HasSuffix(got, "[DONE]\n\n") {
			t.Errorf("got %s", got)
		}
		m.answer = func(context.Context, gateway.Request) (gateway.Answer, error) {
			time.Sleep(20 * time.Second)
			return gateway.Answer{}, &gateway.FailedError{Class: "server", Message: "broken"}
		}
		got, _ = s.streaming(t, chatBody("gpt-4o", `,"stream":true`))
		if !strings.HasPrefix(got, beat+`data: {"error":{"message":"broken"`) || strings.Contains(got, "[DONE]") {
			t.Errorf("got %s", got)
		}
	})
}

// A model that does not answer in time is a timeout, not the caller's leaving.
func TestChatDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newChat(t, func(ctx context.Context, _ gateway.Request) (gateway.Answer, error) {
			<-ctx.Done()
			return gateway.Answer{}, &gateway.FailedError{Class: "timeout", Message: "no answer in time"}
		})
		began := time.Now()
		s.chatting(t, chatBody("gpt-4o", "")).want(504)
		if took := time.Since(began); took != chatTimeMax {
			t.Errorf("it took %s", took)
		}
	})
}

// stuck is a caller who takes nothing after the first bytes.
type stuck struct {
	*httptest.ResponseRecorder
	deadline time.Time
	taken    int
}

func (w *stuck) SetWriteDeadline(t time.Time) error {
	w.deadline = t
	return nil
}

func (w *stuck) Write(p []byte) (int, error) {
	if w.taken += len(p); w.taken < 1000 {
		return w.ResponseRecorder.Write(p)
	}
	time.Sleep(time.Until(w.deadline))
	return 0, &net.OpError{Op: "write", Err: errors.New("i/o timeout")}
}

// A caller who takes nothing is let go after one deadline, and the model need not go on.
func TestChatSlowCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parts := 0
		s, _ := newChat(t, func(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
			for ctx.Err() == nil {
				r.Stream(told(provider.Delta{Text: strings.Repeat("x", 100)}))
				parts++
			}
			return gateway.Answer{}, &gateway.FailedError{Class: "cancelled", Message: "cut"}
		})
		req := httptest.NewRequest("POST", "/v1/chat/completions", bytes.NewReader([]byte(chatBody("gpt-4o", `,"stream":true`))))
		req.Header.Set("Content-Type", mediaJSON)
		began := time.Now()
		s.handler.ServeHTTP(&stuck{ResponseRecorder: httptest.NewRecorder()}, req)
		if took := time.Since(began); took != writeSlack || parts > 10 {
			t.Errorf("it took %s and %d parts", took, parts)
		}
	})
}

// Each part is on its way before the next one is made.
func TestChatFlushesEachPart(t *testing.T) {
	next := make(chan struct{})
	s, _ := newChat(t, func(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
		for _, part := range []string{"one", "two"} {
			r.Stream(told(provider.Delta{Text: part}))
			select {
			case <-next:
			case <-ctx.Done():
			}
		}
		return answering("onetwo"), nil
	})
	server := s.serve(t)
	req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/v1/chat/completions", strings.NewReader(chatBody("gpt-4o", `,"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaJSON)
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got bytes.Buffer
	for _, part := range []string{"one", "two"} {
		for buf := make([]byte, 4096); !strings.Contains(got.String(), `"content":"`+part); {
			n, err := resp.Body.Read(buf)
			if got.Write(buf[:n]); err != nil {
				t.Fatalf("%v after %s", err, &got)
			}
		}
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("got %s, %v", rest, err)
	}
}
