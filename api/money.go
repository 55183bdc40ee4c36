package api

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/fermata-run/fermata/internal/usage"
)

// savingsFormula goes out with every figure of savings: a figure whose making is not told is worth nothing.
const savingsFormula = "saved = baseline - cost; baseline = the same tokens of answered calls at the baseline model's list price without caching " +
	"(where that is not known, what the call cost); cache_saved = what caching took off at the called models' own prices; routing_saved = the rest"

func moneyOf(m usage.Money) Money { return Money{USD: m.String(), NanoUSD: int64(m)} }

// savingsOf works out what was saved. Percent is absent without a baseline: of nothing there is no share.
func savingsOf(cost, baseline, cacheSaved usage.Money) Savings {
	saved := baseline - cost
	return Savings{
		Baseline: moneyOf(baseline), Cost: moneyOf(cost), Saved: moneyOf(saved), CacheSaved: moneyOf(cacheSaved),
		RoutingSaved: moneyOf(saved - cacheSaved), Percent: percentOf(int64(saved), int64(baseline)), Formula: savingsFormula,
	}
}

// percentOf is a share in percent with one place, or nil of nothing.
func percentOf(part, whole int64) *float64 {
	if whole == 0 {
		return nil
	}
	share := math.Round(float64(part)/float64(whole)*1000) / 10
	return &share
}

// parseDollars reads a decimal amount of dollars that the spec's pattern has let through.
func parseDollars(text string) (usage.Money, error) {
	whole, places, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole+(places + "000000000")[:9], 10, 64)
	if err != nil || len(places) > 9 {
		return 0, fmt.Errorf("%q is no amount of dollars", clip(text))
	}
	return usage.Money(n), nil
}

// amountOf shows an amount of money, of tokens, or of both; what is not limited is not shown.
func amountOf(money usage.Money, tokens int64, inMoney, inTokens bool) BudgetAmount {
	var a BudgetAmount
	if inMoney {
		nano := int64(money)
		a.USD, a.NanoUSD = money.String(), &nano
	}
	if inTokens {
		a.Tokens = &tokens
	}
	return a
}
