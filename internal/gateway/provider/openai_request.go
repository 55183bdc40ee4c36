package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	openai "github.com/sashabaranov/go-openai"

	"github.com/fermata-run/fermata/internal/agent"
)

// wireRequest is go-openai's request, except where its encoding loses something: a temperature of 0 and the content
// of an empty message are dropped by it, and what vendors want beyond OpenAI's protocol has no place in it.
type wireRequest struct {
	openai.ChatCompletionRequest
	Messages    []wireMessage `json:"messages"`
	Temperature *float64      `json:"temperature,omitempty"`
	TopP        *float64      `json:"top_p,omitempty"`
	Tools       []wireTool    `json:"tools,omitempty"`
	ToolChoice  any           `json:"tool_choice,omitempty"`
	CacheKey    string        `json:"prompt_cache_key,omitempty"`
}

type wireMessage struct {
	Role             string            `json:"role"`
	Content          any               `json:"content"` // text, parts, or null beside tool calls
	ToolCalls        []wireToolCall    `json:"tool_calls,omitempty"`
	ToolCallID       string            `json:"tool_call_id,omitempty"`
	ReasoningContent *string           `json:"reasoning_content,omitempty"`
	ReasoningDetails []json.RawMessage `json:"reasoning_details,omitempty"`
}

type wirePart struct {
	Type  string     `json:"type"`
	Text  string     `json:"text,omitempty"`
	Image *wireImage `json:"image_url,omitempty"`
}

type wireImage struct {
	URL string `json:"url"`
}

type wireTool struct {
	Type     string       `json:"type"`
	Function wireFunction `json:"function"`
}

type wireFunction struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      bool            `json:"strict,omitempty"`
}

type wireToolCall struct {
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	Function wireCalled      `json:"function"`
	Extra    json.RawMessage `json:"extra_content,omitempty"`
}

type wireCalled struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// format is how the shape of the answer is asked for. The prompt says it too; this makes servers enforce it.
type format uint8

const (
	formatPrompt format = iota // by the prompt alone
	formatObject               // any JSON object
	formatSchema               // the schema
)

// sent remembers which optional things a request held.
type sent struct {
	format        format
	streamOptions bool
	sampling      bool // temperature or top_p
	completion    bool // max_completion_tokens instead of max_tokens
	effort        bool
	strictTools   bool
	cacheKey      bool
}

func (o *OpenAI) request(c Call) ([]byte, sent, error) {
	quirk := o.lessons.quirk(c)
	ask := c.Ask
	s := sent{
		format: quirk.format, streamOptions: o.stream && !quirk.noStreamOptions,
		sampling:   (ask.Temperature != nil || ask.TopP != nil) && !quirk.noSampling,
		completion: quirk.completionTokens, effort: ask.Effort != "" && !quirk.noEffort, cacheKey: c.Session != "" && quirk.cacheKey,
	}
	r := wireRequest{Messages: o.messages(c)}
	r.Model, r.Stream, r.Stop = c.Model, o.stream, ask.Stop
	if len(ask.Tools) > 0 { // a choice without tools is refused
		r.Tools, s.strictTools = tools(ask.Tools, !quirk.noStrictTools)
		r.ToolChoice = toolChoice(ask.ToolChoice)
	}
	if s.streamOptions {
		r.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	}
	if s.sampling {
		r.Temperature, r.TopP = ask.Temperature, ask.TopP
	}
	if s.effort {
		r.ReasoningEffort = ask.Effort
	}
	if s.cacheKey {
		r.CacheKey = sessionKey(c.Session)
	}
	if s.completion {
		r.MaxCompletionTokens = c.MaxTokens
	} else {
		r.MaxTokens = c.MaxTokens //nolint:staticcheck // deprecated at OpenAI, and all that most other servers know
	}
	r.ResponseFormat, s.format = responseFormat(ask, s.format)
	body, err := json.Marshal(r)
	return body, s, err
}

// responseFormat asks for JSON, or for a schema, by at most the given means, and says by which.
func responseFormat(ask agent.Ask, most format) (*openai.ChatCompletionResponseFormat, format) {
	schema := ask.Schema
	shape := readShape(schema)
	switch {
	case len(schema) == 0 && ask.JSON && most >= formatObject:
		return &openai.ChatCompletionResponseFormat{Type: openai.ChatCompletionResponseFormatTypeJSONObject}, formatObject
	case !shape.object || most == formatPrompt:
		return nil, formatPrompt // these servers answer with objects only
	case most == formatObject:
		return &openai.ChatCompletionResponseFormat{Type: openai.ChatCompletionResponseFormatTypeJSONObject}, most
	}
	if shape.strict {
		schema = shape.closed
	}
	return &openai.ChatCompletionResponseFormat{
		Type:       openai.ChatCompletionResponseFormatTypeJSONSchema,
		JSONSchema: &openai.ChatCompletionResponseFormatJSONSchema{Name: "answer", Schema: schema, Strict: shape.strict},
	}, most
}

// sessionKey names a conversation to a provider without telling it our names, in the 64 characters that it may have.
func sessionKey(session string) string {
	sum := sha256.Sum256([]byte(session))
	return hex.EncodeToString(sum[:16])
}

func (o *OpenAI) messages(c Call) []wireMessage {
	list := make([]wireMessage, len(c.Ask.Messages))
	for i, m := range c.Ask.Messages {
		w := wireMessage{Role: m.Role, Content: m.Content, ToolCallID: m.ToolCallID}
		switch {
		case len(m.Images) > 0:
			w.Content = imageParts(m)
		case len(m.ToolCalls) > 0 && m.Content == "":
			w.Content = nil
		}
		if m.Role == agent.RoleAssistant {
			h := o.opened(m, c.Model)
			w.ReasoningContent, w.ReasoningDetails = h.Reasoning, h.Details
			if w.ToolCalls = o.toolCalls(m.ToolCalls, h, c.Model); len(w.ToolCalls) > 0 && h.Reasoning == nil && o.vendor.keeps == keepsReasoning {
				w.ReasoningContent = new(string) // another model made it: refused without the field, taken without a thought
			}
		}
		list[i] = w
	}
	return list
}

func imageParts(m agent.Message) []wirePart {
	var list []wirePart
	if m.Content != "" {
		list = append(list, wirePart{Type: "text", Text: m.Content})
	}
	for _, url := range m.Images {
		list = append(list, wirePart{Type: "image_url", Image: &wireImage{url}})
	}
	return list
}

func (o *OpenAI) toolCalls(calls []agent.ToolCall, h hidden, model string) []wireToolCall {
	var list []wireToolCall
	for i, call := range calls {
		w := wireToolCall{ID: call.ID, Type: "function", Function: wireCalled{call.Name, call.Arguments}, Extra: h.Extra[call.ID]}
		if i == 0 && len(w.Extra) == 0 && o.vendor.keeps == keepsSignatures && wantsSignature(model) {
			w.Extra = signatureSkipped
		}
		list = append(list, w)
	}
	return list
}

// tools writes the definitions and reports whether one of them is strict. A strict one is sent with its objects closed;
// one that strict mode cannot take is sent as guidance.
func tools(defined []agent.Tool, strict bool) ([]wireTool, bool) {
	var list []wireTool
	some := false
	for _, t := range defined {
		f := wireFunction{Name: t.Name, Description: t.Description, Parameters: t.Parameters}
		if t.Strict && strict {
			if shape := readShape(t.Parameters); shape.strict {
				f.Parameters, f.Strict, some = shape.closed, true, true
			}
		}
		list = append(list, wireTool{"function", f})
	}
	return list, some
}

// toolChoice is a word, or the one tool that must be called.
func toolChoice(choice json.RawMessage) any {
	var named struct {
		Name string `json:"name"`
	}
	switch {
	case len(choice) == 0 || string(choice) == "null":
		return nil
	case json.Unmarshal(choice, &named) == nil && named.Name != "":
		return map[string]any{"type": "function", "function": map[string]string{"name": named.Name}}
	}
	return choice
}
