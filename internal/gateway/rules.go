package gateway

import "github.com/fermata-run/fermata/internal/gateway/provider"

// rule says who is asked after a failure, and what it says of who failed.
type rule struct {
	retry bool // the same entry again, while it has retries
	once  bool // but only once
	next  bool // then the next entry
	// minor failures say something about the configuration, not about the question: another failure of the chain is
	// the one to tell.
	minor   bool
	breaker breakerRule
}

// breakerRule is what a failure does to the breaker of the model that failed.
type breakerRule uint8

const (
	breakerIgnores   breakerRule = iota // it says something about the question, or about us
	breakerAnswered                     // a whole answer came, if not the one that was wanted
	breakerFailure                      // it counts
	breakerThrottles                    // the provider says when to come again; no failure
	breakerDisables                     // no use asking for a while
)

// rules by class of failure. A class that is not here is treated as unknown.
var rules = map[provider.Class]rule{
	provider.ClassInvalidRequest:     {},
	provider.ClassCapabilityMismatch: {next: true, minor: true},
	provider.ClassAuth:               {next: true, minor: true, breaker: breakerDisables},
	provider.ClassNotFound:           {next: true, minor: true, breaker: breakerDisables},
	provider.ClassQuotaExhausted:     {next: true, minor: true, breaker: breakerDisables},
	provider.ClassRateLimited:        {retry: true, next: true, breaker: breakerThrottles},
	provider.ClassOverloaded:         {retry: true, next: true, breaker: breakerFailure},
	provider.ClassServer:             {retry: true, next: true, breaker: breakerFailure},
	provider.ClassNetwork:            {retry: true, next: true, breaker: breakerFailure},
	provider.ClassTimeout:            {next: true, breaker: breakerFailure}, // retried only where the entry says retry_timeouts
	provider.ClassStreamInterrupted:  {next: true, breaker: breakerFailure},
	provider.ClassContextLength:      {next: true},               // only entries with a larger window
	provider.ClassContentPolicy:      {},                         // next only if the chain says so: asking around until somebody complies is not ours
	provider.ClassOutputTruncated:    {breaker: breakerAnswered}, // once more with a larger cap, if the chain says so
	provider.ClassLowConfidence:      {next: true, breaker: breakerAnswered},
	provider.ClassThrottled:          {next: true},
	provider.ClassUnavailable:        {next: true, minor: true},
	provider.ClassBudgetExceeded:     {},
	provider.ClassCancelled:          {},
	provider.ClassUnknown:            {retry: true, once: true, next: true, breaker: breakerFailure},
}

func ruleOf(c provider.Class) rule {
	if r, ok := rules[c]; ok {
		return r
	}
	return rules[provider.ClassUnknown]
}
