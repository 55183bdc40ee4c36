package store

import (
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
)

// A run that ended long ago is resumed while its budget is being swept: what the booking set aside is not forgotten.
func TestSweepRacingWithAReservation(t *testing.T) {
	db := open(t)
	b, conn, look, run := newBooks(t, db), direct(t, db), direct(t, db), id()
	hold := HoldNew{ID: id(), Tenant: TenantDefault, Run: run, Amount: 1, Needs: []int16{0}}
	b.book(Booking{Node: b.node, Needs: []Need{{ID: run, Run: run, Limit: usage.USD}}, Holds: []HoldNew{hold}})
	b.settle(hold.ID, 1)

	do(t, conn, `begin`)
	do(t, conn, `update budget_window set reserved_nano = 7 where budget = $1`, run)
	swept := make(chan error, 1)
	go func() { _, err := db.SweepHolds(t.Context(), 100); swept <- err }()
	waiting(t, look, 1)
	do(t, conn, `commit`)
	select {
	case err := <-swept:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the sweep does not end")
	}
	if left := ask[int64](t, conn, `select coalesce(sum(reserved_nano), 0)::int8 from budget_window where budget = $1`, run); left != 7 {
		t.Errorf("%d set aside; 7 are", left)
	}
}
