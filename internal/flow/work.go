package flow

import "github.com/fermata-run/fermata/internal/workflow"

// What one decision takes up at most. What is left is taken up by the next one, which is due at once: others wait for their
// turn meanwhile, and the events and runs of a decision are committed together.
const (
	workStepsMax    = 5_000
	workCostMax     = 5 * workflow.ExpressionCostMax
	workBytesMax    = 512 << 10
	workChildrenMax = 100
)

// work is what the decision at hand has done so far.
type work struct {
	steps    int    // taken up
	cost     uint64 // of its expressions
	bytes    int    // of its events
	children int
	left     bool // some of what may go on now
}

// enough reports whether the decision leaves the rest to the next one.
func (w *work) enough() bool {
	w.left = w.steps >= workStepsMax || w.cost >= workCostMax || w.bytes >= workBytesMax || w.children >= workChildrenMax
	return w.left
}
