package gateway

import (
	"os"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// savingsExample is examples/savings.config.yaml, as far as it matters here.
type savingsExample struct {
	Providers []struct {
		Script []struct {
			Contains, Model, Answer string
			Tokens                  struct {
				Input      int64
				CacheRead  int64 `yaml:"cache_read"`
				CacheWrite int64 `yaml:"cache_write"`
				Output     int64
			}
		}
	}
	Prices []PriceRow
}

// A form and tests with docs by the small model, the logic by the large one: $0.049 instead of $0.18, as it was promised.
func TestSavingsExample(t *testing.T) {
	source, err := os.ReadFile("../../examples/savings.config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var example savingsExample
	if err := yaml.Unmarshal(source, &example); err != nil {
		t.Fatal(err)
	}
	var script []provider.ScriptLine
	for _, l := range example.Providers[0].Script {
		script = append(script, provider.ScriptLine{Contains: l.Contains, Model: l.Model, Answer: l.Answer, Tokens: &usage.Tokens{
			Input: l.Tokens.Input, CacheRead: l.Tokens.CacheRead, CacheWrite: l.Tokens.CacheWrite, Output: l.Tokens.Output,
		}})
	}
	sim, err := Connect(ProviderConfig{Name: "simulated", Kind: KindSimulated, Fallback: true, Simulated: provider.SimulatedConfig{Script: script}})
	if err != nil {
		t.Fatal(err)
	}
	g := open(t, Config{Providers: []Provider{sim}, Prices: example.Prices})
	var sum usage.Sum
	for _, c := range []struct{ asks, model, cost, baseline, cached string }{
		{"Write the FORM of it", "claude-haiku-4-5", "0.001", "0.012", "0.00"},
		{"Write the LOGIC behind it", "claude-sonnet-4-5", "0.045", "0.132", "0.087"},
		{"Write TESTS AND DOCS of it", "claude-haiku-4-5", "0.003", "0.036", "0.00"},
	} {
		a, err := g.Complete(t.Context(), Request{
			Seed: c.asks, Chain: chain(workflow.ChainEntry{Model: c.model}), Baseline: []string{"claude-sonnet-4-5"},
			Ask: agent.Ask{Messages: []agent.Message{{Role: agent.RoleUser, Content: c.asks}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		line := a.Calls[0]
		if line.Cost.String() != c.cost || line.Baseline.String() != c.baseline || line.CacheSaved.String() != c.cached || !line.Simulated {
			t.Errorf("%s: $%s against $%s, of it by the cache $%s", c.asks, line.Cost, line.Baseline, line.CacheSaved)
		}
		sum.Add(line)
	}
	if sum.Cost.String() != "0.049" || sum.Baseline.String() != "0.18" || sum.CacheSaved.String() != "0.087" {
		t.Errorf("together $%s against $%s, of it by the cache $%s", sum.Cost, sum.Baseline, sum.CacheSaved)
	}
	if percent := float64(sum.Baseline-sum.Cost) * 100 / float64(sum.Baseline); percent < 72.5 || percent >= 73.5 {
		t.Errorf("saved %.1f %%, not 73", percent)
	}
}
