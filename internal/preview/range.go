package preview

import (
	"math"
	"math/bits"

	"github.com/fermata-run/fermata/internal/usage"
)

// Span is a count that is not known yet: from Low to High.
type Span struct {
	Low  int64 `json:"low"`
	High int64 `json:"high"`
}

// Cost is an amount of money that is not known yet: from Low to High.
type Cost struct {
	Low  usage.Money `json:"low_nano"`
	High usage.Money `json:"high_nano"`
}

// Seconds are a time that is not known yet: from Low to High.
type Seconds struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Amount is what something would use.
type Amount struct {
	Input  Span `json:"input_tokens"`
	Output Span `json:"output_tokens"`
	Cost   Cost `json:"cost"`
	Calls  Span `json:"calls"` // of models, where nothing fails
	// CallsMax is how many calls of models there are at worst: every model of every chain is asked as often as it may be,
	// every answer sent back, every attempt made.
	CallsMax int64 `json:"calls_max"`
}

// Every count stops at the largest there is: what is bounded by nothing else may be multiplied over and over.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func product(a, b int64) int64 {
	high, low := bits.Mul64(uint64(a), uint64(b))
	if high > 0 || low > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low)
}

func (s Span) plus(t Span) Span    { return Span{plus(s.Low, t.Low), plus(s.High, t.High)} }
func (s Span) times(t Span) Span   { return Span{product(s.Low, t.Low), product(s.High, t.High)} }
func (s Span) atMost(n int64) Span { return Span{min(s.Low, n), min(s.High, n)} }
func (s Span) either(t Span) Span  { return Span{min(s.Low, t.Low), max(s.High, t.High)} }
func (s Span) maybe() Span         { return Span{0, s.High} }
func (s Seconds) either(t Seconds) Seconds {
	return Seconds{min(s.Low, t.Low), max(s.High, t.High)}
}

func (c Cost) span() Span { return Span{int64(c.Low), int64(c.High)} }

func costOf(s Span) Cost { return Cost{usage.Money(s.Low), usage.Money(s.High)} }

func (a Amount) plus(b Amount) Amount {
	return Amount{
		Input: a.Input.plus(b.Input), Output: a.Output.plus(b.Output), Cost: costOf(a.Cost.span().plus(b.Cost.span())),
		Calls: a.Calls.plus(b.Calls), CallsMax: plus(a.CallsMax, b.CallsMax),
	}
}

func (a Amount) times(n Span) Amount {
	return Amount{
		Input: a.Input.times(n), Output: a.Output.times(n), Cost: costOf(a.Cost.span().times(n)),
		Calls: a.Calls.times(n), CallsMax: product(a.CallsMax, n.High),
	}
}

// either is one of the two, it is not known which.
func (a Amount) either(b Amount) Amount {
	return Amount{
		Input: a.Input.either(b.Input), Output: a.Output.either(b.Output), Cost: costOf(a.Cost.span().either(b.Cost.span())),
		Calls: a.Calls.either(b.Calls), CallsMax: max(a.CallsMax, b.CallsMax),
	}
}

// maybe is the amount, or nothing.
func (a Amount) maybe() Amount { return a.either(Amount{}) }
