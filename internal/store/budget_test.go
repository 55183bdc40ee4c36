package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

func TestBudgets(t *testing.T) {
	db := open(t)
	spec := BudgetSpec{
		Name: "a", Scope: ScopeWorkflow, Of: "wf", Window: WindowMonth, TimeZone: "Europe/Berlin", Limit: 5 * usage.USD, LimitTokens: 7,
		Soft: []int{95, 50, 95}, OnHard: "pause", Export: true,
	}
	row, created, err := db.PutBudget(t.Context(), TenantDefault, spec)
	want := spec
	want.Soft = []int{50, 95}
	if err != nil || !created || row.Resets.Before(time.Now()) || row.WindowStart.After(time.Now()) {
		t.Fatalf("%+v %t %v", row, created, err)
	}
	if diff := cmp.Diff(want, row.BudgetSpec, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	putBudgetFor(t, db, func(s *BudgetSpec) { s.Name = "b" })
	list := must(db.Budgets(t.Context(), TenantDefault, "a", 10))(t)
	if len(list) != 1 || list[0].Name != "b" || list[0].TimeZone != "UTC" || list[0].OnHard != "reject" || !list[0].WindowStart.IsZero() {
		t.Errorf("after a: %+v", list)
	}
	for name, edit := range map[string]func(*BudgetSpec){
		"no name":                    func(s *BudgetSpec) { s.Name = "" },
		"unknown scope":              func(s *BudgetSpec) { s.Scope = "team" },
		"tenant's name":              func(s *BudgetSpec) { s.Scope = ScopeTenant },
		"whose agent":                func(s *BudgetSpec) { s.Scope, s.Of = ScopeAgent, "" },
		"no window":                  func(s *BudgetSpec) { s.Window = "year" },
		"no limit":                   func(s *BudgetSpec) { s.Limit, s.LimitTokens = 0, 0 },
		"negative":                   func(s *BudgetSpec) { s.Limit = -1 },
		"nothing to do":              func(s *BudgetSpec) { s.OnHard = "shout" },
		"soft at zero":               func(s *BudgetSpec) { s.Soft = []int{0} },
		"too many softs":             func(s *BudgetSpec) { s.Soft = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} },
		"no such zone":               func(s *BudgetSpec) { s.TimeZone = "Mars/Olympus" },
		"no such zone, of a new one": func(s *BudgetSpec) { s.Name, s.TimeZone = "new", "Mars/Olympus" },
	} {
		wrong := spec
		edit(&wrong)
		if _, _, err := db.PutBudget(t.Context(), TenantDefault, wrong); !fault.Is(err, fault.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	moved := spec
	moved.Of = "other"
	if _, _, err := db.PutBudget(t.Context(), TenantDefault, moved); !fault.Is(err, fault.KindConflict) {
		t.Errorf("it comes to limit something else: %v", err)
	}
	if _, err := db.Budget(t.Context(), id(), "a"); !fault.Is(err, fault.KindNotFound) {
		t.Errorf("another tenant's: %v", err)
	}
	if err := db.DeleteBudget(t.Context(), TenantDefault, "a"); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteBudget(t.Context(), TenantDefault, "a"); !fault.Is(err, fault.KindNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

// Runs that wait for money are told when there may be some, each once, and no others.
func TestRaisedBudgetWakesRuns(t *testing.T) {
	db := open(t)
	s, conn := newShard(t, db), direct(t, db)
	held := func(reason string) uuid.UUID {
		run := submit(t, s, flow.RunStatusRunning)
		r := row(flow.RunStatusWaiting)
		r.WaitingFor = reason
		if err := s.commit(t.Context(), Change{Run: run, Row: r}); err != nil {
			t.Fatal(err)
		}
		return run
	}
	first, second := held("budget"), held("budget")
	held("retry")
	budget := putBudgetFor(t, db, nil)
	told := func(when string, want ...uuid.UUID) {
		t.Helper()
		list := must(db.RunInbox(t.Context(), []uuid.UUID{first, second}))(t)
		got := make([]uuid.UUID, 0, len(list))
		for _, m := range list {
			if m.Kind != MessageBudget || string(m.Body) != "{}" {
				t.Errorf("%s: told %s %s", when, m.Kind, m.Body)
			}
			got = append(got, m.Run)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || ask[int](t, conn, `select count(*) from inbox`) != len(want) {
			t.Errorf("%s:\n%s", when, diff)
		}
		do(t, conn, `delete from inbox`)
	}
	told("made")
	put := func(edit func(*BudgetSpec)) {
		edit(&budget.BudgetSpec)
		must(one2(db.PutBudget(t.Context(), TenantDefault, budget.BudgetSpec)))(t)
	}
	put(func(s *BudgetSpec) { s.Limit /= 2; s.OnHard = "pause" })
	told("lowered")
	put(func(s *BudgetSpec) { s.Limit++ })
	told("raised", first, second)
	put(func(s *BudgetSpec) { s.LimitTokens = 10 })
	told("bounded in tokens as well")
	put(func(s *BudgetSpec) { s.LimitTokens = 0 })
	told("no longer bounded in tokens", first, second)
	if err := db.DeleteBudget(t.Context(), TenantDefault, budget.Name); err != nil {
		t.Fatal(err)
	}
	told("deleted", first, second)
}

func one2[A, B any](a A, _ B, err error) (A, error) { return a, err }

// Whatever is reserved and settled, in whatever batches and order: what was spent is the sum of what was settled, what
// is reserved the sum of what is held, and what did not fit is what did not fit one by one.
func TestBooksBalance(t *testing.T) {
	db := open(t)
	conn, b := direct(t, db), newBooks(t, db)
	rapid.Check(t, func(rt *rapid.T) {
		do(t, conn, `truncate budget, budget_window, reservation`)
		limits := rapid.SliceOfN(rapid.Int64Range(1, 300), 1, 3).Draw(rt, "limits")
		budgets := make([]BudgetRow, len(limits))
		for i, limit := range limits {
			budgets[i] = putBudgetFor(t, db, func(s *BudgetSpec) { s.Limit = usage.Money(limit) })
		}
		m := model{limit: limits, spent: make([]int64, len(limits)), reserved: make([]int64, len(limits)), held: map[uuid.UUID]HoldNew{}}
		for range rapid.IntRange(1, 6).Draw(rt, "batches") {
			booking := Booking{Node: b.node}
			for _, row := range budgets {
				booking.Needs = append(booking.Needs, Need{ID: row.ID})
			}
			for _, id := range m.order {
				if _, ok := m.held[id]; ok && rapid.Bool().Draw(rt, "end") {
					booking.Ends = append(booking.Ends, HoldEnd{ID: id, Spent: usage.Money(rapid.Int64Range(0, 60).Draw(rt, "spent"))})
				}
			}
			for range rapid.IntRange(0, 12).Draw(rt, "holds") {
				booking.Holds = append(booking.Holds, HoldNew{
					ID: id(), Tenant: TenantDefault, Amount: usage.Money(rapid.Int64Range(0, 60).Draw(rt, "amount")),
					Needs: rapid.SliceOfNDistinct(rapid.Int16Range(0, int16(len(limits)-1)), 1, -1, rapid.ID).Draw(rt, "needs"),
				})
			}
			refused := m.book(booking)
			booked := b.book(booking)
			got := make([]int, 0, len(booked.Refused))
			for i := range booked.Refused {
				got = append(got, i)
			}
			slices.Sort(got)
			if diff := cmp.Diff(refused, got, cmpopts.EquateEmpty()); diff != "" {
				rt.Fatalf("refused:\n%s", diff)
			}
			for i, row := range budgets {
				want := [][2]int64{{m.spent[i], m.reserved[i]}}
				if got := levels(t, conn, row.ID); len(got) > 0 && !slices.Equal(got, want) || len(got) == 0 && want[0] != [2]int64{} {
					rt.Fatalf("budget %d: %v, want %v", i, got, want)
				}
			}
		}
	})
}

// model is what books ought to be.
type model struct {
	limit, spent, reserved []int64
	held                   map[uuid.UUID]HoldNew
	order                  []uuid.UUID
}

func (m *model) book(b Booking) (refused []int) {
	for _, e := range b.Ends {
		for _, n := range m.held[e.ID].Needs {
			m.spent[n] += int64(e.Spent)
			m.reserved[n] -= int64(m.held[e.ID].Amount)
		}
		delete(m.held, e.ID)
	}
	for i, h := range b.Holds {
		if slices.ContainsFunc(h.Needs, func(n int16) bool { return m.spent[n]+m.reserved[n]+int64(h.Amount) > m.limit[n] }) {
			refused = append(refused, i)
			continue
		}
		for _, n := range h.Needs {
			m.reserved[n] += int64(h.Amount)
		}
		m.held[h.ID], m.order = h, append(m.order, h.ID)
	}
	return refused
}

// The hot statements of budgets never read a table from end to end, also when nothing is known about the tables' size.
func TestBookingsGoByIndexes(t *testing.T) {
	db := open(t)
	conn, b := direct(t, db), newBooks(t, db)
	do(t, conn, `alter table reservation set (autovacuum_enabled = off); alter table budget_window set (autovacuum_enabled = off); alter table budget set (autovacuum_enabled = off)`)
	budget := putBudgetFor(t, db, func(s *BudgetSpec) { s.Soft = []int{1} })
	hold, _ := b.reserve(1, budget) // plans are made on empty tables, and kept
	b.settle(hold, 1)
	do(t, conn, `insert into reservation (node, id, state, nano, tokens, windows) select gen_random_uuid(), gen_random_uuid(), 'lost', 1, 1, '{}' from generate_series(1, 20000)`)
	do(t, conn, `insert into budget_window (budget, run, started) select gen_random_uuid(), true, 'epoch' from generate_series(1, 20000)`)
	do(t, conn, `insert into budget select gen_random_uuid(), $1, 'x' || n, 'tenant', '', 'day', 'UTC', 1, 0, '{}', 'reject', false from generate_series(1, 5000) n`, TenantDefault)
	flushStats := func() {
		do(t, conn, `select pg_stat_force_next_flush()`)
		if r := b.conn.ExecParams(t.Context(), `select pg_stat_force_next_flush()`, nil, nil, nil, nil).Read(); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	const scans = `select coalesce(sum(seq_tup_read), 0)::int from pg_stat_user_tables where relname in ('reservation', 'budget_window', 'budget')`
	flushStats()
	before := ask[int](t, conn, scans)
	for range 20 {
		hold, refused := b.reserve(1_000_000, budget)
		if refused != nil {
			t.Fatal(refused)
		}
		b.settle(hold, 20_000_000)
	}
	b.reserve(2*usage.USD, budget)
	flushStats()
	if read := ask[int](t, conn, scans) - before; read > 0 {
		t.Errorf("%d rows were read by scans", read)
	}
	engine, err := pgx.ConnectConfig(t.Context(), db.conn)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close(t.Context())
	for name, c := range map[string]struct {
		sql, index string
		literals   []string
	}{
		"dead holds":  {deadHoldsSQL, "reservation_pkey", []string{"'30 s'", "500"}},
		"search log":  {eventsNamingSQL, "event_other_pkey", []string{"'" + id().String() + "'", "'x'", "10"}},
		"wake runs":   {wakeHeldSQL, "run_list", []string{"'" + TenantDefault.String() + "'", "10000"}},
		"breakers":    {breakersSQL, "breaker_changed", []string{"now()", "1000"}},
		"run budgets": {sweepRunBudgetsSQL, "budget_window_run", []string{"'1 hour'", "1000"}},
	} {
		e := explain(t, engine, c.sql, c.literals...)
		if !slices.ContainsFunc(e.indexes, func(i string) bool {
			return strings.HasPrefix(i, c.index) || strings.HasSuffix(c.index, "_pkey") && strings.HasSuffix(i, "_pkey")
		}) {
			t.Errorf("%s: indexes %v, scans of %v; want %s", name, e.indexes, e.scans, c.index)
		}
		if len(e.scans) > 0 && name != "dead holds" { // leases are few
			t.Errorf("%s: scans of %v", name, e.scans)
		}
	}
}

func TestSpendReport(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	hour := time.Now().UTC().Truncate(time.Hour)
	for i := range 6 {
		run := id()
		status := []flow.RunStatus{flow.RunStatusSucceeded, flow.RunStatusFailed, flow.RunStatusRunning}[i%3]
		fresh := newRun(flow.RunStatusRunning)
		fresh.Workflow = fmt.Sprintf("wf%d", i%2)
		fresh.Labels = map[string]string{"team": []string{"red", "blue"}[i/3]}
		r := row(status)
		r.Sum = usage.Sum{Calls: 2, Cost: 10, Baseline: 30, CacheSaved: 4, Tokens: usage.Tokens{Input: 5}}
		if i == 0 {
			r.Sum.Simulated = 2
		}
		if status == flow.RunStatusFailed {
			r.Error = &flow.Failure{Class: "x", Message: "x"}
		}
		err := s.commit(t.Context(), Change{Run: run, New: fresh, Row: r, Events: events(1, 1), Spend: []SpendLine{{
			Hour: hour.Add(-time.Duration(i) * time.Hour), Tenant: TenantDefault, Workflow: fresh.Workflow, Agent: "a", Provider: "p", Model: fmt.Sprintf("m%d", i%3), Simulated: i == 0,
			Calls: 2, Tokens: usage.Tokens{Input: 5}, Cost: 10, Baseline: 30, CacheSaved: 4,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := must(db.Run(t.Context(), TenantDefault, run))(t); got.Sum != r.Sum {
			t.Errorf("the run's row says %+v, want %+v", got.Sum, r.Sum)
		}
	}
	report := func(edit func(*SpendQuery), keys ...string) []string {
		q := SpendQuery{From: hour.Add(-5 * time.Hour), To: hour.Add(time.Minute), GroupBy: keys}
		if edit != nil {
			edit(&q)
		}
		var lines []string
		for _, r := range must(db.Spend(t.Context(), TenantDefault, q))(t) {
			lines = append(lines, fmt.Sprintf("%s: %d calls, %d in, %d of %d, cached %d, %d/%d runs", strings.Join(r.Keys, " "),
				r.Calls, r.Tokens.Input, r.Cost, r.Baseline, r.CacheSaved, r.RunsSucceeded, r.RunsFinished))
		}
		return lines
	}
	yes := true
	for name, c := range map[string]struct{ got, want []string }{
		"all":         {report(nil), []string{": 12 calls, 30 in, 60 of 180, cached 24, 2/4 runs"}},
		"by model":    {report(nil, "model"), []string{"m0: 4 calls, 10 in, 20 of 60, cached 8, 0/0 runs", "m1: 4 calls, 10 in, 20 of 60, cached 8, 0/0 runs", "m2: 4 calls, 10 in, 20 of 60, cached 8, 0/0 runs"}},
		"by workflow": {report(nil, "workflow"), []string{"wf0: 6 calls, 15 in, 30 of 90, cached 12, 1/2 runs", "wf1: 6 calls, 15 in, 30 of 90, cached 12, 1/2 runs"}},
		"by label":    {report(nil, "label:team"), []string{"blue: 6 calls, 15 in, 30 of 90, cached 12, 1/2 runs", "red: 6 calls, 15 in, 30 of 90, cached 12, 1/2 runs"}},
		"of a model":  {report(func(q *SpendQuery) { q.Model = "m1" }), []string{": 4 calls, 10 in, 20 of 60, cached 8, 0/0 runs"}},
		"simulated":   {report(func(q *SpendQuery) { q.Simulated = &yes }, "provider"), []string{"p: 2 calls, 5 in, 10 of 30, cached 4, 0/0 runs"}},
		"labels, simulated or not": {report(nil, "label:team", "simulated"), []string{
			"blue false: 6 calls, 15 in, 30 of 90, cached 12, 1/2 runs", "red false: 4 calls, 10 in, 20 of 60, cached 8, 0/1 runs", "red true: 2 calls, 5 in, 10 of 30, cached 4, 1/1 runs",
		}},
		"runs, simulated or not": {report(nil, "simulated"), []string{"false: 10 calls, 25 in, 50 of 150, cached 20, 1/3 runs", "true: 2 calls, 5 in, 10 of 30, cached 4, 1/1 runs"}},
		"one hour":               {report(func(q *SpendQuery) { q.From, q.To = hour.Add(-2*time.Hour), hour.Add(-time.Hour) }, "hour"), []string{hour.Add(-2*time.Hour).Format(time.RFC3339) + ": 2 calls, 5 in, 10 of 30, cached 4, 0/0 runs"}},
		"elsewhere":              {report(func(q *SpendQuery) { q.Workflow = "none" }), nil},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	for name, q := range map[string]SpendQuery{
		"backwards":      {From: hour, To: hour.Add(-time.Hour)},
		"unknown key":    {From: hour, To: hour.Add(time.Hour), GroupBy: []string{"cost; drop table run"}},
		"twice":          {From: hour, To: hour.Add(time.Hour), GroupBy: []string{"day", "day"}},
		"label of model": {From: hour, To: hour.Add(time.Hour), GroupBy: []string{"label:a", "model"}},
	} {
		if _, err := db.Spend(t.Context(), TenantDefault, q); !fault.Is(err, fault.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSubscriptionsPricesAndBreakers(t *testing.T) {
	db := open(t)
	now := time.Now().UTC().Truncate(time.Second)
	later := now.Add(time.Hour)
	sub := SubscriptionRow{Name: "max", Monthly: 200 * usage.USD, From: now}
	for i, until := range []*time.Time{nil, &later} {
		sub.Until = until
		if _, created, err := db.PutSubscription(t.Context(), TenantDefault, sub); err != nil || created != (i == 0) {
			t.Errorf("%d: %t %v", i, created, err)
		}
	}
	list := must(db.Subscriptions(t.Context(), TenantDefault))(t)
	if diff := cmp.Diff([]SubscriptionRow{sub}, list, cmpopts.IgnoreFields(SubscriptionRow{}, "UpdatedAt")); diff != "" {
		t.Error(diff)
	}
	sub.Until = &now
	if _, _, err := db.PutSubscription(t.Context(), TenantDefault, sub); !fault.Is(err, fault.KindInvalid) {
		t.Errorf("over before it begins: %v", err)
	}
	if err := db.DeleteSubscription(t.Context(), TenantDefault, "max"); err != nil {
		t.Error(err)
	}
	if err := db.DeleteSubscription(t.Context(), TenantDefault, "max"); !fault.Is(err, fault.KindNotFound) {
		t.Error(err)
	}
	for _, rows := range [][]PriceOverride{
		{{Model: "m", Body: []byte(`{"model":"m","input":"1"}`)}},
		{{Model: "m", Body: []byte(`{"model":"m","input":"2"}`)}, {Model: "m", EffectiveFrom: now, Body: []byte(`{}`)}},
	} {
		if err := db.PutPrices(t.Context(), TenantDefault, "m", rows); err != nil {
			t.Fatal(err)
		}
	}
	prices := must(db.AllPrices(t.Context()))(t)
	if len(prices) != 2 || string(prices[0].Body) != `{"model":"m","input":"2"}` || !prices[0].EffectiveFrom.IsZero() || !prices[1].EffectiveFrom.Equal(now) {
		t.Errorf("%+v", prices)
	}
	if err := db.PutPrices(t.Context(), TenantDefault, "n", make([]PriceOverride, pricesMax-1)); !fault.Is(err, fault.KindTooLarge) {
		t.Errorf("too many: %v", err)
	}
	if err := db.DeletePrices(t.Context(), TenantDefault, "m"); err != nil || len(must(db.Prices(t.Context(), TenantDefault))(t)) != 0 {
		t.Error(err)
	}
	if err := db.DeletePrices(t.Context(), TenantDefault, "m"); !fault.Is(err, fault.KindNotFound) {
		t.Error(err)
	}
	b := BreakerRow{ID: "p/m", Node: id(), Action: "opened", Reason: "server", Until: later, At: now}
	held := BreakerRow{ID: "p/m", Node: b.Node, ByHand: true, Action: "held", At: now}
	for _, row := range []BreakerRow{b, held, b} {
		if err := db.PutBreaker(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	rows := must(db.Breakers(t.Context(), time.Time{}))(t)
	if diff := cmp.Diff([]BreakerRow{held, b}, rows, cmpopts.IgnoreFields(BreakerRow{}, "ChangedAt")); diff != "" {
		t.Error(diff)
	}
	if rows := must(db.Breakers(t.Context(), rows[1].ChangedAt.Add(time.Microsecond)))(t); len(rows) != 0 {
		t.Errorf("news of later: %+v", rows)
	}
}

// What a child has cost stands in its own row and in that of the run around it: a report by label counts it once.
func TestSpendOfChildren(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	parent := id()
	add := func(run uuid.UUID, status flow.RunStatus, calls int, edit func(*NewRun)) {
		t.Helper()
		fresh := newRun(flow.RunStatusRunning)
		fresh.Labels = map[string]string{"team": "red"}
		if edit != nil {
			edit(fresh)
		}
		r := row(status)
		r.Sum = usage.Sum{Calls: calls, Cost: usage.Money(10 * calls), Tokens: usage.Tokens{Input: int64(calls)}}
		if err := s.commit(t.Context(), Change{Run: run, New: fresh, Row: r, Events: events(1, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	inside := func(of uuid.UUID) func(*NewRun) {
		return func(n *NewRun) { n.Parent, n.ParentStep, n.Workflow = of, "sub", "child" }
	}
	child := id()
	add(parent, flow.RunStatusSucceeded, 2+4+1, nil) // itself, the first child with the one inside it, the second
	add(child, flow.RunStatusSucceeded, 1+3, inside(parent))
	add(id(), flow.RunStatusSucceeded, 3, inside(child))
	add(id(), flow.RunStatusFailed, 1, inside(parent))
	other := id()
	add(other, flow.RunStatusRunning, 5, nil)
	add(id(), flow.RunStatusRunning, 20, inside(other)) // it has not ended
	late := id()
	add(late, flow.RunStatusRunning, 1, nil)
	add(id(), flow.RunStatusSucceeded, 7, inside(late)) // it has just ended: its parent does not know yet
	hour := time.Now().UTC().Truncate(time.Hour)
	report := func(workflow string) string {
		t.Helper()
		rows := must(db.Spend(t.Context(), TenantDefault, SpendQuery{From: hour.Add(-time.Hour), To: hour.Add(time.Hour), GroupBy: []string{"label:team"}, Workflow: workflow}))(t)
		if len(rows) != 1 {
			t.Fatalf("%+v", rows)
		}
		return fmt.Sprintf("%s: %d calls, %d, %d in, %d runs", rows[0].Keys[0], rows[0].Calls, rows[0].Cost, rows[0].Tokens.Input, rows[0].RunsFinished)
	}
	if got, want := report(""), "red: 40 calls, 400, 40 in, 5 runs"; got != want {
		t.Errorf("all: %s, want %s", got, want)
	}
	if got, want := report("child"), "red: 32 calls, 320, 32 in, 4 runs"; got != want {
		t.Errorf("of the children: %s, want %s", got, want)
	}
}

// The budget of a step is its run's: it is kept as long as that goes on, and for a while after its end.
func TestBudgetOfAStepIsSwept(t *testing.T) {
	db := open(t)
	s, conn, b := newShard(t, db), direct(t, db), newBooks(t, db)
	run, step, hold := submit(t, s, flow.RunStatusRunning), id(), id()
	needs := []Need{{ID: step, Run: run, Limit: 100}, {ID: run, Run: run, Limit: 100}}
	slices.SortFunc(needs, func(a, c Need) int { return slices.Compare(a.ID[:], c.ID[:]) })
	b.book(Booking{Node: b.node, Needs: needs, Holds: []HoldNew{{ID: hold, Tenant: TenantDefault, Run: run, Amount: 60, Needs: []int16{0, 1}}}})
	left := func(want int) {
		t.Helper()
		must(db.SweepHolds(t.Context(), 100))(t)
		if n := ask[int](t, conn, `select count(*) from budget_window where run`); n != want {
			t.Errorf("%d budgets are left, want %d", n, want)
		}
	}
	left(2)
	b.settle(hold, 40)
	wantLevels(t, conn, step, [2]int64{40, 0})
	left(2)
	if err := s.commit(t.Context(), Change{Run: run, Row: row(flow.RunStatusSucceeded), Events: events(2, 2)}); err != nil {
		t.Fatal(err)
	}
	left(2)
	if _, err := conn.Exec(t.Context(), `alter table run disable trigger user; update run set finished_at = finished_at - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	left(0)
}
