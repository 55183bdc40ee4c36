package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/usage"
)

// putBudget makes a budget of the default tenant and answers its id.
func putBudgetFor(t testing.TB, db *DB, edit func(*BudgetSpec)) BudgetRow {
	t.Helper()
	spec := BudgetSpec{Name: "b" + uuid.NewString(), Scope: ScopeTenant, Window: WindowLifetime, Limit: usage.USD, OnHard: "reject"}
	if edit != nil {
		edit(&spec)
	}
	row, _, err := db.PutBudget(t.Context(), TenantDefault, spec)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// books is a booker with the node whose reservations it makes.
type books struct {
	*Booker
	node uuid.UUID
	t    testing.TB
}

func newBooks(t testing.TB, db *DB) books {
	b := books{db.Booker(), id(), t}
	t.Cleanup(b.Close)
	return b
}

// reserve sets an amount aside under budgets, in their order.
func (b books) reserve(amount usage.Money, budgets ...BudgetRow) (uuid.UUID, *Refusal) {
	b.t.Helper()
	h := HoldNew{ID: id(), Tenant: TenantDefault, Amount: amount, Tokens: int64(amount)}
	booking := Booking{Node: b.node}
	for i, row := range budgets {
		booking.Needs = append(booking.Needs, Need{ID: row.ID})
		h.Needs = append(h.Needs, int16(i))
	}
	booking.Holds = []HoldNew{h}
	booked := b.book(booking)
	if r, refused := booked.Refused[0]; refused {
		return h.ID, &r
	}
	return h.ID, nil
}

func (b books) settle(hold uuid.UUID, spent usage.Money) Booked {
	b.t.Helper()
	return b.book(Booking{Node: b.node, Ends: []HoldEnd{{ID: hold, Spent: spent, Tokens: int64(spent)}}})
}

func (b books) book(booking Booking) Booked {
	b.t.Helper()
	booked, err := b.Book(b.t.Context(), &booking)
	if err != nil {
		b.t.Fatal(err)
	}
	return booked
}

// levels are what the windows of a budget hold, oldest first: spent and reserved.
func levels(t testing.TB, conn *pgx.Conn, budget uuid.UUID) [][2]int64 {
	t.Helper()
	rows, err := conn.Query(t.Context(), `select spent_nano, reserved_nano from budget_window where budget = $1 order by started`, budget)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l [2]int64, err error) { return l, row.Scan(&l[0], &l[1]) })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func wantLevels(t testing.TB, conn *pgx.Conn, budget uuid.UUID, want ...[2]int64) {
	t.Helper()
	if diff := cmp.Diff(want, levels(t, conn, budget)); diff != "" {
		t.Errorf("spent and reserved, by window:\n%s", diff)
	}
}

// What is set aside is replaced by what was spent, once, however often it is told.
func TestReserveAndSettle(t *testing.T) {
	db := open(t)
	conn, b := direct(t, db), newBooks(t, db)
	budget := putBudgetFor(t, db, func(s *BudgetSpec) { s.Limit = 100 })
	first, _ := b.reserve(60, budget)
	wantLevels(t, conn, budget.ID, [2]int64{0, 60})
	if _, refused := b.reserve(41, budget); refused == nil || refused.Limit != 100 || refused.Reserved != 60 || refused.Budget != budget.ID || !refused.Resets.IsZero() {
		t.Errorf("41 of 40 left: %+v", refused)
	}
	second, refused := b.reserve(40, budget)
	if refused != nil {
		t.Errorf("40 of 40 left: %+v", refused)
	}
	for range 2 {
		b.settle(first, 10)
		wantLevels(t, conn, budget.ID, [2]int64{10, 40})
	}
	b.settle(second, 95) // more than was set aside: it counts in full
	wantLevels(t, conn, budget.ID, [2]int64{105, 0})
	if _, refused := b.reserve(0, budget); refused == nil {
		t.Error("the budget is overdrawn, and something fits")
	}
	if n := ask[int](t, conn, `select count(*) from reservation`); n != 0 {
		t.Errorf("%d reservations are left", n)
	}
}

// A free call passes a full budget of money, one whose price is not known does not pass any; tokens are kept to beside it.
func TestFreeAndUnpricedCalls(t *testing.T) {
	db := open(t)
	b := newBooks(t, db)
	money := putBudgetFor(t, db, func(s *BudgetSpec) { s.Limit = 10 })
	tokens := putBudgetFor(t, db, func(s *BudgetSpec) { s.Limit, s.LimitTokens = 0, 100 })
	if _, refused := b.reserve(10, money); refused != nil {
		t.Fatal(refused)
	}
	call := func(amount usage.Money, tokensOf int64, unpriced bool, budget BudgetRow) *Refusal {
		h := HoldNew{ID: id(), Tenant: TenantDefault, Amount: amount, Tokens: tokensOf, Unpriced: unpriced, Needs: []int16{0}}
		booked := b.book(Booking{Node: b.node, Needs: []Need{{ID: budget.ID}}, Holds: []HoldNew{h}})
		if r, refused := booked.Refused[0]; refused {
			return &r
		}
		return nil
	}
	if r := call(0, 1_000, false, money); r != nil {
		t.Errorf("free: %+v", r)
	}
	if r := call(0, 0, true, money); r == nil || !r.Unpriced {
		t.Errorf("unpriced under a budget of money: %+v", r)
	}
	if r := call(0, 60, true, tokens); r != nil {
		t.Errorf("unpriced under a budget of tokens: %+v", r)
	}
	if r := call(0, 41, true, tokens); r == nil || r.Unpriced || !r.InTokens || r.ReservedTokens != 60 || r.LimitTokens != 100 {
		t.Errorf("too many tokens: %+v", r)
	}
}

// A call that outlives the month is settled in the month in which it began.
func TestCallAcrossTheReset(t *testing.T) {
	db := open(t)
	conn, b := direct(t, db), newBooks(t, db)
	budget := putBudgetFor(t, db, func(s *BudgetSpec) { s.Limit, s.Window = 100, WindowMonth })
	hold, _ := b.reserve(80, budget)
	do(t, conn, `update budget_window set started = started - interval '1 month' where budget = $1`, budget.ID) // the month ends
	if _, refused := b.reserve(70, budget); refused != nil {
		t.Errorf("the new month begins with %+v", refused)
	}
	b.settle(hold, 75)
	wantLevels(t, conn, budget.ID, [2]int64{75, 0}, [2]int64{0, 70})
	_, refused := b.reserve(70, budget)
	if refused == nil || refused.Resets.Day() != 1 || !refused.Resets.After(time.Now()) {
		t.Errorf("refused until %+v", refused)
	}
}

// Windows begin where the budget's zone says, also when clocks are changed.
func TestWindowsInTheirZone(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	for _, c := range []struct{ period, zone, at, start, end string }{
		{"day", "UTC", "2026-03-29T23:59:59Z", "2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z"},
		{"day", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"}, // 23 hours
		{"day", "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"}, // 25 hours
		{"day", "Pacific/Kiritimati", "2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z", "2026-02-01T10:00:00Z"},
		{"week", "UTC", "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"},
		{"month", "America/New_York", "2026-03-01T04:59:59Z", "2026-02-01T05:00:00Z", "2026-03-01T05:00:00Z"},
		{"month", "America/New_York", "2026-03-01T05:00:00Z", "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z"},
	} {
		var start, end time.Time
		err := conn.QueryRow(t.Context(), `select s, budget_end($1, $2, s) from budget_start($1, $2, $3::text::timestamptz) s`, c.period, c.zone, c.at).Scan(&start, &end)
		if err != nil {
			t.Fatal(err)
		}
		if got := start.UTC().Format(time.RFC3339); got != c.start {
			t.Errorf("%s in %s at %s begins at %s, want %s", c.period, c.zone, c.at, got, c.start)
		}
		if got := end.UTC().Format(time.RFC3339); got != c.end {
			t.Errorf("%s in %s at %s ends at %s, want %s", c.period, c.zone, c.at, got, c.end)
		}
	}
}

// A soft limit is reported once a window, in whichever batch it is passed, and stays passed when the limit is raised.
func TestSoftLimitsOnce(t *testing.T) {
	db := open(t)
	b := newBooks(t, db)
	budget := putBudgetFor(t, db, func(s *BudgetSpec) { s.Limit, s.Soft = 100, []int{80, 50} })
	var passed []int
	for range 20 {
		hold, refused := b.reserve(5, budget)
		if refused != nil {
			t.Fatal(refused)
		}
		for _, c := range b.settle(hold, 5).Crossed {
			passed = append(passed, c.Percent)
		}
	}
	if diff := cmp.Diff([]int{50, 80}, passed); diff != "" {
		t.Error(diff)
	}
	row := must(db.Budget(t.Context(), TenantDefault, budget.Name))(t)
	if len(row.Crossed) != 2 || row.Crossed[1].Percent != 80 || row.Crossed[1].At.IsZero() || row.Spent != 100 {
		t.Errorf("the budget says %+v", row)
	}
}

// A run brings its own limit along: it begins with what the run spent before, and moves as the run says.
func TestBudgetOfARun(t *testing.T) {
	db := open(t)
	conn, b := direct(t, db), newBooks(t, db)
	shared := putBudgetFor(t, db, nil)
	run := id()
	call := func(limit, before, amount usage.Money) (uuid.UUID, *Refusal) {
		needs := []Need{{ID: shared.ID}, {ID: run, Run: run, Limit: limit, Spent: before}}
		h := HoldNew{ID: id(), Tenant: TenantDefault, Run: run, Amount: amount, Needs: []int16{1, 0}}
		booked := b.book(Booking{Node: b.node, Needs: needs, Holds: []HoldNew{h}})
		if r, refused := booked.Refused[0]; refused {
			return h.ID, &r
		}
		return h.ID, nil
	}
	hold, refused := call(100, 30, 60)
	if refused != nil {
		t.Fatal(refused)
	}
	if _, refused := call(100, 30, 20); refused == nil || refused.Budget != run || refused.Spent != 30 || refused.Reserved != 60 {
		t.Errorf("20 of 10 left: %+v", refused)
	}
	if _, refused := call(110, 999, 20); refused != nil {
		t.Errorf("20 of 20 left: %+v", refused)
	}
	b.settle(hold, 5)
	wantLevels(t, conn, run, [2]int64{35, 20})
	wantLevels(t, conn, shared.ID, [2]int64{5, 20})
}

// A reservation whose answer was lost is not wanted any more, whether it was made, is made later, or never.
func TestVoidReservations(t *testing.T) {
	db := open(t)
	conn, b := direct(t, db), newBooks(t, db)
	budget := putBudgetFor(t, db, nil)
	made, _ := b.reserve(10, budget)
	late := HoldNew{ID: id(), Tenant: TenantDefault, Amount: 20, Needs: []int16{0}}
	for range 2 {
		b.book(Booking{Node: b.node, Voids: []uuid.UUID{made, late.ID}})
		wantLevels(t, conn, budget.ID, [2]int64{0, 0})
	}
	if _, err := b.Book(t.Context(), &Booking{Node: b.node, Needs: []Need{{ID: budget.ID}}, Holds: []HoldNew{late}}); err == nil {
		t.Error("a reservation was made that had been given up")
	}
	wantLevels(t, conn, budget.ID, [2]int64{0, 0})
}

// A booking whose answer was lost may have been made, or may still be: given up by another connection, it is neither
// before nor after.
func TestUnknownBooking(t *testing.T) {
	for _, late := range []bool{false, true} {
		db := open(t)
		conn, sane := direct(t, db), newBooks(t, open2(t, db))
		budget := putBudgetFor(t, db, nil)
		w := through(t, db)
		b := newBooks(t, db)
		b.node = sane.node
		b.reserve(1, budget) // connects
		w.hold()
		h := HoldNew{ID: id(), Tenant: TenantDefault, Amount: 10, Needs: []int16{0}}
		done := make(chan error)
		go func() {
			_, err := b.Book(t.Context(), &Booking{Node: b.node, Needs: []Need{{ID: budget.ID}}, Holds: []HoldNew{h}})
			done <- err
		}()
		<-w.kept
		w.cut()
		if err := <-done; !errors.Is(err, ErrUnknown) {
			t.Fatalf("the answer is lost: %v", err)
		}
		if !late {
			close(w.release)
			<-w.answers
			wantLevels(t, conn, budget.ID, [2]int64{0, 11})
		}
		sane.book(Booking{Node: b.node, Voids: []uuid.UUID{h.ID}})
		if late {
			close(w.release)
			<-w.answers
		}
		wantLevels(t, conn, budget.ID, [2]int64{0, 1})
	}
}

// open2 is another store on the same database.
func open2(t testing.TB, db *DB) *DB {
	t.Helper()
	other, err := Open(t.Context(), Config{URL: db.cfg.URL, MaxConns: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	return other
}
