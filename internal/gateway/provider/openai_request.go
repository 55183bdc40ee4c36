package provider

import (
	"encoding/json"

	openai "github.com/sashabaranov/go-openai"
)

// wireRequest is go-openai's request, except where its encoding loses something: a temperature of 0 and the content
// of an empty message are dropped by it.
type wireRequest struct {
	openai.ChatCompletionRequest
	Messages    []wireMessage `json:"messages"`
	Temperature *float64      `json:"temperature,omitempty"`
}

type wireMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
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
	strict        bool
	streamOptions bool
	temperature   bool
	completion    bool // max_completion_tokens instead of max_tokens
}

func (o *OpenAI) request(c Call) ([]byte, sent, error) {
	quirk := o.lessons.quirk(c)
	s := sent{
		format: quirk.format, streamOptions: o.stream && !quirk.noStreamOptions,
		temperature: c.Ask.Temperature != nil && !quirk.noTemperature, completion: quirk.completionTokens,
	}
	r := wireRequest{Messages: make([]wireMessage, len(c.Ask.Messages))}
	r.Model, r.Stream = c.Model, o.stream
	for i, m := range c.Ask.Messages {
		r.Messages[i] = wireMessage{m.Role, m.Content}
	}
	if s.streamOptions {
		r.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	}
	if s.temperature {
		r.Temperature = c.Ask.Temperature
	}
	if s.completion {
		r.MaxCompletionTokens = c.MaxTokens
	} else {
		r.MaxTokens = c.MaxTokens //nolint:staticcheck // deprecated at OpenAI, and all that most other servers know
	}
	switch shape := readShape(c.Ask.Schema); {
	case !shape.object:
		s.format = formatPrompt // these servers answer with objects only
	case s.format == formatSchema:
		schema := c.Ask.Schema
		if s.strict = shape.strict; s.strict {
			schema = shape.closed
		}
		r.ResponseFormat = &openai.ChatCompletionResponseFormat{
			Type:       openai.ChatCompletionResponseFormatTypeJSONSchema,
			JSONSchema: &openai.ChatCompletionResponseFormatJSONSchema{Name: "answer", Schema: schema, Strict: s.strict},
		}
	case s.format == formatObject:
		r.ResponseFormat = &openai.ChatCompletionResponseFormat{Type: openai.ChatCompletionResponseFormatTypeJSONObject}
	}
	body, err := json.Marshal(r)
	return body, s, err
}
