package provider

import (
	"encoding/json"
	"slices"
	"strings"
)

// anthropicRequest is what POST /v1/messages takes.
type anthropicRequest struct {
	Model       string             `json:"model"`
	MaxTokens   int                `json:"max_tokens,omitempty"`
	Stream      bool               `json:"stream,omitempty"`
	System      []anthropicBlock   `json:"system,omitempty"`
	Messages    []anthropicTurn    `json:"messages"`
	Tools       []anthropicTool    `json:"tools,omitempty"`
	ToolChoice  *anthropicChoice   `json:"tool_choice,omitempty"`
	Thinking    *anthropicThinking `json:"thinking,omitempty"`
	Output      *anthropicOutput   `json:"output_config,omitempty"`
	Stop        []string           `json:"stop_sequences,omitempty"`
	Temperature *float64           `json:"temperature,omitempty"`
	TopP        *float64           `json:"top_p,omitempty"`
}

type anthropicTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"input_schema"`
	Strict      bool            `json:"strict,omitempty"`
}

type anthropicChoice struct {
	Type string `json:"type"` // auto, any, none or tool
	Name string `json:"name,omitempty"`
}

type anthropicThinking struct {
	Type    string `json:"type"` // adaptive, enabled or disabled
	Budget  int    `json:"budget_tokens,omitempty"`
	Display string `json:"display,omitempty"`
}

type anthropicOutput struct {
	Effort string           `json:"effort,omitempty"`
	Format *anthropicFormat `json:"format,omitempty"`
}

type anthropicFormat struct {
	Type   string          `json:"type"` // json_schema
	Schema json.RawMessage `json:"schema"`
}

// anthropicSent remembers which optional things a request held.
type anthropicSent struct {
	maxTokens   int
	thinking    *anthropicThinking
	effort      bool
	temperature bool
	topP        bool
	format      json.RawMessage // the schema of the ask; nil: the prompt alone says it
	strict      bool
	cached      bool
	hour        bool
	hidden      []json.RawMessage // thinking of before
}

// request puts a call as its model wants it. Its error is an *Error.
func (a *Anthropic) request(c Call) ([]byte, anthropicSent, error) {
	r, sent, err := a.put(c)
	if err != nil {
		return nil, sent, err
	}
	return a.encoded(r, sent)
}

// countRequest puts a call for its tokens to be counted: without what only an answer needs.
func (a *Anthropic) countRequest(c Call) ([]byte, anthropicSent, error) {
	r, sent, err := a.put(c)
	if err != nil {
		return nil, sent, err
	}
	r.MaxTokens, r.Stream, r.Stop, r.Temperature, r.TopP = 0, false, nil, nil, nil
	return a.encoded(r, sent)
}

func (a *Anthropic) encoded(r anthropicRequest, sent anthropicSent) ([]byte, anthropicSent, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, sent, &Error{Class: ClassInvalidRequest, Message: a.redact.err(err)}
	}
	return body, sent, nil
}

func (a *Anthropic) put(c Call) (anthropicRequest, anthropicSent, error) {
	q := a.lessons.quirk(c.Model)
	r := anthropicRequest{Model: c.Model, MaxTokens: c.MaxTokens, Stream: a.stream, Stop: c.Ask.Stop}
	if q.maxTokens > 0 {
		r.MaxTokens = min(r.MaxTokens, q.maxTokens)
	}
	sent := anthropicSent{maxTokens: r.MaxTokens}
	if slices.ContainsFunc(c.Ask.Stop, func(s string) bool { return strings.TrimSpace(s) == "" }) {
		return r, sent, &Error{Class: ClassCapabilityMismatch, Message: "this provider takes no stop sequence of white space alone"}
	}
	var err error
	if r.System, r.Messages, sent.hidden, err = a.conversation(c); err != nil {
		return r, sent, err
	}
	if r.ToolChoice, err = anthropicToolChoice(c); err != nil {
		return r, sent, err
	}
	r.Tools, sent.strict = anthropicTools(c, q)
	a.putFormat(c, q, &r, &sent)
	a.putThinking(c, q, &r, &sent)
	putSampling(c, q, &r, &sent)
	if !q.noCache {
		sent.hour = a.cache1h && !q.noHour
		sent.cached = mark(r.System, r.Messages, sent.hour)
	}
	return r, sent, nil
}

// putFormat has the server hold the answer to the schema, where it can. Where it cannot, or only to a part of it, the
// prompt has to say it; nothing is ever put into the model's mouth.
func (a *Anthropic) putFormat(c Call, q anthropicQuirk, r *anthropicRequest, sent *anthropicSent) {
	schema := c.Ask.Schema
	if q.schema && !a.lessons.refuses(c.Model, schema) {
		if enforced := enforceable(schema); enforced != nil {
			r.Output = &anthropicOutput{Format: &anthropicFormat{Type: "json_schema", Schema: enforced}}
			sent.format = schema
		}
	}
	wanted := string(schema)
	switch {
	case len(schema) > 0:
	case c.Ask.JSON:
		wanted = "JSON"
	default:
		return
	}
	for _, m := range c.Ask.Messages {
		if strings.Contains(m.Content, wanted) {
			return
		}
	}
	text := "Answer with one JSON value and nothing else: no prose, no code fence."
	if len(schema) > 0 {
		text += " It must meet this JSON Schema:\n" + wanted
	}
	r.System = append(r.System, anthropicBlock{Type: "text", Text: text})
}

// The bounds of a budget for thinking, and how much of the answer's tokens it is, in percent. Some must be left for
// the answer itself.
const (
	thinkingMin  = 1024
	answerMin    = 256
	shareMinimal = 10
	shareLow     = 20
	shareMedium  = 50
	shareHigh    = 80
)

// effort is a model's own word for how much to think, and the share of the answer's tokens for one that takes a number.
func effort(asked string) (word string, share int) {
	switch asked {
	case "none", "minimal":
		return "low", shareMinimal
	case "low":
		return "low", shareLow
	case "medium":
		return "medium", shareMedium
	}
	return "high", shareHigh
}

// putThinking says how much to think. With a tool forced upon it, a model that need not think does not: most refuse
// both at once.
func (a *Anthropic) putThinking(c Call, q anthropicQuirk, r *anthropicRequest, sent *anthropicSent) {
	asked := c.Ask.Effort
	word, share := effort(asked)
	forced := r.ToolChoice != nil && (r.ToolChoice.Type == "any" || r.ToolChoice.Type == "tool")
	none := asked == "none" || asked == "" && !q.unasked || forced && !q.unasked
	switch {
	case q.thinks == thinksNot:
		return
	case q.thinks == thinksBudget:
		budget := max(r.MaxTokens*share/100, thinkingMin)
		if none || budget+answerMin > r.MaxTokens || unthinking(r.Messages) {
			return
		}
		r.Thinking = &anthropicThinking{Type: "enabled", Budget: budget}
	case none && q.unasked && !q.always:
		r.Thinking = &anthropicThinking{Type: "disabled"}
	case !none || q.always:
		r.Thinking = &anthropicThinking{Type: "adaptive"}
		if a.stream && !q.noDisplay { // else a model that thinks for minutes looks like one that has died
			r.Thinking.Display = "summarized"
		}
	}
	sent.thinking = r.Thinking
	on := r.Thinking == nil || r.Thinking.Type != "disabled"
	if q.thinks == thinksAdaptive && !q.noEffort && asked != "" && on && (asked != "none" || q.always) {
		if r.Output == nil {
			r.Output = &anthropicOutput{}
		}
		r.Output.Effort, sent.effort = word, true
	}
}

// unthinking reports whether the results of tools go back to an answer that has lost its thinking, or never had any.
// With a budget the server then refuses to let the model think.
func unthinking(turns []anthropicTurn) bool {
	n := len(turns)
	return n >= 2 && turns[n-1].Content[0].Type == "tool_result" && turns[n-2].Content[0].kept == nil
}

// topPThinking is the least top_p that goes with thinking.
const topPThinking = 0.95

// putSampling sends temperature or top_p, as far as the model takes them: never both, which most refuse.
func putSampling(c Call, q anthropicQuirk, r *anthropicRequest, sent *anthropicSent) {
	if q.noSampling {
		return
	}
	thinking := r.Thinking != nil && r.Thinking.Type != "disabled"
	if t := c.Ask.Temperature; t != nil && !thinking {
		bounded := min(max(*t, 0), 1)
		r.Temperature, sent.temperature = &bounded, true
		return
	}
	if p := c.Ask.TopP; p != nil && !q.noTopP && (!thinking || *p >= topPThinking) {
		r.TopP, sent.topP = p, true
	}
}

var anyObject = json.RawMessage(`{"type":"object"}`)

func anthropicTools(c Call, q anthropicQuirk) (tools []anthropicTool, strict bool) {
	for _, t := range c.Ask.Tools {
		tool := anthropicTool{Name: t.Name, Description: t.Description, Schema: t.Parameters}
		if len(tool.Schema) == 0 {
			tool.Schema = anyObject
		}
		if t.Strict && q.schema && !q.noStrict {
			if enforced := enforceable(t.Parameters); enforced != nil {
				tool.Schema, tool.Strict, strict = enforced, true, true
			}
		}
		tools = append(tools, tool)
	}
	return tools, strict
}

func anthropicToolChoice(c Call) (*anthropicChoice, error) {
	if len(c.Ask.ToolChoice) == 0 || len(c.Ask.Tools) == 0 {
		return nil, nil //nolint:nilnil // nothing to choose from
	}
	var word string
	var named struct {
		Name string `json:"name"`
	}
	switch {
	case json.Unmarshal(c.Ask.ToolChoice, &word) == nil:
		switch word {
		case "auto", "none":
			return &anthropicChoice{Type: word}, nil
		case "required":
			return &anthropicChoice{Type: "any"}, nil
		}
	case json.Unmarshal(c.Ask.ToolChoice, &named) == nil && named.Name != "":
		return &anthropicChoice{Type: "tool", Name: named.Name}, nil
	}
	return nil, &Error{Class: ClassInvalidRequest, Message: `tool_choice must be "auto", "none", "required" or {"name": …}`}
}
