package workflow

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"

	"github.com/fermata-run/fermata/internal/usage"
)

// Limits of a run's budget, and its defaults.
const (
	BudgetMax       = 10_000_000 * usage.USD
	BudgetTokensMax = 1_000_000_000_000
	WarnAtMin       = 0.01
	WarnAtDefault   = 0.8
	ShareMin        = 0.001 // of the budget of a step
)

var budgetKeys = keySet{known: []string{"usd", "tokens", "warn_at", "on_exceeded"}}

// budget reads what a run may spend.
func (c *compiler) budget(n *node) *Budget {
	if n == nil || !c.p.object(n, "a budget", budgetKeys) {
		return nil
	}
	b := &Budget{
		Cost:       c.p.money(n.get("usd"), BudgetMax),
		Tokens:     c.p.whole(n.get("tokens"), 1, BudgetTokensMax, 0),
		WarnAt:     c.p.number(n.get("warn_at"), WarnAtMin, 1, WarnAtDefault),
		OnExceeded: OnExceededPause,
	}
	if n.get("usd") == nil && n.get("tokens") == nil {
		c.p.add(n.spot(), codeRequired, `a budget needs "usd", "tokens" or both`)
	}
	if v := n.get("on_exceeded"); v != nil {
		b.OnExceeded = OnExceeded(c.p.oneOf(v, string(OnExceededPause), string(OnExceededDegrade), string(OnExceededFail)))
	}
	return b
}

var (
	stepBudgetKeys = keySet{known: []string{"usd", "share"}}
	// kindsFree are the kinds that cost nothing.
	kindsFree = []Kind{KindSet, KindEmit, KindWait, KindApproval}
)

// stepBudget reads what a step, and all inside it, may spend.
func (c *compiler) stepBudget(d *draftStep) {
	n := d.node.get("budget")
	if n == nil || d.step.Kind == "" {
		return
	}
	if slices.Contains(kindsFree, d.step.Kind) {
		c.p.add(n.spot(), codeConflict, "%s costs nothing; it has no budget", aStep(d.step.Kind))
		return
	}
	if !c.p.object(n, "the budget of a step", stepBudgetKeys) {
		return
	}
	usd, share := n.get("usd"), n.get("share")
	if (usd == nil) == (share == nil) {
		c.p.add(n.spot(), codeRequired, `the budget of a step needs either "usd" or "share"`)
		return
	}
	d.step.Budget = &StepBudget{Cost: c.p.money(usd, BudgetMax), Share: c.p.number(share, ShareMin, 1, 0)}
}

// money reads an amount of dollars that is more than nothing: a number, or a decimal as text.
func (p *problems) money(n *node, high usage.Money) usage.Money {
	if n == nil || n.kind == nodeBad {
		return 0
	}
	if n.kind != nodeNumber && n.kind != nodeText {
		p.add(n.spot(), codeType, "must be an amount of dollars, like 2.5 or \"2.50\", not %s", n.kind)
		return 0
	}
	m, err := parseMoney(n.text)
	switch {
	case errors.Is(err, errTooFine):
		p.add(n.spot(), codeValue, "%s %s", clip(n.text), err)
	case errors.Is(err, errNoMoney):
		p.add(n.spot(), codeValue, "%q %s", clip(n.text), err)
	case err != nil || m <= 0 || m > high:
		p.add(n.spot(), codeValue, "%s must be more than 0 and at most %d dollars", clip(n.text), high/usage.USD)
	default:
		return m
	}
	return 0
}

var (
	errNoMoney = errors.New(`is not an amount of dollars; write it like 2.5 or "2.50"`)
	errTooFine = fmt.Errorf("is finer than money is counted here: the smallest amount is %.9f dollars", 1/float64(usage.USD))
	errTooMuch = errors.New("is out of range")

	moneyForm = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
)

// parseMoney reads a decimal amount of dollars, exactly.
func parseMoney(text string) (usage.Money, error) {
	if !moneyForm.MatchString(text) {
		return 0, errNoMoney
	}
	if !numberFits(text) { // it would take very much room written out
		return 0, errTooMuch
	}
	amount, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, errNoMoney
	}
	amount.Mul(amount, new(big.Rat).SetInt64(int64(usage.USD)))
	switch {
	case !amount.IsInt():
		return 0, errTooFine
	case !amount.Num().IsInt64():
		return 0, errTooMuch
	}
	return usage.Money(amount.Num().Int64()), nil
}
