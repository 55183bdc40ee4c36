// Package provider holds the adapters to what answers a model call: OpenAI-compatible servers and a simulation. Each
// makes exactly one request per call and says how it ended; chains, retries, prices and limits are the gateway's.
package provider

import (
	"context"

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
}

// Reply is a complete answer: the provider said that it was finished, and finished well.
type Reply struct {
	Text         string
	FinishReason string // stop, or the provider's own word
	Model        string // as the provider names what answered; may be empty
	Tokens       usage.Tokens
	Estimated    bool // the provider reported no usage; tokens were counted here
}
