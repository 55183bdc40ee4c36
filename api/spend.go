package api

import (
	"bytes"
	"context"
	"math/big"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// What a report of spend goes by.
const (
	spendWindowDefault = 30 * 24 * time.Hour
	spendWindowMax     = 400 * 24 * time.Hour
	projectionDays     = 30
	// monthHours is the length of a month that flat plans are divided by: a twelfth of 365.25 days.
	monthHours = 730.5

	keySimulated = "simulated"
)

const projectionFormula = "cost = cost_per_call x calls_per_day x days; cost_per_call = the cost of the priced calls in the window / their number"

type spendStore interface {
	Spend(ctx context.Context, tenant uuid.UUID, q store.SpendQuery) ([]store.SpendRow, error)
}

// GetSpend adds up what was spent.
func (a *API) GetSpend(ctx context.Context, req GetSpendRequestObject) (GetSpendResponseObject, error) {
	x := exchangeOf(ctx)
	q, err := spendQuery(req.Params, time.Now())
	if err != nil {
		return nil, err
	}
	report := &spendReport{query: q, perDay: orZero(req.Params.PerDay)}
	if err := a.readSpend(ctx, x.tenant, report); err != nil {
		return nil, err
	}
	out := report.wire()
	x.w.Header().Add("Vary", "Accept")
	if x.media == mediaCSV {
		body := spendCSV(out)
		return GetSpend200TextCsvResponse{Body: bytes.NewReader(body), ContentLength: int64(len(body))}, nil
	}
	return GetSpend200JSONResponse(out), nil
}

// spendQuery reads what is asked: whole hours, and always apart by whether models were simulated.
func spendQuery(p GetSpendParams, now time.Time) (store.SpendQuery, error) {
	q := store.SpendQuery{
		To: now, GroupBy: slices.Clone(orZero(p.GroupBy)), Workflow: orZero(p.Workflow), Agent: orZero(p.Agent),
		Provider: orZero(p.Provider), Model: orZero(p.Model), Simulated: p.Simulated,
	}
	if p.To != nil {
		q.To = *p.To
	}
	q.To = q.To.UTC().Add(time.Hour - time.Nanosecond).Truncate(time.Hour)
	q.From = q.To.Add(-spendWindowDefault)
	if p.From != nil {
		q.From = p.From.UTC().Truncate(time.Hour)
	}
	if d := q.To.Sub(q.From); d <= 0 || d > spendWindowMax {
		e := fault.New(fault.KindInvalid, "spend_range", "from must be before to, and at most %d days", int(spendWindowMax.Hours()/24))
		e.Issues = []fault.Issue{{Parameter: "from", Code: e.Code, Detail: e.Detail}}
		return q, e
	}
	if p.Interval != nil {
		q.GroupBy = append(q.GroupBy, string(*p.Interval))
	}
	return q, nil
}

// spendReport is what a report is made of.
type spendReport struct {
	query  store.SpendQuery
	perDay int64

	groups   []store.SpendRow // by what was asked for, then simulated
	byModel  []store.SpendRow // by provider, model, simulated
	overall  []store.SpendRow // by simulated, with runs
	plans    []store.SubscriptionRow
	tierOf   map[string]int
	filtered bool
}

func (a *API) readSpend(ctx context.Context, tenant uuid.UUID, r *spendReport) (err error) {
	by := func(keys ...string) ([]store.SpendRow, error) {
		q := r.query
		q.GroupBy = append(slices.Clone(keys), keySimulated)
		return a.spend.Spend(ctx, tenant, q)
	}
	if r.groups, err = by(r.query.GroupBy...); err != nil {
		return err
	}
	if r.byModel, err = by("provider", "model"); err != nil {
		return err
	}
	if r.overall, err = by(); err != nil {
		return err
	}
	r.filtered = r.query.Workflow+r.query.Agent+r.query.Provider+r.query.Model != ""
	if !r.filtered && (r.query.Simulated == nil || !*r.query.Simulated) {
		if r.plans, err = a.plans.Subscriptions(ctx, tenant); err != nil {
			return err
		}
	}
	r.tierOf = map[string]int{}
	if a.models != nil {
		for _, m := range a.models.Models() {
			r.tierOf[m.Name] = m.Tier
		}
	}
	return nil
}

func (r *spendReport) wire() Spend {
	out := Spend{From: r.query.From, To: r.query.To, GroupBy: append([]string{}, r.query.GroupBy...), Data: []SpendGroup{}}
	sums := map[bool]store.SpendRow{}
	for _, row := range r.byModel {
		sums[isSimulated(row)] = plus(sums[isSimulated(row)], row)
	}
	for _, row := range r.overall {
		sum := sums[isSimulated(row)]
		sum.RunsFinished, sum.RunsSucceeded = row.RunsFinished, row.RunsSucceeded
		sums[isSimulated(row)] = sum
	}
	for _, row := range r.groups {
		out.Data = append(out.Data, r.group(row, sums[isSimulated(row)].Cost))
	}
	out.Totals = r.totals(false, sums[false])
	if sum, ok := sums[true]; ok {
		out.Simulated = r.totals(true, sum)
	}
	if r.perDay > 0 {
		out.Projection = projection(sums, r.perDay)
	}
	return out
}

// isSimulated reads the last key, which this package asks for always.
func isSimulated(row store.SpendRow) bool { return row.Keys[len(row.Keys)-1] == "true" }

func plus(a, b store.SpendRow) store.SpendRow {
	a.Calls += b.Calls
	a.Unpriced += b.Unpriced
	a.Tokens = a.Tokens.Add(b.Tokens)
	a.Cost += b.Cost
	a.Baseline += b.Baseline
	a.CacheSaved += b.CacheSaved
	return a
}

func (r *spendReport) group(row store.SpendRow, of usage.Money) SpendGroup {
	g := SpendGroup{
		Keys: map[string]string{}, Simulated: isSimulated(row), Calls: row.Calls, UnpricedCalls: row.Unpriced, Tokens: tokensOf(row.Tokens),
		Cost: moneyOf(row.Cost), Baseline: moneyOf(row.Baseline), Saved: moneyOf(row.Baseline - row.Cost), CacheSaved: moneyOf(row.CacheSaved),
		SharePercent: percentOf(int64(row.Cost), int64(of)), RunsFinished: row.RunsFinished, RunsSucceeded: row.RunsSucceeded,
	}
	for i, key := range r.query.GroupBy {
		g.Keys[key] = row.Keys[i]
	}
	if row.RunsFinished > 0 {
		g.CostPerFinishedRun = moneyOf(row.Cost / usage.Money(row.RunsFinished))
	}
	return g
}

// totals of the real calls, or of the simulated ones, which have no flat plans.
func (r *spendReport) totals(simulated bool, sum store.SpendRow) SpendTotals {
	t := SpendTotals{
		Calls: sum.Calls, Tokens: tokensOf(sum.Tokens), Variable: moneyOf(sum.Cost), Savings: savingsOf(sum.Cost, sum.Baseline, sum.CacheSaved),
		RunsFinished: sum.RunsFinished, RunsSucceeded: sum.RunsSucceeded, Tiers: r.tiers(simulated, sum.Calls), Unpriced: r.unpriced(simulated),
	}
	total := sum.Cost
	if !simulated && !r.filtered {
		var fixed usage.Money
		for _, p := range r.plans {
			cost, hours := shareOf(p, r.query.From, r.query.To)
			if hours <= 0 {
				continue
			}
			fixed += cost
			t.Subscriptions = append(t.Subscriptions, SubscriptionShare{Name: p.Name, Cost: moneyOf(cost), Days: float64(int(hours/24*100+0.5)) / 100})
		}
		t.Fixed = moneyOf(fixed)
		total += fixed
	}
	t.Total = moneyOf(total)
	if sum.RunsFinished > 0 {
		t.CostPerFinishedRun = moneyOf(total / usage.Money(sum.RunsFinished))
	}
	return t
}

// shareOf is what of a flat plan falls into a window, rounded half up to whole nano-dollars, and for how many hours.
func shareOf(p store.SubscriptionRow, from, to time.Time) (usage.Money, float64) {
	if p.From.After(from) {
		from = p.From
	}
	if p.Until != nil && p.Until.Before(to) {
		to = *p.Until
	}
	held := to.Sub(from)
	if held <= 0 {
		return 0, 0
	}
	month := int64(monthHours * float64(time.Hour))
	n := new(big.Int).Mul(big.NewInt(int64(p.Monthly)), big.NewInt(int64(held)))
	n.Add(n, big.NewInt(month/2)).Quo(n, big.NewInt(month))
	return usage.Money(n.Int64()), held.Hours()
}

// tiers divides the calls by the cost tier of their models.
func (r *spendReport) tiers(simulated bool, calls int64) []TierShare {
	by := map[int]*TierShare{}
	for _, row := range r.byModel {
		if isSimulated(row) != simulated {
			continue
		}
		tier := r.tierOf[row.Keys[1]]
		if by[tier] == nil {
			by[tier] = &TierShare{Tier: tier}
		}
		t := by[tier]
		t.Calls += row.Calls
		t.Cost = moneyOf(usage.Money(t.Cost.NanoUSD) + row.Cost)
	}
	list := []TierShare{}
	for _, t := range by {
		t.SharePercent = orZero(percentOf(t.Calls, calls))
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b TierShare) int { return a.Tier - b.Tier })
	return list
}

// unpriced names the models whose calls are in no amount.
func (r *spendReport) unpriced(simulated bool) []UnpricedModel {
	list := []UnpricedModel{}
	for _, row := range r.byModel {
		if row.Unpriced > 0 && isSimulated(row) == simulated {
			list = append(list, UnpricedModel{Provider: row.Keys[0], Model: row.Keys[1], Calls: row.Unpriced})
		}
	}
	return list
}

// projection goes by the real calls; only where there are none by the simulated ones, and says so.
func projection(sums map[bool]store.SpendRow, perDay int64) Projection {
	simulated := sums[false].Calls == sums[false].Unpriced && sums[true].Calls > sums[true].Unpriced
	sum := sums[simulated]
	p := Projection{CallsPerDay: perDay, Days: projectionDays, Simulated: simulated, Formula: projectionFormula, CostPerCall: moneyOf(0), Cost: moneyOf(0)}
	if priced := sum.Calls - sum.Unpriced; priced > 0 {
		p.CostPerCall = moneyOf(usage.Money((int64(sum.Cost) + priced/2) / priced))
		whole := new(big.Int).Mul(big.NewInt(int64(sum.Cost)), big.NewInt(perDay*projectionDays))
		if whole.Quo(whole, big.NewInt(priced)); whole.IsInt64() {
			p.Cost = moneyOf(usage.Money(whole.Int64()))
		}
	}
	return p
}
