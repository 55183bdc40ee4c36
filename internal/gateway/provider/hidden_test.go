package provider

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/agent"
)

// turn asks a server of a vendor twice: first with what it answers, then with that answer in the conversation.
func turn(t *testing.T, vendor, model, first string, change func(*agent.Message, *Call)) string {
	t.Helper()
	var bodies requests
	o := serve(t, OpenAIConfig{Name: "p", Vendor: vendor}, func(w http.ResponseWriter, r *http.Request) {
		if bodies.note(t, r.Body); len(bodies.list) == 1 {
			stream(first)(w, r)
			return
		}
		stream(good+done)(w, r)
	})
	call := simpleCall()
	call.Model = model
	r, err := o.Complete(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	m := agent.Message{Role: "assistant", Content: r.Text, ToolCalls: r.ToolCalls, Hidden: r.Hidden}
	if change != nil {
		change(&m, &call)
	}
	call.Ask.Messages = append(call.Ask.Messages, m, agent.Message{Role: "tool", ToolCallID: "a", Content: "rain"})
	if _, err := o.Complete(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(bodies.list[1]["messages"].([]any)[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

const signed = `{"index":0,"id":"a","function":{"name":"weather","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}`

func TestHiddenGoesBack(t *testing.T) {
	called := callChunk(signed) + finishChunk("tool_calls") + done
	const calls = `"tool_calls":[{"id":"a","type":"function","function":{"name":"weather","arguments":"{}"}`
	thinking := `data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]}` + "\n\n"
	details := func(list string) string {
		return `data: {"choices":[{"index":0,"delta":{"reasoning_details":` + list + `}}]}` + "\n\n"
	}
	other := func(m *agent.Message, _ *Call) { m.Hidden.Provider = "other" }
	for _, c := range []struct {
		name, vendor, model, first string
		change                     func(*agent.Message, *Call)
		want                       string
	}{
		{"Gemini: the signature", "google", "gemini-3.1-pro", called, nil, `{"role":"assistant","content":null,` + calls + `,"extra_content":{"google":{"thought_signature":"c2ln"}}}]}`},
		{"Gemini: a smaller model of the family", "google", "gemini-3.1-pro", called, func(_ *agent.Message, c *Call) { c.Model = "gemini-3.5-flash" }, `{"role":"assistant","content":null,` + calls + `,"extra_content":{"google":{"thought_signature":"c2ln"}}}]}`},
		{"Gemini: another provider's", "google", "gemini-3.1-pro", called, other, `{"role":"assistant","content":null,` + calls + `,"extra_content":{"google":{"thought_signature":"skip_thought_signature_validator"}}}]}`},
		{"Gemini 2.5 asks for none", "google", "gemini-2.5-pro", called, other, `{"role":"assistant","content":null,` + calls + `}]}`},
		{"other servers are not sent it", "", "gpt-4o", called, nil, `{"role":"assistant","content":null,` + calls + `}]}`},
		{
			"OpenRouter: the parts of a block are joined", "openrouter", "anthropic/claude-sonnet-4.6",
			details(`[{"type":"reasoning.text","text":"Let ","index":0,"format":"anthropic-claude-v1"}]`) + details(`[{"type":"reasoning.text","text":"me.","signature":null,"index":0}]`) +
				details(`[{"type":"reasoning.text","signature":"c2ln","index":0},{"type":"reasoning.encrypted","data":"eA==","index":1}]`) + details(`"nonsense"`) + good + done,
			nil, `{"role":"assistant","content":"Hello, world","reasoning_details":[{"type":"reasoning.text","text":"Let me.","index":0,"format":"anthropic-claude-v1","signature":"c2ln"},{"type":"reasoning.encrypted","data":"eA==","index":1}]}`,
		},
		{
			"OpenRouter: not to the model of another house", "openrouter", "anthropic/claude-sonnet-4.6", details(`[{"type":"reasoning.text","text":"x"}]`) + good + done,
			func(_ *agent.Message, c *Call) { c.Model = "openai/gpt-5.4" }, `{"role":"assistant","content":"Hello, world"}`,
		},
		{"DeepSeek: the thoughts before a tool call", "deepseek", "deepseek-v4-pro", thinking + called, nil, `{"role":"assistant","content":null,"reasoning_content":"Hm.",` + calls + `}]}`},
		{"DeepSeek: the field, if there was none", "deepseek", "deepseek-v4-pro", called, other, `{"role":"assistant","content":null,"reasoning_content":"",` + calls + `}]}`},
		{"DeepSeek: not of a plain answer", "deepseek", "deepseek-v4-pro", thinking + good + done, nil, `{"role":"assistant","content":"Hello, world"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := c.change
			if c.name == "DeepSeek: not of a plain answer" {
				change = func(m *agent.Message, _ *Call) {
					if m.Hidden != nil {
						t.Errorf("kept %s", m.Hidden.Data)
					}
				}
			}
			sameJSON(t, c.want, turn(t, c.vendor, c.model, c.first, change))
		})
	}
}

// Whatever stands in Data, it breaks no request.
func TestHiddenThatIsNone(t *testing.T) {
	for _, data := range []string{"", "null", "7", `{"extra_content":[]}`, `{"reasoning_details":"x"}`} {
		got := turn(t, "google", "gemini-3.1-pro", callChunk(signed)+finishChunk("tool_calls")+done, func(m *agent.Message, _ *Call) { m.Hidden.Data = json.RawMessage(data) })
		if !strings.Contains(got, "skip_thought_signature_validator") {
			t.Errorf("%q: %s", data, got)
		}
	}
}

func TestVendorOf(t *testing.T) {
	for _, c := range []struct{ name, host, want string }{
		{"", "api.openai.com", "openai"},
		{"", "eu.api.openai.com", "openai"},
		{"", "mine.openai.azure.com", "azure"},
		{"", "generativelanguage.googleapis.com", "google"},
		{"", "localhost:11434", "ollama"},
		{"", "api.x.ai", "xai"},
		{"", "api.x.ai.example", ""},
		{"", "notapi.x.ai", ""},
		{"vllm", "10.0.0.1:8000", "vllm"},
		{"deepseek", "proxy.example", "deepseek"},
		{"nobody", "openrouter.ai", "openrouter"},
		{"", "127.0.0.1:8080", ""},
	} {
		if got := vendorOf(c.name, c.host); got.name != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, c.host, got.name, c.want)
		}
	}
}
