package gateway

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Whoever shares the family of a model that is to be avoided is asked only where nobody else is left, and the answer says so.
func TestAvoidedFamily(t *testing.T) {
	const claude, gpt, gemini = "claude-sonnet-4-6", "gpt-4o", "gemini-2.5-pro"
	accept := &workflow.Expr{}
	entry := func(model string) workflow.ChainEntry { return workflow.ChainEntry{Model: model} }
	accepting := func(model string) workflow.ChainEntry { return workflow.ChainEntry{Model: model, Accept: accept} }
	for _, c := range []struct {
		name    string
		chain   workflow.Chain
		from    int
		scripts map[string][]string
		shut    []string // whose breakers are open
		asked   string
		same    bool
		fails   string
	}{
		{"nobody of the family", chain(entry(gpt), entry(claude)), 0, nil, nil, gpt, false, ""},
		{"passed over", chain(entry(claude), entry(gpt)), 0, nil, nil, gpt, false, ""},
		{"an older version is of the family", chain(entry("claude-haiku-4-5"), entry(gemini)), 0, nil, nil, gemini, false, ""},
		{"none is left", chain(entry(claude), entry("claude-haiku-4-5")), 0, nil, nil, claude, true, ""},
		{"the others fail", chain(entry(claude), entry(gpt)), 0, map[string][]string{gpt: {"server"}}, nil, gpt + " " + claude, true, ""},
		{"the others are shut", chain(entry(claude), entry(gpt)), 0, nil, []string{gpt}, claude, true, ""},
		{"all are shut: another family is tried by force", chain(entry(claude), entry(gpt)), 0, nil, []string{claude, gpt}, gpt, false, ""},
		{"those before the beginning stay out", chain(entry(gpt), entry(claude)), 1, nil, nil, claude, true, ""},
		{"whoever answered has answered, accepted or not", chain(entry(claude), accepting(gpt)), 0, nil, nil, gpt, false, "low_confidence"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{name: "p", scripts: map[string][]string{claude: {"ok"}, "claude-haiku-4-5": {"ok"}, gpt: {"ok"}, gemini: {"ok"}}}
				for model, script := range c.scripts {
					p.scripts[model] = script
				}
				g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
				for _, model := range c.shut {
					openBreaker(g, "p", model)
				}
				a, err := g.Complete(t.Context(), Request{
					Ask: question(), Chain: c.chain, From: c.from, Judge: judged(), Avoid: []string{"p/claude-opus-4-6"},
				})
				if got := asked(p); got != c.asked {
					t.Errorf("asked %q, not %q", got, c.asked)
				}
				if c.fails != "" {
					if got := classOfFailure(err); got != c.fails {
						t.Errorf("it ends with %s", got)
					}
					return
				}
				if err != nil || a.SameFamily != c.same {
					t.Errorf("of the family: %t, %v", a.SameFamily, err)
				}
			})
		})
	}
}

// A slow answer of another family is waited for: it is not hedged with one of the family.
func TestAvoidedFamilyIsNoHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok takes=1m"}, "claude-opus-4-6": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		hedged := hedgedChain(workflow.ChainEntry{Model: "claude-opus-4-6"}, workflow.ChainEntry{Model: "gpt-4o"})
		began := time.Now()
		a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedged, Avoid: []string{"claude-haiku-4-5"}})
		if err != nil || a.SameFamily || asked(p) != "gpt-4o" || time.Since(began) != time.Minute {
			t.Errorf("asked %q in %s, %v", asked(p), time.Since(began), err)
		}
	})
}

// A chain that a route chooses has the others first; where the rule picks, it picks others.
func TestAvoidedFamilyOnARoute(t *testing.T) {
	g := everybody(t, Rule{ID: "picked", When: When{Class: []string{"production"}}, Pick: PickBest})
	d, err := g.Decide(Question{Route: "production"})
	if err != nil {
		t.Fatal(err)
	}
	best, _, _ := strings.Cut(modelsOf(d.Chain), " ")
	d, err = g.Decide(Question{Route: "production", Avoid: []string{best}})
	if err != nil || len(d.Chain.Entries) == 0 {
		t.Fatal(err)
	}
	for _, e := range d.Chain.Entries {
		if g.Family(e.Model) == g.Family(best) {
			t.Errorf("%s is picked, of the family of %s: %s", e.Model, best, modelsOf(d.Chain))
		}
	}

	p := &scripted{name: "p", scripts: map[string][]string{"claude-opus-4-6": {"ok"}, "gpt-4o": {"ok"}}}
	g = newGateway(t, Config{
		Providers: []Provider{{Provider: p}}, Rules: []Rule{{ID: "fixed", When: When{Class: []string{"strategy"}}, Models: []string{"claude-opus-4-6", "gpt-4o"}}},
	})
	a, err := g.Complete(t.Context(), Request{Ask: question(), Route: "strategy", Avoid: []string{"claude-haiku-4-5"}})
	if err != nil || a.Asked != "gpt-4o" || a.SameFamily {
		t.Errorf("asked %s, %v", asked(p), err)
	}
}

// A budget that wants a cheaper model gets one of another family, if one is paid for.
func TestAvoidedFamilyWhenMoneyIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok"}, "gpt-4o-mini": {"ok"}, "claude-haiku-4-5": {"ok"}, "claude-opus-4-6": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: &purse{limit: 40_000_000, onHard: OnHardDowngrade}})
		a, err := g.Complete(t.Context(), Request{
			Ask: question(), Avoid: []string{"gpt-4o"},
			Chain: chain(workflow.ChainEntry{Model: "p/claude-opus-4-6"}, workflow.ChainEntry{Model: "p/gpt-4o-mini"}, workflow.ChainEntry{Model: "p/claude-haiku-4-5"}),
		})
		if err != nil || a.Asked != "claude-haiku-4-5" || a.SameFamily {
			t.Errorf("asked %s, %v", asked(p), err)
		}
	})
}
