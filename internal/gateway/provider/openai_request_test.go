package provider

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
)

// requests records what a server was sent.
type requests struct {
	mu   sync.Mutex
	list []map[string]any
}

func (r *requests) note(t *testing.T, body io.Reader) map[string]any {
	var m map[string]any
	if err := json.NewDecoder(body).Decode(&m); err != nil {
		t.Errorf("read request: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, m)
	return m
}

func TestRequest(t *testing.T) {
	zero := 0.0
	schema := json.RawMessage(`{"type":"object","required":["text","n"],"properties":{"text":{"type":"string"},"n":{"type":"array","items":{"type":"object","required":["b","a"],"properties":{"b":{"type":"string"},"a":{"type":"number"}}}}}}`)
	ask := agent.Ask{
		Messages:    []agent.Message{{Role: "system", Content: "You are <kind>."}, {Role: "user", Content: ""}},
		Temperature: &zero, JSON: true, Schema: schema,
	}
	capture := func(t *testing.T, c OpenAIConfig, call Call) string {
		var raw []byte
		o := serve(t, c, func(w http.ResponseWriter, r *http.Request) {
			raw, _ = io.ReadAll(r.Body)
			if r.URL.Path != "/v1/chat/completions" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
			}
			stream(good+done)(w, r)
		})
		if _, err := o.Complete(t.Context(), call); err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	closedSchema := `{"type":"object","required":["text","n"],"properties":{"text":{"type":"string"},"n":{"type":"array","items":{"type":"object","required":["b","a"],"properties":{"b":{"type":"string"},"a":{"type":"number"}},"additionalProperties":false}}},"additionalProperties":false}`
	for _, c := range []struct {
		name, want string
		config     OpenAIConfig
		call       Call
	}{
		{
			name: "m: temperature 0 and an empty message are sent; the schema strict, in its order",
			call: Call{Model: "gpt-4o", MaxTokens: 7, Ask: ask},
			want: `{"model":"gpt-4o","max_tokens":7,"stream":true,"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":` + closedSchema + `,"strict":true}},"stream_options":{"include_usage":true},"messages":[{"role":"system","content":"You are \u003ckind\u003e."},{"role":"user","content":""}],"temperature":0}`,
		},
		{
			name: "n: models that reason",
			call: Call{Model: "openai/gpt-5.4-mini", MaxTokens: 7, Ask: agent.Ask{Messages: ask.Messages[:1], Temperature: &zero}},
			want: `{"model":"openai/gpt-5.4-mini","max_completion_tokens":7,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"system","content":"You are \u003ckind\u003e."}]}`,
		},
		{
			name: "an open schema is guidance; no stream", config: OpenAIConfig{NoStream: true},
			call: Call{Model: "m", MaxTokens: 7, Ask: agent.Ask{Messages: ask.Messages[:1], JSON: true, Schema: json.RawMessage(`{"type":"object","properties":{"a":{"type":"string"}}}`)}},
			want: `{"model":"m","max_tokens":7,"stream":false,"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"object","properties":{"a":{"type":"string"}}},"strict":false}},"messages":[{"role":"system","content":"You are \u003ckind\u003e."}]}`,
		},
		{
			name: "what is no object is asked for by the prompt alone",
			call: Call{Model: "m", MaxTokens: 7, Ask: agent.Ask{Messages: ask.Messages[:1], JSON: true, Schema: json.RawMessage(`{"type":"array"}`)}},
			want: `{"model":"m","max_tokens":7,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"system","content":"You are \u003ckind\u003e."}]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got, want any
			raw := capture(t, c.config, c.call)
			if json.Unmarshal([]byte(raw), &got) != nil || json.Unmarshal([]byte(c.want), &want) != nil {
				t.Fatalf("not JSON: %s", raw)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s\n%s", diff, raw)
			}
			if at := strings.Index(raw, `"schema":{`); at > 0 && !strings.Contains(c.want, raw[at:at+40]) {
				t.Errorf("the schema has lost its order: %s", raw)
			}
		})
	}
}

func TestLearns(t *testing.T) {
	schema := json.RawMessage(`{"type":"object","required":["a"],"properties":{"a":{"type":"string"}}}`)
	var seen requests
	o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, r *http.Request) {
		m := seen.note(t, r.Body)
		refuse := func(message string) {
			w.WriteHeader(400)
			json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": "invalid_request_error"}})
		}
		format, _ := m["response_format"].(map[string]any)
		switch {
		case m["stream_options"] != nil:
			refuse("Unrecognized request argument supplied: stream_options")
		case m["max_tokens"] != nil:
			refuse("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
		case format["type"] == "json_schema":
			refuse("'response_format' of type json_schema is not supported with this model")
		case format["type"] == "json_object":
			refuse("response_format is unavailable now")
		default:
			stream(good+done)(w, r)
		}
	})
	call := simpleCall()
	call.Ask.JSON, call.Ask.Schema = true, schema
	for i := range 4 {
		_, err := o.Complete(t.Context(), call)
		if e := failure(t, err); !e.Learned || e.Class != ClassCapabilityMismatch {
			t.Fatalf("request %d: got %+v", i, e)
		}
	}
	if _, err := o.Complete(t.Context(), call); err != nil {
		t.Fatalf("after four lessons: %v", err)
	}
	other := call
	other.Model = "other"
	_, err := o.Complete(t.Context(), other)
	if e := failure(t, err); !e.Learned {
		t.Errorf("another model has its own lessons: %+v", e)
	}
}

func TestABadSchemaIsNoLessonForOthers(t *testing.T) {
	var seen requests
	o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, r *http.Request) {
		m := seen.note(t, r.Body)
		raw, _ := json.Marshal(m["response_format"])
		if strings.Contains(string(raw), "bad") && strings.Contains(string(raw), "json_schema") {
			plainBody(400, "application/json", `{"error":{"message":"Invalid schema for response_format 'answer': In context=(), 'bad' is not permitted.","type":"invalid_request_error","param":"response_format"}}`)(w, r)
			return
		}
		stream(good+done)(w, r)
	})
	call := simpleCall()
	call.Ask.JSON, call.Ask.Schema = true, json.RawMessage(`{"type":"object","required":["bad"],"properties":{"bad":{"type":"string"}}}`)
	_, err := o.Complete(t.Context(), call)
	if e := failure(t, err); !e.Learned {
		t.Fatalf("got %+v", e)
	}
	if _, err := o.Complete(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	call.Ask.Schema = json.RawMessage(`{"type":"object","required":["a"],"properties":{"a":{"type":"string"}}}`)
	if _, err := o.Complete(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	var formats []any
	for _, m := range seen.list {
		formats = append(formats, m["response_format"].(map[string]any)["type"])
	}
	if diff := cmp.Diff([]any{"json_schema", "json_object", "json_schema"}, formats); diff != "" {
		t.Error(diff)
	}
}
