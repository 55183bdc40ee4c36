package provider

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
)

// sentTo gives the bodies that a provider sends for calls, one after the other.
func sentTo(t *testing.T, c AnthropicConfig, calls ...Call) []string {
	t.Helper()
	var bodies []string
	a := serveAnthropic(t, c, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(raw))
		if r.URL.Path != "/v1/messages" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
		}
		stream(greeting)(w, r)
	})
	for _, call := range calls {
		if _, err := a.Complete(t.Context(), call); err != nil {
			t.Fatal(err)
		}
	}
	return bodies
}

func wantJSON(t *testing.T, want, got string) {
	t.Helper()
	var w, g any
	if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
		t.Fatalf("not JSON: %s", got)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("%s\n%s", diff, got)
	}
}

func user(text string) agent.Message      { return agent.Message{Role: "user", Content: text} }
func assistant(text string) agent.Message { return agent.Message{Role: "assistant", Content: text} }
func stable(m agent.Message) agent.Message {
	m.Stable = true
	return m
}
func float(f float64) *float64 { return &f }

func TestAnthropicRequest(t *testing.T) {
	system := agent.Message{Role: "system", Content: "You are <kind>."}
	schema := json.RawMessage(`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["text"],"properties":{"text":{"type":"string","minLength":1,"format":"uri"},"n":{"type":"integer","minimum":0},"list":{"type":"array","minItems":3,"items":{"oneOf":[{"type":"string","format":"color"},{"$ref":"#/$defs/x"}]}}},"$defs":{"x":{"type":"object","properties":{"y":{"enum":[1,2]}}}}}`)
	enforced := `{"type":"object","required":["text"],"properties":{"text":{"type":"string","format":"uri"},"n":{"type":"integer"},"list":{"type":"array","items":{"anyOf":[{"type":"string"},{"$ref":"#/$defs/x"}]}}},"$defs":{"x":{"type":"object","properties":{"y":{"enum":[1,2]}},"additionalProperties":false}},"additionalProperties":false}`
	told := agent.Message{Role: "system", Content: "Meet this: " + string(schema)}
	text := func(s string) string { return `{"type":"text","text":"` + s + `"}` }
	hi := `"messages":[{"role":"user","content":[` + text("Hi") + `]}]`
	calls := []agent.ToolCall{{ID: "toolu_1", Name: "f", Arguments: `{"a":1}`}, {ID: "functions.g:0", Name: "g"}, {ID: "c3", Name: "h", Arguments: `[1`}}
	cached := `"cache_control":{"type":"ephemeral"}`
	for _, c := range []struct {
		name   string
		config AnthropicConfig
		model  string
		max    int
		ask    agent.Ask
		want   string // without model
	}{
		{
			name: "temperature 0 is sent, empty messages are not",
			ask:  agent.Ask{Messages: []agent.Message{system, user(""), user("Hi"), assistant(" ")}, Temperature: float(0), TopP: float(0.5), Stop: []string{"END"}},
			want: `{"max_tokens":4096,"stream":true,"system":[` + text("You are <kind>.") + `],` + hi + `,"temperature":0,"stop_sequences":["END"]}`,
		},
		{name: "no stream; the temperature ends at 1", config: AnthropicConfig{NoStream: true}, ask: agent.Ask{Messages: []agent.Message{user("Hi")}, Temperature: float(1.7)}, want: `{"max_tokens":4096,` + hi + `,"temperature":1}`},
		{name: "top_p", ask: agent.Ask{Messages: []agent.Message{user("Hi")}, TopP: float(0.5)}, want: `{"max_tokens":4096,"stream":true,` + hi + `,"top_p":0.5}`},
		{name: "a model without sampling", model: "claude-opus-4-8", ask: agent.Ask{Messages: []agent.Message{user("Hi")}, Temperature: float(0.2), TopP: float(0.5)}, want: `{"max_tokens":4096,"stream":true,` + hi + `}`},
		{name: "a prompt of the system alone", ask: agent.Ask{Messages: []agent.Message{{Role: "system", Content: "Hi"}}}, want: `{"max_tokens":4096,"stream":true,` + hi + `}`},
		{
			name: "the system's later messages are hoisted; the assistant does not begin; roles are merged",
			ask:  agent.Ask{Messages: []agent.Message{assistant("Hello."), assistant("Well?"), user("Hi"), {Role: "system", Content: "Be brief."}, user("there")}},
			want: `{"max_tokens":4096,"stream":true,"system":[` + text("Be brief.") + `],"messages":[{"role":"user","content":[{"type":"text","text":"` + opening + `",` + cached + `}]},{"role":"assistant","content":[` + text("Hello.") + `,` + text("Well?") + `]},{"role":"user","content":[` + text("Hi") + `,{"type":"text","text":"there",` + cached + `}]}]}`,
		},
		{
			name: "what is stable is cached", config: AnthropicConfig{Cache1h: true},
			ask:  agent.Ask{Messages: []agent.Message{stable(system), stable(agent.Message{Role: "system", Content: "More."}), stable(user("Example")), user("Hi")}},
			want: `{"max_tokens":4096,"stream":true,"system":[` + text("You are <kind>.") + `,{"type":"text","text":"More.","cache_control":{"type":"ephemeral","ttl":"1h"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Example","cache_control":{"type":"ephemeral","ttl":"1h"}},` + text("Hi") + `]}]}`,
		},
		{
			name: "images before the text",
			ask:  agent.Ask{Messages: []agent.Message{{Role: "user", Content: "Hi", Images: []string{"https://x.example/a.png", "data:image/png;base64,iVBORw0KGgo="}}}},
			want: `{"max_tokens":4096,"stream":true,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://x.example/a.png"}},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}},` + text("Hi") + `]}]}`,
		},
		{
			name: "tools: parallel results stand together, before anything else",
			ask: agent.Ask{
				Messages: []agent.Message{
					user("Hi"),
					{Role: "assistant", Content: "Looking.", ToolCalls: calls},
					{Role: "tool", ToolCallID: "toolu_1", Content: "one"},
					user("Hurry."),
					{Role: "tool", ToolCallID: "functions.g:0"},
					{Role: "tool", ToolCallID: "c3", Content: "three"},
				},
				Tools: []agent.Tool{{Name: "f", Description: "F.", Parameters: json.RawMessage(`{"type":"object","properties":{"a":{"type":"integer","minimum":1}}}`), Strict: true}, {Name: "g", Strict: true}, {Name: "h", Parameters: schema}}, ToolChoice: json.RawMessage(`"auto"`),
			},
			want: `{"max_tokens":4096,"stream":true,
				"messages":[{"role":"user","content":[{"type":"text","text":"Hi",` + cached + `}]},
					{"role":"assistant","content":[` + text("Looking.") + `,{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1}},{"type":"tool_use","id":"functions_g_0","name":"g","input":{}},{"type":"tool_use","id":"c3","name":"h","input":{"invalid":"[1"}}]},
					{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"one"},{"type":"tool_result","tool_use_id":"functions_g_0"},{"type":"tool_result","tool_use_id":"c3","content":"three"},{"type":"text","text":"Hurry.",` + cached + `}]}],
				"tools":[{"name":"f","description":"F.","input_schema":{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false},"strict":true},{"name":"g","input_schema":{"type":"object"}},{"name":"h","input_schema":` + string(schema) + `}],"tool_choice":{"type":"auto"}}`,
		},
		{
			name: "the schema is enforced as far as it can be; the prompt holds all of it",
			ask:  agent.Ask{Messages: []agent.Message{told, user("Hi")}, JSON: true, Schema: schema},
			want: `{"max_tokens":4096,"stream":true,"system":[` + text(strings.ReplaceAll("Meet this: "+string(schema), `"`, `\"`)) + `],` + hi + `,"output_config":{"format":{"type":"json_schema","schema":` + enforced + `}}}`,
		},
		{
			name: "a model that cannot be held to a schema is told it", model: "claude-3-5-haiku-20241022",
			ask:  agent.Ask{Messages: []agent.Message{user("Hi")}, JSON: true, Schema: json.RawMessage(`{"type":"object","properties":{"a":{"type":"string"}}}`)},
			want: `{"max_tokens":4096,"stream":true,"system":[` + text(`Answer with one JSON value and nothing else: no prose, no code fence. It must meet this JSON Schema:\n{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}}}`) + `],` + hi + `}`,
		},
		{name: "an open schema is told, not enforced", ask: agent.Ask{Messages: []agent.Message{user("Hi"), user(`{"type":"object"}`)}, JSON: true, Schema: json.RawMessage(`{"type":"object"}`)}, want: `{"max_tokens":4096,"stream":true,"messages":[{"role":"user","content":[` + text("Hi") + `,` + text(`{\"type\":\"object\"}`) + `]}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.model == "" {
				c.model = "claude-sonnet-4-5"
			}
			body := sentTo(t, c.config, Call{Model: c.model, MaxTokens: 4096, Ask: c.ask})[0]
			wantJSON(t, `{"model":"`+c.model+`",`+strings.TrimPrefix(c.want, "{"), body)
			if strings.Contains(c.want, enforced) && !strings.Contains(body, enforced) {
				t.Errorf("the schema has lost its order: %s", body)
			}
		})
	}
}

func TestAnthropicThinking(t *testing.T) {
	tools := []agent.Tool{{Name: "f"}}
	loop := []agent.Message{user("Hi"), {Role: "assistant", ToolCalls: []agent.ToolCall{{ID: "a", Name: "f"}}}, {Role: "tool", ToolCallID: "a", Content: "x"}}
	adaptive := func(effort string) string {
		return `"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"` + effort + `"}`
	}
	for _, c := range []struct {
		name, model, effort string
		max                 int
		choice              string
		messages            []agent.Message
		want                string // thinking, effort, and what goes with them
	}{
		{name: "not asked for", model: "claude-opus-4-6", want: `"temperature":0.5`},
		{name: "adaptive, without a temperature", model: "claude-opus-4-6", effort: "high", want: adaptive("high")},
		{name: "dots and the names of proxies", model: "anthropic/claude-sonnet-4.6", effort: "medium", want: adaptive("medium")},
		{name: "minimal", model: "claude-opus-4-8", effort: "minimal", want: adaptive("low")},
		{name: "none", model: "claude-opus-4-6", effort: "none", want: `"temperature":0.5`},
		{name: "a model that thinks unasked is heard", model: "claude-sonnet-5", want: `"thinking":{"type":"adaptive","display":"summarized"}`},
		{name: "and told not to", model: "claude-opus-5", effort: "none", want: `"thinking":{"type":"disabled"}`},
		{name: "one that cannot be told not to", model: "claude-fable-5", effort: "none", want: adaptive("low")},
		{name: "a model of tomorrow", model: "claude-haiku-7", effort: "low", want: adaptive("low")},
		{name: "a budget", model: "claude-sonnet-4-5-20250929", effort: "high", max: 10_000, want: `"thinking":{"type":"enabled","budget_tokens":8000}`},
		{name: "the least budget", model: "claude-haiku-4-5", effort: "low", want: `"thinking":{"type":"enabled","budget_tokens":1024}`},
		{name: "no room for one", model: "claude-haiku-4-5", effort: "high", max: 1200, want: `"temperature":0.5`},
		{name: "a model that cannot", model: "claude-3-5-sonnet-20241022", effort: "high", want: `"temperature":0.5`},
		{name: "another vendor's", model: "kimi-k2", effort: "medium", want: `"thinking":{"type":"enabled","budget_tokens":2048}`},
		{name: "a tool is forced: a budget goes", model: "claude-sonnet-4-5", effort: "high", choice: `"required"`, want: `"tool_choice":{"type":"any"},"temperature":0.5`},
		{name: "a tool is forced: the effort stays", model: "claude-opus-4-7", effort: "high", choice: `{"name":"f"}`, want: `"tool_choice":{"type":"tool","name":"f"},"output_config":{"effort":"high"}`},
		{name: "a tool is forced on one that thinks unasked", model: "claude-opus-5", effort: "high", choice: `{"name":"f"}`, want: `"tool_choice":{"type":"tool","name":"f"},` + adaptive("high")},
		{name: "no tools", model: "claude-opus-4-7", effort: "high", choice: `"none"`, want: `"tool_choice":{"type":"none"},` + adaptive("high")},
		{name: "a budget for an answer that has lost its thinking", model: "claude-sonnet-4-5", effort: "high", messages: loop, want: `"temperature":0.5`},
		{name: "adaptive for one", model: "claude-sonnet-4-6", effort: "high", messages: loop, want: adaptive("high")},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := simpleCall()
			call.Model, call.MaxTokens = c.model, max(c.max, 4096)
			if c.max > 0 {
				call.MaxTokens = c.max
			}
			call.Ask.Effort, call.Ask.Temperature = c.effort, float(0.5)
			if c.messages != nil {
				call.Ask.Messages = c.messages
			}
			if c.choice != "" {
				call.Ask.Tools, call.Ask.ToolChoice = tools, json.RawMessage(c.choice)
			}
			var got map[string]json.RawMessage
			if err := json.Unmarshal([]byte(sentTo(t, AnthropicConfig{}, call)[0]), &got); err != nil {
				t.Fatal(err)
			}
			for _, other := range []string{"model", "max_tokens", "stream", "messages", "tools"} {
				delete(got, other)
			}
			raw, _ := json.Marshal(got)
			wantJSON(t, "{"+c.want+"}", string(raw))
		})
	}
}

func TestAnthropicRefusesLocally(t *testing.T) {
	a, err := NewAnthropic(AnthropicConfig{BaseURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		ask   agent.Ask
		class Class
	}{
		{"nothing asked", agent.Ask{Messages: []agent.Message{user(" \n")}}, ClassInvalidRequest},
		{"an answer to go on with", agent.Ask{Messages: []agent.Message{user("Hi"), assistant("{")}}, ClassCapabilityMismatch},
		{"a role", agent.Ask{Messages: []agent.Message{{Role: "robot", Content: "Hi"}}}, ClassInvalidRequest},
		{"an image by plain HTTP", agent.Ask{Messages: []agent.Message{{Role: "user", Images: []string{"http://x/a.png"}}}}, ClassInvalidRequest},
		{"a kind of image", agent.Ask{Messages: []agent.Message{{Role: "user", Images: []string{"data:image/tiff;base64,AA=="}}}}, ClassCapabilityMismatch},
		{"a stop sequence of white space", agent.Ask{Messages: []agent.Message{user("Hi")}, Stop: []string{"\n"}}, ClassCapabilityMismatch},
		{"a choice", agent.Ask{Messages: []agent.Message{user("Hi")}, Tools: []agent.Tool{{Name: "f"}}, ToolChoice: json.RawMessage(`"sometimes"`)}, ClassInvalidRequest},
	} {
		_, err := a.Complete(t.Context(), Call{Model: "m", MaxTokens: 10, Ask: c.ask})
		if e := failure(t, err); e.Class != c.class || e.Tokens.Total() != 0 {
			t.Errorf("%s: got %v, want %s", c.name, e, c.class)
		}
	}
}

// Two turns: thinking, text and calls go back as they came, where they stood; and only to whom they belong.
func TestAnthropicGivesThinkingBack(t *testing.T) {
	answer := `{"type":"message","model":"claude-sonnet-4-6","content":[
		{"type":"thinking","thinking":"First.","signature":"c2lnMQ==","extra":{"kept":true}},{"type":"text","text":"Looking"},{"type":"text","text":" twice."},
		{"type":"redacted_thinking","data":"ZW5j"},{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1}},
		{"type":"thinking","thinking":"","signature":"c2lnMg=="},{"type":"tool_use","id":"toolu_2","name":"f","input":{}}],"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":2}}`
	var bodies []string
	a := serveAnthropic(t, AnthropicConfig{NoStream: true}, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(raw))
		io.WriteString(w, answer)
	})
	call := Call{Model: "claude-sonnet-4-6", MaxTokens: 100, Ask: agent.Ask{Messages: []agent.Message{user("Hi")}, Effort: "high", Tools: []agent.Tool{{Name: "f"}}}}
	reply, err := a.Complete(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	message := agent.Message{Role: "assistant", Content: reply.Text, ToolCalls: reply.ToolCalls, Hidden: reply.Hidden}
	first, middle, last := `{"type":"thinking","thinking":"First.","signature":"c2lnMQ==","extra":{"kept":true}}`, `{"type":"redacted_thinking","data":"ZW5j"}`, `{"type":"thinking","thinking":"","signature":"c2lnMg=="}`
	one, two := `{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1}}`, `{"type":"tool_use","id":"toolu_2","name":"f","input":{}}`
	whole := `{"type":"text","text":"Looking twice."}`
	for _, c := range []struct {
		name   string
		change func(*Call, *agent.Message)
		want   string
	}{
		{"as it came", func(*Call, *agent.Message) {}, first + `,{"type":"text","text":"Looking"},{"type":"text","text":" twice."},` + middle + `,` + one + `,` + last + `,` + two},
		{"a snapshot of the model", func(c *Call, _ *agent.Message) { c.Model = "claude-sonnet-4-6-20260217" }, first + `,{"type":"text","text":"Looking"},{"type":"text","text":" twice."},` + middle + `,` + one + `,` + last + `,` + two},
		{"the text was mended", func(_ *Call, m *agent.Message) { m.Content = "Once." }, first + `,` + middle + `,` + last + `,{"type":"text","text":"Once."},` + one + `,` + two},
		{"a call is gone", func(_ *Call, m *agent.Message) { m.ToolCalls = m.ToolCalls[:1] }, first + `,` + middle + `,` + last + `,` + whole + `,` + one},
		{"another model", func(c *Call, _ *agent.Message) { c.Model = "claude-opus-4-6" }, whole + `,` + one + `,` + two},
		{"another provider's", func(_ *Call, m *agent.Message) {
			m.Hidden = &agent.Hidden{Provider: "openrouter", Model: m.Hidden.Model, Data: m.Hidden.Data}
		}, whole + `,` + one + `,` + two},
		{"unreadable", func(_ *Call, m *agent.Message) {
			m.Hidden = &agent.Hidden{Provider: "anthropic", Model: m.Hidden.Model, Data: json.RawMessage(`{"x":1}`)}
		}, whole + `,` + one + `,` + two},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, m := call, message
			c.change(&next, &m)
			next.Ask.Messages = []agent.Message{user("Hi"), m, {Role: "tool", ToolCallID: "toolu_1", Content: "1"}, {Role: "tool", ToolCallID: "toolu_2", Content: "2"}}
			if _, err := a.Complete(t.Context(), next); err != nil {
				t.Fatal(err)
			}
			var got struct {
				Messages []struct {
					Content json.RawMessage `json:"content"`
				} `json:"messages"`
			}
			if err := json.Unmarshal([]byte(bodies[len(bodies)-1]), &got); err != nil || len(got.Messages) != 3 {
				t.Fatalf("%v: %s", err, bodies[len(bodies)-1])
			}
			wantJSON(t, "["+c.want+"]", string(got.Messages[1].Content))
		})
	}
}

func TestAnthropicCacheMarks(t *testing.T) {
	talk := []agent.Message{stable(agent.Message{Role: "system", Content: "S"}), stable(user("Example")), user("Hi")}
	for range 30 {
		talk = append(talk, assistant("A"), user("U"))
	}
	body := sentTo(t, AnthropicConfig{}, Call{Model: "claude-sonnet-4-5", MaxTokens: 10, Ask: agent.Ask{Messages: talk}})[0]
	if n := strings.Count(body, "cache_control"); n != 4 {
		t.Errorf("%d marks, want 4: %s", n, body)
	}
	if !strings.HasSuffix(body, `{"role":"user","content":[{"type":"text","text":"U","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":[{"type":"text","text":"A"}]},{"role":"user","content":[{"type":"text","text":"U","cache_control":{"type":"ephemeral"}}]}]}`) {
		t.Errorf("the marks of this call and of the one before are not at the end: %s", body)
	}
}

func TestAnthropicLearns(t *testing.T) {
	schema := json.RawMessage(`{"type":"object","properties":{"a":{"type":"string"}}}`)
	hidden := &agent.Hidden{Provider: "anthropic", Model: "claude-nova-1", Data: json.RawMessage(`[{"type":"thinking","thinking":"x","signature":"bad"}]`)}
	for _, c := range []struct {
		name    string
		model   string
		sent    string // what is refused, by a part of the body
		message string
	}{
		{"adaptive thinking", "claude-nova-1", `"adaptive"`, "adaptive thinking is not supported on this model"},
		{"a budget", "claude-sonnet-4-5", `"enabled"`, `"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.`},
		{"the display of thinking", "claude-nova-1", `"display"`, "thinking.adaptive.display: Extra inputs are not permitted"},
		{"effort", "claude-nova-1", `"effort"`, "This model does not support the effort parameter."},
		{"structured output", "claude-nova-1", `"format":`, "'claude-nova-1' does not support output format."},
		{"this schema", "claude-nova-1", `"format":`, "output_config.format.schema: Schema is too complex."},
		{"strict tools", "claude-nova-1", `"strict":true`, "tools.0.custom.strict: Extra inputs are not permitted"},
		{"an hour's cache", "claude-nova-1", `"ttl"`, "system.0.cache_control.ephemeral.ttl: Extra inputs are not permitted"},
		{"any cache", "claude-nova-1", `"cache_control"`, "system.0.cache_control: Extra inputs are not permitted"},
		{"as many tokens", "claude-nova-1", `"max_tokens":100000`, "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-nova-1"},
		{"thinking that went bad", "claude-nova-1", `"signature":"bad"`, "messages.1.content.0: Invalid `signature` in `thinking` block"},
		{"temperature", "claude-opus-4-1", `"temperature"`, "`temperature` is deprecated for this model."},
		{"top_p", "claude-opus-4-1", `"top_p"`, "`top_p` is deprecated for this model."},
		{"thinking off", "claude-opus-6", `"disabled"`, `"thinking.type.disabled" is not supported for this model.`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := serveAnthropic(t, AnthropicConfig{Cache1h: true}, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if strings.Contains(string(body), c.sent) {
					anthropicError(400, "invalid_request_error", c.message)(w, r)
					return
				}
				stream(greeting)(w, r)
			})
			call := Call{Model: c.model, MaxTokens: 100_000, Ask: agent.Ask{
				Messages: []agent.Message{stable(agent.Message{Role: "system", Content: string(schema)}), user("Hi"), {Role: "assistant", Content: "A", Hidden: hidden}, user("U")},
				Effort:   "high", JSON: true, Schema: schema, Tools: []agent.Tool{{Name: "f", Parameters: schema, Strict: true}},
			}}
			switch c.name {
			case "temperature":
				call.Ask.Effort, call.Ask.Temperature = "", float(0.5)
			case "top_p":
				call.Ask.Effort, call.Ask.TopP = "", float(0.5)
			case "thinking off":
				call.Ask.Effort = "none"
			}
			_, err := a.Complete(t.Context(), call)
			if e := failure(t, err); !e.Learned || e.Class != ClassCapabilityMismatch {
				t.Fatalf("nothing learned: %+v", e)
			}
			if _, err := a.Complete(t.Context(), call); err != nil {
				t.Fatalf("after the lesson: %v", err)
			}
			other := call
			other.Model = "claude-opus-4-6"
			if sent, err := bodyOf(a, other); err != nil || (strings.Contains(c.sent, "cache") || strings.Contains(c.sent, "format")) && !strings.Contains(sent, c.sent) {
				t.Errorf("another model has its own lessons: %s, %v", sent, err)
			}
		})
	}
	t.Run("what was not sent teaches nothing", func(t *testing.T) {
		a := serveAnthropic(t, AnthropicConfig{}, anthropicError(400, "invalid_request_error", "temperature, top_p, thinking, effort, schema, strict and cache_control are wrong"))
		_, err := a.Complete(t.Context(), simpleCall())
		if e := failure(t, err); e.Learned || e.Class != ClassInvalidRequest {
			t.Errorf("got %+v", e)
		}
	})
}

func bodyOf(a *Anthropic, c Call) (string, error) {
	body, _, err := a.request(c)
	return string(body), err
}

func TestEnforceable(t *testing.T) {
	for _, c := range []struct{ name, schema, want string }{
		{"none", ``, ``},
		{"no object", `{"type":"array","items":{"type":"string"}}`, ``},
		{"anything", `{}`, ``},
		{"an object of anything", `{"type":"object"}`, ``},
		{"open", `{"type":"object","properties":{},"additionalProperties":true}`, ``},
		{"a map", `{"type":"object","properties":{"a":{"type":"object","additionalProperties":{"type":"string"}}}}`, ``},
		{"anything inside", `{"type":"object","properties":{"a":{}}}`, ``},
		{"a keyword that changes the meaning", `{"type":"object","properties":{"a":{"type":"string"}},"not":{"required":["a"]}}`, ``},
		{"refers to itself", `{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"object","properties":{"b":{"$ref":"#/$defs/a"}}}}}`, ``},
		{"refers to its root", `{"type":"object","properties":{"a":{"$ref":"#"}}}`, ``},
		{"refers to nothing", `{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}}}`, ``},
		{"refers twice to the same", `{"type":"object","properties":{"a":{"$ref":"#/$defs/x"},"b":{"$ref":"#/$defs/x"}},"$defs":{"x":{"type":"string"}}}`, `{"type":"object","properties":{"a":{"$ref":"#/$defs/x"},"b":{"$ref":"#/$defs/x"}},"$defs":{"x":{"type":"string"}},"additionalProperties":false}`},
		{"a nullable object", `{"type":"object","properties":{"a":{"type":["object","null"],"properties":{"b":{"type":"null"}}}}}`, `{"type":"object","properties":{"a":{"type":["object","null"],"properties":{"b":{"type":"null"}},"additionalProperties":false}},"additionalProperties":false}`},
		{"properties named as keywords", `{"type":"object","properties":{"type":{"const":"x"},"minimum":{"type":"number","maximum":3},"$ref":{"type":"string"}},"additionalProperties":false}`, `{"type":"object","properties":{"type":{"const":"x"},"minimum":{"type":"number"},"$ref":{"type":"string"}},"additionalProperties":false}`},
	} {
		if got := string(enforceable(json.RawMessage(c.schema))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}
