package gateway

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow"
)

// What a workflow is told of models before they are asked.
func TestModelFacts(t *testing.T) {
	anthropic := Provider{Provider: &scripted{name: "anthropic"}, Vendor: "anthropic", Only: true}
	plan := Provider{Provider: &scripted{name: "plan"}, Vendor: "openai", Only: true, Subscription: "chatgpt"}
	sim := Provider{Provider: &scripted{name: "sim"}, Simulated: true}
	fallback := Provider{Provider: &scripted{name: "simulated"}, Simulated: true, Fallback: true}
	sonnet := workflow.ModelFacts{Family: "claude", Tier: 3, ContextTokens: 1_000_000, Input: 3000, Output: 15000, Priced: true, TokensPerS: 80, AnswerTokens: TokensDefault}
	dear := sonnet
	dear.Input = 30000
	flat := workflow.ModelFacts{Family: "gpt", Tier: 4, ContextTokens: 128_000, Priced: true, TokensPerS: 60, AnswerTokens: TokensDefault}
	gpt := flat
	gpt.Input, gpt.Output = 2500, 10000
	for _, c := range []struct {
		name   string
		have   []Provider
		prices []PriceRow
		facts  map[string]workflow.ModelFacts // by model; the zero value: not known
	}{
		{"nobody serves anything: the roster is known", nil, nil, map[string]workflow.ModelFacts{
			"claude-sonnet-4-6": sonnet, "gpt-4o": gpt, "anthropic/claude-sonnet-4-6": sonnet, "llama3": {},
		}},
		{"who serves it has a price of its own", []Provider{anthropic}, []PriceRow{{Model: "claude-sonnet-4-6", Provider: "anthropic", Input: "30", Output: "15"}}, map[string]workflow.ModelFacts{
			"claude-sonnet-4-6": dear, "gpt-4o": gpt,
		}},
		{"a flat plan pays", []Provider{plan}, nil, map[string]workflow.ModelFacts{"gpt-4o": flat, "claude-sonnet-4-6": sonnet}},
		{"simulated by name", []Provider{sim}, nil, map[string]workflow.ModelFacts{"sim/claude-sonnet-4-6": sonnet, "sim/llama3": {Family: "llama", AnswerTokens: TokensDefault}, "llama3": {}}},
		{"everything else is simulated", []Provider{fallback}, nil, map[string]workflow.ModelFacts{"gpt-4o": gpt, "meta/llama3": {Family: "llama", AnswerTokens: TokensDefault}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := open(t, Config{Providers: c.have, Prices: c.prices, Now: func() time.Time { return day("2026-11-01") }})
			for model, want := range c.facts {
				got, ok := g.Model(model)
				if ok != (want != workflow.ModelFacts{}) {
					t.Errorf("%s: known is %t", model, ok)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", model, diff)
				}
			}
		})
	}
}
