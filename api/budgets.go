package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// Ledger is told that budgets changed through this node, so that its next call goes by the new ones.
type Ledger interface {
	Refresh(ctx context.Context) error
}

// budgetStore keeps budgets and tells where they stand.
type budgetStore interface {
	budgetReader
	PutBudget(ctx context.Context, tenant uuid.UUID, spec store.BudgetSpec) (row store.BudgetRow, created bool, err error)
	DeleteBudget(ctx context.Context, tenant uuid.UUID, name string) error
}

type budgetReader interface {
	Budget(ctx context.Context, tenant uuid.UUID, name string) (store.BudgetRow, error)
	Budgets(ctx context.Context, tenant uuid.UUID, after string, limit int) ([]store.BudgetRow, error)
}

// budgetOfRun is what a run's own budget is called where budgets refuse: no other may have the name.
const budgetOfRun = "run"

// softDefault are the shares of a limit whose crossing is told where nothing else was asked for.
var softDefault = []int{50, 80, 95}

// ListBudgets lists budgets with where they stand.
func (a *API) ListBudgets(ctx context.Context, req ListBudgetsRequestObject) (ListBudgetsResponseObject, error) {
	var after string
	if c := req.Params.Cursor; c != nil {
		if err := parseCursor("budgets", *c, &after); err != nil {
			return nil, err
		}
	}
	limit := limitOf(req.Params.Limit)
	rows, err := a.budgets.Budgets(ctx, exchangeOf(ctx).tenant, after, limit+1)
	if err != nil {
		return nil, err
	}
	page := BudgetPage{Data: []Budget{}}
	for _, row := range rows[:min(limit, len(rows))] {
		page.Data = append(page.Data, budgetOf(row))
	}
	if len(rows) > limit {
		page.NextCursor = formatCursor("budgets", rows[limit-1].Name)
	}
	return ListBudgets200JSONResponse(page), nil
}

// GetBudget shows a budget.
func (a *API) GetBudget(ctx context.Context, req GetBudgetRequestObject) (GetBudgetResponseObject, error) {
	row, err := a.budgets.Budget(ctx, exchangeOf(ctx).tenant, req.Name)
	if err != nil {
		return nil, err
	}
	return GetBudget200JSONResponse(budgetOf(row)), nil
}

// PutBudget makes a budget or changes it; a raised limit wakes the runs that wait for money.
func (a *API) PutBudget(ctx context.Context, req PutBudgetRequestObject) (PutBudgetResponseObject, error) {
	x := exchangeOf(ctx)
	spec, err := budgetSpec(req.Name, req.Body)
	if err != nil {
		return nil, err
	}
	row, created, err := a.budgets.PutBudget(ctx, x.tenant, spec)
	if err != nil {
		return nil, err
	}
	a.refreshLedger(ctx)
	if created {
		return PutBudget201JSONResponse{Body: budgetOf(row), Headers: PutBudget201ResponseHeaders{Location: "/v1/budgets/" + row.Name}}, nil
	}
	return PutBudget200JSONResponse(budgetOf(row)), nil
}

// DeleteBudget ends a budget.
func (a *API) DeleteBudget(ctx context.Context, req DeleteBudgetRequestObject) (DeleteBudgetResponseObject, error) {
	if err := a.budgets.DeleteBudget(ctx, exchangeOf(ctx).tenant, req.Name); err != nil {
		return nil, err
	}
	a.refreshLedger(ctx)
	return DeleteBudget204Response{}, nil
}

// refreshLedger lets what was changed hold on this node at once. It is durable already, and nodes look for themselves
// every few seconds: a failure here is no failure of the request.
func (a *API) refreshLedger(ctx context.Context) {
	if a.ledger == nil {
		return
	}
	if err := a.ledger.Refresh(ctx); err != nil {
		a.log.WarnContext(ctx, "ledger_not_refreshed", "request_id", exchangeOf(ctx).requestID, "error", err)
	}
}

func budgetSpec(name string, body *BudgetRequest) (store.BudgetSpec, error) {
	if name == budgetOfRun {
		e := fault.New(fault.KindInvalid, "budget_name_taken", "%q stands for a run's own budget; choose another name", budgetOfRun)
		e.Issues = []fault.Issue{{Parameter: "name", Code: e.Code, Detail: e.Detail}}
		return store.BudgetSpec{}, e
	}
	limit, err := limitsOf(body.Limit, "/limit")
	if err != nil {
		return store.BudgetSpec{}, err
	}
	spec := store.BudgetSpec{
		Name: name, Scope: string(body.Scope), Of: body.Of, Window: string(body.Window), TimeZone: body.TimeZone,
		Limit: limit.Cost, LimitTokens: limit.Tokens, Soft: softDefault, OnHard: string(body.OnHard), Export: body.Export,
	}
	if body.SoftPercents != nil {
		spec.Soft = slices.Clone(*body.SoftPercents)
	}
	if spec.Window == "" {
		spec.Window = store.WindowMonth
	}
	if spec.OnHard == "" {
		spec.OnHard = string(gateway.OnHardPause)
	}
	return spec, nil
}

// spendLimits are the two limits of a request; 0: none.
type spendLimits struct {
	Cost   usage.Money
	Tokens int64
}

// limitsOf reads the limits that stand at a place of the body; one of nothing at all is refused.
func limitsOf(b RunBudgetRequest, at string) (spendLimits, error) {
	l := spendLimits{Tokens: b.Tokens}
	if b.USD != "" {
		var err error
		if l.Cost, err = parseDollars(b.USD); err != nil {
			return l, err
		}
		if l.Cost == 0 {
			e := fault.New(fault.KindInvalid, "budget_invalid", "a limit must be above zero")
			e.Issues = []fault.Issue{{Pointer: at + "/usd", Code: e.Code, Detail: e.Detail}}
			return l, e
		}
	}
	return l, nil
}

func budgetOf(row store.BudgetRow) Budget {
	inMoney, inTokens := row.Limit > 0, row.LimitTokens > 0
	left := amountOf(max(row.Limit-row.Spent-row.Reserved, 0), max(row.LimitTokens-row.SpentTokens-row.ReservedTokens, 0), inMoney, inTokens)
	out := Budget{
		Name: row.Name, Scope: BudgetScope(row.Scope), Of: row.Of, Window: BudgetWindow(row.Window), TimeZone: row.TimeZone,
		Limit: amountOf(row.Limit, row.LimitTokens, inMoney, inTokens), Left: left,
		Spent: amountOf(row.Spent, row.SpentTokens, true, true), Reserved: amountOf(row.Reserved, row.ReservedTokens, true, true),
		WindowStart: row.WindowStart.UTC(), ResetsAt: row.Resets.UTC(), SoftPercents: append([]int{}, row.Soft...),
		Crossings: []Crossing{}, OnHard: OnHard(row.OnHard), Export: row.Export, CreatedAt: row.CreatedAt.UTC(), UpdatedAt: row.UpdatedAt.UTC(),
	}
	for _, c := range row.Crossed {
		out.Crossings = append(out.Crossings, Crossing{Percent: c.Percent, At: c.At.UTC()})
	}
	return out
}

// refuseBudget says that a budget has no money for a call: which, and where it stands.
func refuseBudget(e *gateway.BudgetError) error {
	r := refuse(http.StatusForbidden, "budget_exhausted", "%s", e.Error())
	amount := func(money usage.Money, tokens int64) BudgetAmount {
		return amountOf(money, tokens, e.Limit > 0, e.LimitTokens > 0)
	}
	r.budget = BudgetRefusal{
		Name: e.Budget, Scope: e.Scope, Limit: amount(e.Limit, e.LimitTokens), Spent: amount(e.Spent, e.SpentTokens),
		Reserved: amount(e.Reserved, e.ReservedTokens), Need: amount(e.Need, e.NeedTokens), ResetsAt: e.Resets.UTC(), Unpriced: e.Unpriced,
	}
	return r
}
