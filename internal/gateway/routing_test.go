package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// everybody serves every model of the roster.
func everybody(t *testing.T, rules ...Rule) *Gateway {
	t.Helper()
	return open(t, Config{
		Rules: rules, Now: func() time.Time { return day("2026-11-01") },
		Providers: []Provider{{Provider: &scripted{name: "proxy"}}},
	})
}

func modelsOf(c workflow.Chain) string {
	var names []string
	for _, e := range c.Entries {
		names = append(names, e.Model)
	}
	return strings.Join(names, " ")
}

const (
	reasoningModels      = "claude-opus-4-6 gpt-4o claude-sonnet-4-6 gemini-2.5-pro"
	productionModels     = "claude-sonnet-4-6 gpt-4o grok-3"
	classificationModels = "claude-haiku-4-5 claude-sonnet-4-6"
)

func TestDecisions(t *testing.T) {
	g := everybody(t)
	for _, c := range []struct {
		name string
		q    Question
		want string // by rule: models
	}{
		{"strategy", Question{Route: "strategy"}, "rule strategy: " + reasoningModels},
		{"production", Question{Route: "production"}, "rule production: " + productionModels},
		{"coding and scoring", Question{Route: "coding_and_scoring"}, "rule coding-and-scoring: gpt-4o claude-sonnet-4-6 grok-3"},
		{"social", Question{Route: "social"}, "rule social: grok-3 claude-sonnet-4-6 gpt-4o"},
		{"research", Question{Route: "research"}, "rule research: gemini-2.5-pro claude-opus-4-6 gpt-4o claude-sonnet-4-6"},
		{"classification", Question{Route: "classification"}, "rule classification: " + classificationModels},
		{"critical work goes to the best", Question{Route: "classification", Stakes: "high"}, "rule critical: " + reasoningModels},
		{"a thousand calls a day are not many", Question{Route: "production", CallsPerDay: 1000}, "rule production: " + productionModels},
		{"more are: the cheapest that is good at it", Question{Route: "production", CallsPerDay: 1001}, "rule high-volume: deepseek-v4-flash mistral-large-2512 mistral-medium-3"},
		{"of any kind", Question{CallsPerDay: 5000}, "rule high-volume-unclassified: gemini-2.5-flash-lite gpt-4.1-nano gpt-4o-mini"},
		{"critical before cheap", Question{Route: "production", CallsPerDay: 1001, Stakes: "high"}, "rule critical: " + reasoningModels},
		{"what nobody waits for", Question{Mode: ModeBatch}, "rule batch: deepseek-v4-flash mistral-large-2512 mistral-medium-3"},
		{"the rest", Question{Mode: ModeInteractive}, "default : " + productionModels},
		{"pictures are read by those who see", Question{Route: "social", Needs: []string{CapVision}}, "rule social: claude-sonnet-4-6 gpt-4o"},
		{"a prompt longer than a window", Question{Route: "classification", InputTokens: 300_000}, "rule classification: claude-sonnet-4-6"},
		{"models that are named", Question{Models: []string{"llama3", "gpt-4o"}, Route: "strategy", Stakes: "high"}, "explicit : llama3 gpt-4o"},
		{"a chain that is named", Question{Chain: "classification", Stakes: "high"}, "explicit : " + classificationModels},
		{"the budget before the rules", Question{Route: "strategy", Stakes: "high", AtMost: usage.USD / 1000, InputTokens: 1000, MaxTokens: 500}, "budget : gpt-5-nano deepseek-v4-flash gemini-2.5-flash-lite"},
		{"auto", Question{Route: ClassAuto, Text: "Classify these tickets into categories: billing, login, other."}, "rule classification: " + classificationModels},
		{"auto, in batch, and nothing says what it is", Question{Route: ClassAuto, Text: "Qwertz.", Mode: ModeBatch}, "rule batch: deepseek-v4-flash mistral-large-2512 mistral-medium-3"},
	} {
		d, err := g.Decide(c.q)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := fmt.Sprintf("%s %s: %s", d.By, d.Rule, modelsOf(d.Chain))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// The triggers of the model roster this service was made for, word for word, name their classes; so do questions as people
// ask them.
func TestAuto(t *testing.T) {
	g := everybody(t)
	for class, questions := range map[string][]string{
		"strategy": {
			"requires judgment between competing priorities", "synthesize conflicting information", "make a recommendation with tradeoffs",
			"review and improve another agent's work", "Should we rewrite the billing system or buy one? Recommend one and weigh the trade-offs.",
		},
		"production": {
			"write code to specification", "generate content from template", "analyze data and report findings", "standard business communication",
			"Draft an email to the customer about the delay.", "Implement the endpoint as the specification says.",
		},
		"coding_and_scoring": {
			"write and debug complex algorithms", "score outputs against rubric", "generate structured JSON/YAML", "cross-validate another model's output",
			"Grade this answer against the rubric.", "Find the bug in this function and refactor it.",
		},
		"social": {
			"analyze X/Twitter trends", "generate social media content", "real-time event commentary", "meme-aware communication",
			"Write three tweets with a hashtag about the launch.",
		},
		"research": {
			"analyze documents >100K tokens", "cross-reference multiple long sources", "multimodal analysis (images + text)", "broad research synthesis",
			"Compare what these papers say and give citations.",
		},
		"classification": {
			"classify items into categories", "extract structured fields from text", "route incoming requests", "simple yes/no decisions",
			"Is this message spam? Label it.", "Sort these tickets by sentiment.",
		},
		ClassUnclassified: {"", "Hello!", "Qwertz uiop", "你好"},
	} {
		for _, text := range questions {
			if got, scores := classOf(g.routing.classes, &Question{Text: text}); got != class {
				t.Errorf("%q is taken for %s, want %s: %+v", text, got, class, scores[:2])
			}
		}
	}
	for _, q := range []Question{{InputTokens: 100_001}, {Needs: []string{CapVision}}} {
		if got, _ := classOf(g.routing.classes, &q); got != "research" {
			t.Errorf("%+v is taken for %s", q, got)
		}
	}
}

func TestOwnRules(t *testing.T) {
	source := `
- id: legal
  when: {labels: {team: legal}, words: [contract, due diligence]}
  models: [claude-opus-4-6, proxy/own-model]
  then: classification
  timeout: 5s
  retries: 0
- id: social # ours, no longer the built-in one
  when: {class: [social]}
  chain: classification
- id: tools
  when: {needs: [tools], tokens_over: 1000, tokens_under: 2000, labels: {kind: "*"}, mode: [interactive]}
  pick: best
  strong: strategy
`
	var rules []Rule
	if err := yaml.Unmarshal([]byte(source), &rules); err != nil {
		t.Fatal(err)
	}
	g := everybody(t, rules...)
	legal, tools := map[string]string{"team": "legal"}, map[string]string{"kind": "x"}
	for _, c := range []struct {
		name string
		q    Question
		want string
	}{
		{"all conditions hold", Question{Text: "Read this CONTRACT!", Labels: legal, Stakes: "high"}, "legal: claude-opus-4-6 proxy/own-model claude-haiku-4-5 claude-sonnet-4-6"},
		{"a phrase", Question{Text: "the due  diligence, please", Labels: legal}, "legal: claude-opus-4-6 proxy/own-model claude-haiku-4-5 claude-sonnet-4-6"},
		{"a word is a whole word", Question{Text: "contractor", Labels: legal, Route: "production"}, "production: " + productionModels},
		{"another label", Question{Text: "contract", Labels: map[string]string{"team": "x"}, Route: "production"}, "production: " + productionModels},
		{"a rule of ours takes the place of the built-in one", Question{Route: "social"}, "social: " + classificationModels},
		{"tools", Question{Needs: []string{CapTools}, InputTokens: 1500, Labels: tools, Mode: ModeInteractive}, "tools: gpt-5.5 gpt-5.6-sol claude-opus-4-5"},
		{"too few tokens", Question{Needs: []string{CapTools}, InputTokens: 1000, Labels: tools, Mode: ModeInteractive}, ": " + productionModels},
		{"too many", Question{Needs: []string{CapTools}, InputTokens: 2000, Labels: tools, Mode: ModeInteractive}, ": " + productionModels},
		{"no tools", Question{InputTokens: 1500, Labels: tools, Mode: ModeInteractive}, ": " + productionModels},
	} {
		d, err := g.Decide(c.q)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, d.Rule+": "+modelsOf(d.Chain)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	d, err := g.Decide(Question{Text: "contract", Labels: legal})
	if e := d.Chain.Entries[0]; err != nil || e.Timeout != 5*time.Second || e.Retries != 0 || !e.RetryTimeouts {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestRulesAreChecked(t *testing.T) {
	negative := -1
	for _, c := range []struct {
		rule    Rule
		message string
	}{
		{Rule{ID: "A b", Chain: "production"}, "of the form"},
		{Rule{ID: "a"}, "exactly one"},
		{Rule{ID: "a", Chain: "production", Pick: PickBest}, "exactly one"},
		{Rule{ID: "a", Chain: "nowhere"}, "no chain"},
		{Rule{ID: "a", Models: []string{"x"}, Then: "nowhere"}, "no chain"},
		{Rule{ID: "a", Classify: "nowhere"}, "no chain"},
		{Rule{ID: "a", Pick: "luck"}, "pick"},
		{Rule{ID: "a", Pick: PickBest, Strong: "luck"}, "strong"},
		{Rule{ID: "a", Chain: "production", When: When{Class: []string{"auto"}}}, "class"},
		{Rule{ID: "a", Chain: "production", When: When{Stakes: []string{"huge"}}}, "stakes"},
		{Rule{ID: "a", Chain: "production", When: When{Mode: []string{"fast"}}}, "mode"},
		{Rule{ID: "a", Chain: "production", When: When{Needs: []string{"legs"}}}, "needs"},
		{Rule{ID: "a", Chain: "production", When: When{Words: []string{" "}}}, "words"},
		{Rule{ID: "a", Chain: "production", When: When{TokensOver: -1}}, "negative"},
		{Rule{ID: "a", Models: []string{"x"}, Retries: &negative}, "retries"},
		{Rule{ID: "a", Models: make([]string, workflow.ChainEntriesMax+1)}, "models"},
	} {
		if _, err := New(Config{Rules: []Rule{c.rule}}); err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%+v: %v, want something about %q", c.rule, err, c.message)
		}
	}
	if _, err := New(Config{Rules: []Rule{{ID: "a", Chain: "production"}, {ID: "a", Chain: "production"}}}); err == nil {
		t.Error("two rules of one id are taken")
	}
}

func TestNobodyCan(t *testing.T) {
	g := open(t, Config{Providers: []Provider{{Provider: &scripted{name: "xai"}, Vendor: "xai", Only: true}}})
	if d, err := g.Decide(Question{Route: "strategy"}); err != nil || modelsOf(d.Chain) == "" || !strings.HasPrefix(d.Chain.Entries[0].Model, "grok") {
		t.Errorf("who is served is asked: %v, %v", modelsOf(d.Chain), err)
	}
	g = open(t, Config{Providers: []Provider{{Provider: &scripted{name: "anthropic"}, Vendor: "anthropic", Only: true}}})
	for _, q := range []Question{
		{Route: "strategy", InputTokens: 50_000_000},
		{Route: "strategy", AtMost: 1, InputTokens: 1000},
		{Route: "strategi"},
		{Chain: "nowhere"},
	} {
		if d, err := g.Decide(q); err == nil {
			t.Errorf("%+v goes to %s", q, modelsOf(d.Chain))
		}
	}
	if d, err := open(t, Config{}).Decide(Question{Route: "strategy"}); err == nil {
		t.Errorf("without any provider it goes to %s", modelsOf(d.Chain))
	}
}

// A simulation stands in for nobody where there are real models.
func TestSimulationIsNotPicked(t *testing.T) {
	sim := Provider{Provider: &scripted{name: "simulated"}, Simulated: true, Fallback: true}
	xai := Provider{Provider: &scripted{name: "xai"}, Vendor: "xai", Only: true}
	q := Question{Route: "production", CallsPerDay: 2000}
	d, err := open(t, Config{Providers: []Provider{sim, xai}}).Decide(q)
	for _, e := range d.Chain.Entries {
		if err != nil || !strings.HasPrefix(e.Model, "grok") {
			t.Errorf("%s is asked, %v", e.Model, err)
		}
	}
	if d, err = open(t, Config{Providers: []Provider{sim}}).Decide(q); err != nil || len(d.Chain.Entries) != pickedMax {
		t.Errorf("with nothing but a simulation: %v, %v", d, err)
	}
}

// A rule may have a model name the class; its word counts where it is one.
func TestClassifier(t *testing.T) {
	g := everybody(t, Rule{ID: "ask", When: When{Mode: []string{ModeInteractive}}, Classify: "classification"})
	q := Question{Route: ClassAuto, Text: "Write a tweet.", Mode: ModeInteractive}
	d, err := g.Decide(q)
	if err != nil || d.Classify == nil || d.Classify.Rule != "ask" || modelsOf(d.Classify.Chain) != classificationModels || len(d.Chain.Entries) != 0 {
		t.Fatalf("got %+v, %v", d, err)
	}
	for reply, want := range map[string]string{
		"strategy": "strategy", " Coding_and_Scoring.\n": "coding_and_scoring", "The class is: social": "social", "social, social": "social",
		"social or research": "", "": "", "none": "", "I cannot classify that": "",
	} {
		got, ok := d.Classify.Read(reply)
		if got != want || ok != (want != "") {
			t.Errorf("%q is read as %q", reply, got)
		}
	}
	q.Class = "research"
	if d, err = g.Decide(q); err != nil || d.Classify != nil || d.Rule != "research" {
		t.Errorf("the model's word does not count: %+v, %v", d, err)
	}
	if x := g.Explain(Question{Route: ClassAuto, Text: "Write a tweet.", Mode: ModeInteractive}); x.Classify == nil || x.Rule != "social" {
		t.Errorf("explained as %+v", x.Decision)
	}
	if chain, rule, err := g.choose(questionOf(ClassAuto, Caller{Mode: ModeInteractive}, agent.Ask{Messages: []agent.Message{{Role: agent.RoleUser, Content: "Write a tweet."}}})); err != nil || rule != "social" || chain.Entries[0].Model != "grok-3" {
		t.Errorf("without a classifier: %s %s, %v", rule, modelsOf(chain), err)
	}
}

// Models whose breaker is open stand behind the others, and a cached prompt makes a model cheaper.
func TestStandingCounts(t *testing.T) {
	g := everybody(t)
	g.standing = func(r route, session string) standing {
		s := standing{state: breakerClosed.String()}
		switch {
		case r.model == "deepseek-v4-flash":
			s.state = breakerOpen.String()
		case r.model == "claude-sonnet-4-6":
			s.warm = session == "s"
		}
		return s
	}
	d, err := g.Decide(Question{Route: "production", CallsPerDay: 2000})
	if err != nil || modelsOf(d.Chain) != "mistral-large-2512 mistral-medium-3 deepseek-v4-pro" {
		t.Errorf("got %s, %v", modelsOf(d.Chain), err)
	}
	cold, warm := Question{Route: "production", InputTokens: 100_000, MaxTokens: 400}, Question{Route: "production", InputTokens: 100_000, MaxTokens: 400, Session: "s"}
	a, b := g.Explain(cold).Candidates[0], g.Explain(warm).Candidates[0]
	if a.Expected != 301_500_000 || b.Expected != 31_500_000 || !b.Warm || b.High != a.High {
		t.Errorf("cold %s, warm %s, at most %s and %s", a.Expected, b.Expected, a.High, b.High)
	}
}

// Who is chosen can do it, is served, and is the same whenever it is asked again.
func TestDecisionsAreSound(t *testing.T) {
	g := everybody(t)
	rapid.Check(t, func(r *rapid.T) {
		q := Question{
			Route:  rapid.SampledFrom(append(g.routing.classNames(), ClassAuto, "")).Draw(r, "route"),
			Text:   rapid.StringMatching(`([a-z]{1,12} ){0,20}`).Draw(r, "text"),
			Stakes: rapid.SampledFrom([]string{"", "low", "normal", "high"}).Draw(r, "stakes"), Mode: rapid.SampledFrom([]string{"", ModeBatch, ModeInteractive}).Draw(r, "mode"),
			CallsPerDay: rapid.Int64Range(0, 2000).Draw(r, "volume"), InputTokens: rapid.Int64Range(0, 1_100_000).Draw(r, "tokens"),
			Needs:  rapid.SliceOfDistinct(rapid.SampledFrom([]string{CapTools, CapSchema, CapVision}), rapid.ID[string]).Draw(r, "needs"),
			AtMost: usage.Money(rapid.SampledFrom([]int64{0, 0, 1e6, 1e9}).Draw(r, "budget")),
		}
		d, err := g.Decide(q)
		if err != nil {
			if q.AtMost == 0 && q.InputTokens < 900_000 {
				r.Fatalf("nobody: %v", err)
			}
			return
		}
		m := g.market(&q)
		for _, e := range d.Chain.Entries {
			a := m.of(e.Model)
			if !a.Accepted || q.AtMost > 0 && a.High > q.AtMost {
				r.Errorf("%s was chosen: %+v", e.Model, a)
			}
		}
		again, _ := g.Decide(q)
		if modelsOf(again.Chain) != modelsOf(d.Chain) || again.Rule != d.Rule || len(d.Chain.Entries) == 0 {
			r.Errorf("%s, then %s", modelsOf(d.Chain), modelsOf(again.Chain))
		}
	})
}

func TestVolume(t *testing.T) {
	var v volumes
	now := day("2026-11-01")
	a, b := Caller{Workflow: "w", Agent: "a"}, Caller{Workflow: "w", Agent: "b"}
	for i := range int64(1001) {
		if got := v.add(a, now.Add(time.Duration(i)*time.Minute)); got != i+1 {
			t.Fatalf("call %d counts as %d", i+1, got)
		}
	}
	if got := v.add(b, now); got != 1 {
		t.Errorf("another agent's calls count: %d", got)
	}
	// At 23:59 of the first day all are less than 24 hours old; an hour later those of the first hour are not.
	if got := v.add(a, now.Add(24*time.Hour-time.Minute)); got != 1002 {
		t.Errorf("within the day: %d", got)
	}
	if got := v.add(a, now.Add(24*time.Hour)); got != 1003-60 {
		t.Errorf("an hour has gone: %d", got)
	}
	if got := v.add(a, now.Add(240*time.Hour)); got != 1 {
		t.Errorf("after days: %d", got)
	}
	for i := range volumesMax {
		v.add(Caller{Agent: fmt.Sprint(i)}, now.Add(240*time.Hour))
	}
	if len(v.of) > volumesMax || !slices.Contains([]int64{1, 2}, v.add(Caller{Agent: "new"}, now.Add(240*time.Hour))) {
		t.Errorf("%d are counted", len(v.of))
	}
}
