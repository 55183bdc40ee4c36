package gateway

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/workflow"
)

func connect(t *testing.T, configs ...ProviderConfig) *Gateway {
	t.Helper()
	var list []Provider
	for _, c := range configs {
		p, err := Connect(c)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return open(t, Config{Providers: list})
}

func TestRoutes(t *testing.T) {
	openai := ProviderConfig{Name: "openai", Kind: KindOpenAI}
	xai := ProviderConfig{Name: "mine", Kind: KindOpenAI, BaseURL: "https://api.x.ai/v1"}
	local := ProviderConfig{Name: "local", Kind: KindOpenAI, BaseURL: "http://127.0.0.1:11434/v1"}
	proxy := ProviderConfig{Name: "proxy", Kind: KindOpenAI, BaseURL: "http://proxy.example/v1"}
	anthropic := ProviderConfig{Name: "anthropic", Kind: KindOpenAI, BaseURL: "http://proxy.example/v1"}
	sim := ProviderConfig{Name: "simulated", Kind: KindSimulated, Fallback: true}
	strict := ProviderConfig{Name: "simulated", Kind: KindSimulated}
	for _, c := range []struct {
		name   string
		have   []ProviderConfig
		routes map[string]string // model → provider model; empty: nobody
	}{
		{"no provider", nil, map[string]string{"gpt-4o": "", "": ""}},
		{"without a key: everything is simulated", []ProviderConfig{sim}, map[string]string{
			"gpt-4o": "simulated gpt-4o", "claude-sonnet-4-6": "simulated claude-sonnet-4-6", "anthropic/claude-sonnet-4-6": "simulated claude-sonnet-4-6",
			"simulated/slow": "simulated slow", "llama3": "simulated llama3", "meta/llama3": "simulated meta/llama3",
		}},
		{"a simulation that is no fallback is asked by name only", []ProviderConfig{strict}, map[string]string{"gpt-4o": "", "simulated/gpt-4o": "simulated gpt-4o"}},
		{"OpenAI itself serves its own", []ProviderConfig{openai, sim}, map[string]string{
			"gpt-4o": "openai gpt-4o", "gpt-4o-2024-08-06": "openai gpt-4o-2024-08-06", "openai/gpt-4o": "openai gpt-4o", "claude-sonnet-4-6": "simulated claude-sonnet-4-6",
			"ft:gpt-4o:us::1": "openai ft:gpt-4o:us::1", "openai/anything": "openai anything", "openrouter/gpt-4o": "simulated openrouter/gpt-4o",
		}},
		{"a vendor is known by its host", []ProviderConfig{xai, openai}, map[string]string{"grok-3": "mine grok-3", "gpt-4o": "openai gpt-4o", "xai/grok-3": "mine grok-3", "claude-sonnet-4-6": "", "llama3": ""}},
		{"one server for everything", []ProviderConfig{local, sim}, map[string]string{
			"gpt-4o": "local gpt-4o", "claude-sonnet-4-6": "local claude-sonnet-4-6", "llama3.1:8b": "local llama3.1:8b", "meta-llama/llama-3": "local meta-llama/llama-3",
			"anthropic/claude-sonnet-4-6": "local anthropic/claude-sonnet-4-6", "simulated/gpt-4o": "simulated gpt-4o",
		}},
		{"two that could: nobody guesses", []ProviderConfig{local, proxy}, map[string]string{"gpt-4o": "", "local/gpt-4o": "local gpt-4o", "proxy/openai/gpt-4o": "proxy openai/gpt-4o"}},
		{"the vendor's name decides", []ProviderConfig{local, anthropic}, map[string]string{"claude-sonnet-4-6": "anthropic claude-sonnet-4-6", "gpt-4o": ""}},
		{"own service and one for the rest", []ProviderConfig{openai, local}, map[string]string{"gpt-4o": "openai gpt-4o", "claude-sonnet-4-6": "local claude-sonnet-4-6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := connect(t, c.have...)
			for model, want := range c.routes {
				r, err := g.route(model)
				got := ""
				if err == nil {
					got = r.to.Name() + " " + r.model
				} else if !strings.Contains(err.Error(), "configure") && !strings.Contains(err.Error(), "name the one") {
					t.Errorf("%s: %v does not say what to do", model, err)
				}
				if got != want {
					t.Errorf("%q: got %q (%v), want %q", model, got, err, want)
				}
				if check := g.Check(chain(workflow.ChainEntry{Model: model})); (check == nil) != (want != "") {
					t.Errorf("%q: Check says %v", model, check)
				}
			}
		})
	}
}

func TestConnectRefuses(t *testing.T) {
	for _, c := range []ProviderConfig{
		{Kind: KindOpenAI},
		{Name: "a/b", Kind: KindOpenAI},
		{Name: "a", Kind: "grpc"},
		{Name: "a"},
		{Name: "a", Kind: KindAnthropic, BaseURL: "x"},
		{Name: "a", Kind: KindOpenAI, BaseURL: "x"},
		{Name: "a", Kind: KindOpenAI, Limits: RateLimits{Requests: -1}},
	} {
		if _, err := Connect(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	a := Provider{Provider: &scripted{name: "a"}}
	for _, list := range [][]Provider{{a, a}, {{}}, {{Provider: &scripted{name: "x"}, Fallback: true}, {Provider: &scripted{name: "y"}, Fallback: true}}} {
		if _, err := New(Config{Providers: list}); err == nil {
			t.Errorf("%v is taken", list)
		}
	}
}

// A name is enough to reach a provider that everybody knows; what it serves is known by its host or its name.
func TestPresets(t *testing.T) {
	for _, c := range []struct {
		config ProviderConfig
		host   string
		vendor string
		only   bool
	}{
		{ProviderConfig{Name: "openai", Kind: KindOpenAI}, "api.openai.com", "openai", true},
		{ProviderConfig{Name: "anthropic", Kind: KindAnthropic}, "api.anthropic.com", "anthropic", true},
		{ProviderConfig{Name: "claude", Kind: KindAnthropic, BaseURL: "http://127.0.0.1:1/v1"}, "127.0.0.1", "anthropic", true},
		{ProviderConfig{Name: "google", Kind: KindOpenAI}, "generativelanguage.googleapis.com", "google", true},
		{ProviderConfig{Name: "xai", Kind: KindOpenAI}, "api.x.ai", "xai", true},
		{ProviderConfig{Name: "openrouter", Kind: KindOpenAI}, "openrouter.ai", "openrouter", false},
		{ProviderConfig{Name: "groq", Kind: KindOpenAI}, "api.groq.com", "groq", false},
		{ProviderConfig{Name: "deepseek", Kind: KindOpenAI}, "api.deepseek.com", "deepseek", true},
		{ProviderConfig{Name: "mistral", Kind: KindOpenAI}, "api.mistral.ai", "mistral", true},
		{ProviderConfig{Name: "together", Kind: KindOpenAI}, "api.together.xyz", "together", false},
		{ProviderConfig{Name: "ollama", Kind: KindOpenAI}, "127.0.0.1", "ollama", false},
		{ProviderConfig{Name: "vllm", Kind: KindOpenAI}, "127.0.0.1", "vllm", false},
		{ProviderConfig{Name: "google", Kind: KindOpenAI, BaseURL: "http://proxy.example/v1"}, "proxy.example", "google", false},
		{ProviderConfig{Name: "plan", Kind: KindOpenAI, BaseURL: "http://127.0.0.1:2/v1", Vendor: "anthropic"}, "127.0.0.1", "anthropic", true},
	} {
		p, err := Connect(c.config)
		if err != nil {
			t.Errorf("%s: %v", c.config.Name, err)
			continue
		}
		host := p.Provider.(interface{ Host() string }).Host()
		if host != c.host || p.Vendor != c.vendor || p.Only != c.only {
			t.Errorf("%s: host %s, vendor %s, only %t", c.config.Name, host, p.Vendor, p.Only)
		}
	}
}

// People who wait are served through a plan that has the model, and by the token when it is used up; nobody else is.
func TestServing(t *testing.T) {
	api := ProviderConfig{Name: "anthropic", Kind: KindAnthropic}
	plan := ProviderConfig{Name: "plan", Kind: KindOpenAI, BaseURL: "http://127.0.0.1:2/v1", Vendor: "anthropic", Subscription: "claude-max"}
	open := ProviderConfig{Name: "local", Kind: KindOpenAI, BaseURL: "http://127.0.0.1:3/v1"}
	for _, c := range []struct {
		name        string
		have        []ProviderConfig
		mode, model string
		want        string
	}{
		{"interactive", []ProviderConfig{plan, api}, ModeInteractive, "claude-opus-4-6", "plan/claude-opus-4-6 anthropic/claude-opus-4-6"},
		{"whatever the order", []ProviderConfig{api, plan}, ModeInteractive, "claude-opus-4-6", "plan/claude-opus-4-6 anthropic/claude-opus-4-6"},
		{"batch", []ProviderConfig{plan, api}, ModeBatch, "claude-opus-4-6", "anthropic/claude-opus-4-6"},
		{"the plan is all there is", []ProviderConfig{plan}, ModeBatch, "claude-opus-4-6", "plan/claude-opus-4-6"},
		{"named", []ProviderConfig{plan, api}, ModeInteractive, "anthropic/claude-opus-4-6", "anthropic/claude-opus-4-6"},
		{"another vendor's", []ProviderConfig{plan, open}, ModeInteractive, "gpt-4o", "local/gpt-4o"},
		{"nobody", []ProviderConfig{api}, ModeInteractive, "gpt-4o", ""},
	} {
		g := connect(t, c.have...)
		var got []string
		for _, r := range g.serving(c.model, c.mode) {
			got = append(got, r.to.Name()+"/"+r.model)
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// The baseline is the dearest of the models that have a price.
func TestBaseline(t *testing.T) {
	g := connect(t, ProviderConfig{Name: "simulated", Kind: KindSimulated, Fallback: true})
	for _, c := range []struct {
		models []string
		want   string
	}{
		{[]string{"claude-haiku-4-5", "claude-sonnet-4-6", "gpt-4o-mini"}, "claude-sonnet-4-6"},
		{[]string{"llama3", "simulated/claude-opus-4-6", "grok-3"}, "claude-opus-4-6"},
		{[]string{"llama3"}, ""},
		{nil, ""},
	} {
		got := ""
		if p := g.baseline(c.models, day("2026-11-01")); p != nil {
			got = p.Model
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.models, got, c.want)
		}
	}
}

func TestFamily(t *testing.T) {
	g := connect(t, ProviderConfig{Name: "sim", Kind: KindSimulated})
	for model, want := range map[string]string{
		"claude-opus-4-6": "claude", "claude-opus-4-6-20260205": "claude", "fable-5": "claude", "claude-9": "claude", "sim/claude-opus-4-6": "claude", "anthropic/claude-opus-4-6": "claude",
		"gpt-4o": "gpt", "chatgpt-4o-latest": "gpt", "o3-mini": "gpt", "gpt-oss:20b": "gpt", "gemini-2.5-pro": "gemini", "grok-code-fast-1": "grok",
		"llama3.1:8b": "llama", "meta-llama/llama-3": "llama", "qwen2.5": "qwen", "mistral-large": "mistral", "4b": "4b", "": "",
	} {
		if got := g.Family(model); got != want {
			t.Errorf("%q is of family %q, want %q", model, got, want)
		}
	}
}

// In development, without a key, every call is answered and says that it was simulated, at the price of the real model.
func TestSimulatedEndToEnd(t *testing.T) {
	g := connect(t, ProviderConfig{Name: "simulated", Kind: KindSimulated, Fallback: true})
	req := Request{Seed: "run/step/1/1/0", Ask: question(), Chain: chain(workflow.ChainEntry{Model: "claude-opus-4-6"})}
	a, err := g.Complete(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	c := a.Calls[0]
	want := 5_000*c.Tokens.Input + 25_000*c.Tokens.Output
	if !c.Simulated || c.Unpriced || int64(c.Cost) != want || c.Provider != "simulated" || c.Model != "claude-opus-4-6" || !strings.Contains(a.Text, provider.SimulatedMark) {
		t.Errorf("got %+v: %s", c, a.Text)
	}
	if again, err := g.Complete(t.Context(), req); err != nil || again.Text != a.Text {
		t.Errorf("asked again after a crash: %v, %q", err, again.Text)
	}
	for _, m := range g.Models() {
		if m.Provider != "simulated" || !m.Simulated {
			t.Errorf("%s says %q, simulated: %t", m.Name, m.Provider, m.Simulated)
		}
	}
}
