package flow_test

import (
	"encoding/json"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
)

// A node of the release before cannot compile a definition that says what is new in the language, and sets its run aside
// if it claims it: the run's version must keep it away.
func TestNewWordsAreANewFormat(t *testing.T) {
	const steps = "steps: [{id: a, agent: w, prompt: A}]\n"
	for name, c := range map[string]struct {
		definition string
		want       int16
	}{
		"as before": {oneAgent, 1},
		"route":     {"spec: workflow/v1\nname: n\nagents: {w: {route: auto}}\n" + steps, 2},
		"unused":    {oneAgent[:len("spec: workflow/v1\nname: one\n")] + "agents: {w: {model: gpt-4o}, v: {route: auto}}\n" + steps, 2},
		"context":   {"spec: workflow/v1\nname: n\nagents: {w: {model: gpt-4o, context: {max_tokens: 1000}}}\n" + steps, 2},
		"ttft":      {"spec: workflow/v1\nname: n\nagents: {w: {chain: [{model: gpt-4o, ttft: 5s}]}}\n" + steps, 2},
		"accept":    {"spec: workflow/v1\nname: n\nagents: {w: {chain: [{model: gpt-4o, accept: confidence >= 30}]}}\n" + steps, 2},
		"chain":     {"spec: workflow/v1\nname: n\nagents: {w: {chain: {entries: [{model: gpt-4o}], accept_best: true}}}\n" + steps, 2},
	} {
		run, _, err := flow.Open(flow.Submission{ID: playRun, Workflow: compile(t, c.definition), Input: json.RawMessage(`{}`), Priority: -1}, playStart)
		if err != nil {
			t.Fatal(err)
		}
		if run.Format() != c.want {
			t.Errorf("%s: format %d; want %d", name, run.Format(), c.want)
		}
	}
}
