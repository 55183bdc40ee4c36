package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/fault"
)

// What OpenAI's clients say is what the gateway is asked.
func TestAskOfChat(t *testing.T) {
	user := []agent.Message{{Role: "user", Content: "hi"}}
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	for name, c := range map[string]struct {
		body string
		want agent.Ask
	}{
		"plain": {`{` + hi + `}`, agent.Ask{Messages: user}},
		"nulls are absent": {
			`{` + hi + `,"temperature":null,"top_p":null,"max_tokens":null,"stop":null,"tools":null,"tool_choice":null,"response_format":null,"n":null,"seed":null,"user":null,"metadata":null,"stream":null,"stream_options":null,"reasoning_effort":null,"logprobs":null,"functions":null,"modalities":null}`,
			agent.Ask{Messages: user},
		},
		"what is not known is ignored": {
			`{` + hi + `,"frequency_penalty":1,"presence_penalty":1,"logit_bias":{"1":2},"service_tier":"auto","store":true,"parallel_tool_calls":false,"prediction":{"type":"content"},"verbosity":"low","x":{"y":[1]},"n":1,"modalities":["text"]}`,
			agent.Ask{Messages: user},
		},
		"sampling": {
			`{` + hi + `,"temperature":0,"top_p":0.5,"stop":["a","b"],"reasoning_effort":"xhigh","max_tokens":5,"max_completion_tokens":7}`,
			agent.Ask{Messages: user, Temperature: pointer(0.0), TopP: pointer(0.5), Stop: []string{"a", "b"}, Effort: "high", MaxTokens: 7},
		},
		"one stop": {`{` + hi + `,"stop":"END"}`, agent.Ask{Messages: user, Stop: []string{"END"}}},
		"json":     {`{` + hi + `,"response_format":{"type":"json_object"}}`, agent.Ask{Messages: user, JSON: true}},
		"schema": {
			`{` + hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type":"object"}}}}`,
			agent.Ask{Messages: user, JSON: true, Schema: json.RawMessage(`{"type":"object"}`)},
		},
		"tools": {
			`{` + hi + `,"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},{"type":"function","function":{"name":"g"}}],"tool_choice":{"type":"function","function":{"name":"g"}}}`,
			agent.Ask{
				Messages: user, ToolChoice: json.RawMessage(`{"name":"g"}`),
				Tools: []agent.Tool{{Name: "f", Description: "d", Parameters: json.RawMessage(`{"type":"object"}`), Strict: true}, {Name: "g"}},
			},
		},
		"a choice by word": {
			`{` + hi + `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required"}`,
			agent.Ask{Messages: user, Tools: []agent.Tool{{Name: "f"}}, ToolChoice: json.RawMessage(`"required"`)},
		},
		"no tools, no choice": {`{` + hi + `,"tools":[],"tool_choice":"auto"}`, agent.Ask{Messages: user}},
		"a conversation": {
			`{"prompt_cache_key":"k","messages":[{"role":"developer","content":"be brief","name":"dev"},{"role":"user","content":[{"type":"text","text":"what"},{"type":"image_url","image_url":{"url":"https://x.example/a.png","detail":"low"}},{"type":"text","text":"is it"}]},
			{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"n\":1}"}}]},{"role":"tool","tool_call_id":"c1","content":"a cat"},
			{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]},{"role":"system","content":"go on"}]}`,
			agent.Ask{Messages: []agent.Message{
				{Role: "system", Content: "be brief", Stable: true},
				{Role: "user", Content: "what\nis it", Images: []string{"https://x.example/a.png"}},
				{Role: "assistant", ToolCalls: []agent.ToolCall{{ID: "c1", Name: "look", Arguments: `{"n":1}`}}},
				{Role: "tool", Content: "a cat", ToolCallID: "c1"},
				{Role: "assistant", Content: "no"},
				{Role: "system", Content: "go on"},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := readChat([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := req.ask()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// What cannot be done as it was asked for is refused, with the place.
func TestBadChats(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	with := func(field string) string { return `{` + hi + `,` + field + `}` }
	said := func(message string) string { return `{"messages":[` + message + `]}` }
	for _, c := range []struct{ body, param, says string }{
		{with(`"n":2`), "n", "n must be 1"},
		{with(`"n":0`), "n", "n must be 1"},
		{with(`"logprobs":true`), "logprobs", "not given"},
		{with(`"modalities":["text","audio"]`), "modalities", "text only"},
		{with(`"functions":[]`), "functions", "use tools"},
		{with(`"web_search_options":{}`), "web_search_options", "do not search"},
		{with(`"temperature":2.1`), "temperature", "from 0 to 2"},
		{with(`"temperature":"hot"`), "temperature", "wrong type"},
		{with(`"top_p":-1`), "top_p", "from 0 to 1"},
		{with(`"max_tokens":0`), "max_tokens", "from 1"},
		{with(`"max_completion_tokens":-5`), "max_completion_tokens", "from 1"},
		{with(`"max_tokens":1.5`), "max_tokens", "wrong type"},
		{with(`"stop":["a","b","c","d","e"]`), "stop", "up to 4"},
		{with(`"stop":[1]`), "stop[0]", "wrong type"},
		{with(`"reasoning_effort":"huge"`), "reasoning_effort", "must be none"},
		{with(`"stream":"yes"`), "stream", "wrong type"},
		{with(`"stream_options":{"include_usage":1}`), "stream_options.include_usage", "wrong type"},
		{with(`"tools":[{"type":"custom"}]`), "tools[0].type", "function"},
		{with(`"tools":[{"type":"function","function":{"name":"a b"}}]`), "tools[0].function.name", "letters"},
		{with(`"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]`), "tools[0].function.parameters", "object"},
		{with(`"tools":[` + strings.TrimSuffix(strings.Repeat(`{},`, 129), ",") + `]`), "tools", "up to 128"},
		{with(`"tool_choice":"required"`), "tool_choice", "without tools"},
		{with(`"tool_choice":"sometimes"`), "tool_choice", "must be"},
		{with(`"tool_choice":{"type":"function","function":{"name":"f"}}`), "tool_choice", "a function of tools"},
		{with(`"response_format":{"type":"xml"}`), "response_format.type", "must be"},
		{with(`"response_format":{"type":"json_schema"}`), "response_format.json_schema.schema", "an object"},
		{with(`"metadata":{"a":"` + strings.Repeat("x", 257) + `"}`), "metadata.a", "up to 256"},
		{with(`"metadata":{"":"x"}`), "metadata.", "1 to 64"},
		{with(`"metadata":"x"`), "metadata", "wrong type"},
		{with(`"metadata":{"mode":"slow"}`), "metadata.mode", "interactive or batch"},
		{`{"messages":[]}`, "messages", "at least one"},
		{`{"messages":"hi"}`, "messages", "wrong type"},
		{said(`"hi"`), "messages[0]", "wrong type"},
		{said(`{"content":"hi"}`), "messages[0].role", "role must be"},
		{said(`{"role":"function","content":"hi"}`), "messages[0].role", "role must be"},
		{said(`{"role":"user"}`), "messages[0].content", "missing"},
		{said(`{"role":"user","content":7}`), "messages[0].content", "wrong type"},
		{said(`{"role":"user","content":[{"type":"input_audio"}]}`), "messages[0].content[0].type", "text"},
		{said(`{"role":"system","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}`), "messages[0].content[0].type", "text"},
		{said(`{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}`), "messages[0].content[0].image_url.url", "https://"},
		{said(`{"role":"user","content":"x","tool_calls":[{"id":"a","function":{"name":"f"}}]}`), "messages[0].tool_calls", "only assistants"},
		{said(`{"role":"assistant","tool_calls":[{"id":"a"}]}`), "messages[0].tool_calls[0]", "function's name"},
		{said(`{"role":"tool","content":"x"}`), "messages[0].tool_call_id", "whose result"},
	} {
		t.Run(c.body[:min(len(c.body), 90)], func(t *testing.T) {
			req, err := readChat([]byte(c.body))
			if err == nil {
				_, err = req.ask()
			}
			if err == nil {
				_, err = req.labels()
			}
			if err == nil {
				_, err = req.mode("")
			}
			f := fault.Of(err)
			if f == nil || len(f.Issues) != 1 {
				t.Fatalf("got %v", err)
			}
			if f.Issues[0].Parameter != c.param || !strings.Contains(f.Detail, c.says) {
				t.Errorf("got %q about %q, want %q about %q", f.Detail, f.Issues[0].Parameter, c.says, c.param)
			}
		})
	}
}

func TestLabelsOfChat(t *testing.T) {
	req, err := readChat([]byte(`{"user":"u1","metadata":{"team":"a","n":7,"ok":true,"nested":{"x":1},"list":[],"none":null,"mode":"batch","input":{"a":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := req.labels()
	if d := cmp.Diff(map[string]string{"user": "u1", "team": "a", "n": "7", "ok": "true"}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for header, want := range map[string]string{"": "batch", "interactive": "interactive"} {
		if mode, err := req.mode(header); mode != want || err != nil {
			t.Errorf("with the header %q the mode is %q: %v", header, mode, err)
		}
	}
}
