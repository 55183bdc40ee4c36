package usage_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/usage"
)

func TestMoneyIsWrittenAsDollars(t *testing.T) {
	for m, want := range map[usage.Money]string{
		0: "0.00", 1: "0.000000001", 49_000_000: "0.049", usage.USD: "1.00", 12*usage.USD + 500_000_000: "12.50",
		-3 * usage.USD / 2: "-1.50", math.MaxInt64: "9223372036.854775807", math.MinInt64: "-9223372036.854775808",
	} {
		if got := m.String(); got != want {
			t.Errorf("%d: %s, want %s", int64(m), got, want)
		}
	}
}

// A million lines of $0.000003 add up to exactly $3.
func TestMoneyAddsUp(t *testing.T) {
	var sum usage.Sum
	for range 1_000_000 {
		sum.Add(usage.Call{Cost: 3_000})
	}
	if sum.Cost != 3*usage.USD || sum.Calls != 1_000_000 {
		t.Errorf("%s in %d calls", sum.Cost, sum.Calls)
	}
}

// The types of tokens are disjoint: whatever is added, the total is the sum of all.
func TestTokensAreDisjoint(t *testing.T) {
	count := rapid.Int64Range(0, 1<<40)
	rapid.Check(t, func(t *rapid.T) {
		var sum usage.Sum
		var want int64
		for range rapid.IntRange(0, 20).Draw(t, "calls") {
			c := usage.Call{
				Unpriced: rapid.Bool().Draw(t, "unpriced"), Simulated: rapid.Bool().Draw(t, "simulated"),
				Tokens: usage.Tokens{
					Input: count.Draw(t, "input"), CacheRead: count.Draw(t, "read"), CacheWrite: count.Draw(t, "write"),
					Output: count.Draw(t, "output"), Reasoning: count.Draw(t, "reasoning"),
				},
			}
			want += c.Tokens.Input + c.Tokens.CacheRead + c.Tokens.CacheWrite + c.Tokens.Output + c.Tokens.Reasoning
			sum.Add(c)
		}
		if sum.Tokens.Total() != want || sum.Unpriced > sum.Calls || sum.Simulated > sum.Calls {
			t.Fatalf("%+v, want %d tokens", sum, want)
		}
	})
}
