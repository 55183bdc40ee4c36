package provider

import (
	"encoding/json"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
)

// hidden is what an OpenAI-compatible server wants back with an answer: the Data of an agent.Hidden.
type hidden struct {
	Details   []json.RawMessage          `json:"reasoning_details,omitempty"`
	Reasoning *string                    `json:"reasoning_content,omitempty"`
	Extra     map[string]json.RawMessage `json:"extra_content,omitempty"` // of tool calls, by their id
}

// keep gives what the server that made an answer will want back with it; nil: nothing.
func (x *exchange) keep(calls []agent.ToolCall) *agent.Hidden {
	var h hidden
	switch x.o.vendor.keeps {
	case keepsNothing:
		return nil
	case keepsSignatures:
		for i, call := range calls {
			if extra := x.calls[i].extra; len(extra) > 0 {
				if h.Extra == nil {
					h.Extra = map[string]json.RawMessage{}
				}
				h.Extra[call.ID] = extra
			}
		}
	case keepsDetails:
		h.Details = x.details
	case keepsReasoning:
		if len(calls) > 0 {
			reasoning := x.hidden.String()
			h.Reasoning = &reasoning
		}
	}
	if h.Extra == nil && h.Details == nil && h.Reasoning == nil {
		return nil
	}
	data, err := json.Marshal(h)
	if err != nil {
		return nil // the parts were read as JSON
	}
	return &agent.Hidden{Provider: x.o.name, Model: x.call.Model, Data: data}
}

// opened gives what was kept with a message, if this provider and a model of the same family made it.
func (o *OpenAI) opened(m agent.Message, model string) hidden {
	var h hidden
	if m.Hidden == nil || m.Hidden.Provider != o.name || !akin(m.Hidden.Model, model) {
		return h
	}
	if json.Unmarshal(m.Hidden.Data, &h) != nil {
		return hidden{}
	}
	return h
}

// akin reports whether two models are of one family: alike up to the first digit ("anthropic/claude-sonnet-4.5").
func akin(a, b string) bool {
	stem := func(s string) string {
		if i := strings.IndexAny(s, "0123456789"); i >= 0 {
			return s[:i]
		}
		return s
	}
	return stem(a) == stem(b)
}

// signatureSkipped is what Google takes in place of the signature of a call that another model made.
var signatureSkipped = json.RawMessage(`{"google":{"thought_signature":"skip_thought_signature_validator"}}`)

// wantsSignature: from Gemini 3 on the first tool call of a message is refused without one.
func wantsSignature(model string) bool {
	name := bareName(model)
	return strings.HasPrefix(name, "gemini-") && !strings.HasPrefix(name, "gemini-1") && !strings.HasPrefix(name, "gemini-2")
}

// addDetail adds one of the reasoning_details of a stream. Parts of one block are told by type and index, and joined.
func addDetail(list []json.RawMessage, raw json.RawMessage) []json.RawMessage {
	var part, last map[string]any
	if json.Unmarshal(raw, &part) != nil || part == nil {
		return list
	}
	if len(list) > 0 && json.Unmarshal(list[len(list)-1], &last) == nil && part["type"] == last["type"] && part["index"] != nil && part["index"] == last["index"] {
		for name, value := range part {
			text, isText := value.(string)
			before, _ := last[name].(string)
			switch {
			case value == nil:
			case isText && (name == "text" || name == "summary" || name == "data"):
				last[name] = before + text
			default:
				last[name] = value
			}
		}
		if joined, err := json.Marshal(last); err == nil {
			list[len(list)-1] = joined
			return list
		}
	}
	return append(list, append(json.RawMessage(nil), raw...))
}
