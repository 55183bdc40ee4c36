package gateway

import (
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

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

		{"an hour's cache", "claude-sonnet-4-6", "2026-11-01", usage.Tokens{CacheWrite1h: 1000}, "0.006"},
		{"spoken input has its own price", "gemini-2.5-flash", "2026-11-01", usage.Tokens{Input: million, AudioInput: million}, "1.30"},
		{"pictures cost what text costs", "gpt-4o", "2026-11-01", usage.Tokens{ImageInput: million}, "2.50"},
		{"each call costs something besides", "sonar", "2026-11-01", usage.Tokens{Input: 1000, Output: 1000}, "0.014"},
		{"a call without an answer does not", "sonar", "2026-11-01", usage.Tokens{}, "0.00"},

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

// A million lines of three millionths of a dollar are three dollars, to the nano.
func TestSmallSumsAreExact(t *testing.T) {
	p := Price{Tiers: []Tier{{Input: 3 * perMillion}}}
	var sum usage.Sum
	for range 1_000_000 {
		sum.Add(usage.Call{Cost: p.Cost(usage.Tokens{Input: 1})})
	}
	if sum.Cost != 3*usage.USD {
		t.Errorf("a million lines of 0.000003 are %s", sum.Cost)
	}
}

// wide is the same sum without any bound.
func wide(p *Price, t usage.Tokens) *big.Int {
	r := p.tier(t.InputTotal())
	sum := new(big.Int)
	for _, part := range []struct {
		n int64
		r Rate
	}{
		{t.Input, r.Input},
		{t.CacheRead, r.CacheRead},
		{t.CacheWrite, r.CacheWrite},
		{t.CacheWrite1h, r.CacheWrite1h},
		{t.Output, r.Output},
		{t.Reasoning, r.Reasoning},
		{t.AudioInput, r.AudioInput},
		{t.AudioOutput, r.AudioOutput},
		{t.ImageInput, r.ImageInput},
	} {
		sum.Add(sum, new(big.Int).Mul(big.NewInt(part.n), big.NewInt(int64(part.r))))
	}
	return sum.Div(sum.Add(sum, big.NewInt(500)), big.NewInt(1000))
}

func drawTokens(r *rapid.T, most int64) usage.Tokens {
	n := func(name string) int64 { return rapid.Int64Range(0, most).Draw(r, name) }
	return usage.Tokens{
		Input: n("input"), CacheRead: n("read"), CacheWrite: n("write"), CacheWrite1h: n("hour"), Output: n("output"), Reasoning: n("reasoning"),
		AudioInput: n("audio"), AudioOutput: n("spoken"), ImageInput: n("image"),
	}
}

// Cost is the exact sum, rounded half up once, at any counts and rates; what money cannot hold is all of it, never a
// small or a negative amount.
func TestCostIsExact(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rate := func(name string) Rate { return Rate(rapid.Int64Range(0, int64(rateMax)).Draw(r, name)) }
		p := &Price{Tiers: []Tier{{
			Input: rate("r.input"), CacheRead: rate("r.read"), CacheWrite: rate("r.write"), CacheWrite1h: rate("r.hour"), Output: rate("r.output"),
			Reasoning: rate("r.reasoning"), AudioInput: rate("r.audio"), AudioOutput: rate("r.spoken"), ImageInput: rate("r.image"),
		}}}
		tokens := drawTokens(r, rapid.SampledFrom([]int64{10, 1e6, 1e12, math.MaxInt64 / 16}).Draw(r, "most"))
		want := wide(p, tokens)
		if most := big.NewInt(math.MaxInt64); want.Cmp(most) > 0 {
			want = most
		}
		if got := p.Cost(tokens); big.NewInt(int64(got)).Cmp(want) != 0 {
			r.Errorf("%v costs %d, want %s", tokens, got, want)
		}
	})
}

// What is reserved for a call is never less than what it costs, whatever of it comes from a cache or goes there; and a
// saving is a difference.
func TestReservationsSuffice(t *testing.T) {
	g := open(t, Config{})
	when := day("2026-11-01")
	rapid.Check(t, func(r *rapid.T) {
		m := rapid.SampledFrom(g.roster.models).Draw(r, "model")
		via := route{model: m.name, known: m, to: &Provider{Provider: &scripted{name: "p"}, Cache1h: true}}
		p := g.price(via, when)
		tokens := drawTokens(r, 150_000)
		tokens.AudioInput, tokens.AudioOutput, tokens.ImageInput = 0, 0, 0
		if !m.caching {
			tokens.Input += tokens.CacheRead + tokens.CacheWrite + tokens.CacheWrite1h
			tokens.CacheRead, tokens.CacheWrite, tokens.CacheWrite1h = 0, 0, 0
		}
		if most, cost := via.atMost(p, tokens.InputTotal(), tokens.OutputTotal()), p.Cost(tokens); cost > most {
			r.Errorf("%s: %v cost %s, reserved were %s", m.name, tokens, cost, most)
		}
		five := tokens
		five.CacheWrite, five.CacheWrite1h = five.CacheWrite+five.CacheWrite1h, 0
		if most, cost := p.AtMost(five.InputTotal(), five.OutputTotal(), m.caching), p.Cost(five); cost > most {
			r.Errorf("%s: %v cost %s, reserved were %s", m.name, five, cost, most)
		}
		if p.Cost(tokens)+p.CacheSaved(tokens) != p.Uncached(tokens) {
			r.Errorf("%s: %v: the cache saved %s", m.name, tokens, p.CacheSaved(tokens))
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

// Every model of the roster has a price with a source, and every price has its model.
func TestRosterIsPriced(t *testing.T) {
	g := open(t, Config{Now: func() time.Time { return day("2026-11-01") }})
	for _, m := range g.Models() {
		if p := m.Price; p == nil || p.Source == "" || p.Checked == "" && !strings.HasPrefix(p.Note, unverified) {
			t.Errorf("%s has no price with a source and a day", m.Name)
		}
		if m.Provider != "" || m.Simulated {
			t.Errorf("%s is served by nobody, but says %q", m.Name, m.Provider)
		}
	}
}
