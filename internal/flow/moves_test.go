package flow

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestMovesAreDrawn: the diagrams of ARCHITECTURE.md are the tables of moves.
func TestMovesAreDrawn(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, diagram := range map[string]string{"run": mermaid(runMoves, ""), "step": mermaid(stepMoves, StepStatusPending)} {
		if !strings.Contains(string(text), diagram) {
			t.Errorf("ARCHITECTURE.md does not hold the diagram of a %s's moves:\n%s", name, diagram)
		}
	}
}

func mermaid[S ~string](moves map[S][]S, first S) string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	if first != "" {
		fmt.Fprintf(&b, "  [*] --> %s\n", first)
	}
	for _, from := range slices.Sorted(maps.Keys(moves)) {
		for _, to := range moves[from] {
			origin := string(from)
			if origin == "" {
				origin = "[*]"
			}
			fmt.Fprintf(&b, "  %s --> %s\n", origin, to)
		}
		if len(moves[from]) == 0 {
			fmt.Fprintf(&b, "  %s --> [*]\n", from)
		}
	}
	return b.String()
}
