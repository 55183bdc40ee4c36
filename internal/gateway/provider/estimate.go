package provider

import (
	"unicode/utf8"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// What a count from text assumes. It stands in where a provider reports no usage; such calls say Estimated.
const (
	charsPerToken     = 4
	tokensPerMessage  = 4 // role and separators
	tokensPerExchange = 3
)

// CountTokens estimates the tokens of a text: one for four characters, rounded up.
func CountTokens(text string) int64 {
	return int64((utf8.RuneCountInString(text) + charsPerToken - 1) / charsPerToken)
}

// CountAsk estimates the tokens of what is sent.
func CountAsk(a agent.Ask) int64 {
	n := int64(tokensPerExchange)
	for _, m := range a.Messages {
		n += tokensPerMessage + CountTokens(m.Content)
	}
	return n
}

// estimate counts a call from its texts. Hidden is reasoning that was shown.
func estimate(a agent.Ask, text, hidden string) usage.Tokens {
	return usage.Tokens{Input: CountAsk(a), Output: CountTokens(text), Reasoning: CountTokens(hidden)}
}
