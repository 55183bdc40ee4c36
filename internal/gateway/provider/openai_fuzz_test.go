package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// seeds are streams and bodies as servers send them, whole and broken.
var seeds = []string{
	good + usageChunk + done, part, ": comment\r\rdata:{}\r\n\r\n", "\xef\xbb\xbfdata: [DONE]", "event: error\ndata: {\"error\":{\"message\":\"x\"}}\n\n",
	callChunk(signed) + finishChunk("tool_calls"), `{"error":{"message":"x"}}`, `{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
	`[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"@type":"x.RetryInfo","retryDelay":"34s"}]}}]`, "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{}}]}\n\n",
	`data: {"choices":[{"delta":{"reasoning_details":[{"type":"a","text":"b","index":0},{"type":"a","text":"c","index":0}]},"finish_reason":"stop"}]}` + "\n\n",
}

// However a stream is cut on its way, the same is read.
func FuzzEvents(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	read := func(r io.Reader) (list []string, err error) {
		for e := newEvents(r); ; {
			next, err := e.next()
			if err != nil {
				return list, err
			}
			list = append(list, next.name+"|"+string(next.value)+"|"+string(next.line))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, err := read(bytes.NewReader(stream))
		single, err2 := read(iotest.OneByteReader(bytes.NewReader(stream)))
		if diff := cmp.Diff(whole, single); diff != "" || !errors.Is(err, err2) {
			t.Errorf("%v, %v\n%s", err, err2, diff)
		}
	})
}

// Whatever a server sends, it is an answer with a finish reason, or an *Error that can be shown.
func FuzzAnswer(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	o, err := NewOpenAI(OpenAIConfig{Vendor: "openrouter", BaseURL: "http://127.0.0.1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, streamed bool) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		text := ""
		call := simpleCall()
		call.Stream = func(d Delta) { text += d.Text }
		x := &exchange{o: o, call: call, parent: t.Context(), ctx: ctx, cancel: cancel, start: time.Now(), firstToken: time.Hour, idle: time.Hour}
		x.watch = time.AfterFunc(time.Hour, x.late)
		defer x.watch.Stop()
		header := http.Header{"Content-Type": {"application/json"}}
		if streamed {
			header.Set("Content-Type", "text/event-stream")
		}
		r, err := x.read(&http.Response{StatusCode: 200, Header: header, Body: io.NopCloser(bytes.NewReader(body))})
		if err == nil {
			if r.FinishReason != "stop" && r.FinishReason != "tool_calls" || r.Text != text || r.Tokens.Input < 0 || r.Tokens.Output < 0 || r.Hidden != nil && !json.Valid(r.Hidden.Data) {
				t.Errorf("%+v", r)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || e.Class == "" || !utf8.ValidString(e.Message) || len(e.Message) > 2*messageBytesMax || e.RetryAfter < 0 {
			t.Errorf("%#v", err)
		}
	})
}
