package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
)

// Hash identifies what is sent: the first 32 hex digits of the SHA-256 of messages and schema, and of whatever else
// there is: an ask of nothing but text has the hash it has always had.
func (a Ask) Hash() string {
	h := parts{sha256.New()}
	for _, m := range a.Messages {
		h.add(m.Role, m.Content)
	}
	h.add(string(a.Schema))
	// What stands behind the schema has its name before it: no schema is the role of one more message.
	for i, m := range a.Messages {
		h.addMessage("message "+strconv.Itoa(i), m)
	}
	for _, t := range a.Tools {
		h.add("tool", t.Name, t.Description, string(t.Parameters), strconv.FormatBool(t.Strict))
	}
	for _, stop := range a.Stop {
		h.add("stop", stop)
	}
	if a.TopP != nil {
		h.add("top_p", strconv.FormatFloat(*a.TopP, 'g', -1, 64))
	}
	if a.Effort != "" {
		h.add("effort", a.Effort)
	}
	if len(a.ToolChoice) > 0 {
		h.add("tool_choice", string(a.ToolChoice))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// parts hashes texts so that they do not run into each other.
type parts struct{ hash.Hash }

func (h parts) add(texts ...string) {
	for _, s := range texts {
		h.Write(strconv.AppendInt(nil, int64(len(s)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(s))
	}
}

// addMessage adds what a message holds besides its text.
func (h parts) addMessage(name string, m Message) {
	for _, image := range m.Images {
		h.add(name, "image", image)
	}
	for _, call := range m.ToolCalls {
		h.add(name, "tool_call", call.ID, call.Name, call.Arguments)
	}
	if m.ToolCallID != "" {
		h.add(name, "tool_call_id", m.ToolCallID)
	}
	if m.Hidden != nil {
		h.add(name, "hidden", m.Hidden.Provider, m.Hidden.Model, string(m.Hidden.Data))
	}
}
