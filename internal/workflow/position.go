package workflow

import "slices"

// Position is where something stands in the text of its definition.
type Position struct {
	Pointer   string // RFC 6901
	Line, Col int    // from 1; 0: not known
}

// pointerBytesMax bounds a pointer that is kept: thousands may lead through one very long name.
const pointerBytesMax = 1 << 10

func (n *node) position() Position {
	return Position{Pointer: n.shortPointer(), Line: n.line, Col: n.col}
}

// shortPointer is the pointer of the node, or of the nearest one around it that is not too long.
func (n *node) shortPointer() string {
	bytes := 0
	for at := n; at != nil && at.parent != nil; at = at.parent {
		bytes += 1 + len(at.name)
		if bytes > pointerBytesMax {
			n, bytes = at.parent, 0
		}
	}
	return n.pointer()
}

// named are the top-level keys under which things stand by name.
var named = []string{"agents", "chains", "contracts"}

// places says where the top-level keys of a definition stand, and what stands by name under them.
func places(root *node) map[string]Position {
	all := map[string]Position{}
	note := func(m member) {
		pointer := m.value.pointer()
		all[pointer] = Position{Pointer: pointer, Line: m.line, Col: m.col}
	}
	for _, m := range root.members {
		note(m)
		if slices.Contains(named, m.name) {
			for _, inner := range m.value.members {
				note(inner)
			}
		}
	}
	return all
}

// Read is one thing that a step's expressions read of another step.
type Read struct {
	Step  *Step  // of the same body, or of one around it
	Field string // output, summary, status …
	Place string // the key it stands under: prompt, input, args, when, gate, items, until, output …
	Whole bool   // of an output: all of it, not a field of it
	Pos   Position
}

// Roster is what is known of models before they are asked. A name is one that may stand in a chain.
type Roster interface {
	Model(name string) (ModelFacts, bool)
}

// ModelFacts is what is known of one model.
type ModelFacts struct {
	Family        string
	Tier          int     // 1, the cheapest, to 5; 0: not known
	ContextTokens int64   // 0: not known
	Input, Output float64 // nano-USD a token; 0 and not Priced: not known
	Priced        bool
	TokensPerS    float64 // of an answer; 0: not known
	AnswerTokens  int64   // an answer has at most, where its agent sets no max_tokens; 0: not known
}

// PlaceGate is the place of what a gate's asserts read.
const PlaceGate = "gate"
