package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
)

func TestRenewal(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	s := newShard(t, db)
	since := ask[time.Time](t, conn, `select since from lease`)
	now := must(db.Renew(t.Context(), s.Lease, ttl))(t)
	if got := ask[bool](t, conn, `select since = $1 and until = $2 from lease`, since, now.Add(ttl)); !got {
		t.Error("a renewal in time keeps its since and moves its until")
	}
	expire(t, db, s.ID)
	now = must(db.Renew(t.Context(), s.Lease, ttl))(t)
	if got := ask[bool](t, conn, `select since = $1 and until = $2 from lease`, now, now.Add(ttl)); !got {
		t.Error("a renewal too late begins anew")
	}
	do(t, conn, `update lease set closed_at = now()`)
	if _, err := db.Renew(t.Context(), s.Lease, ttl); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renew a closed lease: %v", err)
	}
}

func TestOnlyATrustedSweeperCloses(t *testing.T) {
	db := open(t)
	young, dead := newShard(t, db), newShard(t, db)
	expire(t, db, dead.ID)
	if closed := must(db.CloseExpired(t.Context(), young.Lease, ttl))(t); len(closed) != 0 {
		t.Errorf("a young sweeper closed %v", closed)
	}
	old := trustedSweeper(t, db)
	expire(t, db, old.ID)
	if closed := must(db.CloseExpired(t.Context(), old, ttl))(t); len(closed) != 0 {
		t.Errorf("a sweeper whose own lease ran out closed %v", closed)
	}
	// After a stall everybody's lease has run out: the first to renew is young again.
	if _, err := db.Renew(t.Context(), old, ttl); err != nil {
		t.Fatal(err)
	}
	if closed := must(db.CloseExpired(t.Context(), old, ttl))(t); len(closed) != 0 {
		t.Errorf("a sweeper after a stall closed %v", closed)
	}
	trusted := trustedSweeper(t, db)
	if closed := must(db.CloseExpired(t.Context(), trusted, ttl))(t); !cmp.Equal(closed, []uuid.UUID{dead.ID}) {
		t.Errorf("a trusted sweeper closed %v, want %v", closed, dead.ID)
	}
	if closed := must(db.ClosedLeases(t.Context()))(t); !cmp.Equal(closed, []uuid.UUID{dead.ID}) {
		t.Errorf("closed leases: %v", closed)
	}
	if err := dead.commit(t.Context(), Change{Run: id(), Events: events(1, 1)}); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("commit under a closed lease: %v", err)
	}
}

// A server process that holds an expired lease and hears nothing more from its client is ended.
func TestHalfABatchUnderTakeover(t *testing.T) {
	db := open(t)
	dead := newShard(t, db)
	expire(t, db, dead.ID)
	half := direct(t, db)
	do(t, half, `begin`)
	do(t, half, `select 1 from lease where id = $1 for no key update`, dead.ID)
	bystander := direct(t, db) // waits for its client, too, in a transaction, but holds no lease
	do(t, bystander, `begin`)
	do(t, bystander, `update run set priority = 1`)
	sweeper, look := trustedSweeper(t, db), direct(t, db)
	var closed []uuid.UUID
	for range 100 {
		if closed = must(db.CloseExpired(t.Context(), sweeper, ttl))(t); len(closed) > 0 {
			break
		}
		do(t, look, `select pg_sleep(0.1)`)
	}
	if !cmp.Equal(closed, []uuid.UUID{dead.ID}) {
		t.Errorf("closed %v, want %v", closed, dead.ID)
	}
	if err := half.Ping(t.Context()); err == nil {
		t.Error("the process that held the lease is still there")
	}
	do(t, bystander, `commit`)
}

func TestTakeover(t *testing.T) {
	db := open(t)
	for name, c := range map[string]struct {
		close   func(*testing.T, shard)
		crashes int16
	}{
		"expired": {func(t *testing.T, s shard) {
			expire(t, db, s.ID)
			if closed := must(db.CloseExpired(t.Context(), trustedSweeper(t, db), ttl))(t); len(closed) != 1 {
				t.Fatalf("closed %v", closed)
			}
		}, 1},
		"drained": {func(t *testing.T, s shard) {
			if err := db.CloseOwn(t.Context(), s.Lease); err != nil {
				t.Fatal(err)
			}
			if err := db.CloseOwn(t.Context(), s.Lease); !errors.Is(err, ErrLeaseLost) {
				t.Errorf("closed twice: %v", err)
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShard(t, db)
			running, cancelling, parked := submit(t, s, flow.RunStatusRunning), submit(t, s, flow.RunStatusRunning), submit(t, s, flow.RunStatusRunning)
			err := s.commit(t.Context(), Change{Run: cancelling, Row: row(flow.RunStatusCancelling)}, Change{Run: parked, Row: row(flow.RunStatusWaiting)})
			if err != nil {
				t.Fatal(err)
			}
			if n := must(db.FreeRuns(t.Context(), s.ID, 10))(t); n != 0 {
				t.Errorf("%d runs of a living lease were freed", n)
			}
			c.close(t, s)
			if must(db.DropLease(t.Context(), s.ID))(t) {
				t.Error("a lease with runs was dropped")
			}
			for want := range 3 {
				want = 1 - want/2 // 1, 1, 0
				if n := must(db.FreeRuns(t.Context(), s.ID, 1))(t); n != want {
					t.Errorf("freed %d, want %d", n, want)
				}
			}
			for run, status := range map[uuid.UUID]flow.RunStatus{running: flow.RunStatusQueued, cancelling: flow.RunStatusCancelling} {
				if r := must(db.Run(t.Context(), TenantDefault, run))(t); r.Status != status || r.Owner != nil || r.Crashes != c.crashes {
					t.Errorf("freed: %+v, want %s and %d crashes", r, status, c.crashes)
				}
			}
			if r := must(db.Run(t.Context(), TenantDefault, parked))(t); r.Crashes != 0 || r.Status != flow.RunStatusWaiting {
				t.Errorf("parked: %+v", r)
			}
			if !must(db.DropLease(t.Context(), s.ID))(t) {
				t.Error("an empty closed lease was not dropped")
			}
		})
	}
}

func TestRegisterTakesTheNamesakesPlace(t *testing.T) {
	db := open(t)
	before, other := grant(t, db, newNode(t, db, "a")), grant(t, db, newNode(t, db, "b"))
	empty := newNode(t, db, "c")
	n := Node{ID: id(), Name: "a", Capacity: 1}
	for range 2 { // it may be repeated
		if err := db.Register(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if closed := must(db.ClosedLeases(t.Context()))(t); !cmp.Equal(closed, []uuid.UUID{before.ID}) {
		t.Errorf("closed %v, want %v", closed, before.ID)
	}
	if _, err := db.Renew(t.Context(), other.Lease, ttl); err != nil {
		t.Errorf("another node's lease: %v", err)
	}
	newNode(t, db, "c")
	if ask[bool](t, direct(t, db), `select exists (select from node where id = $1)`, empty) {
		t.Error("a former node without leases is remembered")
	}
}
