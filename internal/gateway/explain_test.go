package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

func TestExplain(t *testing.T) {
	plan := Provider{Provider: &scripted{name: "plan"}, Vendor: "anthropic", Only: true, Subscription: "claude-max"}
	api := Provider{Provider: &scripted{name: "anthropic"}, Vendor: "anthropic", Only: true}
	openai := Provider{Provider: &scripted{name: "openai"}, Vendor: "openai", Only: true}
	g := open(t, Config{Providers: []Provider{plan, api, openai}})
	x := g.Explain(Question{Route: ClassAuto, Text: "Recommend one and weigh the tradeoffs.", InputTokens: 10_000, MaxTokens: 1000, Needs: []string{CapSchema}})
	if x.By != ByRule || x.Rule != "strategy" || x.Class != "strategy" || x.Why == "" || len(x.Scores) == 0 || x.Scores[0].Score <= 0 {
		t.Errorf("decided as %+v: %s", x.Decision, x.Why)
	}
	// gemini-2.5-pro is in the rule's chain, and nobody serves it.
	if diff := cmp.Diff([]string{"claude-opus-4-6", "gpt-4o", "claude-sonnet-4-6"}, x.Models); diff != "" {
		t.Error(diff)
	}
	first := x.Candidates[0]
	want := Candidate{
		Model: "claude-opus-4-6", Provider: "anthropic", Tier: 5, Speed: SpeedSlow, Strengths: first.Strengths, Accepted: true, Rank: 1, Reasons: []string{},
		Breaker: "closed", FirstMS: 3000, Score: first.Score, CostScore: first.CostScore, LatencyScore: 1,
		Low: 50_025_000, Expected: 56_250_000, High: 87_500_000, // 10,000 × 5 (written to the cache: 6.25) + 1, 250 and 1,000 × 25
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
	if x.Low != first.Low || x.High != first.High || x.Unpriced || x.InputTokens != 10_000 || x.MaxTokens != 1000 {
		t.Errorf("from %s to %s for %d and %d tokens", x.Low, x.High, x.InputTokens, x.MaxTokens)
	}
	for model, reason := range map[string]string{
		"gemini-2.5-pro": "no provider serves it", "gpt-4o-2024-05-13": "no structured output", "gpt-5": "not in the chain",
	} {
		i := slices.IndexFunc(x.Candidates, func(a Candidate) bool { return a.Model == model })
		if i < 0 || !strings.Contains(strings.Join(x.Candidates[i].Reasons, "; "), reason) || x.Candidates[i].Rank != 0 {
			t.Errorf("%s: %+v, want %q", model, x.Candidates[max(i, 0)], reason)
		}
	}

	waiting := g.Explain(Question{Route: "strategy", Mode: ModeInteractive, InputTokens: 10_000, MaxTokens: 1000}).Candidates[0]
	if waiting.Provider != "plan" || waiting.Subscription != "claude-max" || waiting.High != 0 || waiting.Unpriced {
		t.Errorf("who waits is not served by the plan: %+v", waiting)
	}
	if counted := g.Explain(Question{Route: "production", Text: strings.Repeat("word ", 1000)}); counted.InputTokens < 900 || counted.InputTokens > 1100 {
		t.Errorf("a thousand words are counted as %d tokens", counted.InputTokens)
	}
	if none := g.Explain(Question{Route: "strategi"}); none.Error == "" || len(none.Models) != 0 {
		t.Errorf("a class that is none: %+v", none.Decision)
	}
	long := g.Explain(Question{Chain: "classification", InputTokens: 300_000})
	if c := long.Candidates[0]; c.Accepted || c.Rank != 0 || !strings.Contains(c.Reasons[0], "window of 200000") {
		t.Errorf("a prompt longer than the window: %+v", c)
	}
	if _, err := json.Marshal(x); err != nil {
		t.Error(err)
	}
}

// A budget that is nearly used up pays for the cheapest of what is left of the chain, then of the roster; never for a
// simulation in place of a real model.
func TestAffordable(t *testing.T) {
	sim := Provider{Provider: &scripted{name: "simulated"}, Simulated: true, Fallback: true}
	g := open(t, Config{Providers: []Provider{{Provider: &scripted{name: "proxy"}}, sim}})
	entries := func(models ...string) []*entry {
		var list []*entry
		for i, m := range models {
			r, err := g.route(m)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, &entry{ChainEntry: workflow.ChainEntry{Model: m}, route: r, depth: i + 1})
		}
		return list
	}
	left := entries("gpt-4o", "proxy/unpriced", "claude-haiku-4-5")
	req := Request{Ask: agent.Ask{MaxTokens: 1000, Messages: []agent.Message{{Role: agent.RoleUser, Content: "hello"}}}, Chain: workflow.Chain{Entries: make([]workflow.ChainEntry, 4)}}
	for _, c := range []struct {
		amount usage.Money
		images bool
		want   string
	}{
		{usage.USD, false, "claude-haiku-4-5@3 gpt-4o@1 deepseek-v4-flash@4 gpt-5-nano@5 gemini-2.5-flash-lite@6"},
		{usage.USD / 150, false, "claude-haiku-4-5@3 deepseek-v4-flash@4 gpt-5-nano@5 gemini-2.5-flash-lite@6"},
		{usage.USD / 2000, false, "deepseek-v4-flash@4 gpt-5-nano@5 gemini-2.5-flash-lite@6"},
		{1000, false, ""},
	} {
		var got []string
		for _, e := range g.affordable(left, req, c.amount) {
			got = append(got, e.Model+"@"+string(rune('0'+e.depth)))
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("$%s: %s", c.amount, diff)
		}
	}
}

func TestModels(t *testing.T) {
	plan := Provider{Provider: &scripted{name: "plan"}, Vendor: "anthropic", Only: true, Subscription: "claude-max"}
	api := Provider{Provider: &scripted{name: "anthropic"}, Vendor: "anthropic", Only: true}
	g := open(t, Config{Providers: []Provider{plan, api}, Now: everybody(t).now})
	g.standing = func(route, string) standing { return standing{state: "open", reason: "5 failures in a row"} }
	models := g.Models()
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == "claude-opus-4-6" })
	raw, err := json.Marshal(models[i])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"claude-opus-4-6","aliases":["claude-opus-4.6"],"vendor":"anthropic","family":"claude","tier":5,"speed":"slow",` +
		`"strengths":["strategy","production","coding_and_scoring","research"],"zone":"strategy, synthesis, complex reasoning, judgment calls",` +
		`"context_tokens":1000000,"output_tokens":128000,"capabilities":["tools","schema","vision","caching"],` +
		`"price":{"model":"claude-opus-4-6","effective_from":"2026-03-13T00:00:00Z","source":"genai-prices","checked":"2026-07-29","tiers":[` +
		`{"context_over":0,"input":"5","cache_read":"0.5","cache_write":"6.25","cache_write_1h":"10","output":"25","reasoning":"25","audio_input":"5","audio_output":"25","image_input":"5"}]},` +
		`"provider":"anthropic","subscription":"claude-max","health":{"state":"open","reason":"5 failures in a row"}}`
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Error(diff)
	}
	// The six models that this service was made for stand in the roster as they were given.
	for name, roster := range map[string]string{
		"claude-opus-4-6": "5 slow", "claude-sonnet-4-6": "3 fast", "gpt-4o": "4 medium", "grok-3": "2 fast", "gemini-2.5-pro": "3 medium", "claude-haiku-4-5": "1 very_fast",
	} {
		if k := g.roster.find(name); string(rune('0'+k.tier))+" "+k.speed != roster {
			t.Errorf("%s is %d %s, want %s", name, k.tier, k.speed, roster)
		}
	}
	for _, k := range g.roster.models {
		for _, class := range k.strengths {
			if !slices.Contains(g.routing.classNames(), class) {
				t.Errorf("%s is strong at %q, which is no task class", k.name, class)
			}
		}
	}
}
