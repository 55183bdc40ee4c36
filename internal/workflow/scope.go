package workflow

import "time"

// Scope is what an expression may read at one moment of a run: plain decoded JSON (map[string]any, []any, string,
// int64, float64, bool, nil). Flow fills it from the folded state.
type Scope struct {
	Input any                            // `input`
	Run   func(field string) (any, bool) // `run.<field>`
	Steps func(id string) (StepValue, bool)
	// Local gives the roots that depend on where the expression stands: contracts, item, index, iter and the names that
	// maps give their items.
	Local func(name string) (any, bool)
	Extra map[string]any // further roots where the place has them: output, confidence, usage, latency_ms, event, estimate
	Now   time.Time      // `run.now`
	Cost  *uint64        // what evaluations cost is added here, as far as it is counted; nil: it is not
}

// StepValue is one settled step as expressions see it: status, output, error, duration_s, cost_usd, and by kind
// confidence, unresolved, usage, model, case. An absent field answers false.
type StepValue interface {
	Field(name string) (any, bool)
}
