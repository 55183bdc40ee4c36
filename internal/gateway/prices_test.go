package gateway

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/usage"
)

// each is what a million tokens of input and of output cost.
func each(t *testing.T, g *Gateway, model, at string) string {
	t.Helper()
	r, err := g.route(model)
	if err != nil {
		t.Fatal(err)
	}
	p := g.price(r, day(at))
	if p == nil {
		return "unpriced"
	}
	return p.Cost(usage.Tokens{Input: 1_000_000, Output: 1_000_000}).String()
}

// Rows of the API go before those of the configuration, and these before the built-in ones; within a list the provider's
// own price goes before everybody's, the exact name before the model it stands for, and that before a pattern.
func TestWhichPriceHolds(t *testing.T) {
	config := []PriceRow{
		{Model: "llama3", Input: "0", Output: "0"},
		{Model: "gpt-4o", Input: "1", Output: "4", Source: "contract"},
		{Model: "claude-sonnet-4-6", Provider: "proxy", Input: "2.4", Output: "12"},
		{Model: "ft:gpt-4o*", Input: "3", Output: "3"},
		{Model: "ft:gpt-4o-mini*", Input: "1", Output: "1"},
		{Model: "grok-3", Input: "1", Output: "1", EffectiveFrom: "2026-12-01"},
		{Model: "gpt-4o-2024-08-06", Provider: "other", Input: "9", Output: "1"},
		{Model: "crawler", PerQuery: "0.01"},
	}
	g := open(t, Config{Prices: config, Providers: []Provider{{Provider: &scripted{name: "proxy"}}, {Provider: &scripted{name: "other"}}}})
	for model, want := range map[string]string{
		"proxy/llama3":            "0.00", // known to be free, which is not the same as unknown
		"proxy/gpt-4o":            "5.00",
		"proxy/gpt-4o-2024-11-20": "5.00",
		"other/gpt-4o-2024-08-06": "10.00",
		"proxy/claude-sonnet-4-6": "14.40", "proxy/claude-sonnet-4-6-20260301": "14.40",
		"other/claude-sonnet-4-6": "18.00",
		"other/ft:gpt-4o:us::1":   "6.00", "other/ft:gpt-4o-mini:us::1": "2.00",
		"other/grok-3":  "18.00",
		"other/x":       "unpriced",
		"other/crawler": "unpriced", // its queries have a price, its tokens none
	} {
		if got := each(t, g, model, "2026-11-01"); got != want {
			t.Errorf("%s: %s, want %s", model, got, want)
		}
	}
	if got := each(t, g, "other/grok-3", "2026-12-01"); got != "2.00" {
		t.Errorf("from its day on the row holds, but it costs %s", got)
	}
	if err := g.SetPrices([]PriceRow{{Model: "gpt-4o", Input: "7", Output: "7"}}); err != nil {
		t.Fatal(err)
	}
	if got := each(t, g, "proxy/gpt-4o", "2026-11-01"); got != "14.00" {
		t.Errorf("the API's row does not hold: %s", got)
	}
	if rows := g.Prices(); rows[0].Origin != OriginAPI || rows[0].Source != OriginAPI || rows[1].Origin != OriginConfig || rows[len(rows)-1].Origin != OriginBuiltIn {
		t.Errorf("the rows do not say where they come from: %+v", rows[:2])
	}
	if err := g.SetPrices(nil); err != nil {
		t.Fatal(err)
	}
	if got := each(t, g, "proxy/gpt-4o", "2026-11-01"); got != "5.00" {
		t.Errorf("taken back, but it costs %s", got)
	}
}

func TestUnitPrices(t *testing.T) {
	g := open(t, Config{Prices: []PriceRow{{Model: "voice", PerMinute: "0.006"}, {Model: "free", PerImage: "0"}}})
	for _, c := range []struct{ name, unit, want string }{
		{"voice", UnitMinute, "0.006"},
		{"free", UnitImage, "0.00"},
		{"voice", UnitImage, ""},
		{"nothing", UnitQuery, ""},
		{"openai/web_search", UnitQuery, "0.01"},
		{"sonar-pro", UnitCall, "0.014"},
	} {
		amount, ok := g.UnitPrice(c.name, c.unit, day("2026-11-01"))
		got := ""
		if ok {
			got = amount.String()
		}
		if got != c.want {
			t.Errorf("a %s of %s costs %q, want %q", c.unit, c.name, got, c.want)
		}
	}
}

func TestPriceRowsAreChecked(t *testing.T) {
	long := strings.Repeat("x", priceTextMax+1)
	for _, c := range []struct {
		name    string
		rows    []PriceRow
		pointer string
	}{
		{"no number", []PriceRow{{Model: "a", Input: "x", Output: "1"}}, "/0/input"},
		{"negative", []PriceRow{{Model: "a", Input: "1", Output: "-1"}}, "/0/output"},
		{"output forgotten", []PriceRow{{Model: "a", Input: "1"}}, "/0/output"},
		{"input forgotten", []PriceRow{{Model: "a", CacheRead: "1", Output: "1"}}, "/0/input"},
		{"no price at all", []PriceRow{{Model: "a"}}, "/0/input"},
		{"no model", []PriceRow{{Input: "1", Output: "1"}}, "/0/model"},
		{"a star in the middle", []PriceRow{{Model: "a*b", Input: "1", Output: "1"}}, "/0/model"},
		{"everything", []PriceRow{{Model: "*", Input: "1", Output: "1"}}, "/0/model"},
		{"a slash in the provider", []PriceRow{{Model: "a", Provider: "b/c", Input: "1", Output: "1"}}, "/0/provider"},
		{"no day", []PriceRow{{Model: "a", Input: "1", Output: "1", EffectiveFrom: "2026-13-01"}}, "/0/effective_from"},
		{"checked on no day", []PriceRow{{Model: "a", Input: "1", Output: "1", Checked: "yesterday"}}, "/0/checked"},
		{"a tier without a first one", []PriceRow{{Model: "b", Input: "1", Output: "1"}, {Model: "a", Input: "1", Output: "1", ContextOver: 200_000}}, "/1/context_over"},
		{"negative tier", []PriceRow{{Model: "a", Input: "1", Output: "1", ContextOver: -1}}, "/0/context_over"},
		{"twice", []PriceRow{{Model: "a", Input: "1", Output: "1"}, {Model: "a", Input: "2", Output: "1"}}, "/1/model"},
		{"half of more than all", []PriceRow{{Model: "a", Input: "1", Output: "1", Batch: "1.5"}}, "/0/batch"},
		{"ten decimals", []PriceRow{{Model: "a", PerQuery: "0.0000000001"}}, "/0/per_query"},
		{"a long note", []PriceRow{{Model: "a", Input: "1", Output: "1", Note: long}}, "/0/note"},
	} {
		issues := ValidatePrices(c.rows)
		if len(issues) != 1 || issues[0].Pointer != c.pointer || issues[0].Detail == "" || issues[0].Code == "" {
			t.Errorf("%s: %+v, want one at %s", c.name, issues, c.pointer)
		}
		if _, err := New(Config{Prices: c.rows}); !fault.Is(err, fault.KindInvalid) {
			t.Errorf("%s: the configuration is taken: %v", c.name, err)
		}
		g := open(t, Config{})
		var f *fault.Error
		if err := g.SetPrices(c.rows); !errors.As(err, &f) || len(f.Issues) != 1 {
			t.Errorf("%s: the API takes it: %v", c.name, err)
		}
	}
	if issues := ValidatePrices(make([]PriceRow, PriceRowsMax+1)); len(issues) != 1 {
		t.Errorf("too many rows: %d issues", len(issues))
	}
}

// A row is the same in a configuration file and on the wire; numbers need no quotes in YAML.
func TestPriceRowIsWritten(t *testing.T) {
	source := `
- model: claude-3-haiku
  provider: mine
  effective_from: 2026-03-13
  input: 0.25
  output: 1.25
  cache_read: 0.05
  batch: 0.5
  context_over: 0
  note: as agreed
`
	var rows []PriceRow
	if err := yaml.Unmarshal([]byte(source), &rows); err != nil {
		t.Fatal(err)
	}
	want := []PriceRow{{Model: "claude-3-haiku", Provider: "mine", EffectiveFrom: "2026-03-13", Input: "0.25", Output: "1.25", CacheRead: "0.05", Batch: "0.5", Note: "as agreed"}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	raw, err := json.Marshal(rows[0])
	if err != nil {
		t.Fatal(err)
	}
	wire := `{"model":"claude-3-haiku","provider":"mine","effective_from":"2026-03-13","input":"0.25","cache_read":"0.05","output":"1.25","batch":"0.5","note":"as agreed"}`
	if diff := cmp.Diff(wire, string(raw)); diff != "" {
		t.Error(diff)
	}
}

// Every built-in row that is not a provider's own is of a model of the roster, and every tier of a model repeats the
// provider's other prices: a forgotten cache price would be input's.
func TestPriceTableAndRosterAgree(t *testing.T) {
	g := open(t, Config{})
	var cached []string
	for _, r := range g.Prices() {
		if r.Provider == "" && (g.roster.byName[r.Model] == nil || g.roster.byName[r.Model].name != r.Model) {
			t.Errorf("%s is not in the roster", r.Model)
		}
		if r.CacheRead != "" && r.Provider == "" {
			cached = append(cached, r.Model)
		}
		if strings.HasPrefix(r.Model, "claude-") && r.Note == "" && (r.CacheRead == "" || r.CacheWrite == "" || r.CacheWrite1h == "") {
			t.Errorf("%s lacks a cache price", r.Model)
		}
	}
	for _, k := range g.roster.models {
		if slices.Contains(cached, k.name) != k.caching && !strings.HasPrefix(g.price(route{model: k.name, known: k}, day("2026-11-01")).Note, unverified) {
			t.Errorf("%s: caching is %t, a price for cached input: %t", k.name, k.caching, slices.Contains(cached, k.name))
		}
	}
}
