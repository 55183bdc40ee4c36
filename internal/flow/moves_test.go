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
	b.WriteString("flowchart LR\n")
	if first != "" {
		fmt.Fprintf(&b, "  begin --> %s\n", first)
	}
	for _, from := range slices.Sorted(maps.Keys(moves)) {
		origin, to := string(from), make([]string, 0, len(moves[from]))
		if origin == "" {
			origin = "begin"
		}
		for _, s := range moves[from] {
			to = append(to, string(s))
		}
		if len(to) > 0 {
			fmt.Fprintf(&b, "  %s --> %s\n", origin, strings.Join(to, " & "))
		}
	}
	return b.String()
}
