package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// anthropicPart is one block of an answer.
type anthropicPart struct {
	index  int    // the server's
	kind   string // text, thinking, redacted_thinking, tool_use, or one that is not known
	call   int    // place among the calls of tools
	closed bool

	text      strings.Builder // or the thinking, or the arguments
	signature strings.Builder
	id, name  string
	input     json.RawMessage // arguments that came at once
	raw       json.RawMessage // thinking that came at once
}

func (p *anthropicPart) thinks() bool { return p.kind == "thinking" || p.kind == "redacted_thinking" }

// thinking is a block of thinking as it came.
func (p *anthropicPart) thinking() json.RawMessage {
	if p.raw != nil {
		return p.raw
	}
	raw, _ := json.Marshal(struct { //nolint:errcheck // strings
		Type      string `json:"type"`
		Thinking  string `json:"thinking"`
		Signature string `json:"signature"`
	}{p.kind, p.text.String(), p.signature.String()})
	return raw
}

// arguments are of a call of a tool.
func (p *anthropicPart) arguments() string {
	switch {
	case p.text.Len() > 0:
		return p.text.String()
	case len(p.input) > 0 && string(p.input) != "null":
		return string(p.input)
	}
	return "{}"
}

func (p *anthropicPart) toolCall() agent.ToolCall {
	return agent.ToolCall{ID: p.id, Name: p.name, Arguments: p.arguments()}
}

// open begins a block. A whole one is complete with that.
func (x *anthropicExchange) open(index int, raw json.RawMessage, whole bool) error {
	var b struct {
		Type     string          `json:"type"`
		Text     string          `json:"text"`
		Thinking string          `json:"thinking"`
		ID       string          `json:"id"`
		Name     string          `json:"name"`
		Input    json.RawMessage `json:"input"`
	}
	if json.Unmarshal(raw, &b) != nil {
		return x.fail(ClassStreamInterrupted, "a block of the answer cannot be read")
	}
	p := &anthropicPart{index: index, kind: b.Type, id: b.ID, name: b.Name, input: b.Input}
	x.parts = append(x.parts, p)
	x.thinking = p.kind == "thinking"
	switch p.kind {
	case "text":
		x.add(p, Delta{Text: b.Text}, b.Text)
	case "thinking":
		x.add(p, Delta{Reasoning: b.Thinking}, b.Thinking)
		x.alive(false)
		if whole {
			p.raw = raw
		}
	case "redacted_thinking":
		p.raw = bytes.Clone(raw)
		x.size += len(raw)
		x.alive(true)
	case "tool_use":
		p.call = x.calls
		x.calls++
		x.alive(true)
		x.tell(Delta{ToolCalls: []ToolCallDelta{{Index: p.call, ID: p.id, Name: p.name}}})
	}
	x.size += len(b.Text) + len(b.Thinking) + len(b.Input)
	return x.bounded()
}

// grow adds a part of a block.
func (x *anthropicExchange) grow(index int, d anthropicDelta) error {
	p := x.part(index)
	if p == nil {
		return x.fail(ClassStreamInterrupted, "the stream goes on with a block that it has not begun")
	}
	switch p.kind {
	case "text":
		x.add(p, Delta{Text: d.Text}, d.Text)
	case "thinking":
		x.add(p, Delta{Reasoning: d.Thinking}, d.Thinking)
		if d.Signature != "" {
			p.signature.WriteString(d.Signature)
			x.alive(true)
		}
	case "tool_use":
		x.add(p, Delta{ToolCalls: []ToolCallDelta{{Index: p.call, Arguments: d.JSON}}}, d.JSON)
	}
	x.size += len(d.Text) + len(d.Thinking) + len(d.JSON) + len(d.Signature)
	return x.bounded()
}

// add writes a part down and tells of it.
func (x *anthropicExchange) add(p *anthropicPart, d Delta, s string) {
	if s == "" {
		return
	}
	p.text.WriteString(s)
	x.thinking = false
	x.alive(true)
	x.tell(d)
}

func (x *anthropicExchange) bounded() error {
	switch {
	case x.size > textBytesMax:
		return x.fail(ClassStreamInterrupted, fmt.Sprintf("the answer has more than %d bytes", textBytesMax))
	case len(x.parts) > anthropicPartsMax:
		return x.fail(ClassStreamInterrupted, fmt.Sprintf("the answer has more than %d blocks", anthropicPartsMax))
	}
	return nil
}

// close ends a block: the arguments of a call that did not come in parts are told now.
func (x *anthropicExchange) close(p *anthropicPart) {
	if p.closed {
		return
	}
	p.closed, x.thinking = true, false
	if p.kind == "tool_use" && p.text.Len() == 0 {
		x.tell(Delta{ToolCalls: []ToolCallDelta{{Index: p.call, Arguments: p.arguments()}}})
	}
}

// anthropicUsage is what Anthropic reports, cumulative over the events of a stream. What is read from a cache or written
// to one is not among the input tokens; thinking is among the output tokens.
type anthropicUsage struct {
	Input        count `json:"input_tokens"`
	Output       count `json:"output_tokens"`
	CacheRead    count `json:"cache_read_input_tokens"`
	CacheCreated count `json:"cache_creation_input_tokens"`
	Creation     struct {
		Minutes count `json:"ephemeral_5m_input_tokens"`
		Hour    count `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	OutputDetails struct {
		Thinking count `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

// grow takes a later report in. Not every event has every number. It answers false if there is none at all.
func (u *anthropicUsage) grow(raw json.RawMessage) bool {
	var v anthropicUsage
	if !bytes.ContainsAny(raw, "0123456789") || json.Unmarshal(raw, &v) != nil {
		return false
	}
	u.Input, u.Output = max(u.Input, v.Input), max(u.Output, v.Output)
	u.CacheRead, u.CacheCreated = max(u.CacheRead, v.CacheRead), max(u.CacheCreated, v.CacheCreated)
	u.Creation.Minutes, u.Creation.Hour = max(u.Creation.Minutes, v.Creation.Minutes), max(u.Creation.Hour, v.Creation.Hour)
	u.OutputDetails.Thinking = max(u.OutputDetails.Thinking, v.OutputDetails.Thinking)
	return true
}

// read gives usage in disjoint types. Where the server does not say for how long it cached, it is what was asked for.
func (u anthropicUsage) read(hour bool) usage.Tokens {
	t := usage.Tokens{Input: int64(u.Input), Output: int64(u.Output), CacheRead: int64(u.CacheRead), CacheWrite1h: int64(u.Creation.Hour)}
	t.CacheWrite = max(int64(u.Creation.Minutes), int64(u.CacheCreated)-t.CacheWrite1h)
	if hour && u.Creation.Minutes == 0 && u.Creation.Hour == 0 {
		t.CacheWrite, t.CacheWrite1h = 0, t.CacheWrite
	}
	t.Reasoning = min(int64(u.OutputDetails.Thinking), t.Output)
	t.Output -= t.Reasoning
	return t
}

// tokens is what was used: as reported, or counted here where nothing believable was. The head of a stream tells the
// input, and only its end the output.
func (x *anthropicExchange) tokens() (usage.Tokens, bool) {
	t := x.usage.read(x.sent.hour)
	if x.settled && (t.OutputTotal() > 0 || x.size == 0) && t.Total() > 0 {
		return t, false
	}
	var text, thinking strings.Builder
	for _, p := range x.parts {
		if p.thinks() {
			thinking.WriteString(p.text.String())
		} else {
			text.WriteString(p.text.String())
		}
	}
	counted := estimate(x.call, text.String(), thinking.String())
	if t.InputTotal() == 0 {
		t.Input = counted.Input
	}
	if t.OutputTotal() < counted.OutputTotal() {
		t.Output, t.Reasoning = counted.Output, counted.Reasoning
	}
	return t, true
}
