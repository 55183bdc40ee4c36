package workflow_test

import (
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/workflow"
)

// TestStoredOrchestrator: a definition whose orchestrator cannot answer is refused, but one that was stored before that
// was a rule still loads; a person decides.
func TestStoredOrchestrator(t *testing.T) {
	source := []byte(`{"agents":{"boss":{"instructions":"Decide."}},"name":"n","orchestrator":"boss","spec":"workflow/v1","steps":[{"agent":"boss","id":"a","model":"gpt-4o","prompt":"x"}]}`)
	if _, err := workflow.Compile(source); !strings.Contains(problems(err), "no_model") {
		t.Errorf("compiled: %s", problems(err))
	}
	w, err := workflow.Load(source)
	if err != nil || w.Orchestrator != nil {
		t.Errorf("loaded: %s%v", problems(err), w)
	}
}
