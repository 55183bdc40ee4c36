package gateway

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/fermata-run/fermata/internal/gateway/provider"
)

// charge is what the request may cost at most.
func (q *request) charge() Charge {
	c := Charge{Caller: q.c.req.Caller, Provider: q.e.route.to.Name(), Model: q.e.route.model, Tokens: q.need.input + int64(q.max)}
	if k := q.e.route.known; k != nil {
		c.Known = k.name
	}
	switch {
	case q.e.route.to.Subscription != "": // paid already
	case q.price == nil:
		c.Unpriced = true
	default:
		c.Cost = q.e.route.atMost(q.price, q.need.input, int64(q.max))
	}
	return c
}

// clampsMax bounds how often a shorter answer is tried to be paid for.
const clampsMax = 4

// reserve sets the money aside. A budget that would rather have a shorter answer than none gets one.
func (q *request) reserve(ctx context.Context) *failure {
	for clamps := 0; ; clamps++ {
		hold, err := q.c.g.budgets.Reserve(ctx, q.charge())
		if err == nil {
			q.hold = hold
			return nil
		}
		var refused *BudgetError
		switch {
		case !errors.As(err, &refused):
			return &failure{unknown: true, err: &provider.Error{Class: provider.ClassUnavailable, Message: "whether the budget has money left is not known: " + err.Error()}}
		case refused.OnHard == OnHardClamp && clamps < clampsMax && q.clamp(refused, clamps):
		default:
			message := refused.Error()
			if refused.OnHard == OnHardClamp {
				message += fmt.Sprintf("; an answer of less than %d tokens is not asked for", ClampMin)
			}
			return &failure{budget: refused, err: &provider.Error{Class: provider.ClassBudgetExceeded, Message: message}}
		}
	}
}

// clamp shortens the answer to what is left for it. False: it would be too short to be of use.
func (q *request) clamp(refused *BudgetError, before int) bool {
	longest := int64(q.max) - 1
	if before > 0 { // others spend at the same time: what was left a moment ago is not any more
		longest = longest * 3 / 4
	}
	fits := func(tokens int64) bool {
		if refused.InTokens {
			return q.need.input+tokens <= refused.LimitTokens-refused.SpentTokens-refused.ReservedTokens
		}
		return q.price != nil && q.e.route.atMost(q.price, q.need.input, tokens) <= refused.Left()
	}
	// The longest that fits: a longer answer never costs less.
	n := int64(sort.Search(int(max(longest-ClampMin+1, 0)), func(i int) bool { return !fits(ClampMin + int64(i)) })) + ClampMin - 1
	if n < ClampMin {
		return false
	}
	q.max, q.need.output = int(n), n
	return true
}
