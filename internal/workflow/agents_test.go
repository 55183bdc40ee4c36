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

// Where the agent is chosen at run time, its summary is there if all that may be chosen make one.
func TestSummaryOfWhoeverIsChosen(t *testing.T) {
	for agents, strict := range map[string]bool{
		"{a: {model: m, output: {summary: {max_tokens: 50}}}, b: {model: m, output: {summary: {max_tokens: 50}}}}": true,
		"{a: {model: m, output: {summary: {max_tokens: 50}}}, b: {model: m}}":                                      false,
	} {
		_, err := workflow.Compile([]byte("spec: workflow/v1\nname: w\ninput: {type: object, required: [who], properties: {who: {type: string, enum: [a, b]}}}\nagents: " + agents +
			"\nsteps:\n  - {id: s, agent: \"${{ input.who }}\", prompt: hi}\n  - {id: t, set: {x: \"${{ steps.s.summary }}\"}}\n"))
		if (err == nil) != strict {
			t.Errorf("%s: %v", agents, err)
		}
	}
}
