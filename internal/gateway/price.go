package gateway

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
)

// Rate is a price per token in pico-USD (1e-12 US dollars): a dollar for a million tokens is a Rate of 1,000,000.
// It holds six decimals of a dollar per million tokens exactly.
type Rate int64

// perMillion is one dollar for a million tokens.
const perMillion Rate = 1_000_000

// rateMax bounds a rate: nobody sells tokens for a cent each.
const rateMax = 10_000 * perMillion

// String is the rate in dollars per million tokens: "2.5", "0.075".
func (r Rate) String() string { return decimal(int64(r), 6) }

// MarshalText writes the rate as String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func parseRate(s string) (Rate, error) {
	n, err := parseDecimal(s, 6, int64(rateMax))
	return Rate(n), err
}

// parseDecimal reads a number that is not negative exactly, in units of its last place.
func parseDecimal(s string, places int, most int64) (int64, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" {
		return 0, fmt.Errorf("%q is no price; free is 0", s)
	}
	if len(frac) > places {
		return 0, fmt.Errorf("%q has more than %d decimals", s, places)
	}
	n, err := strconv.ParseUint(whole+frac+strings.Repeat("0", places-len(frac)), 10, 63)
	if err != nil || int64(n) > most {
		return 0, fmt.Errorf("%q is no price from 0 to %s", s, decimal(most, places))
	}
	return int64(n), nil
}

func decimal(n int64, places int) string {
	digits := fmt.Sprintf("%0*d", places+1, n)
	s := digits[:len(digits)-places] + "." + digits[len(digits)-places:]
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

// Price is what a model costs from a moment on.
type Price struct {
	Model         string    `json:"model"`                   // as its row names it; may be a pattern
	Provider      string    `json:"provider,omitempty"`      // whose price it is; empty: everybody's
	EffectiveFrom time.Time `json:"effective_from,omitzero"` // zero: since ever
	Source        string    `json:"source"`
	Checked       string    `json:"checked,omitempty"` // the day on which the source had verified it
	Note          string    `json:"note,omitempty"`
	// Tiers by rising ContextOver; the first begins at 0. Empty: its tokens are not for sale, only its units.
	Tiers []Tier `json:"tiers"`
	// Units are prices in nano-USD of what is no token: query, image, minute; and call, which every answered request is.
	Units map[string]usage.Money `json:"units_nano,omitempty"`
}

// Tier is what holds for requests whose whole input is more than ContextOver tokens: for all of the request, not only
// for the part above.
type Tier struct {
	ContextOver  int64 `json:"context_over"`
	Input        Rate  `json:"input"`
	CacheRead    Rate  `json:"cache_read"`
	CacheWrite   Rate  `json:"cache_write"`
	CacheWrite1h Rate  `json:"cache_write_1h"`
	Output       Rate  `json:"output"`
	Reasoning    Rate  `json:"reasoning"`
	AudioInput   Rate  `json:"audio_input"`
	AudioOutput  Rate  `json:"audio_output"`
	ImageInput   Rate  `json:"image_input"`
}

// tier is the one that prices a request with so much input.
func (p *Price) tier(input int64) *Tier {
	t := &p.Tiers[0]
	for i := range p.Tiers[1:] {
		if input > p.Tiers[i+1].ContextOver {
			t = &p.Tiers[i+1]
		}
	}
	return t
}

// Cost of one request: exact, rounded half up to whole nano-USD once.
func (p *Price) Cost(t usage.Tokens) usage.Money {
	if t.Total() == 0 {
		return 0
	}
	r := p.tier(t.InputTotal())
	var sum pico
	sum.add(t.Input, r.Input)
	sum.add(t.CacheRead, r.CacheRead)
	sum.add(t.CacheWrite, r.CacheWrite)
	sum.add(t.CacheWrite1h, r.CacheWrite1h)
	sum.add(t.Output, r.Output)
	sum.add(t.Reasoning, r.Reasoning)
	sum.add(t.AudioInput, r.AudioInput)
	sum.add(t.AudioOutput, r.AudioOutput)
	sum.add(t.ImageInput, r.ImageInput)
	return plus(sum.nano(), p.Units[UnitCall])
}

// Uncached is what the request would have cost without any cache: all that was read at the price of fresh input.
func (p *Price) Uncached(t usage.Tokens) usage.Money {
	t.Input += t.CacheRead + t.CacheWrite + t.CacheWrite1h
	t.CacheRead, t.CacheWrite, t.CacheWrite1h = 0, 0, 0
	return p.Cost(t)
}

// CacheSaved is what the provider's cache took off, after what writing to it cost; negative: it cost more.
func (p *Price) CacheSaved(t usage.Tokens) usage.Money { return p.Uncached(t) - p.Cost(t) }

// Rates are the prices that Cost applies to a request with so much input.
func (p *Price) Rates(input int64) usage.Rates {
	r := p.tier(input)
	return usage.Rates{
		Input: int64(r.Input), CacheRead: int64(r.CacheRead), CacheWrite: int64(r.CacheWrite), CacheWrite1h: int64(r.CacheWrite1h),
		Output: int64(r.Output), Reasoning: int64(r.Reasoning),
	}
}

// AtMost is what a request with at most so many tokens can cost: in the tier its input may reach, with none of it cached
// and, if it caches, all of it written to the cache.
func (p *Price) AtMost(input, output int64, caches bool) usage.Money {
	return p.atMost(input, output, func(t *Tier) Rate {
		if caches {
			return max(t.Input, t.CacheWrite)
		}
		return t.Input
	})
}

func (p *Price) atMost(input, output int64, rate func(*Tier) Rate) usage.Money {
	most := usage.Money(0)
	for i := range p.Tiers { // a higher tier may be the cheaper one, and the input may turn out to be shorter
		t := &p.Tiers[i]
		if input <= t.ContextOver && i > 0 {
			break
		}
		var sum pico
		sum.add(input, rate(t))
		sum.add(output, max(t.Output, t.Reasoning))
		most = max(most, sum.nano())
	}
	return plus(most, p.Units[UnitCall])
}

// String names the price in a ledger: whose, where it was read, since when it holds.
func (p *Price) String() string {
	s := p.Model
	if p.Provider != "" {
		s = p.Provider + "/" + s
	}
	if !p.EffectiveFrom.IsZero() {
		s += " since " + p.EffectiveFrom.UTC().Format(time.DateOnly)
	}
	s += " (" + p.Source
	if p.Checked != "" {
		s += " " + p.Checked
	}
	return s + ")"
}

// Row names what of the price was applied to such a request: String, and the tier if it has more than one.
func (p *Price) Row(t usage.Tokens) string {
	if over := p.tier(t.InputTotal()).ContextOver; over > 0 {
		return fmt.Sprintf("%s over %d", p, over)
	}
	return p.String()
}

// blend compares prices: what a request costs that reads three times what it writes.
func (p *Price) blend() usage.Money { return p.Cost(usage.Tokens{Input: 3000, Output: 1000}) }

// pico is a sum in pico-USD that no count of tokens overflows.
type pico struct{ hi, lo uint64 }

func (s *pico) add(tokens int64, r Rate) {
	if tokens <= 0 || r <= 0 {
		return
	}
	hi, lo := bits.Mul64(uint64(tokens), uint64(r))
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi += hi + carry
}

// nano rounds half up. What is beyond all money is all money.
func (s pico) nano() usage.Money {
	lo, carry := bits.Add64(s.lo, 500, 0)
	hi := s.hi + carry
	if hi >= 1000 {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, 1000)
	return usage.Money(min(q, math.MaxInt64))
}

// plus adds two amounts that are not negative.
func plus(a, b usage.Money) usage.Money {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
