package provider

import (
	"encoding/json"
	"slices"

	"github.com/fermata-run/fermata/internal/agent"
)

// What is kept of an answer that holds thinking is a list: blocks of thinking as they came, and between them where the
// text and the calls stood, so that the message can be put together again in its order. The signatures are over the
// thinking alone, but the server checks that it stands where it stood.
//
//	[{"type":"thinking",…}, {"type":"text","bytes":12}, {"type":"tool_use","id":"toolu_1"}]
type anthropicPlace struct {
	Type  string `json:"type"`
	Bytes int    `json:"bytes,omitempty"` // of text
	ID    string `json:"id,omitempty"`    // of a call
}

// keep gives what is to be sent back with an answer; nil: it holds no thinking.
func keep(provider, model string, blocks []*anthropicPart) *agent.Hidden {
	if !slices.ContainsFunc(blocks, func(b *anthropicPart) bool { return b.thinks() }) {
		return nil
	}
	list := make([]any, 0, len(blocks))
	for _, b := range blocks {
		switch {
		case b.thinks():
			list = append(list, b.thinking())
		case b.kind == "text":
			list = append(list, anthropicPlace{Type: b.kind, Bytes: b.text.Len()})
		case b.kind == "tool_use":
			list = append(list, anthropicPlace{Type: b.kind, ID: b.id})
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil // a block that is not JSON; the answer itself is good
	}
	return &agent.Hidden{Provider: provider, Model: model, Data: data}
}

// restored puts a message together again. If its text or its calls are no longer what they were, all thinking goes
// before them; what cannot be read is left out.
func restored(data json.RawMessage, m agent.Message, visible []anthropicBlock) []anthropicBlock {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		return visible
	}
	var thinking, ordered []anthropicBlock
	text, calls := m.Content, slices.Clone(m.ToolCalls)
	fits := true
	for _, raw := range list {
		var at anthropicPlace
		if json.Unmarshal(raw, &at) != nil {
			return visible
		}
		switch at.Type {
		case "thinking", "redacted_thinking":
			thinking = append(thinking, anthropicBlock{kept: raw})
			ordered = append(ordered, anthropicBlock{kept: raw})
		case "text":
			if at.Bytes < 0 || at.Bytes > len(text) {
				fits = false
				continue
			}
			ordered = append(ordered, textBlocks(text[:at.Bytes], m.Stable)...)
			text = text[at.Bytes:]
		case "tool_use":
			i := slices.IndexFunc(calls, func(t agent.ToolCall) bool { return t.ID == at.ID })
			if i < 0 {
				fits = false
				continue
			}
			ordered = append(ordered, toolUse(calls[i]))
			calls = slices.Delete(calls, i, i+1)
		}
	}
	if !fits || text != "" || len(calls) > 0 || len(ordered) == 0 || ordered[len(ordered)-1].kept != nil {
		return append(thinking, visible...)
	}
	return ordered
}
