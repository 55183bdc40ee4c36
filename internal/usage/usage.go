// Package usage counts what a model call used and what it cost: tokens by disjoint type, money in integer nano-USD.
package usage

import (
	"fmt"
	"strings"
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
}

// Add returns the sum.
func (t Tokens) Add(u Tokens) Tokens {
	return Tokens{
		Input: t.Input + u.Input, CacheRead: t.CacheRead + u.CacheRead, CacheWrite: t.CacheWrite + u.CacheWrite,
		Output: t.Output + u.Output, Reasoning: t.Reasoning + u.Reasoning,
	}
}

// Total is the sum of all types.
func (t Tokens) Total() int64 { return t.Input + t.CacheRead + t.CacheWrite + t.Output + t.Reasoning }

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
}

// Sum is the total over calls.
type Sum struct {
	Calls     int    `json:"calls"`
	Tokens    Tokens `json:"tokens"`
	Cost      Money  `json:"cost_nano"`
	Unpriced  int    `json:"unpriced_calls,omitempty"`  // calls whose cost is not in Cost
	Simulated int    `json:"simulated_calls,omitempty"` // calls that reached no real model
}

// Add counts one call in.
func (s *Sum) Add(c Call) {
	s.Calls++
	s.Tokens = s.Tokens.Add(c.Tokens)
	s.Cost += c.Cost
	if c.Unpriced {
		s.Unpriced++
	}
	if c.Simulated {
		s.Simulated++
	}
}
