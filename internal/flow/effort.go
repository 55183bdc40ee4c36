package flow

import "github.com/fermata-run/fermata/internal/workflow"

// What one decision takes up at most. What is left is taken up by the next one, which is due at once: others wait for their
// turn meanwhile, and the events and runs of a decision are committed together.
const (
	effortStepsMax    = 5_000
	effortCostMax     = 5 * workflow.ExpressionCostMax
	effortBytesMax    = 512 << 10
	effortChildrenMax = 100
)

// effort is what the decision at hand has done so far.
type effort struct {
	steps    int    // taken up
	cost     uint64 // of its expressions
	bytes    int    // of its events
	children int
	left     bool // some of what may go on now
}

// enough reports whether the decision leaves the rest to the next one.
func (e *effort) enough() bool {
	e.left = e.steps >= effortStepsMax || e.cost >= effortCostMax || e.bytes >= effortBytesMax || e.children >= effortChildrenMax
	return e.left
}
