// Package agent is what a conversation with a model is and what it asks for next: the prompt an agent opens with, the
// contract its answer must meet, what is mended without asking, and what it is told when it must answer again.
// Pure: no context, clock, randomness or IO.
package agent

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// The roles of a message.
const (
	RoleSystem    = "system"
	RoleUser      = "user"
	RoleAssistant = "assistant"
	RoleTool      = "tool"
)

// Limits of a conversation.
const (
	// AsksAgainMax is how often an answer that breaks its contract is sent back.
	AsksAgainMax = workflow.AsksAgainMax
	// ReplyBytesMax bounds what is read of one reply; an answer may take workflow.OutputBytesMax of it.
	ReplyBytesMax = 8 * workflow.OutputBytesMax

	unresolvedMax      = 50
	unresolvedBytesMax = 1_000 // each
	feedbackBytesMax   = 4_000
	complaintBytesMax  = 4_000
	complaintsMax      = 20
)

// ClassInvalidOutput is the error class of an answer that does not meet its contract after all asking.
const ClassInvalidOutput = "invalid_output"

// Message is one message of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user, assistant or tool
	Content string `json:"content"`

	Images     []string   `json:"images,omitempty"`       // of a user: https or data URLs
	ToolCalls  []ToolCall `json:"tool_calls,omitempty"`   // of an assistant
	ToolCallID string     `json:"tool_call_id,omitempty"` // of role tool: whose result this is
	// Stable: the same in every call of the agent, and so worth a place in the provider's prompt cache. The stable
	// messages stand first.
	Stable bool `json:"stable,omitempty"`
	// Hidden is what the provider that made this message wants back with it (thinking and its signatures), as it
	// came. Only that provider is sent it.
	Hidden *Hidden `json:"hidden,omitempty"`
}

// Hidden belongs to an assistant's message and is opaque to all but the provider that made it.
type Hidden struct {
	Provider string          `json:"provider"`
	Model    string          `json:"model"`
	Data     json.RawMessage `json:"data"`
}

// Tool is a function that a model may ask to be called.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"` // JSON Schema of an object
	Strict      bool            `json:"strict,omitempty"`
}

// ToolCall is a model's request to call a tool.
type ToolCall struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"` // JSON, as the model wrote it
}

// Ask is one model turn to be bought.
type Ask struct {
	Messages    []Message       `json:"messages"`
	Schema      json.RawMessage `json:"schema,omitempty"` // JSON Schema of the answer; nil: none
	JSON        bool            `json:"json,omitempty"`   // the answer must be JSON
	MaxTokens   int             `json:"max_tokens,omitempty"`
	Temperature *float64        `json:"temperature,omitempty"`

	TopP       *float64        `json:"top_p,omitempty"`
	Stop       []string        `json:"stop,omitempty"`
	Effort     string          `json:"effort,omitempty"`      // how much a model that reasons may think: none, minimal, low, medium, high
	Tools      []Tool          `json:"tools,omitempty"`       // what the model may ask for
	ToolChoice json.RawMessage `json:"tool_choice,omitempty"` // "auto", "none", "required" or {"name": …}; empty: auto
}

// Talk is a conversation under way. It is a value: Next gives a new one and leaves the old as it was.
type Talk struct {
	ask      Ask // the one that waits for its reply
	contract workflow.Contract
	declares declared
	check    func(output json.RawMessage) string // nil: the contract is all
	again    int                                 // times the model was asked to answer again
	mayAsk   bool                                // an answer may be a question: see Undecided
	turns    int                                 // answers that called tools
	turnsMax int
}

// Step is what a conversation comes to with a reply: an Ask, Done, Undecided or Failed.
//
//sumtype:decl
type Step interface{ step() }

// Done ends a conversation with an answer that meets its contract.
type Done struct {
	Output     json.RawMessage // compact JSON; a string where the contract is free text
	Confidence *float64        // 0–100; nil: none given
	Unresolved []string
	Repaired   bool // the answer was mended before it met its contract
}

// Undecided stops a conversation until somebody decides what the agent cannot decide itself. It goes on with Decided.
type Undecided struct{ Question }

// Failed ends a conversation without an answer.
type Failed struct {
	Class   string
	Message string
}

func (Ask) step()       {}
func (Done) step()      {}
func (Undecided) step() {}
func (Failed) step()    {}

// Next takes the reply to what was asked last. The reply is untrusted: whatever it holds, Done.Output is valid JSON.
func Next(t Talk, reply string) (Talk, Step) {
	if q, ok := t.question(reply); ok {
		return t, Undecided{q}
	}
	answer, complaint := t.read(reply)
	switch {
	case complaint == nil:
		return t, answer
	case complaint.final:
		return t, Failed{Class: ClassInvalidOutput, Message: complaint.text}
	case t.again >= AsksAgainMax:
		return t, Failed{
			Class:   ClassInvalidOutput,
			Message: "asked " + strconv.Itoa(t.again+1) + " times; the last answer does not meet its contract: " + complaint.text,
		}
	}
	next := t
	next.again++
	next = next.after(reply, Message{Role: RoleUser, Content: t.mend(complaint.text)})
	return next, next.ask
}

// after is the conversation with a reply and what is said to it. The old one stays what it was.
func (t Talk) after(reply string, said ...Message) Talk {
	reply = cleanText(reply)
	if strings.TrimSpace(reply) == "" {
		reply = "(no answer)" // providers refuse empty messages
	}
	return t.with(append([]Message{{Role: RoleAssistant, Content: reply}}, said...)...)
}

func (t Talk) with(messages ...Message) Talk {
	t.ask.Messages = slices.Concat(t.ask.Messages, messages)
	return t
}

// Peek reads a reply as Next would and changes nothing: ok says that it is an answer that meets its contract.
// Confidence is from 0 to 100; nil: the answer gives none.
func Peek(t Talk, reply string) (output json.RawMessage, confidence *float64, ok bool) {
	if _, asks := t.question(reply); asks {
		return nil, nil, false
	}
	answer, complaint := t.read(reply)
	if complaint != nil {
		return nil, nil, false
	}
	return answer.Output, answer.Confidence, true
}

// mend asks for another answer to the same question.
func (t Talk) mend(complaint string) string {
	if t.contract.Schema == nil && !t.contract.JSON {
		return complaint + "\nAnswer again."
	}
	return "Your answer does not meet its contract:\n" + complaint +
		"\nAnswer again with the whole corrected JSON value and nothing else."
}
