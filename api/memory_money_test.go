package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
)

// memoryMoney is what memory keeps of money.
type memoryMoney struct {
	budgets   map[string]store.BudgetRow
	plans     map[string]store.SubscriptionRow
	prices    map[string][]store.PriceOverride
	lines     []spendLine
	level     store.RunLevel
	refreshed int
	ledgerErr error
}

// spendLine is what was spent in an hour; runs are counted where a report asks for none of its other keys.
type spendLine struct {
	hour                             time.Time
	workflow, agent, provider, model string
	simulated                        bool
	sum                              store.SpendRow
}

func newMemoryMoney() memoryMoney {
	return memoryMoney{budgets: map[string]store.BudgetRow{}, plans: map[string]store.SubscriptionRow{}, prices: map[string][]store.PriceOverride{}}
}

func (m *memory) Budget(_ context.Context, _ uuid.UUID, name string) (store.BudgetRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.money.budgets[name]
	if !ok {
		return row, fault.New(fault.KindNotFound, "budget_not_found", "there is no budget %s", name)
	}
	return row, nil
}

func (m *memory) Budgets(_ context.Context, _ uuid.UUID, after string, limit int) ([]store.BudgetRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []store.BudgetRow
	for _, name := range slices.Sorted(maps.Keys(m.money.budgets)) {
		if name > after {
			rows = append(rows, m.money.budgets[name])
		}
	}
	return rows[:min(limit, len(rows))], nil
}

func (m *memory) PutBudget(_ context.Context, tenant uuid.UUID, spec store.BudgetSpec) (store.BudgetRow, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, known := m.money.budgets[spec.Name]
	switch {
	case (spec.Of == "") != (spec.Scope == store.ScopeTenant):
		return row, false, fault.New(fault.KindInvalid, "budget_invalid", "a budget of a %s needs its name", spec.Scope)
	case known && (row.Scope != spec.Scope || row.Of != spec.Of):
		return row, false, fault.New(fault.KindConflict, "budget_scope_fixed", "make another one")
	case !known:
		row.CreatedAt = time.Now()
	}
	row.BudgetSpec, row.Tenant, row.UpdatedAt = spec, tenant, time.Now()
	m.money.budgets[spec.Name] = row
	return row, !known, nil
}

func (m *memory) DeleteBudget(_ context.Context, _ uuid.UUID, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.money.budgets[name]; !ok {
		return fault.New(fault.KindNotFound, "budget_not_found", "there is no budget %s", name)
	}
	delete(m.money.budgets, name)
	return nil
}

// Refresh makes memory a ledger.
func (m *memory) Refresh(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.money.refreshed++
	return m.money.ledgerErr
}

func (m *memory) RunLevel(context.Context, uuid.UUID, uuid.UUID) (store.RunLevel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.money.level, nil
}

func (m *memory) PutSubscription(_ context.Context, _ uuid.UUID, s store.SubscriptionRow) (store.SubscriptionRow, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.money.plans[s.Name]
	m.money.plans[s.Name] = s
	return s, !known, nil
}

func (m *memory) Subscriptions(context.Context, uuid.UUID) ([]store.SubscriptionRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []store.SubscriptionRow
	for _, name := range slices.Sorted(maps.Keys(m.money.plans)) {
		rows = append(rows, m.money.plans[name])
	}
	return rows, nil
}

func (m *memory) DeleteSubscription(_ context.Context, _ uuid.UUID, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.money.plans[name]; !ok {
		return fault.New(fault.KindNotFound, "subscription_not_found", "there is no subscription %s", name)
	}
	delete(m.money.plans, name)
	return nil
}

func (m *memory) PutPrices(_ context.Context, _ uuid.UUID, model string, rows []store.PriceOverride) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.money.prices[model] = rows
	return nil
}

func (m *memory) Prices(context.Context, uuid.UUID) ([]store.PriceOverride, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []store.PriceOverride
	for _, model := range slices.Sorted(maps.Keys(m.money.prices)) {
		rows = append(rows, m.money.prices[model]...)
	}
	return rows, nil
}

func (m *memory) DeletePrices(_ context.Context, _ uuid.UUID, model string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.money.prices[model] == nil {
		return fault.New(fault.KindNotFound, "price_not_found", "there is no price of one's own for %s", model)
	}
	delete(m.money.prices, model)
	return nil
}

func (l *spendLine) key(name string) string {
	switch name {
	case "workflow":
		return l.workflow
	case "agent":
		return l.agent
	case "provider":
		return l.provider
	case "model":
		return l.model
	case "day":
		return l.hour.Format(time.DateOnly)
	case "hour":
		return l.hour.Format(time.RFC3339)
	case keySimulated:
		if l.simulated {
			return "true"
		}
		return "false"
	}
	return ""
}

func (m *memory) Spend(_ context.Context, _ uuid.UUID, q store.SpendQuery) ([]store.SpendRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return nil, m.down
	}
	sums := map[string]store.SpendRow{}
	for _, l := range m.money.lines {
		if l.hour.Before(q.From) || !l.hour.Before(q.To) || q.Workflow != "" && q.Workflow != l.workflow || q.Agent != "" && q.Agent != l.agent ||
			q.Provider != "" && q.Provider != l.provider || q.Model != "" && q.Model != l.model || q.Simulated != nil && *q.Simulated != l.simulated {
			continue
		}
		var keys []string
		for _, name := range q.GroupBy {
			keys = append(keys, l.key(name))
		}
		key := strings.Join(keys, "\x00")
		sum := plus(sums[key], l.sum)
		sum.Keys = keys
		if !slices.Contains(q.GroupBy, "model") && !slices.Contains(q.GroupBy, "provider") && !slices.Contains(q.GroupBy, "agent") {
			sum.RunsFinished += l.sum.RunsFinished
			sum.RunsSucceeded += l.sum.RunsSucceeded
		}
		sums[key] = sum
	}
	var rows []store.SpendRow
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		rows = append(rows, sums[key])
	}
	return rows, nil
}

// withModels gives a service a gateway whose models are all simulated.
func withModels(t testing.TB) func(*Config) {
	t.Helper()
	p, err := gateway.Connect(gateway.ProviderConfig{Name: "simulated", Kind: gateway.KindSimulated, Fallback: true})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Providers: []gateway.Provider{p}})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Models = g }
}

var errLedger = errors.New("the ledger is away")
