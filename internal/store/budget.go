package store

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

// What a budget limits.
const (
	ScopeTenant   = "tenant"
	ScopeWorkflow = "workflow"
	ScopeAgent    = "agent"
	ScopeProvider = "provider"
	ScopeModel    = "model"
	ScopeLabel    = "label"
)

// Windows of a budget: when it begins anew.
const (
	WindowLifetime = "lifetime"
	WindowDay      = "day"
	WindowWeek     = "week"
	WindowMonth    = "month"
)

// Limits of budgets.
const (
	budgetsMax  = 10_000               // of all tenants: every node keeps them in memory
	softMax     = 10                   // soft limits of one budget
	softPercent = 1_000                // the highest one: a limit can be overdrawn by what was under-estimated
	limitMax    = usage.Money(1) << 60 // a billion dollars and some
	wakeMax     = 10_000               // runs woken by one raise
)

// BudgetSpec says what a budget limits, and to what.
type BudgetSpec struct {
	Name        string
	Scope, Of   string      // what it limits, and its name; for a label "key=value", for the tenant nothing
	Window      string      // lifetime, day, week (from Monday) or month
	TimeZone    string      // where windows begin: an IANA name; empty: UTC
	Limit       usage.Money // 0: none in money
	LimitTokens int64       // 0: none in tokens
	Soft        []int       // percents of either limit that are reported once a window when they are passed
	OnHard      string      // what becomes of a call that does not fit: reject, clamp, downgrade or pause
	Export      bool        // as a metric
}

// BudgetRow is a budget with the state of its present window.
type BudgetRow struct {
	BudgetSpec
	ID                          uuid.UUID
	Tenant                      uuid.UUID
	CreatedAt, UpdatedAt        time.Time
	WindowStart                 time.Time // zero: it has but one window
	Resets                      time.Time // zero: never
	Spent, Reserved             usage.Money
	SpentTokens, ReservedTokens int64
	Crossed                     []BudgetCrossing // in this window
}

// BudgetCrossing is a soft limit that was passed.
type BudgetCrossing struct {
	Percent int
	At      time.Time
}

const budgetColumns = `b.id, b.tenant_id, b.name, b.scope, b.scope_of, b.period, b.time_zone, b.limit_nano, b.limit_tokens, b.soft, b.on_hard,
	b.export, b.created_at, b.updated_at, s.start, coalesce(budget_end(b.period, b.time_zone, s.start), 'epoch'),
	coalesce(w.spent_nano, 0), coalesce(w.reserved_nano, 0), coalesce(w.spent_tokens, 0), coalesce(w.reserved_tokens, 0),
	coalesce(w.crossed, '{}'), coalesce(w.crossed_at, '{}')`

const budgetFrom = ` from budget b cross join lateral (select budget_start(b.period, b.time_zone, now()) as start) s
	left join budget_window w on w.budget = b.id and w.started = s.start `

func scanBudget(row pgx.CollectableRow) (b BudgetRow, err error) {
	var soft, crossed []int16
	var at []time.Time
	err = row.Scan(&b.ID, &b.Tenant, &b.Name, &b.Scope, &b.Of, &b.Window, &b.TimeZone, &b.Limit, &b.LimitTokens, &soft, &b.OnHard,
		&b.Export, &b.CreatedAt, &b.UpdatedAt, &b.WindowStart, &b.Resets,
		&b.Spent, &b.Reserved, &b.SpentTokens, &b.ReservedTokens, &crossed, &at)
	for _, p := range soft {
		b.Soft = append(b.Soft, int(p))
	}
	for i := range min(len(crossed), len(at)) {
		b.Crossed = append(b.Crossed, BudgetCrossing{Percent: int(crossed[i]), At: at[i].UTC()})
	}
	b.CreatedAt, b.UpdatedAt = b.CreatedAt.UTC(), b.UpdatedAt.UTC()
	b.WindowStart, b.Resets = sinceEpoch(b.WindowStart), sinceEpoch(b.Resets)
	return b, err
}

// sinceEpoch takes the epoch for what it stands for in these tables: no time at all.
func sinceEpoch(t time.Time) time.Time {
	if t.Unix() == 0 {
		return time.Time{}
	}
	return t.UTC()
}

// epochOf is how these tables keep a time: the epoch for none at all.
func epochOf(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

// Budgets lists a tenant's budgets after a name, by name.
func (db *DB) Budgets(ctx context.Context, tenant uuid.UUID, after string, limit int) ([]BudgetRow, error) {
	return collect(ctx, db.api, "list budgets", scanBudget,
		`select `+budgetColumns+budgetFrom+`where b.tenant_id = $1 and b.name > $2 order by b.name limit $3`,
		tenant, clean(after), min(limit, rowsMax))
}

// AllBudgets lists the budgets of all tenants: what a node checks calls against.
func (db *DB) AllBudgets(ctx context.Context) ([]BudgetRow, error) {
	return collect(ctx, db.background, "read budgets", scanBudget, allBudgetsSQL, budgetsMax)
}

const allBudgetsSQL = `select ` + budgetColumns + budgetFrom + `order by b.id limit $1`

// Budget reads a tenant's budget.
func (db *DB) Budget(ctx context.Context, tenant uuid.UUID, name string) (BudgetRow, error) {
	return readBudget(ctx, db.api, tenant, name)
}

func readBudget(ctx context.Context, q querier, tenant uuid.UUID, name string) (BudgetRow, error) {
	b, err := one(ctx, q, "read budget", scanBudget,
		`select `+budgetColumns+budgetFrom+`where b.tenant_id = $1 and b.name = $2`, tenant, clean(name))
	if isNoRows(err) {
		return BudgetRow{}, fault.New(fault.KindNotFound, "budget_not_found", "there is no budget %s", name)
	}
	return b, err
}

// PutBudget makes a budget, or changes the limits of one. What a budget limits does not change: what was spent under it
// would mean something else. Runs that wait for money are told if it may let them in.
func (db *DB) PutBudget(ctx context.Context, tenant uuid.UUID, spec BudgetSpec) (row BudgetRow, created bool, err error) {
	if spec, err = spec.checked(); err != nil {
		return BudgetRow{}, false, err
	}
	err = within(ctx, db.api, "put budget", func(tx pgx.Tx) error {
		row, created, err = putBudget(ctx, tx, tenant, spec)
		return err
	})
	if err != nil {
		return BudgetRow{}, false, err
	}
	return row, created, nil
}

func putBudget(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, spec BudgetSpec) (row BudgetRow, created bool, err error) {
	// Those who put budgets of a tenant take turns, so that their number is kept.
	if _, err := exec(ctx, tx, "lock budgets", `select pg_advisory_xact_lock(hashtextextended('budgets', 0))`); err != nil {
		return BudgetRow{}, false, err
	}
	_, err = one(ctx, tx, "look up time zone", pgx.RowTo[time.Time], `select now() at time zone $1`, spec.TimeZone)
	if isState(err, stateInvalidParameter) {
		return BudgetRow{}, false, invalidBudget("time_zone", "there is no time zone %q; give an IANA name like Europe/Berlin", spec.TimeZone)
	}
	if err != nil {
		return BudgetRow{}, false, err
	}
	former, err := readBudget(ctx, tx, tenant, spec.Name)
	switch {
	case fault.Is(err, fault.KindNotFound):
		created = true
		err = insertBudget(ctx, tx, tenant, spec)
	case err != nil:
	case former.Scope != spec.Scope || former.Of != spec.Of:
		err = fault.New(fault.KindConflict, "budget_scope_fixed",
			"budget %s limits the %s; make another one for the %s", spec.Name, scopeName(former.Scope, former.Of), scopeName(spec.Scope, spec.Of))
	case former.Window != spec.Window || former.TimeZone != spec.TimeZone:
		// What was spent stands in windows of the former kind: another one would begin at nothing.
		err = fault.New(fault.KindConflict, "budget_window_fixed", "budget %s counts by the %s of %s; make another one to count by the %s of %s",
			spec.Name, former.Window, former.TimeZone, spec.Window, spec.TimeZone)
	default:
		err = updateBudget(ctx, tx, former, spec)
	}
	if err != nil {
		return BudgetRow{}, false, err
	}
	row, err = readBudget(ctx, tx, tenant, spec.Name)
	return row, created, err
}

func scopeName(scope, of string) string {
	if of == "" {
		return scope
	}
	return scope + " " + of
}

func insertBudget(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, s BudgetSpec) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	n, err := exec(ctx, tx, "insert budget",
		`insert into budget (id, tenant_id, name, scope, scope_of, period, time_zone, limit_nano, limit_tokens, soft, on_hard, export)
		select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
		where (select count(*) from budget) < $13`,
		id, tenant, s.Name, s.Scope, s.Of, s.Window, s.TimeZone, s.Limit, s.LimitTokens, percents(s.Soft), s.OnHard, s.Export, budgetsMax)
	if err == nil && n == 0 {
		return fault.New(fault.KindTooLarge, "too_many_budgets", "there are %d budgets, and that is the limit", budgetsMax)
	}
	return err
}

func updateBudget(ctx context.Context, tx pgx.Tx, former BudgetRow, s BudgetSpec) error {
	_, err := exec(ctx, tx, "update budget",
		`update budget set period = $2, time_zone = $3, limit_nano = $4, limit_tokens = $5, soft = $6, on_hard = $7, export = $8, updated_at = now()
		where id = $1`,
		former.ID, s.Window, s.TimeZone, s.Limit, s.LimitTokens, percents(s.Soft), s.OnHard, s.Export)
	if err != nil {
		return err
	}
	raised := func(was, is int64) bool { return was > 0 && (is == 0 || is > was) }
	if !raised(int64(former.Limit), int64(s.Limit)) && !raised(former.LimitTokens, s.LimitTokens) && former.Window == s.Window {
		return nil
	}
	return wakeHeld(ctx, tx, former.Tenant)
}

// wakeHeld tells the runs that wait for money to try again. Those that still do not fit wait again.
func wakeHeld(ctx context.Context, q querier, tenant uuid.UUID) error {
	_, err := exec(ctx, q, "wake runs that wait for money", wakeHeldSQL, tenant, wakeMax)
	return err
}

const wakeHeldSQL = `insert into inbox (run_id, kind, data)
	select r.id, '` + MessageBudget + `', '{}' from run r
	where r.tenant_id = $1 and r.status = 'waiting' and r.waiting_for = '` + flow.HeldBudget + `'
	order by r.tenant_id, r.status, r.id limit $2`

// DeleteBudget ends a budget. Calls at work under it are settled in the budgets that remain.
func (db *DB) DeleteBudget(ctx context.Context, tenant uuid.UUID, name string) error {
	return within(ctx, db.api, "delete budget", func(tx pgx.Tx) error {
		b, err := readBudget(ctx, tx, tenant, name)
		if err != nil {
			return err
		}
		if _, err := exec(ctx, tx, "delete budget", `delete from budget where id = $1`, b.ID); err != nil {
			return err
		}
		if _, err := exec(ctx, tx, "delete windows of budget", `delete from budget_window where budget = $1`, b.ID); err != nil {
			return err
		}
		return wakeHeld(ctx, tx, tenant)
	})
}

func percents(list []int) []int16 {
	out := make([]int16, len(list))
	for i, p := range list {
		out[i] = int16(p) //nolint:gosec // checked: at most softPercent
	}
	return out
}

// checked fills in what was left out and refuses what makes no sense.
func (s BudgetSpec) checked() (BudgetSpec, error) {
	if s.TimeZone == "" {
		s.TimeZone = "UTC"
	}
	if s.OnHard == "" {
		s.OnHard = "reject"
	}
	s.Name, s.Of, s.TimeZone = clean(s.Name), clean(s.Of), clean(s.TimeZone)
	s.Soft = slices.Clone(s.Soft)
	slices.Sort(s.Soft)
	s.Soft = slices.Compact(s.Soft)
	switch {
	case s.Name == "":
		return s, invalidBudget("name", "a budget needs a name")
	case !slices.Contains([]string{ScopeTenant, ScopeWorkflow, ScopeAgent, ScopeProvider, ScopeModel, ScopeLabel}, s.Scope):
		return s, invalidBudget("scope", "%q cannot be limited; a tenant, workflow, agent, provider, model or label can", s.Scope)
	case (s.Of == "") != (s.Scope == ScopeTenant):
		return s, invalidBudget("of", "a budget of a %s needs its name; one of the tenant has none", s.Scope)
	case !slices.Contains([]string{WindowLifetime, WindowDay, WindowWeek, WindowMonth}, s.Window):
		return s, invalidBudget("window", "%q is no window; lifetime, day, week and month are", s.Window)
	case !slices.Contains([]string{"reject", "clamp", "downgrade", "pause"}, s.OnHard):
		return s, invalidBudget("on_hard", "%q is nothing to do; reject, clamp, downgrade and pause are", s.OnHard)
	case s.Limit < 0 || s.LimitTokens < 0 || s.Limit == 0 && s.LimitTokens == 0:
		return s, invalidBudget("limit", "a budget needs a limit above zero, in money or in tokens")
	case s.Limit > limitMax || s.LimitTokens > int64(limitMax):
		return s, invalidBudget("limit", "a limit is at most $%s, or %d tokens", limitMax, int64(limitMax))
	case len(s.Soft) > softMax:
		return s, invalidBudget("soft", "a budget has at most %d soft limits", softMax)
	case len(s.Soft) > 0 && (s.Soft[0] < 1 || s.Soft[len(s.Soft)-1] > softPercent):
		return s, invalidBudget("soft", "a soft limit is from 1 to %d percent", softPercent)
	}
	return s, nil
}

func invalidBudget(field, format string, args ...any) error {
	f := fault.New(fault.KindInvalid, "budget_invalid", format, args...)
	f.Issues = []fault.Issue{{Pointer: "/" + field, Code: "invalid", Detail: f.Detail}}
	return f
}
