package fault_test

import (
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/fault"
)

func TestNearest(t *testing.T) {
	known := []string{"reviewer", "producer", "max_tokens", "id", "model"}
	for name, want := range map[string]string{
		"reviwer": "reviewer", "prodcuer": "producer", "Model": "model", "maxTokens": "max_tokens", "modle": "model",
		"x": "", "": "", "unrelated": "", strings.Repeat("a", 10_000): "",
	} {
		if got := fault.Nearest(name, known); got != want {
			t.Errorf("%.20q: %q, want %q", name, got, want)
		}
	}
}
