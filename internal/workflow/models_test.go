package workflow_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

func compileYAML(t testing.TB, source string) *workflow.Workflow {
	t.Helper()
	w, err := workflow.Compile([]byte("spec: workflow/v1\nname: models\n" + source))
	if err != nil {
		t.Fatalf("%s\n%s", source, problems(err))
	}
	return w
}

// TestBudget: whatever amount of money is written, as a number or as text, it is exact.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		want := usage.Money(rapid.Int64Range(1, int64(workflow.BudgetMax)).Draw(r, "nano"))
		for _, spelled := range []string{want.String(), `"` + want.String() + `"`, want.String() + "000", fmt.Sprintf("%de-9", int64(want))} {
			w, err := workflow.Compile(fmt.Appendf(nil, `{"spec":"workflow/v1","name":"b","budget":{"usd":%s},"steps":[{"id":"a","set":{}}]}`, spelled))
			if err != nil {
				r.Fatalf("%s: %s", spelled, problems(err))
			}
			if diff := cmp.Diff(&workflow.Budget{Cost: want, WarnAt: 0.8, OnExceeded: workflow.OnExceededPause}, w.Budget); diff != "" {
				r.Fatalf("%s:\n%s", spelled, diff)
			}
		}
	})
	w := compileYAML(t, "budget: {tokens: 1000000000000, warn_at: 1, on_exceeded: fail}\nsteps: [{id: a, set: {}}]\n")
	if diff := cmp.Diff(&workflow.Budget{Tokens: workflow.BudgetTokensMax, WarnAt: 1, OnExceeded: workflow.OnExceededFail}, w.Budget); diff != "" {
		t.Error(diff)
	}
}

// TestChainForms: a list and an object say the same of the entries; the object says how they are asked, too.
func TestChainForms(t *testing.T) {
	w := compileYAML(t, `
chains:
  list: [{model: a, timeout: 5s, ttft: 1s, idle: 500ms, retries: 2, retry_timeouts: true}, {model: b}]
  same: {entries: [{model: a, timeout: 5s, ttft: 1s, idle: 500ms, retries: 2, retry_timeouts: true}, {model: b}]}
  more: {entries: [{model: a}], hedge: 1500ms, accept_best: true, on_policy: next, on_truncated: longer}
  less: {entries: [{model: a}], hedge: true, accept_best: false, on_policy: stop, on_truncated: stop}
steps:
  - {id: s, agent: {chain: {entries: [{model: a}], hedge: false}}, prompt: x}
`)
	a := workflow.ChainEntry{Model: "a"}
	full := workflow.ChainEntry{Model: "a", Timeout: 5 * time.Second, FirstToken: time.Second, Idle: 500 * time.Millisecond, Retries: 2, RetryTimeouts: true}
	want := map[string]*workflow.Chain{
		"list": {Name: "list", Entries: []workflow.ChainEntry{full, {Model: "b"}}},
		"same": {Name: "same", Entries: []workflow.ChainEntry{full, {Model: "b"}}},
		"more": {
			Name: "more", Entries: []workflow.ChainEntry{a}, Hedge: true, HedgeAfter: 1500 * time.Millisecond,
			AcceptBest: true, OnPolicy: true, LongerOnce: true,
		},
		"less": {Name: "less", Entries: []workflow.ChainEntry{a}, Hedge: true},
	}
	if diff := cmp.Diff(want, w.Chains); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(workflow.Chain{Entries: []workflow.ChainEntry{a}}, w.Step("s").Agent.Agent.Chain); diff != "" {
		t.Error(diff)
	}
}

// TestAccept: what an entry accepts is judged by the answer alone.
func TestAccept(t *testing.T) {
	tokens := usage.Tokens{Input: 1, CacheRead: 2, CacheWrite: 3, Output: 4, Reasoning: 5, CacheWrite1h: 6, AudioInput: 7, AudioOutput: 8, ImageInput: 9}
	for _, c := range []struct {
		accept, output string
		confidence     float64
		want           any // a bool, or a part of the error
	}{
		{"confidence >= 30", `{}`, 30, true},
		{"confidence >= 30", `{}`, 29.999, false},
		{"confidence > 29", `{}`, 29.5, true},
		{"output.score >= 7 && output.text.size() > 2", `{"score":7,"text":"abc"}`, 100, true},
		{"has(output.text)", `{"score":7}`, 100, false},
		{"output.?text.orValue('') != ''", `{"score":7}`, 100, false},
		{"output.contains('tea')", `"about tea"`, 100, true},
		{"output == null || size(output) == 0", `[]`, 100, true},
		{"output.text == 'x'", `{}`, 100, "no such key"},
		{"output", `"yes"`, 100, "not true or false"},
		{"usage.input + usage.cache_read + usage.cache_write + usage.output + usage.reasoning == 15", `{}`, 0, true},
		{"usage.cache_write_1h == 6 && usage.audio_input == 7 && usage.audio_output == 8 && usage.image_input == 9", `{}`, 0, true},
		{"usage.cost_usd <= 0.0015 && usage.cost_usd > 0.0014", `{}`, 0, true},
		{"latency_ms < 2500 && latency_ms / 1000 > 2.4", `{}`, 0, true},
	} {
		w := compileYAML(t, fmt.Sprintf("steps:\n  - {id: s, agent: {chain: [{model: m, accept: %q}]}, prompt: x}\n", c.accept))
		scope := workflow.AnswerScope(decoded(t, c.output), c.confidence, tokens, 1_500_000, 2499*time.Millisecond)
		got, err := w.Step("s").Agent.Agent.Chain.Entries[0].Accept.Bool(scope)
		if why, fails := c.want.(string); fails {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s of %s: %v, %v", c.accept, c.output, got, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%s of %s: %v, %v", c.accept, c.output, got, err)
		}
	}
}

// TestBuiltinChains: the gate of every entry is strict, 30 passes, and nothing else changed since the first version.
func TestBuiltinChains(t *testing.T) {
	chains := workflow.BuiltinChains()
	if diff := cmp.Diff([]string{"classification", "production", "reasoning"}, slices.Sorted(maps.Keys(chains))); diff != "" {
		t.Error(diff)
	}
	for name, chain := range chains {
		for i := range chain.Entries {
			accept := chain.Entries[i].Accept
			for confidence, want := range map[float64]bool{0: false, 29.99: false, 30: true, 100: true} {
				if got, err := accept.Bool(workflow.AnswerScope(nil, confidence, usage.Tokens{}, 0, 0)); err != nil || got != want {
					t.Errorf("%s[%d] with confidence %v: %t, %v", name, i, confidence, got, err)
				}
			}
			chain.Entries[i].Accept = nil
		}
	}
	if diff := cmp.Diff(firstChains(), chains); diff != "" {
		t.Error(diff)
	}
}

// firstChains are the built-in chains of the first version. Runs are pinned to them for ever.
func firstChains() map[string]*workflow.Chain {
	entry := func(model string, seconds, retries int) workflow.ChainEntry {
		return workflow.ChainEntry{Model: model, Timeout: time.Duration(seconds) * time.Second, Retries: retries, RetryTimeouts: true}
	}
	return map[string]*workflow.Chain{
		"reasoning": {Name: "reasoning", Entries: []workflow.ChainEntry{
			entry("claude-opus-4-6", 60, 1), entry("gpt-4o", 45, 1), entry("claude-sonnet-4-6", 30, 2), entry("gemini-2.5-pro", 45, 1),
		}},
		"production": {Name: "production", Entries: []workflow.ChainEntry{
			entry("claude-sonnet-4-6", 30, 2), entry("gpt-4o", 30, 1), entry("grok-3", 20, 1),
		}},
		"classification": {Name: "classification", Entries: []workflow.ChainEntry{
			entry("claude-haiku-4-5", 10, 3), entry("claude-sonnet-4-6", 15, 1),
		}},
	}
}

// stored is a definition as the first version kept it: it names built-in chains and carries none, and it gives an
// attempt less time than the first entry of its chain has.
const stored = `{"agents":{"w":{"chain":"reasoning","instructions":"Write."}},"defaults":{"chain":"production"},"name":"old","spec":"workflow/v1",` +
	`"steps":[{"agent":"w","id":"a","timeout":"5s"},{"agent":{"instructions":"x"},"id":"b"},{"agent":"w","chain":"classification","id":"c"}]}`

// TestLoad: what an earlier version stored means what it meant, under the hash it had.
func TestLoad(t *testing.T) {
	w, err := workflow.Load([]byte(stored))
	if err != nil {
		t.Fatal(problems(err))
	}
	if got := w.Hash.String(); got != "508e64b7b2af9bcbe323586967b3e091e3bdeb4eedcaa5812aa48b7eece23997" || string(w.Source) != stored {
		t.Errorf("another definition, %s:\n%s", got, w.Source)
	}
	if diff := cmp.Diff(firstChains(), w.Chains); diff != "" {
		t.Error(diff)
	}
	for id, chain := range map[string]string{"a": "reasoning", "b": "production", "c": "classification"} {
		if diff := cmp.Diff(*firstChains()[chain], w.Step(id).Agent.Agent.Chain); diff != "" {
			t.Errorf("%s:\n%s", id, diff)
		}
	}
	// Canonical JSON may be longer than the YAML it came from: what was accepted once is never refused for its size.
	long := strings.Replace(stored, "Write.", strings.Repeat("x", workflow.DefinitionBytesMax), 1)
	if _, err := workflow.Load([]byte(long)); err != nil {
		t.Error(problems(err))
	}
}

// TestCarriedChains: a definition carries the built-in chains it names, and its hash says which they were; one that
// names none is what its author wrote.
func TestCarriedChains(t *testing.T) {
	const steps = `,"steps":[{"agent":{"chain":"production","instructions":"x"},"id":"a"}]}`
	for _, c := range []struct{ name, source, carries string }{
		{"none", `{"name":"n","spec":"workflow/v1","steps":[{"agent":{"instructions":"x","model":"m"},"id":"a"}]}`, "none"},
		{"named", `{"name":"n","spec":"workflow/v1"` + steps, "production"},
		{"beside its own", `{"chains":{"a":[{"model":"m"}],"z":[{"model":"m"}]},"name":"n","spec":"workflow/v1"` + steps, "a production z"},
		{"its own of that name", `{"chains":{"production":[{"model":"m"}]},"name":"n","spec":"workflow/v1"` + steps, "production"},
	} {
		w, err := workflow.Compile([]byte(c.source))
		if err != nil {
			t.Fatal(problems(err))
		}
		var carried struct{ Chains map[string][]json.RawMessage }
		if err := json.Unmarshal(w.Source, &carried); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(carried.Chains)), " "); got != strings.TrimPrefix(c.carries, "none") {
			t.Errorf("%s carries %s:\n%s", c.name, got, w.Source)
		}
		changed := string(w.Source) != c.source
		if wants := c.name == "named" || c.name == "beside its own"; changed != wants {
			t.Errorf("%s: changed %t:\n%s", c.name, changed, w.Source)
		}
		if changed && len(carried.Chains["production"]) != 3 {
			t.Errorf("%s:\n%s", c.name, w.Source)
		}
		for what, compile := range map[string]func([]byte) (*workflow.Workflow, error){"compiled": workflow.Compile, "loaded": workflow.Load} {
			again, err := compile(w.Source)
			if err != nil {
				t.Fatal(problems(err))
			}
			if again.Hash != w.Hash || dump(again) != dump(w) {
				t.Errorf("%s, %s again, is another:\n%s", c.name, what, cmp.Diff(dump(w), dump(again)))
			}
		}
	}
	// Where chains cannot be read, nothing is hung into it.
	_, err := workflow.Compile([]byte(`{"chains":[],"name":"n","spec":"workflow/v1"` + steps))
	if err == nil || !strings.Contains(problems(err), "/chains type") {
		t.Errorf("got %v", err)
	}
}

// TestAnswerers: of model, chain and route the nearest counts, and it replaces all three.
func TestAnswerers(t *testing.T) {
	w := compileYAML(t, `
chains: {own: [{model: x}, {model: y}]}
defaults: {chain: own}
agents:
  defaulted: {instructions: x}
  routed: {route: research, instructions: x, context: {max_tokens: 500}}
  modelled: {model: m, instructions: x, context: {overflow: trim}}
  idle: {model: dearest, instructions: x}
steps:
  - {id: a, agent: defaulted}
  - {id: b, agent: defaulted, route: auto}
  - {id: c, agent: routed}
  - {id: d, agent: routed, model: z, context: {max_tokens: 7, overflow: trim}}
  - {id: e, agent: routed, chain: own}
  - {id: f, agent: modelled, route: social}
  - {id: g, agent: {route: strategy}, prompt: x}
`)
	var got []string
	for _, s := range w.Steps {
		a := s.Agent.Agent
		text := s.ID + " " + a.Route
		for _, e := range a.Chain.Entries {
			text += e.Model
		}
		got = append(got, fmt.Sprintf("%s %d%s %v", text, a.ContextTokens, a.Overflow, a.Baseline))
	}
	want := []string{
		"a xy 0 [x y z]", "b auto 0 [x y z]", "c research 500fail [x y z]", "d z 7trim [x y z]",
		"e xy 500fail [x y z]", "f social 0trim [x y z]", "g strategy 0 [x y z]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"x", "y", "z"}, w.Models); diff != "" {
		t.Errorf("a model that nobody calls is no baseline:\n%s", diff)
	}
	w = compileYAML(t, "baseline_model: dear\nsteps: [{id: a, agent: {chain: classification}, prompt: x}]\n")
	if diff := cmp.Diff([]string{"dear"}, w.Step("a").Agent.Agent.Baseline); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"claude-haiku-4-5", "claude-sonnet-4-6"}, w.Models); diff != "" {
		t.Error(diff)
	}
}
