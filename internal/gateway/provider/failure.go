package provider

import (
	"fmt"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
)

// Class is what kind of failure a call ended in: it decides who is asked next.
type Class string

// The classes of failure of a model call.
const (
	ClassInvalidRequest     Class = "invalid_request"     // the request is wrong; every model would say so
	ClassCapabilityMismatch Class = "capability_mismatch" // this model does not take a parameter
	ClassAuth               Class = "auth"                // credential missing, wrong or without the right
	ClassNotFound           Class = "not_found"           // no such model here, or no provider for it
	ClassQuotaExhausted     Class = "quota_exhausted"     // out of money or quota: waiting a little does not help
	ClassRateLimited        Class = "rate_limited"
	ClassOverloaded         Class = "overloaded"
	ClassServer             Class = "server"
	ClassNetwork            Class = "network"            // no answer began
	ClassTimeout            Class = "timeout"            // our timer
	ClassStreamInterrupted  Class = "stream_interrupted" // cut, stalled or garbled: never a success
	ClassContextLength      Class = "context_length"
	ClassContentPolicy      Class = "content_policy"
	ClassOutputTruncated    Class = "output_truncated" // the answer reached its token limit
	ClassCancelled          Class = "cancelled"        // by whoever asked
	ClassUnknown            Class = "unknown"

	// Given by the gateway, not by a provider.
	ClassLowConfidence  Class = "low_confidence"    // the chain's entry does not accept the answer
	ClassBudgetExceeded Class = "budget_exceeded"   // a budget refuses the call; none was made
	ClassThrottled      Class = "gateway_throttled" // our own limits; no call was made
	ClassUnavailable    Class = "unavailable"       // its breaker is open; no call was made
)

// Error is how a call failed.
type Error struct {
	Class      Class
	Status     int    // HTTP status; 0: no answer came
	Message    string // for people; bounded, holds no secret
	RetryAfter time.Duration
	NoRetry    bool // the provider asks not to be tried again (x-should-retry: false)
	// Learned: the adapter now knows what the server does not take; the same call will be put differently.
	Learned bool

	// What the provider will charge for all the same.
	Tokens    usage.Tokens
	Estimated bool

	Begun     bool   // parts of an answer had come
	RequestID string // the provider's own name for the call
	Limits    Limits
}

func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("%s (HTTP %d): %s", e.Class, e.Status, e.Message)
	}
	return fmt.Sprintf("%s: %s", e.Class, e.Message)
}
