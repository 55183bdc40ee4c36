package gateway

import "github.com/fermata-run/fermata/internal/gateway/provider"

// rule says who is asked after a failure.
type rule struct {
	retry bool // the same entry again, while it has retries
	once  bool // but only once
	next  bool // then the next entry
	// minor failures say something about the configuration, not about the question: another failure of the chain is
	// the one to tell.
	minor bool
}

// rules by class of failure. A class that is not here is treated as unknown.
var rules = map[provider.Class]rule{
	provider.ClassInvalidRequest:     {},
	provider.ClassCapabilityMismatch: {next: true, minor: true},
	provider.ClassAuth:               {next: true, minor: true},
	provider.ClassNotFound:           {next: true, minor: true},
	provider.ClassQuotaExhausted:     {next: true, minor: true},
	provider.ClassRateLimited:        {retry: true, next: true},
	provider.ClassOverloaded:         {retry: true, next: true},
	provider.ClassServer:             {retry: true, next: true},
	provider.ClassNetwork:            {retry: true, next: true},
	provider.ClassTimeout:            {next: true}, // retried only where the entry says retry_timeouts
	provider.ClassStreamInterrupted:  {next: true},
	provider.ClassContextLength:      {next: true}, // only entries with a larger window
	provider.ClassContentPolicy:      {},           // asking around until somebody complies is not ours
	provider.ClassOutputTruncated:    {},
	provider.ClassCancelled:          {},
	provider.ClassUnknown:            {retry: true, once: true, next: true},
}

func ruleOf(c provider.Class) rule {
	if r, ok := rules[c]; ok {
		return r
	}
	return rules[provider.ClassUnknown]
}
