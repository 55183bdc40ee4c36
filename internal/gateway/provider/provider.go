// Package provider holds the adapters to what answers a model call: OpenAI-compatible servers, Anthropic and a
// simulation. Each makes exactly one request per call and says how it ended; chains, retries, prices and limits are
// the gateway's.
package provider

import (
	"context"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// Provider answers model calls under one name. Complete makes one request; its error is an *Error. It returns soon
// after ctx is done, and is safe for concurrent use.
type Provider interface {
	Name() string
	Complete(ctx context.Context, c Call) (Reply, error)
}

// Call is one request for one model turn.
type Call struct {
	Model string // as this provider calls it
	Ask   agent.Ask
	// MaxTokens bounds the answer. Always set: an unbounded call can cost anything.
	MaxTokens int
	// Seed tells calls apart that ask the same; the same seed gives the same simulated answer.
	Seed string
	// FirstToken and Idle bound how long until an answer begins and between its parts; 0: the provider's own limits.
	FirstToken, Idle time.Duration
	// Stream, if set, is told of each part of the answer as it comes, in order, from the goroutine of Complete.
	Stream func(Delta)
	// Session is the same for the calls of one conversation: their prompts begin alike. Empty: none.
	Session string
}

// Delta is a part of an answer.
type Delta struct {
	Text      string
	Reasoning string
	ToolCalls []ToolCallDelta
}

// ToolCallDelta is a part of a tool call: ID and Name come with its first part.
type ToolCallDelta struct {
	Index     int
	ID, Name  string
	Arguments string
}

// Counter is a provider that counts the tokens of a call before it is made, for nothing. Its error is an *Error.
type Counter interface {
	CountTokens(ctx context.Context, c Call) (int64, error)
}

// Limit is one of the limits that a provider keeps a credential to, as its headers tell it.
type Limit struct {
	Max   int64         // 0: not told
	Left  int64         // of Max, now
	Reset time.Duration // until it is full again; 0: not told
}

// Limits are told with an answer or an error. They are of a minute, unless Reset says otherwise.
type Limits struct {
	Requests, Tokens, InputTokens, OutputTokens Limit
}

// Reply is a complete answer: the provider said that it was finished, and finished well.
type Reply struct {
	Text         string
	FinishReason string // stop or tool_calls, whatever the provider's word for it
	Model        string // as the provider names what answered; may be empty
	Tokens       usage.Tokens
	Estimated    bool // the provider reported no usage; tokens were counted here

	ToolCalls  []agent.ToolCall // FinishReason is then tool_calls
	Hidden     *agent.Hidden    // to be sent back with the message; nil: nothing
	RequestID  string           // the provider's own name for the call
	FirstToken time.Duration    // until the answer began; 0: it was not streamed
	Limits     Limits
}
