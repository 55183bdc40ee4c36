package provider

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// What go-openai loses has letters. Those of answers are in TestAnswers (f) and TestFailures (a–e, g–j), those of
// requests in TestRequest (m, n). The others are here.

func TestLetterK(t *testing.T) { // Retry-After of a stream that was not opened
	o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(429)
		io.WriteString(w, "data: {\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_error\"}}\n\n")
	})
	_, err := o.Complete(t.Context(), simpleCall())
	if e := failure(t, err); e.Class != ClassRateLimited || e.RetryAfter != 7*time.Second {
		t.Errorf("%+v", e)
	}
}

func TestLetterL(t *testing.T) { // the credential is sent, whoever the vendor is; without one, none
	for _, v := range append([]vendor{{name: ""}}, vendors...) {
		if _, header := sentBody(t, OpenAIConfig{Vendor: v.name}, simpleCall()); header.Get("Authorization") != "Bearer "+testKey {
			t.Errorf("%s is sent %q", v.name, header.Get("Authorization"))
		}
	}
	var header http.Header
	o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, r *http.Request) { header = r.Header; stream(good+done)(w, r) })
	o.key = ""
	if _, err := o.Complete(t.Context(), simpleCall()); err != nil || header["Authorization"] != nil {
		t.Errorf("%q, %v", header, err)
	}
}

func TestLetterO(t *testing.T) { // cache writes, shown reasoning and signatures are read
	answer := `{"choices":[{"message":{"content":"Hi","reasoning":"Hm.","tool_calls":[` + signed + `]},"finish_reason":"tool_calls"}],` +
		`"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2,"cache_write_tokens":3}}}`
	var d Delta
	call := simpleCall()
	call.Stream = func(part Delta) { d = part }
	r, err := serve(t, OpenAIConfig{Vendor: "google"}, plainBody(200, "application/json", answer)).Complete(t.Context(), call)
	if err != nil || r.Tokens != (usage.Tokens{Input: 5, CacheRead: 2, CacheWrite: 3, Output: 5}) || d.Reasoning != "Hm." ||
		r.Hidden == nil || !strings.Contains(string(r.Hidden.Data), `"thought_signature":"c2ln"`) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestLetterP(t *testing.T) { // fields beyond OpenAI's protocol, for those who know them
	call := simpleCall()
	call.Session = "s"
	call.Ask.Messages = append(call.Ask.Messages, agent.Message{Role: "assistant", Content: "Hi", Hidden: &agent.Hidden{
		Provider: "openai", Model: "m", Data: json.RawMessage(`{"reasoning_details":[{"type":"reasoning.text","text":"Hm."}]}`),
	}})
	if body, _ := sentBody(t, OpenAIConfig{Vendor: "openrouter"}, call); !strings.Contains(body, `"reasoning_details":[{"type":"reasoning.text","text":"Hm."}]`) || strings.Contains(body, "prompt_cache_key") {
		t.Error(body)
	}
	if body, _ := sentBody(t, OpenAIConfig{Vendor: "openai"}, call); !strings.Contains(body, `"prompt_cache_key":"`) {
		t.Error(body)
	}
	// Timeouts are in TestTimers and TestTimersOfACall; retries are the gateway's, by Learned, NoRetry and RetryAfter.
}

// What a server refuses is not asked of it again, whichever optional field it is.
func TestLearnsEachField(t *testing.T) {
	half := 0.5
	for field, message := range map[string]string{
		"top_p": "Unsupported parameter: 'top_p' is not supported with this model.", "reasoning_effort": "Unrecognized request argument supplied: reasoning_effort",
		"prompt_cache_key": "Unknown parameter: 'prompt_cache_key'.", "stream_options": "Extra inputs are not permitted: stream_options", "strict": `Unknown name "strict" at 'tools[0].function': Cannot find field.`,
		"response_format": "Function calling with a response mime type: 'application/json' is unsupported",
	} {
		o := serve(t, OpenAIConfig{}, func(w http.ResponseWriter, r *http.Request) {
			if raw, _ := io.ReadAll(r.Body); strings.Contains(string(raw), `"`+field+`":`) {
				w.WriteHeader(400)
				json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message}})
				return
			}
			stream(good+done)(w, r)
		})
		o.lessons.vendor.cacheKey = true
		call := simpleCall()
		call.Session, call.Ask.TopP, call.Ask.Effort = "s", &half, "low"
		parameters := json.RawMessage(`{"type":"object","required":["a"],"properties":{"a":{"type":"string"}}}`)
		if field == "response_format" {
			call.Ask.Schema = parameters
		}
		call.Ask.Tools = []agent.Tool{{Name: "x", Strict: true, Parameters: parameters}}
		tries := 0
		for {
			tries++
			_, err := o.Complete(t.Context(), call)
			if err == nil {
				break
			}
			if e := failure(t, err); !e.Learned || tries > 3 {
				t.Fatalf("%s: %+v", field, e)
			}
		}
		if want := map[string]int{"response_format": 3}[field]; tries != max(want, 2) {
			t.Errorf("%s: answered at the %d. request", field, tries)
		}
	}
}
