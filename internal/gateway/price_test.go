package gateway

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/usage"
)

func open(t testing.TB, c Config) *Gateway {
	t.Helper()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func day(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

// known figures, in dollars for a whole call.
func TestCosts(t *testing.T) {
	g := open(t, Config{})
	million := int64(1_000_000)
	for _, c := range []struct {
		name, model, at string
		tokens          usage.Tokens
		want            string // dollars; empty: unpriced
	}{
		{"mission: Opus", "claude-opus-4-6", "2026-11-01", usage.Tokens{Input: million, Output: million}, "30.00"},
		{"mission: Sonnet", "claude-sonnet-4-6", "2026-11-01", usage.Tokens{Input: million, Output: million}, "18.00"},
		{"mission: Haiku", "claude-haiku-4-5", "2026-11-01", usage.Tokens{Input: million, Output: million}, "6.00"},
		{"mission: GPT-4o", "gpt-4o", "2026-11-01", usage.Tokens{Input: million, Output: million}, "12.50"},
		{"mission: Grok", "grok-3", "2026-11-01", usage.Tokens{Input: million, Output: million}, "18.00"},
		{"mission: Gemini, in the higher tier", "gemini-2.5-pro", "2026-11-01", usage.Tokens{Input: million, Output: million}, "17.50"},
		{"all types", "claude-sonnet-4-6", "2026-11-01", usage.Tokens{Input: 1000, CacheRead: 1000, CacheWrite: 1000, Output: 1000, Reasoning: 1000}, "0.03705"},
		{"one token of the cheapest cache", "gpt-5-nano", "2026-11-01", usage.Tokens{CacheRead: 1}, "0.000000005"},
		{"a date behind the name", "gpt-4o-2024-08-06", "2026-11-01", usage.Tokens{Input: million}, "2.50"},
		{"a name of its own with a date", "gpt-4o-2024-05-13", "2026-11-01", usage.Tokens{Input: million}, "5.00"},
		{"Anthropic's date", "claude-haiku-4-5-20251001", "2026-11-01", usage.Tokens{Input: million}, "1.00"},
		{"xAI's date", "grok-4-0709", "2026-11-01", usage.Tokens{Input: million}, "3.00"},
		{"preview of a month", "gemini-2.5-flash-preview-09-2025", "2026-11-01", usage.Tokens{Input: million}, "0.30"},
		{"latest", "claude-sonnet-4-5-latest", "2026-11-01", usage.Tokens{Input: 200_000}, "0.60"},
		{"an alias, capitals, a vendor before it", "Anthropic/Claude-Sonnet-4.6", "2026-11-01", usage.Tokens{Input: million}, "3.00"},
		{"through a gateway of somebody else", "openrouter/grok-3", "2026-11-01", usage.Tokens{Input: million}, "3.00"},

		{"at the threshold the lower tier holds", "claude-sonnet-4-5", "2026-11-01", usage.Tokens{Input: 200_000, Output: 1000}, "0.615"},
		{"above it all of the request is dearer", "claude-sonnet-4-5", "2026-11-01", usage.Tokens{Input: 200_001, Output: 1000}, "1.222506"},
		{"cached input counts towards it", "claude-sonnet-4-5", "2026-11-01", usage.Tokens{Input: 1, CacheRead: 150_000, CacheWrite: 50_000, Output: 1000}, "0.487506"},
		{"before the day", "claude-opus-4-6", "2026-03-12", usage.Tokens{Input: 300_000}, "3.00"},
		{"on the day", "claude-opus-4-6", "2026-03-13", usage.Tokens{Input: 300_000}, "1.50"},
		{"a rise that has been announced", "gemini-3.7-flash", "2026-12-31", usage.Tokens{Input: million}, "0.75"},
		{"and has come", "gemini-3.7-flash", "2027-01-01", usage.Tokens{Input: million}, "1.50"},
		{"a cut with tiers", "gpt-5.6-luna", "2026-07-29", usage.Tokens{Input: 272_001}, "0.544002"},
		{"after it", "gpt-5.6-luna", "2026-07-30", usage.Tokens{Input: 272_001}, "0.1088004"},

		{"unknown", "llama3.1:8b", "2026-11-01", usage.Tokens{Input: million}, ""},
		{"older than the roster", "gpt-4-0613", "2026-11-01", usage.Tokens{Input: million}, ""},
		{"like a known one", "gpt-4o-mini-tts", "2026-11-01", usage.Tokens{Input: million}, ""},
		{"another vendor's of that name", "xai/gpt-4o", "2026-11-01", usage.Tokens{Input: million}, ""},
	} {
		p := g.price(route{model: c.model, known: g.roster.find(c.model)}, day(c.at))
		got := ""
		if p != nil {
			got = p.Cost(c.tokens).String()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestRounding(t *testing.T) {
	for _, c := range []struct {
		rate string
		n    int64
		want usage.Money
	}{{"0.0004", 1, 0}, {"0.0005", 1, 1}, {"0.0005", 3, 2}, {"0.0015", 1, 2}, {"0.001499", 1, 1}, {"3", 1, 3000}} {
		r, err := parseRate(c.rate)
		if err != nil {
			t.Fatal(err)
		}
		p := Price{Tiers: []Tier{{Input: r}}}
		if got := p.Cost(usage.Tokens{Input: c.n}); got != c.want {
			t.Errorf("%d × %s: %d nano, want %d", c.n, c.rate, got, c.want)
		}
	}
}

// The largest counts at the highest rates do not overflow, and cost never falls as tokens grow within a tier.
func TestCostIsSane(t *testing.T) {
	top := Price{Tiers: []Tier{{Input: rateMax / 5, CacheRead: rateMax / 5, CacheWrite: rateMax / 5, Output: rateMax / 5}}}
	most := usage.Tokens{Input: 1e9, CacheRead: 1e9, CacheWrite: 1e9, Output: 1e9 - 1, Reasoning: 1}
	if got := top.Cost(most); got <= 0 || float64(got) < 0.99*4*1e9*float64(rateMax/5)/1000 {
		t.Errorf("overflow: %d", got)
	}
	g := open(t, Config{})
	rapid.Check(t, func(r *rapid.T) {
		m := rapid.SampledFrom(g.roster.models).Draw(r, "model")
		p := g.prices.at(m.name, day("2026-11-01"))
		n := func(name string) int64 { return rapid.Int64Range(0, 40_000).Draw(r, name) }
		a := usage.Tokens{Input: n("input"), CacheRead: n("read"), CacheWrite: n("write"), Output: n("output"), Reasoning: n("reasoning")}
		b := a
		b.Output++
		tier := p.Tiers[0]
		exact := float64(a.Input)*float64(tier.Input) + float64(a.CacheRead)*float64(tier.CacheRead) + float64(a.CacheWrite)*float64(tier.CacheWrite) + float64(a.Output+a.Reasoning)*float64(tier.Output)
		if got := float64(p.Cost(a)) * 1000; math.Abs(got-exact) > 500 || p.Cost(b) <= p.Cost(a) {
			r.Errorf("%s: %v pico for %v, then %d", m.name, got, exact, p.Cost(b))
		}
	})
}

func TestRates(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "2.5": "2.5", "2.50": "2.5", "0.075": "0.075", "10": "10", "0.000001": "0.000001", "10000": "10000"} {
		r, err := parseRate(in)
		if err != nil || r.String() != want {
			t.Errorf("%s: %s, %v", in, r, err)
		}
	}
	for _, in := range []string{"", "-1", "1e3", "0.0000001", "10001", "x", "1.-5", "1.2.3", "99999999999999999999", " 1", ".5x"} {
		if r, err := parseRate(in); err == nil {
			t.Errorf("%q is taken for %s", in, r)
		}
	}
}

const header = "model,effective_from,context_over,input,cache_read,cache_write,output,source,checked\n"

func TestOwnPrices(t *testing.T) {
	own := header +
		"llama3,,0,0,,,0,own machine,2026-11-01\n" +
		"gpt-4o,,0,1,,,4,contract,2026-11-01\n" +
		"proxy/claude-sonnet-4-6,,0,2.4,0.24,3,12,contract,2026-11-01\n"
	p, q := &scripted{name: "proxy"}, &scripted{name: "other"}
	g := open(t, Config{Prices: []byte(own), Providers: []Provider{{Provider: p}, {Provider: q}}})
	cost := func(model string) string {
		r, err := g.route(model)
		if err != nil {
			t.Fatal(err)
		}
		price := g.price(r, day("2026-11-01"))
		if price == nil {
			return "unpriced"
		}
		return price.Cost(usage.Tokens{Input: 1_000_000, Output: 1_000_000}).String()
	}
	for model, want := range map[string]string{
		"proxy/llama3": "0.00", // known to be free, which is not the same as unknown
		"proxy/gpt-4o": "5.00", "proxy/gpt-4o-2024-08-06": "5.00", "proxy/claude-sonnet-4-6": "14.40", "other/claude-sonnet-4-6": "18.00", "other/x": "unpriced",
	} {
		if got := cost(model); got != want {
			t.Errorf("%s: %s, want %s", model, got, want)
		}
	}
}

func TestPriceTableIsChecked(t *testing.T) {
	for _, c := range []struct{ rows, message string }{
		{"a,,0,x,,,1,s,2026-01-01", "input"},
		{"a,,0,1,,,,s,2026-01-01", "output"},
		{"a,,0,-1,,,1,s,2026-01-01", "input"},
		{"a,,0,1,,,1,,2026-01-01", "source"},
		{",,0,1,,,1,s,2026-01-01", "model"},
		{"a,,0,1,,,1,s,yesterday", "checked"},
		{"a,2026-13-01,0,1,,,1,s,2026-01-01", "effective_from"},
		{"a,,many,1,,,1,s,2026-01-01", "context_over"},
		{"a,,200000,1,,,1,s,2026-01-01", "begins at 0"},
		{"a,,0,1,,,1,s,2026-01-01\na,,0,2,,,1,s,2026-01-01", "priced twice"},
		{"a,,0,1,,1,s,2026-01-01", "wrong number of fields"},
	} {
		_, err := New(Config{Prices: []byte(header + c.rows + "\n")})
		if err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v, want something about %q", c.rows, err, c.message)
		}
	}
	if _, err := New(Config{Prices: []byte("model,price\na,1\n")}); err == nil {
		t.Error("another table is taken")
	}
}

// Every model of the roster has a price with a source, and every price has its model.
func TestRosterIsPriced(t *testing.T) {
	g := open(t, Config{Now: func() time.Time { return day("2026-11-01") }})
	for _, m := range g.Models() {
		if m.Price == nil || m.Price.Source == "" || m.Price.Checked == "" {
			t.Errorf("%s has no price with a source", m.Name)
		}
		if m.Provider != "" || m.Simulated {
			t.Errorf("%s is served by nobody, but says %q", m.Name, m.Provider)
		}
	}
	raw, err := json.Marshal(g.Models()[0])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"claude-opus-4-6","vendor":"anthropic","family":"claude","context_tokens":1000000,"output_tokens":128000,"price":{"effective_from":"2026-03-13T00:00:00Z","source":"genai-prices","checked":"2026-07-29","tiers":[{"context_over":0,"input":"5","cache_read":"0.5","cache_write":"6.25","output":"25"}]}}`
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Error(diff)
	}
}
