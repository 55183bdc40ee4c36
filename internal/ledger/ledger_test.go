package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/ledger"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/usage"
)

// house is a database with what a test looks at it by.
type house struct {
	t    testing.TB
	url  string
	db   *store.DB
	conn *pgx.Conn
}

func newHouse(t testing.TB) *house {
	t.Helper()
	return houseAt(t, pgtest.New(t))
}

func houseAt(t testing.TB, url string) *house {
	t.Helper()
	h := &house{t: t, url: url}
	var err error
	if h.db, err = store.Open(t.Context(), store.Config{URL: h.url, MaxConns: 12}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.db.Close)
	if h.conn, err = pgx.Connect(t.Context(), h.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.conn.Close(context.Background()) })
	return h
}

func (h *house) do(sql string, args ...any) {
	h.t.Helper()
	if _, err := h.conn.Exec(h.t.Context(), sql, args...); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
}

// outside carries a statement out from another database of the server.
func (h *house) outside(sql string) {
	h.t.Helper()
	cfg, err := pgx.ParseConfig(h.url)
	if err != nil {
		h.t.Fatal(err)
	}
	cfg.Database = "postgres"
	conn, err := pgx.ConnectConfig(h.t.Context(), cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(h.t.Context(), sql); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
}

func ask[T any](h *house, sql string, args ...any) T {
	h.t.Helper()
	var v T
	if err := h.conn.QueryRow(h.t.Context(), sql, args...).Scan(&v); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// never makes Postgres itself refuse every commit after which a budget of the name would hold more than its limit.
func (h *house) never(budget store.BudgetRow) {
	h.do(fmt.Sprintf(`create function held_%[1]s() returns trigger language plpgsql as $$ begin
			if new.spent_nano + new.reserved_nano > %[2]d then raise exception 'overspent: %% + %%', new.spent_nano, new.reserved_nano; end if;
			return new;
		end $$;
		create trigger held_%[1]s before insert or update on budget_window for each row when (new.budget = '%[3]s') execute function held_%[1]s()`,
		budget.Name, int64(budget.Limit), budget.ID))
}

func (h *house) budget(name string, edit func(*store.BudgetSpec)) store.BudgetRow {
	h.t.Helper()
	spec := store.BudgetSpec{Name: name, Scope: store.ScopeTenant, Window: store.WindowLifetime, Limit: usage.USD}
	if edit != nil {
		edit(&spec)
	}
	row, _, err := h.db.PutBudget(h.t.Context(), store.TenantDefault, spec)
	if err != nil {
		h.t.Fatal(err)
	}
	return row
}

func (h *house) state(name string) store.BudgetRow {
	h.t.Helper()
	row, err := h.db.Budget(h.t.Context(), store.TenantDefault, name)
	if err != nil {
		h.t.Fatal(err)
	}
	return row
}

// open starts a node's ledger. It knows the budgets there are.
func (h *house) open(metrics ledger.Metrics) *node {
	h.t.Helper()
	n := &node{house: h, id: uuid.Must(uuid.NewV7())}
	n.Ledger = ledger.New(ledger.Config{Store: h.db, Node: n.id, Metrics: metrics})
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.Run(ctx); err != nil {
			h.t.Error(err)
		}
	}()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	h.t.Cleanup(n.stop)
	if err := n.Refresh(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return n
}

type node struct {
	*ledger.Ledger
	*house
	id   uuid.UUID
	stop func()
}

func charge(cost usage.Money) gateway.Charge {
	return gateway.Charge{
		Caller:   gateway.Caller{Tenant: store.TenantDefault, Run: runID, Step: "s", Gen: 1, Attempt: 1, Workflow: "wf", Agent: "writer", Labels: map[string]string{"team": "red"}},
		Provider: "openai", Model: "gpt-4o", Cost: cost, Tokens: int64(cost),
	}
}

var runID = uuid.Must(uuid.NewV7())

func settlement(c gateway.Charge, hold gateway.Hold, cost usage.Money) gateway.Settlement {
	return gateway.Settlement{Hold: hold, Caller: c.Caller, Call: usage.Call{
		Provider: c.Provider, Model: c.Model, Try: 1, Cost: cost, Tokens: usage.Tokens{Input: int64(cost)}, Hold: hold.ID,
	}}
}

// eventually waits until a question to the database is answered as wanted.
func eventually[T comparable](h *house, want T, sql string, args ...any) {
	h.t.Helper()
	var got T
	for range 2_000 {
		if got = ask[T](h, sql, args...); got == want {
			return
		}
		h.do(`select pg_sleep(0.01)`)
	}
	h.t.Fatalf("%s: %v, want %v", sql, got, want)
}

// notes counts what a ledger counts.
type notes struct {
	mu     sync.Mutex
	denied map[string]int
	noted  map[string]int
	levels []telemetry.BudgetLevel
}

func newNotes() *notes { return &notes{denied: map[string]int{}, noted: map[string]int{}} }

func (n *notes) BudgetDenied(scope, onHard string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.denied[scope+" "+onHard]++
}

func (n *notes) BudgetNoted(note string, count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.noted[note] += count
}

func (n *notes) BudgetLevels(levels []telemetry.BudgetLevel, _ time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.levels = levels
}

func (n *notes) of(note string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.noted[note]
}

// Two hundred calls at once on three nodes, and money for 37: 37 are made, and at no commit is there more than the limit.
func TestNoMoreThanFit(t *testing.T) {
	h := newHouse(t)
	budget := h.budget("shared", func(s *store.BudgetSpec) { s.Limit = 37*10 + 9 })
	h.never(budget)
	counted := newNotes()
	nodes := []*node{h.open(counted), h.open(counted), h.open(counted)}
	var admitted, refused atomic.Int64
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			hold, err := nodes[i%len(nodes)].Reserve(t.Context(), charge(10))
			var short *gateway.BudgetError
			switch {
			case err == nil && hold.ID != uuid.Nil && hold.Amount == 10:
				admitted.Add(1)
			case errors.As(err, &short) && short.Budget == "shared" && short.Scope == "tenant" && short.Left() == 9 && short.Need == 10:
				refused.Add(1)
			default:
				t.Errorf("%+v: %v", hold, err)
			}
		})
	}
	group.Wait()
	if admitted.Load() != 37 || refused.Load() != 163 || counted.denied["tenant reject"] != 163 {
		t.Errorf("%d admitted, %d refused, %v counted", admitted.Load(), refused.Load(), counted.denied)
	}
	if b := h.state("shared"); b.Reserved != 370 || b.Spent != 0 {
		t.Errorf("reserved %d, spent %d", b.Reserved, b.Spent)
	}
}

// A call is set aside in all its budgets or in none; budgets named in whatever order do not stand in one another's way.
func TestAllBudgetsOrNone(t *testing.T) {
	h := newHouse(t)
	wide := h.budget("wide", func(s *store.BudgetSpec) { s.Limit = 1_000_000 })
	narrow := h.budget("narrow", func(s *store.BudgetSpec) { s.Scope, s.Of, s.Limit = store.ScopeLabel, "team=red", 105 })
	blue := h.budget("blue", func(s *store.BudgetSpec) { s.Scope, s.Of, s.Limit = store.ScopeLabel, "team=blue", 1_000_000 })
	for _, b := range []store.BudgetRow{wide, narrow, blue} {
		h.never(b)
	}
	nodes := []*node{h.open(nil), h.open(nil), h.open(nil)}
	var group sync.WaitGroup
	var red, blues atomic.Int64
	for i := range 300 {
		group.Go(func() {
			c := charge(10)
			if i%2 == 0 { // both labels, and a run of its own
				c.Caller.Labels = map[string]string{"team": "blue"}
				c.Caller.Run = uuid.Must(uuid.NewV7())
				c.Caller.Budget = &gateway.RunBudget{Cost: 10}
			}
			hold, err := nodes[i%3].Reserve(t.Context(), c)
			var short *gateway.BudgetError
			switch {
			case err == nil && i%2 == 0:
				blues.Add(1)
				nodes[i%3].Settle(settlement(c, hold, 3))
			case err == nil:
				red.Add(1)
			case !errors.As(err, &short) || short.Budget != "narrow" || short.Scope != "label team=red":
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, n := range nodes {
		n.stop()
	}
	if red.Load() != 10 || blues.Load() != 150 {
		t.Errorf("%d red, %d blue", red.Load(), blues.Load())
	}
	if w, n, b := h.state("wide"), h.state("narrow"), h.state("blue"); w.Reserved != 100 || w.Spent != 450 || n.Reserved != 100 || b.Spent != 450 || b.Reserved != 0 {
		t.Errorf("wide %d %d, narrow %d, blue %d %d", w.Spent, w.Reserved, n.Reserved, b.Spent, b.Reserved)
	}
	if n := ask[int](h, `select deadlocks::int from pg_stat_database where datname = current_database()`); n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

// Fifty calls that pass a soft limit together are one event.
func TestSoftLimitOnceInParallel(t *testing.T) {
	h := newHouse(t)
	h.budget("soft", func(s *store.BudgetSpec) { s.Limit, s.Soft, s.Export = 1_000, []int{80}, true })
	counted := newNotes()
	nodes := []*node{h.open(counted), h.open(counted)}
	holds := make([]gateway.Hold, 50)
	for i := range holds {
		var err error
		if holds[i], err = nodes[i%2].Reserve(t.Context(), charge(20)); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for i, hold := range holds {
		group.Go(func() { nodes[i%2].Settle(settlement(charge(20), hold, 20)) })
	}
	group.Wait()
	eventually(h, 1_000, `select spent_nano::int from budget_window`)
	for _, n := range nodes {
		n.stop()
	}
	if counted.of(ledger.NoteSoft) != 1 || len(h.state("soft").Crossed) != 1 || counted.of(ledger.NoteUnderestimate) != 0 {
		t.Errorf("%v, %+v", counted.noted, h.state("soft").Crossed)
	}
}

// A call that no budget applies to needs no Postgres; the others fail while it is away, and all do when which budgets
// there are is no longer known.
func TestDatabaseAway(t *testing.T) {
	h := newHouse(t)
	h.budget("red", func(s *store.BudgetSpec) { s.Scope, s.Of = store.ScopeLabel, "team=red" })
	n := h.open(nil)
	hold, err := n.Reserve(t.Context(), charge(5))
	if err != nil {
		t.Fatal(err)
	}
	free := charge(5)
	free.Caller.Labels = nil
	if n.Applies(free) || !n.Applies(charge(5)) {
		t.Error("which budgets apply is not known")
	}
	name := ask[string](h, `select quote_ident(current_database())`)
	h.outside(`alter database ` + name + ` allow_connections false`)
	h.do(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
	if _, err := n.Reserve(t.Context(), charge(5)); !fault.Is(err, fault.KindUnavailable) {
		t.Errorf("postgres is away, and a budget says %v", err)
	}
	if hold, err := n.Reserve(t.Context(), free); err != nil || hold.ID != uuid.Nil {
		t.Errorf("no budget applies: %+v %v", hold, err)
	}
	n.Settle(settlement(charge(5), hold, 4)) // it waits
	h.outside(`alter database ` + name + ` allow_connections true`)
	eventually(h, 4, `select spent_nano::int from budget_window`)
	eventually(h, 0, `select reserved_nano::int from budget_window`) // also of what was refused: it may have been made
}

// Before the budgets were read once nothing is known to be allowed.
func TestFailsClosedAtFirst(t *testing.T) {
	h := newHouse(t)
	l := ledger.New(ledger.Config{Store: h.db, Node: uuid.Must(uuid.NewV7())})
	if _, err := l.Reserve(t.Context(), charge(1)); !fault.Is(err, fault.KindUnavailable) || l.Ready() == nil || !l.Applies(charge(1)) {
		t.Errorf("%v, ready: %v", err, l.Ready())
	}
}

// A caller who gives up while his reservation is being made leaves nothing behind.
func TestCallerGivesUp(t *testing.T) {
	h := newHouse(t)
	h.budget("b", nil)
	n := h.open(nil)
	if _, err := n.Reserve(t.Context(), charge(1)); err != nil { // makes the window
		t.Fatal(err)
	}
	h.do(`begin; select from budget_window for update`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, err := n.Reserve(ctx, charge(100)); done <- err }()
	eventually(h, 1, `select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.do(`commit`)
	eventually(h, 1, `select count(*)::int from reservation`)
	eventually(h, 1, `select reserved_nano::int from budget_window`)
}

// Direct calls stand in the ledger once each, with or without a budget, and count as spent.
func TestCallsWithoutARun(t *testing.T) {
	h := newHouse(t)
	n := h.open(nil)
	for i := range 100 {
		c := charge(10)
		c.Caller.Run = uuid.Nil
		hold, err := n.Reserve(t.Context(), c)
		if err != nil || hold.ID != uuid.Nil {
			t.Fatal(hold, err)
		}
		s := settlement(c, hold, 7)
		s.Call.Tokens = usage.Tokens{Input: 1, AudioInput: 2, CacheRead: 3, CacheWrite: 4, CacheWrite1h: 5, Output: 6, Reasoning: 7}
		s.Call.Baseline, s.Call.CacheSaved, s.Call.Rates = 20, -1, &usage.Rates{Input: 1_000_000}
		s.Call.Unpriced = i == 0
		n.Settle(s)
		n.Settle(gateway.Settlement{Caller: c.Caller}) // no request was made
	}
	n.stop()
	if lines := ask[int](h, `select count(*) from call where labels = '{"team": "red"}' and rates ->> 'input' = '1000000'`); lines != 100 {
		t.Errorf("%d lines", lines)
	}
	rows, err := h.db.Spend(t.Context(), store.TenantDefault, store.SpendQuery{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour), GroupBy: []string{"model", "agent"}})
	want := usage.Tokens{Input: 300, CacheRead: 300, CacheWrite: 900, Output: 600, Reasoning: 700}
	if err != nil || len(rows) != 1 || rows[0].Calls != 100 || rows[0].Unpriced != 1 || rows[0].Cost != 700 || rows[0].Baseline != 2_000 || rows[0].CacheSaved != -100 || rows[0].Tokens != want {
		t.Errorf("%+v %v", rows, err)
	}
	rows, err = h.db.Spend(t.Context(), store.TenantDefault, store.SpendQuery{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour), GroupBy: []string{"label:team"}})
	if err != nil || len(rows) != 1 || rows[0].Keys[0] != "red" || rows[0].Calls != 100 || rows[0].Tokens != want {
		t.Errorf("by label: %+v %v", rows, err)
	}
}

// A ledger that cannot be written refuses calls that nothing else keeps, and none that was made; those of runs go on.
func TestLedgerBehind(t *testing.T) {
	h := newHouse(t)
	l := ledger.New(ledger.Config{Store: h.db, Node: uuid.Must(uuid.NewV7())})
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	direct, inRun := charge(1), charge(1)
	direct.Caller.Run = uuid.Nil
	for range ledger.BacklogMax {
		if _, err := l.Reserve(t.Context(), direct); err != nil {
			t.Fatal(err)
		}
		l.Settle(settlement(direct, gateway.Hold{}, 1))
	}
	if l.Lag() <= 0 {
		t.Error("nothing lags behind")
	}
	if _, err := l.Reserve(t.Context(), direct); fault.Of(err) == nil || fault.Of(err).Code != "ledger_behind" {
		t.Errorf("a call without a run: %v", err)
	}
	if _, err := l.Reserve(t.Context(), inRun); err != nil {
		t.Errorf("a run's call: %v", err)
	}
	l.Settle(settlement(direct, gateway.Hold{}, 1))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	eventually(h, ledger.BacklogMax+1, `select coalesce(sum(calls), 0)::int from spend`)
	cancel()
	if err := <-done; err != nil || l.Lag() != 0 || ask[int](h, `select count(*) from call`) != ledger.BacklogMax+1 {
		t.Errorf("%v, lags %s", err, l.Lag())
	}
	h.budget("b", nil)
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Reserve(t.Context(), inRun); !fault.Is(err, fault.KindUnavailable) {
		t.Errorf("the ledger is closed: %v", err)
	}
}

// A refusal says everything that the gateway, the run and a person need to know about it.
func TestRefusal(t *testing.T) {
	h := newHouse(t)
	h.budget("month", func(s *store.BudgetSpec) {
		s.Scope, s.Of, s.Window, s.Limit, s.OnHard = store.ScopeWorkflow, "wf", store.WindowMonth, 100, "pause"
	})
	n := h.open(nil)
	n.Settle(settlement(charge(30), n.reserve(charge(30)), 20))
	eventually(h, 20, `select spent_nano::int from budget_window`)
	n.reserve(charge(60))
	short := func(c gateway.Charge) *gateway.BudgetError {
		t.Helper()
		_, err := n.Reserve(t.Context(), c)
		var short *gateway.BudgetError
		if !errors.As(err, &short) {
			t.Fatalf("%+v: %v", c, err)
		}
		return short
	}
	want := gateway.BudgetError{
		Budget: "month", Scope: "workflow wf", OnHard: gateway.OnHardPause, Limit: 100, Spent: 20, Reserved: 60, Need: 21,
		SpentTokens: 20, ReservedTokens: 60, NeedTokens: 21,
	}
	got := short(charge(21))
	if resets := got.Resets; !resets.After(time.Now()) || resets.Day() != 1 {
		t.Errorf("it begins anew at %s", resets)
	}
	want.ID = h.state("month").ID
	got.Resets = time.Time{}
	if *got != want || got.Left() != 20 {
		t.Errorf("%+v, want %+v", *got, want)
	}
	unpriced := charge(0)
	unpriced.Unpriced = true
	if got := short(unpriced); !got.Unpriced || got.Budget != "month" {
		t.Errorf("%+v", got)
	}
	own := charge(10)
	own.Caller.Budget = &gateway.RunBudget{Tokens: 9}
	if got := short(own); got.Budget != "run" || got.Scope != "run" || !got.InTokens || got.LimitTokens != 9 || !got.Resets.IsZero() {
		t.Errorf("%+v", got)
	}
}
