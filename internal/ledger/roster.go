package ledger

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
)

// levelsMax bounds the budgets that are exported as metrics.
const levelsMax = 200

// roster is which budgets there are. It never changes; a new one takes its place.
type roster struct {
	read   time.Time // when it was asked for
	by     map[subject][]*store.BudgetRow
	byID   map[uuid.UUID]*store.BudgetRow
	levels []telemetry.BudgetLevel
}

// subject is what a budget limits.
type subject struct {
	tenant    uuid.UUID
	scope, of string
}

func newRoster(rows []store.BudgetRow, read time.Time) *roster {
	r := &roster{read: read, by: map[subject][]*store.BudgetRow{}, byID: make(map[uuid.UUID]*store.BudgetRow, len(rows))}
	for i := range rows {
		b := &rows[i]
		s := subject{b.Tenant, b.Scope, b.Of}
		r.by[s] = append(r.by[s], b)
		r.byID[b.ID] = b
		if b.Export && len(r.levels) < levelsMax {
			r.levels = append(r.levels, telemetry.BudgetLevel{Name: b.Name, Limit: b.Limit, Spent: b.Spent, Reserved: b.Reserved})
		}
	}
	return r
}

// of finds the budgets that a call falls under, the narrow ones first: they are the ones to be named when it does not
// fit.
func (r *roster) of(c gateway.Charge) []*store.BudgetRow {
	if len(r.by) == 0 {
		return nil
	}
	var found []*store.BudgetRow
	add := func(scope, of string) { found = append(found, r.by[subject{c.Caller.Tenant, scope, of}]...) }
	add(store.ScopeModel, c.Model)
	if c.Known != "" && c.Known != c.Model { // under another name, with a date or a vendor, it is the same model
		add(store.ScopeModel, c.Known)
	}
	add(store.ScopeProvider, c.Provider)
	if c.Caller.Agent != "" {
		add(store.ScopeAgent, c.Caller.Agent)
	}
	if c.Caller.Workflow != "" {
		add(store.ScopeWorkflow, c.Caller.Workflow)
	}
	labels := len(found)
	for key, value := range c.Caller.Labels {
		add(store.ScopeLabel, key+"="+value)
	}
	slices.SortFunc(found[labels:], func(a, b *store.BudgetRow) int { return slices.Compare(a.ID[:], b.ID[:]) })
	found = append(found[:labels], slices.Compact(found[labels:])...) // two labels can read alike: a "b=c", "a=b" "c"
	add(store.ScopeTenant, "")
	return found
}
