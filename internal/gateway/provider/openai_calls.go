package provider

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
)

// toolCallsMax bounds the tool calls of one answer.
const toolCallsMax = 128

// callPart is a tool call as it comes: whole, or a part of one in a stream.
type callPart struct {
	Index    *int   `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string    `json:"name"`
		Arguments arguments `json:"arguments"`
	} `json:"function"`
	Extra json.RawMessage `json:"extra_content"`
}

// arguments are JSON in a string, or, from some servers, JSON as it is.
type arguments string

func (a *arguments) UnmarshalJSON(raw []byte) error {
	var s string
	switch {
	case raw[0] == '{':
		s = string(raw)
	case string(raw) == "null":
	default:
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
	}
	*a = arguments(s)
	return nil
}

// called is what has come of a tool call.
type called struct {
	index     int // as the server counts
	id, name  string
	arguments []byte
	extra     json.RawMessage
}

// addCall adds a part to the call that it belongs to and says what it was.
func (x *exchange) addCall(part callPart) (ToolCallDelta, error) {
	at := x.callOf(part)
	d := ToolCallDelta{Index: at, Arguments: string(part.Function.Arguments)}
	if at == len(x.calls) {
		if at == toolCallsMax {
			return d, x.malformed(fmt.Sprintf("the answer has more than %d tool calls", toolCallsMax))
		}
		if part.Function.Name == "" {
			return d, x.malformed("a tool call without a name")
		}
		d.ID, d.Name = part.ID, part.Function.Name
		if d.ID == "" { // Gemini gives none; it must be told apart from those of the turns before
			d.ID = fmt.Sprintf("call_%d_%d", len(x.call.Ask.Messages), at)
		}
		x.calls = append(x.calls, called{index: at, id: d.ID, name: d.Name})
		if part.Index != nil {
			x.calls[at].index = *part.Index
		}
	}
	call := &x.calls[at]
	call.arguments = append(call.arguments, d.Arguments...)
	if len(part.Extra) > 0 && string(part.Extra) != "null" {
		call.extra = append(json.RawMessage(nil), part.Extra...)
	}
	return d, nil
}

// callOf finds which call a part belongs to: the last one with its index. A part with a name begins another one unless
// it repeats the id, for some servers give every call the index 0, or none. What is new gets the next place.
func (x *exchange) callOf(part callPart) int {
	for i := len(x.calls) - 1; i >= 0; i-- {
		if part.Index != nil && *part.Index != x.calls[i].index {
			continue
		}
		if part.Function.Name != "" && part.ID != x.calls[i].id {
			break
		}
		return i
	}
	return len(x.calls)
}

// toolCalls are the calls of a finished answer.
func (x *exchange) toolCalls() []agent.ToolCall {
	var list []agent.ToolCall
	for i := range x.calls {
		c := &x.calls[i]
		call := agent.ToolCall{ID: c.id, Name: c.name, Arguments: string(c.arguments)}
		if strings.TrimSpace(call.Arguments) == "" {
			call.Arguments = "{}" // of a tool without parameters
		}
		list = append(list, call)
	}
	return list
}

// callTexts is what the tool calls are counted by.
func (x *exchange) callTexts() string {
	var s strings.Builder
	for i := range x.calls {
		s.WriteString(x.calls[i].name)
		s.Write(x.calls[i].arguments)
	}
	return s.String()
}
