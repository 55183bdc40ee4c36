package provider

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
)

// anthropicTurn is everything that one side says until the other does: consecutive messages of a role are one turn.
type anthropicTurn struct {
	Role    string           `json:"role"` // user or assistant
	Content []anthropicBlock `json:"content"`
}

// anthropicBlock is a part of a turn or of the system prompt.
type anthropicBlock struct {
	Type      string           `json:"type"` // text, image, tool_use, tool_result
	Text      string           `json:"text,omitempty"`
	Source    *anthropicSource `json:"source,omitempty"`
	ID        string           `json:"id,omitempty"`
	Name      string           `json:"name,omitempty"`
	Input     json.RawMessage  `json:"input,omitempty"`
	ToolUseID string           `json:"tool_use_id,omitempty"`
	Content   string           `json:"content,omitempty"`
	Cache     *anthropicCache  `json:"cache_control,omitempty"`

	kept   json.RawMessage // thinking, sent back as it came; nothing else counts then
	stable bool
}

type anthropicSource struct {
	Type      string `json:"type"` // base64 or url
	MediaType string `json:"media_type,omitempty"`
	Data      string `json:"data,omitempty"`
	URL       string `json:"url,omitempty"`
}

type anthropicCache struct {
	Type string `json:"type"`          // ephemeral
	TTL  string `json:"ttl,omitempty"` // 5m unless said
}

// MarshalJSON keeps thinking as it came.
func (b anthropicBlock) MarshalJSON() ([]byte, error) {
	if b.kept != nil {
		return b.kept, nil
	}
	type plain anthropicBlock
	return json.Marshal(plain(b))
}

// opening stands before a conversation that the assistant begins: the first turn must be the user's.
const opening = "(You speak first.)"

// conversation gives the system prompt and the turns, and the thinking that goes back with them. Its error is an *Error.
func (a *Anthropic) conversation(c Call) (system []anthropicBlock, turns []anthropicTurn, hidden []json.RawMessage, err error) {
	for i, m := range c.Ask.Messages {
		var blocks []anthropicBlock
		role := agent.RoleUser
		switch m.Role {
		case agent.RoleSystem:
			system = append(system, textBlocks(m.Content, m.Stable)...)
			continue
		case agent.RoleUser:
			blocks, err = userBlocks(m)
		case agent.RoleAssistant:
			role = agent.RoleAssistant
			var sent bool
			if blocks, sent = a.assistantBlocks(c, m); sent {
				hidden = append(hidden, m.Hidden.Data)
			}
		case agent.RoleTool:
			blocks = []anthropicBlock{{Type: "tool_result", ToolUseID: toolID(m.ToolCallID), Content: m.Content}}
		default:
			err = &Error{Class: ClassInvalidRequest, Message: fmt.Sprintf("message %d has the unknown role %q", i, m.Role)}
		}
		if err != nil {
			return nil, nil, nil, err
		}
		for i := range blocks {
			blocks[i].stable = m.Stable
		}
		turns = said(turns, role, blocks)
	}
	switch {
	case len(turns) == 0: // the whole prompt is the system's: nobody else could ask
		system, turns = nil, said(nil, agent.RoleUser, system)
	case turns[0].Role == agent.RoleAssistant:
		turns = slices.Insert(turns, 0, anthropicTurn{agent.RoleUser, textBlocks(opening, false)})
	}
	if len(turns) == 0 {
		return nil, nil, nil, &Error{Class: ClassInvalidRequest, Message: "nothing is asked: all messages are empty"}
	}
	if turns[len(turns)-1].Role == agent.RoleAssistant {
		return nil, nil, nil, &Error{Class: ClassCapabilityMismatch, Message: "this provider continues no message of an assistant: the last message must be a user's or a tool's"}
	}
	return system, turns, hidden, nil
}

// said adds to a conversation. What is empty is not said: the server refuses it.
func said(turns []anthropicTurn, role string, blocks []anthropicBlock) []anthropicTurn {
	if len(blocks) == 0 {
		return turns
	}
	if n := len(turns); n > 0 && turns[n-1].Role == role {
		all := append(turns[n-1].Content, blocks...)
		// Results of tools stand first, all of them in the turn after the calls.
		slices.SortStableFunc(all, func(a, b anthropicBlock) int { return rank(a) - rank(b) })
		turns[n-1].Content = all
		return turns
	}
	return append(turns, anthropicTurn{role, blocks})
}

func rank(b anthropicBlock) int {
	if b.Type == "tool_result" {
		return 0
	}
	return 1
}

func textBlocks(text string, stable bool) []anthropicBlock {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return []anthropicBlock{{Type: "text", Text: text, stable: stable}}
}

var (
	dataURL         = regexp.MustCompile(`^data:([a-zA-Z0-9.+/-]+);base64,`)
	anthropicImages = []string{"image/jpeg", "image/png", "image/gif", "image/webp"}
)

// userBlocks puts images before the text, as Anthropic advises.
func userBlocks(m agent.Message) ([]anthropicBlock, error) {
	var blocks []anthropicBlock
	for _, image := range m.Images {
		source := anthropicSource{Type: "url", URL: image}
		if !strings.HasPrefix(image, "https://") {
			prefix := dataURL.FindStringSubmatch(image)
			if prefix == nil {
				return nil, &Error{Class: ClassInvalidRequest, Message: "an image must be an https URL or a data URL in base64"}
			}
			if !slices.Contains(anthropicImages, strings.ToLower(prefix[1])) {
				return nil, &Error{Class: ClassCapabilityMismatch, Message: "this provider takes images in " + strings.Join(anthropicImages, ", ") + ", not in " + prefix[1]}
			}
			source = anthropicSource{Type: "base64", MediaType: strings.ToLower(prefix[1]), Data: image[len(prefix[0]):]}
		}
		blocks = append(blocks, anthropicBlock{Type: "image", Source: &source})
	}
	return append(blocks, textBlocks(m.Content, m.Stable)...), nil
}

// assistantBlocks gives an answer of before: with its thinking, if this model made it and the server wants it back.
func (a *Anthropic) assistantBlocks(c Call, m agent.Message) (blocks []anthropicBlock, hidden bool) {
	visible := textBlocks(m.Content, m.Stable)
	for _, t := range m.ToolCalls {
		visible = append(visible, toolUse(t))
	}
	h := m.Hidden
	if h == nil || h.Provider != a.name || undated(h.Model) != undated(c.Model) || a.lessons.refuses(c.Model, h.Data) || len(visible) == 0 {
		return visible, false
	}
	blocks = restored(h.Data, m, visible)
	return blocks, slices.ContainsFunc(blocks, func(b anthropicBlock) bool { return b.kept != nil })
}

var dateSuffix = regexp.MustCompile(`-20\d{6}$`)

// undated is the model's family: snapshots of a model read each other's thinking.
func undated(model string) string { return dateSuffix.ReplaceAllString(anthropicModel(model), "") }

func toolUse(t agent.ToolCall) anthropicBlock {
	input := json.RawMessage(strings.TrimSpace(t.Arguments))
	switch {
	case len(input) == 0:
		input = json.RawMessage(`{}`)
	case input[0] != '{' || !json.Valid(input): // only an object is taken
		quoted, _ := json.Marshal(t.Arguments) //nolint:errcheck // a string
		input = json.RawMessage(`{"invalid":` + string(quoted) + `}`)
	}
	return anthropicBlock{Type: "tool_use", ID: toolID(t.ID), Name: t.Name, Input: input}
}

// toolID is a call's ID with the characters that the server takes: other providers' have more.
func toolID(id string) string {
	if id == "" {
		return "call"
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, id)
}

// mark puts up to four marks up to which the server's cache is to keep the prompt: after what is the same in every
// call of the agent, and in a conversation under way after its last turn and after the one where the call before had
// its mark, so that this one finds it however long the turns between are.
func mark(system []anthropicBlock, turns []anthropicTurn, hour bool) bool {
	cache := &anthropicCache{Type: "ephemeral"}
	if hour {
		cache.TTL = "1h"
	}
	marked := markStable(system, cache)
	for i := len(turns) - 1; i >= 0; i-- {
		if markStable(turns[i].Content, cache) {
			marked = true
			break
		}
	}
	if n := len(turns); n >= 3 {
		for _, turn := range []anthropicTurn{turns[n-1], turns[n-3]} {
			turn.Content[len(turn.Content)-1].Cache = cache
		}
		marked = true
	}
	return marked
}

func markStable(blocks []anthropicBlock, cache *anthropicCache) bool {
	for i := len(blocks) - 1; i >= 0; i-- {
		if blocks[i].stable && blocks[i].kept == nil {
			blocks[i].Cache = cache
			return true
		}
	}
	return false
}
