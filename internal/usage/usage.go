// Package usage counts what a model call used and what it cost: tokens by disjoint type, money in integer nano-USD.
package usage

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// Money is an amount in nano-USD (1e-9 US dollars). Integers: a million lines of $0.000003 add up exactly.
type Money int64

// USD is one dollar.
const USD Money = 1_000_000_000

// String renders a decimal amount of dollars without trailing zeros, at least two places: "0.049", "12.00".
func (m Money) String() string {
	sign := ""
	u := uint64(m)
	if m < 0 {
		sign, u = "-", -u
	}
	frac := strings.TrimRight(fmt.Sprintf("%09d", u%uint64(USD)), "0")
	for len(frac) < 2 {
		frac += "0"
	}
	return fmt.Sprintf("%s%d.%s", sign, u/uint64(USD), frac)
}

// Tokens are disjoint: their sum is all that was processed, whatever shape the provider reported them in.
type Tokens struct {
	Input      int64 `json:"input,omitempty"`       // uncached input
	CacheRead  int64 `json:"cache_read,omitempty"`  // input served from the provider's cache
	CacheWrite int64 `json:"cache_write,omitempty"` // input written to the provider's cache
	Output     int64 `json:"output,omitempty"`      // visible output
	Reasoning  int64 `json:"reasoning,omitempty"`   // hidden output, billed as output unless priced apart

	CacheWrite1h int64 `json:"cache_write_1h,omitempty"` // input written to a cache that keeps it for an hour
	AudioInput   int64 `json:"audio_input,omitempty"`
	AudioOutput  int64 `json:"audio_output,omitempty"`
	ImageInput   int64 `json:"image_input,omitempty"`
}

// Add returns the sum.
func (t Tokens) Add(u Tokens) Tokens {
	return Tokens{
		Input: t.Input + u.Input, CacheRead: t.CacheRead + u.CacheRead, CacheWrite: t.CacheWrite + u.CacheWrite,
		Output: t.Output + u.Output, Reasoning: t.Reasoning + u.Reasoning, CacheWrite1h: t.CacheWrite1h + u.CacheWrite1h,
		AudioInput: t.AudioInput + u.AudioInput, AudioOutput: t.AudioOutput + u.AudioOutput, ImageInput: t.ImageInput + u.ImageInput,
	}
}

// InputTotal is everything that was read: what a price tier and a context window are measured by.
func (t Tokens) InputTotal() int64 {
	return t.Input + t.CacheRead + t.CacheWrite + t.CacheWrite1h + t.AudioInput + t.ImageInput
}

// OutputTotal is everything that was made.
func (t Tokens) OutputTotal() int64 { return t.Output + t.Reasoning + t.AudioOutput }

// Total is the sum of all types.
func (t Tokens) Total() int64 { return t.InputTotal() + t.OutputTotal() }

// Coarse folds the finer types into the five that rows and lists keep: an hour's cache writes among cache writes, audio
// and images among input and output.
func (t Tokens) Coarse() Tokens {
	return Tokens{
		Input: t.Input + t.AudioInput + t.ImageInput, CacheRead: t.CacheRead, CacheWrite: t.CacheWrite + t.CacheWrite1h,
		Output: t.Output + t.AudioOutput, Reasoning: t.Reasoning,
	}
}

// Call is one request to a provider, answered or not: the line a ledger is made of.
type Call struct {
	Provider  string `json:"provider"`
	Model     string `json:"model"`
	Simulated bool   `json:"simulated,omitempty"` // no real model was called; the cost is what the real one would have cost
	Class     string `json:"class,omitempty"`     // error class (gateway table); empty: answered
	Message   string `json:"message,omitempty"`   // of the error; never holds a secret
	Depth     int    `json:"depth,omitempty"`     // place of the entry in its chain, from 0
	Try       int    `json:"try"`                 // from 1, within the entry
	Millis    int64  `json:"ms"`
	Tokens    Tokens `json:"tokens,omitzero"`
	Cost      Money  `json:"cost_nano,omitempty"`
	Unpriced  bool   `json:"unpriced,omitempty"`  // no price row: the cost is unknown, not zero
	Estimated bool   `json:"estimated,omitempty"` // the provider reported no usage; tokens were counted here

	Price        string    `json:"price,omitempty"`            // the price row that was applied: where it is from, since when it holds, from how much context on
	Rates        *Rates    `json:"rates,omitempty"`            // its prices, so that the line can be checked by itself
	Baseline     Money     `json:"baseline_nano,omitempty"`    // what the same tokens cost uncached on the baseline model; Cost where that is not known
	CacheSaved   Money     `json:"cache_saved_nano,omitempty"` // what the provider's cache took off, after what writing to it cost; negative: it cost more than it saved
	Subscription string    `json:"subscription,omitempty"`     // the flat plan it went through: no cost of its own
	Rule         string    `json:"rule,omitempty"`             // the routing rule that chose the chain
	Hold         uuid.UUID `json:"hold,omitzero"`              // the reservation it was made under
	RequestID    string    `json:"request_id,omitempty"`       // the provider's own name for it
	FirstMillis  int64     `json:"first_token_ms,omitempty"`   // until the answer began; 0: it did not, or was not streamed
	Confidence   *float64  `json:"confidence,omitempty"`       // of an answer that was not accepted
	Trimmed      int64     `json:"trimmed_tokens,omitempty"`   // left out of the prompt because the window was too small for it
	Hedged       bool      `json:"hedged,omitempty"`           // sent because the call before was slow
	Who          string    `json:"who,omitempty"`              // whose it is of those who work at a step; empty: the step's agent's
}

// Rates are prices in pico-USD per token (1e-12 US dollars: a dollar for a million tokens is 1,000,000).
type Rates struct {
	Input        int64 `json:"input"`
	CacheRead    int64 `json:"cache_read"`
	CacheWrite   int64 `json:"cache_write"`
	CacheWrite1h int64 `json:"cache_write_1h"`
	Output       int64 `json:"output"`
	Reasoning    int64 `json:"reasoning"`
}

// Sum is the total over calls.
type Sum struct {
	Calls     int    `json:"calls"`
	Tokens    Tokens `json:"tokens"`
	Cost      Money  `json:"cost_nano"`
	Unpriced  int    `json:"unpriced_calls,omitempty"`  // calls whose cost is not in Cost
	Simulated int    `json:"simulated_calls,omitempty"` // calls that reached no real model

	Baseline   Money `json:"baseline_nano,omitempty"`    // what the same tokens would have cost uncached on the baseline model
	CacheSaved Money `json:"cache_saved_nano,omitempty"` // of the difference, what providers' caches took off
}

// Add counts one call in.
func (s *Sum) Add(c Call) {
	s.Calls++
	s.Tokens = s.Tokens.Add(c.Tokens)
	s.Cost += c.Cost
	s.Baseline += c.Baseline
	s.CacheSaved += c.CacheSaved
	if c.Unpriced {
		s.Unpriced++
	}
	if c.Simulated {
		s.Simulated++
	}
}

// Plus is both together.
func (s Sum) Plus(o Sum) Sum {
	return Sum{
		Calls: s.Calls + o.Calls, Tokens: s.Tokens.Add(o.Tokens), Cost: s.Cost + o.Cost,
		Unpriced: s.Unpriced + o.Unpriced, Simulated: s.Simulated + o.Simulated,
		Baseline: s.Baseline + o.Baseline, CacheSaved: s.CacheSaved + o.CacheSaved,
	}
}
