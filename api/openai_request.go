package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fermata-run/fermata/internal/agent"
)

// Limits of a chat request, besides that of its body.
const (
	stopsMax         = 4
	toolsMax         = 128
	temperatureMax   = 2
	answerTokensMax  = 10_000_000
	labelsMax        = 32
	labelValueMax    = 256
	labelOfUser      = "user"
	metadataOfInput  = "input"
	metadataOfMode   = "mode"
	modeInteractive  = "interactive"
	modeBatch        = "batch"
	roleDeveloper    = "developer"
	toolTypeFunction = "function"
)

// chatRequest is what is read of a request; fields that are not here are ignored. Among what OpenAI's clients send that
// is: audio, frequency_penalty, logit_bias, parallel_tool_calls, prediction, presence_penalty, safety_identifier,
// service_tier, store, top_logprobs and verbosity, a message's name and reasoning_content, an image's detail.
type chatRequest struct {
	Model               string                    `json:"model"`
	Messages            jsontext.Value            `json:"messages"`
	Stream              bool                      `json:"stream"`
	StreamOptions       streamOptions             `json:"stream_options"`
	MaxTokens           *int                      `json:"max_tokens"`
	MaxCompletionTokens *int                      `json:"max_completion_tokens"`
	Temperature         *float64                  `json:"temperature"`
	TopP                *float64                  `json:"top_p"`
	Stop                jsontext.Value            `json:"stop"`
	ReasoningEffort     string                    `json:"reasoning_effort"`
	Tools               []chatTool                `json:"tools"`
	ToolChoice          jsontext.Value            `json:"tool_choice"`
	ResponseFormat      responseFormat            `json:"response_format"`
	Seed                *int64                    `json:"seed"`
	PromptCacheKey      string                    `json:"prompt_cache_key"`
	User                string                    `json:"user"`
	Metadata            map[string]jsontext.Value `json:"metadata"`

	refusedFields
}

// refusedFields are those without which the answer would not be what was asked for.
type refusedFields struct {
	N                *int           `json:"n"`
	Logprobs         bool           `json:"logprobs"`
	Modalities       []string       `json:"modalities"`
	Functions        jsontext.Value `json:"functions"`
	FunctionCall     jsontext.Value `json:"function_call"`
	WebSearchOptions jsontext.Value `json:"web_search_options"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema struct {
		Schema jsontext.Value `json:"schema"`
	} `json:"json_schema"`
}

type chatTool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string         `json:"name"`
		Description string         `json:"description"`
		Parameters  jsontext.Value `json:"parameters"`
		Strict      bool           `json:"strict"`
	} `json:"function"`
}

type chatMessage struct {
	Role       string         `json:"role"`
	Content    jsontext.Value `json:"content"`
	ToolCalls  []chatToolCall `json:"tool_calls"`
	ToolCallID string         `json:"tool_call_id"`
}

type chatToolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type contentPart struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Refusal  string `json:"refusal"`
	ImageURL struct {
		URL string `json:"url"`
	} `json:"image_url"`
}

// given reports whether a value is there, and is not null.
func given(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != 'n' }

// readChat reads a body that the spec's validator has let through: it is JSON, and an object.
func readChat(body []byte) (*chatRequest, error) {
	req := new(chatRequest)
	if err := readAs("", body, req); err != nil {
		return nil, err
	}
	f := req.refusedFields
	switch {
	case f.N != nil && *f.N != 1:
		return nil, wrong("n", "n must be 1: one answer is given; send the request as often as answers are wanted")
	case f.Logprobs:
		return nil, wrong("logprobs", "logprobs are not given")
	case slices.ContainsFunc(f.Modalities, func(m string) bool { return m != "text" }):
		return nil, wrong("modalities", "answers are text only")
	case given(f.Functions), given(f.FunctionCall):
		return nil, wrong("functions", "functions and function_call are not taken; use tools and tool_choice")
	case given(f.WebSearchOptions):
		return nil, wrong("web_search_options", "models do not search the web here")
	}
	return req, nil
}

// readAs decodes JSON whose place in the request is at; what does not fit is told with its place.
func readAs(at string, raw []byte, into any) error {
	err := json.Unmarshal(raw, into)
	if err == nil {
		return nil
	}
	where := at
	var bad *json.SemanticError
	if errors.As(err, &bad) {
		if rest := paramOf(string(bad.JSONPointer)); where == "" || strings.HasPrefix(rest, "[") || rest == "" {
			where += rest
		} else {
			where += "." + rest
		}
	}
	return wrong(where, "%s has the wrong type", where)
}

// ask makes what is asked of a model out of a request.
func (req *chatRequest) ask() (agent.Ask, error) {
	ask := agent.Ask{Temperature: req.Temperature, TopP: req.TopP}
	for _, read := range []func(*agent.Ask) error{req.messages, req.sampling, req.length, req.tools, req.format} {
		if err := read(&ask); err != nil {
			return ask, err
		}
	}
	return ask, nil
}

func (req *chatRequest) sampling(ask *agent.Ask) error {
	if t := req.Temperature; t != nil && (*t < 0 || *t > temperatureMax) {
		return wrong("temperature", "temperature must be from 0 to %d", temperatureMax)
	}
	if p := req.TopP; p != nil && (*p < 0 || *p > 1) {
		return wrong("top_p", "top_p must be from 0 to 1")
	}
	switch req.ReasoningEffort {
	case "", "none", "minimal", "low", "medium", "high":
		ask.Effort = req.ReasoningEffort
	case "xhigh": // the most that every provider knows
		ask.Effort = "high"
	default:
		return wrong("reasoning_effort", "reasoning_effort must be none, minimal, low, medium, high or xhigh")
	}
	switch {
	case !given(req.Stop):
		return nil
	case req.Stop.Kind() == '"':
		ask.Stop = make([]string, 1)
		return readAs("stop", req.Stop, &ask.Stop[0])
	}
	if err := readAs("stop", req.Stop, &ask.Stop); err != nil {
		return err
	}
	if len(ask.Stop) > stopsMax {
		return wrong("stop", "stop takes up to %d strings", stopsMax)
	}
	return nil
}

func (req *chatRequest) length(ask *agent.Ask) error {
	n, name := req.MaxCompletionTokens, "max_completion_tokens"
	if n == nil {
		n, name = req.MaxTokens, "max_tokens"
	}
	if n == nil {
		return nil
	}
	if *n < 1 || *n > answerTokensMax {
		return wrong(name, "%s must be from 1 to %d", name, answerTokensMax)
	}
	ask.MaxTokens = *n
	return nil
}

func (req *chatRequest) tools(ask *agent.Ask) error {
	if len(req.Tools) > toolsMax {
		return wrong("tools", "tools takes up to %d functions", toolsMax)
	}
	for i, t := range req.Tools {
		at := fmt.Sprintf("tools[%d]", i)
		switch {
		case t.Type != toolTypeFunction:
			return wrong(at+".type", "a tool's type must be function")
		case !isToolName(t.Function.Name):
			return wrong(at+".function.name", "a function's name has 1 to 64 letters, digits, _ and -")
		case given(t.Function.Parameters) && t.Function.Parameters.Kind() != '{':
			return wrong(at+".function.parameters", "a function's parameters are a JSON Schema: an object")
		}
		tool := agent.Tool{Name: t.Function.Name, Description: t.Function.Description, Strict: t.Function.Strict}
		if given(t.Function.Parameters) {
			tool.Parameters = []byte(t.Function.Parameters)
		}
		ask.Tools = append(ask.Tools, tool)
	}
	if !given(req.ToolChoice) {
		return nil
	}
	return req.toolChoice(ask)
}

// toolChoice is passed on in the gateway's form; without tools there is nothing to choose, and only demands are wrong.
func (req *chatRequest) toolChoice(ask *agent.Ask) error {
	var name string
	if req.ToolChoice.Kind() == '"' {
		if err := readAs("tool_choice", req.ToolChoice, &name); err != nil {
			return err
		}
		switch {
		case name != "auto" && name != "none" && name != "required":
			return wrong("tool_choice", `tool_choice must be "auto", "none", "required" or a function`)
		case len(ask.Tools) > 0:
			ask.ToolChoice = []byte(req.ToolChoice)
		case name == "required":
			return wrong("tool_choice", "tool_choice is given without tools")
		}
		return nil
	}
	var choice chatTool
	if err := readAs("tool_choice", req.ToolChoice, &choice); err != nil {
		return err
	}
	name = choice.Function.Name
	if choice.Type != toolTypeFunction || !slices.ContainsFunc(ask.Tools, func(t agent.Tool) bool { return t.Name == name }) {
		return wrong("tool_choice", "tool_choice must name a function of tools")
	}
	ask.ToolChoice = fmt.Appendf(nil, `{"name":%q}`, name) // a name needs no escapes
	return nil
}

func isToolName(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.IndexFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-')
	}) < 0
}

func (req *chatRequest) format(ask *agent.Ask) error {
	switch f := req.ResponseFormat; f.Type {
	case "", "text":
	case "json_object":
		ask.JSON = true
	case "json_schema":
		if f.JSONSchema.Schema.Kind() != '{' {
			return wrong("response_format.json_schema.schema", "response_format.json_schema.schema must be a JSON Schema: an object")
		}
		ask.JSON, ask.Schema = true, []byte(f.JSONSchema.Schema)
	default:
		return wrong("response_format.type", "response_format.type must be text, json_object or json_schema")
	}
	return nil
}

func (req *chatRequest) messages(ask *agent.Ask) error {
	var list []chatMessage
	if err := readAs("messages", req.Messages, &list); err != nil {
		return err
	}
	if len(list) == 0 {
		return wrong("messages", "messages must hold at least one message")
	}
	leading := req.PromptCacheKey != "" // what stands first is the same in other calls: their caller says so
	ask.Messages = make([]agent.Message, len(list))
	for i, m := range list {
		at := fmt.Sprintf("messages[%d]", i)
		out, err := m.read(at)
		if err != nil {
			return err
		}
		leading = leading && out.Role == agent.RoleSystem
		out.Stable = leading
		ask.Messages[i] = out
	}
	return nil
}

func (m *chatMessage) read(at string) (agent.Message, error) {
	out := agent.Message{Role: m.Role}
	switch m.Role {
	case agent.RoleSystem, agent.RoleUser, agent.RoleAssistant:
	case roleDeveloper:
		out.Role = agent.RoleSystem
	case agent.RoleTool:
		if out.ToolCallID = m.ToolCallID; out.ToolCallID == "" {
			return out, wrong(at+".tool_call_id", "a message of role tool says whose result it is, in tool_call_id")
		}
	default:
		return out, wrong(at+".role", "role must be system, developer, user, assistant or tool")
	}
	if len(m.ToolCalls) > 0 && m.Role != agent.RoleAssistant {
		return out, wrong(at+".tool_calls", "only assistants call tools")
	}
	for i, c := range m.ToolCalls {
		if c.ID == "" || c.Function.Name == "" || c.Type != "" && c.Type != toolTypeFunction {
			return out, wrong(fmt.Sprintf("%s.tool_calls[%d]", at, i), "a tool call has an id, the type function and the function's name")
		}
		out.ToolCalls = append(out.ToolCalls, agent.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments})
	}
	if !given(m.Content) && len(out.ToolCalls) == 0 {
		return out, wrong(at+".content", "content is missing")
	}
	return out, m.content(at+".content", &out)
}

// content is a text, or a list of parts.
func (m *chatMessage) content(at string, out *agent.Message) error {
	switch {
	case !given(m.Content):
		return nil
	case m.Content.Kind() == '"':
		return readAs(at, m.Content, &out.Content)
	}
	var parts []contentPart
	if err := readAs(at, m.Content, &parts); err != nil {
		return err
	}
	var texts []string
	for i, p := range parts {
		here := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case p.Type == "text":
			texts = append(texts, p.Text)
		case p.Type == "refusal" && m.Role == agent.RoleAssistant:
			texts = append(texts, p.Refusal)
		case p.Type == "image_url" && m.Role == agent.RoleUser:
			url := p.ImageURL.URL
			if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "data:image/") {
				return wrong(here+".image_url.url", "an image's url begins with https:// or data:image/")
			}
			out.Images = append(out.Images, url)
		default:
			return wrong(here+".type", "a part is of type text, or in a user's message image_url")
		}
	}
	out.Content = strings.Join(texts, "\n")
	return nil
}

// lastSaid is the text of the user's last message.
func (req *chatRequest) lastSaid() (string, error) {
	ask := agent.Ask{}
	if err := req.messages(&ask); err != nil {
		return "", err
	}
	for _, m := range slices.Backward(ask.Messages) {
		if m.Role == agent.RoleUser {
			return m.Content, nil
		}
	}
	return "", wrong("messages", "messages hold no message of the user")
}

// labels are what metadata and user say, without what else is told by them. Values that are no text, number or boolean
// are ignored.
func (req *chatRequest) labels() (map[string]string, error) {
	labels := map[string]string{}
	if req.User != "" {
		labels[labelOfUser] = req.User
	}
	for name, raw := range req.Metadata {
		if name == metadataOfInput || name == metadataOfMode {
			continue
		}
		switch raw.Kind() { //nolint:exhaustive // the others are ignored
		case '"':
			var value string
			if err := readAs("metadata."+clip(name), raw, &value); err != nil {
				return nil, err
			}
			labels[name] = value
		case '0', 't', 'f':
			labels[name] = string(raw)
		}
	}
	if len(labels) > labelsMax {
		return nil, wrong("metadata", "metadata and user make more than %d labels", labelsMax)
	}
	for name, value := range labels {
		if name == "" || len(name) > labelKeyMax || len(value) > labelValueMax {
			return nil, wrong("metadata."+clip(name), "a label's name has 1 to %d bytes, its value up to %d", labelKeyMax, labelValueMax)
		}
	}
	return labels, nil
}

// mode is what a header or the metadata says, or empty.
func (req *chatRequest) mode(header string) (string, error) {
	mode := header
	if raw := req.Metadata[metadataOfMode]; mode == "" && given(raw) {
		if err := readAs("metadata.mode", raw, &mode); err != nil {
			return "", err
		}
	}
	switch mode {
	case "", modeInteractive, modeBatch:
		return mode, nil
	}
	return "", wrong("metadata.mode", "mode must be interactive or batch")
}
