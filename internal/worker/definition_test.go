package worker

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/workflow"
)

const delegation = `
spec: workflow/v1
name: delegation
agents:
  lead:
    role: orchestrator
    model: claude-opus-4-6
    instructions: Plan, delegate, judge.
    delegates: [explore, implement]
    output: {schema: {type: object, required: [done, open], properties: {done: {type: array, items: {type: string}}, open: {type: array, items: {type: string}}}}}
    max_turns: 4
  explore: {role: grinder, model: gemini-2.5-pro, instructions: Research., output: {format: text, summary: {max_tokens: 5, model: claude-haiku-4-5}}}
  implement: {role: grinder, model: claude-sonnet-4-6, instructions: Implement., output: {format: text}}
  critic: {role: validator, model: claude-sonnet-4-6, instructions: Be strict.}
steps:
  - id: lead
    agent: lead
    prompt: Build it.
    gate:
      checks: [{assert: output.open.size() == 0, message: Something is still open}, {judge: critic, rubric: {whole: nothing is missing}, min_score: 7, different_family: true}]
      revise: 1
`

// The whole way: a definition, its agents, the gateway and scripted simulated models, with delegates, a gate and a judge.
func TestDelegationThroughTheGateway(t *testing.T) {
	w, err := workflow.Compile([]byte(delegation))
	if err != nil {
		t.Fatal(err)
	}
	task := func(to, what string) provider.ScriptedCall {
		return provider.ScriptedCall{Name: "delegate", Arguments: `{"agent":"` + to + `","task":"` + what + `"}`}
	}
	sim, err := gateway.Connect(gateway.ProviderConfig{Name: "simulated", Kind: gateway.KindSimulated, Fallback: true, Simulated: provider.SimulatedConfig{Script: []provider.ScriptLine{
		{Model: "claude-opus-4-6", Contains: "Build it.", Calls: []provider.ScriptedCall{task("explore", "FIND the way"), task("implement", "MAKE the thing")}},
		{Model: "claude-opus-4-6", Contains: "the short way", Answer: `{"done":["found"],"open":["tests"]}`},
		{Model: "claude-opus-4-6", Contains: "Something is still open", Calls: []provider.ScriptedCall{task("implement", "TEST it")}},
		{Model: "claude-opus-4-6", Contains: "It is tested", Answer: `{"done":["found","tested"],"open":[]}`},
		{Model: "gemini-2.5-pro", Contains: "FIND", Answer: "I went a very long way, by the woods, and came to a river."},
		{Model: "claude-haiku-4-5", Answer: "the short way"},
		{Model: "claude-sonnet-4-6", Contains: "MAKE", Answer: "It is made."},
		{Model: "claude-sonnet-4-6", Contains: "TEST", Answer: "It is tested."},
		{Model: "claude-sonnet-4-6", Contains: "Judge the OUTPUT", Answer: `{"score":8,"pass":true,"issues":[]}`},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Providers: []gateway.Provider{sim}})
	if err != nil {
		t.Fatal(err)
	}
	s := w.Steps[0]
	_, o, said := do(t.Context(), New(Config{Gateway: g}), flow.Attempt{
		Run: attemptRun, Workflow: w.Name, Within: w, Path: s.Path, Gen: 1, No: 1, Start: 2, Step: s, Agent: &s.Agent.Agent, Input: json.RawMessage(`{"prompt":"Build it."}`),
	})
	if string(o.Output) != `{"done":["found","tested"],"open":[]}` || o.Gate == nil || o.Gate.Rounds != 1 || *o.Gate.Score != 8 {
		t.Fatalf("%q: %s, %+v, %+v", said, o.Output, o.Gate, o.Failure)
	}
	if got := strings.Join(o.Notes, "; "); got != "judged by claude-sonnet-4-6, of the author's own family" {
		t.Errorf("noted %q", got)
	}
}
