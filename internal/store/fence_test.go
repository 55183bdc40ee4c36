package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
)

// everything is a change of each kind.
func everything(run uuid.UUID, eaten int64) []Change {
	ended := row(flow.RunStatusSucceeded)
	ended.Signals = []string{"go"}
	return []Change{
		{
			Run: run, Tenant: TenantDefault, Events: events(2, 2), Row: ended, Eaten: []int64{eaten}, Told: []Message{{Run: run, Kind: "x"}},
			Spend: []SpendLine{{Hour: time.Now(), Tenant: TenantDefault, Calls: 1}},
			Asked: []flow.Ask{question(id())}, Withdrawn: []flow.Withdrawn{{ID: run}},
			Emitted: []flow.Emitted{{ID: "1", Name: "go"}},
		},
		{Run: id(), New: listening(flow.RunStatusRunning), Events: events(1, 1)},
	}
}

// listening is a run that waits for a signal, "go".
func listening(status flow.RunStatus) *NewRun {
	n := newRun(status)
	n.Signals = []string{"go"}
	return n
}

// waits submits a run that waits for a signal and for an approval, whose id is its own.
func waits(t *testing.T, s shard) uuid.UUID {
	t.Helper()
	run := id()
	if err := s.commit(t.Context(), Change{Run: run, New: listening(flow.RunStatusRunning), Events: events(1, 1), Asked: []flow.Ask{question(run)}}); err != nil {
		t.Fatal(err)
	}
	return run
}

// untouched checks that nothing of everything was written.
func untouched(t *testing.T, db *DB, run uuid.UUID) {
	t.Helper()
	conn := direct(t, db)
	got := ask[string](t, conn, `select (select count(*) from run) || ' ' || (select count(*) from event) || ' ' ||
		(select count(*) from inbox) || ' ' || (select count(*) from spend) || ' ' || (select status from run where id = $1) || ' ' ||
		(select string_agg(status, ',') from approval) || ' ' || (select count(*) from signal_wait) || ' ' || (select count(*) from emitted)`, run)
	if got != "1 1 1 0 running open 1 0" {
		t.Errorf("runs, events, messages, spend, status, approvals, waits for signals, signals: %s", got)
	}
}

func message(t *testing.T, db *DB, run uuid.UUID) int64 {
	t.Helper()
	if err := db.Send(t.Context(), TenantDefault, Message{Run: run, Kind: MessageCancel}); err != nil {
		t.Fatal(err)
	}
	return must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t)[0].ID
}

func TestZombieWritesNothing(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run := waits(t, s)
	told := message(t, db, run)
	raised := must(db.Raise(t.Context(), s.Lease))(t)
	if raised.Epoch != s.Epoch+1 {
		t.Fatalf("raised to %d", raised.Epoch)
	}
	if err := s.commit(t.Context(), everything(run, told)...); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("commit at the old epoch: %v", err)
	}
	untouched(t, db, run)
	if again := must(db.Raise(t.Context(), s.Lease))(t); again != raised {
		t.Errorf("raised again after a lost answer: %v, want %v", again, raised)
	}
	if _, err := db.Claim(t.Context(), s.Lease, 1, 1, true); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("claim at the old epoch: %v", err)
	}
	if err := db.Quarantine(t.Context(), s.Lease, run, "x"); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("quarantine at the old epoch: %v", err)
	}
	if _, err := db.Renew(t.Context(), s.Lease, ttl); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renew at the old epoch: %v", err)
	}
	s.Lease = raised
	if err := s.commit(t.Context(), everything(run, told)...); err != nil {
		t.Errorf("commit at the new epoch: %v", err)
	}
	if got := ask[string](t, direct(t, db), `select string_agg(status, ',' order by status) || ' ' || (select count(*) from signal_wait where run_id <> $1) ||
		' ' || (select told from emitted) from approval`, run); got != "open,withdrawn 1 1" {
		t.Errorf("approvals, waits for signals, runs told: %s", got)
	}
}

// The epoch is looked at again after waiting for whoever raises it.
func TestZombieBehindATakeover(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn, look := direct(t, db), direct(t, db)
	run := waits(t, s)
	told := message(t, db, run)
	do(t, conn, `begin`)
	do(t, conn, `update lease set epoch = epoch + 1, closed_at = now() where id = $1`, s.ID)
	done := make(chan error, 1)
	go func() { done <- s.commit(t.Context(), everything(run, told)...) }()
	waiting(t, look, 1)
	do(t, conn, `commit`)
	if err := <-done; !errors.Is(err, ErrLeaseLost) {
		t.Errorf("commit: %v", err)
	}
	untouched(t, db, run)
	if _, err := db.Raise(t.Context(), s.Lease); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("raise a closed lease: %v", err)
	}
}

func expire(t *testing.T, db *DB, leases ...uuid.UUID) {
	t.Helper()
	do(t, direct(t, db), `update lease set until = now() - interval '1 s' where id = any ($1)`, leases)
}

// trustedSweeper is a lease that has been renewed for longer than a ttl.
func trustedSweeper(t *testing.T, db *DB) Lease {
	t.Helper()
	s := newShard(t, db)
	do(t, direct(t, db), `update lease set since = now() - interval '1 hour' where id = $1`, s.ID)
	return s.Lease
}

// The client is gone, the server has the batch and is at it: raising waits for it, and then the truth is known.
func TestOrphanedCommitLands(t *testing.T) {
	beside := open(t)
	db := &DB{cfg: beside.cfg, log: beside.log, conn: beside.conn, api: beside.api, background: beside.background}
	w := through(t, db)
	s := newShard(t, db)
	look := direct(t, beside)
	run := waits(t, s)
	told := message(t, beside, run)
	expire(t, beside, s.ID)
	release := blockRun(t, beside, run)
	done := make(chan error, 1)
	go func() { done <- s.commit(t.Context(), everything(run, told)...) }()
	waiting(t, look, 1)
	w.cut()
	if err := <-done; !errors.Is(err, ErrUnknown) {
		t.Fatalf("commit: %v", err)
	}
	// Takeover passes over a lease whose batch is in flight.
	if closed := must(beside.CloseExpired(t.Context(), trustedSweeper(t, beside), ttl))(t); len(closed) != 0 {
		t.Errorf("closed %v", closed)
	}
	if err := beside.freeStuckLeases(t.Context(), 0); err != nil { // the batch waits for a lock, not for its client
		t.Fatal(err)
	}
	raised := make(chan error, 1)
	go func() {
		var err error
		s.Lease, err = beside.Raise(t.Context(), s.Lease)
		raised <- err
	}()
	waiting(t, look, 2)
	if must(beside.HasEvent(t.Context(), run, 2))(t) {
		t.Error("the batch landed before it could")
	}
	release()
	if err := <-raised; err != nil {
		t.Fatal(err)
	}
	if !must(beside.HasEvent(t.Context(), run, 2))(t) {
		t.Error("raising did not wait for the batch")
	}
}

// The client is gone, and the batch is still on the wire: after the raise it is looked for, not found, and when it
// arrives at last, it writes nothing.
func TestOrphanedCommitComesTooLate(t *testing.T) {
	beside := open(t)
	db := &DB{cfg: beside.cfg, log: beside.log, conn: beside.conn, api: beside.api, background: beside.background}
	w := through(t, db)
	s := newShard(t, db)
	run := waits(t, s)
	told := message(t, beside, run)
	if err := s.commit(t.Context(), Change{Run: run, Row: row(flow.RunStatusRunning)}); err != nil {
		t.Fatal(err)
	}
	changes := []Change{{Run: run, Row: row(flow.RunStatusRunning), Eaten: []int64{told}}} // a statement known to the connection
	if _, err := s.ready(t.Context(), 1<<partRow|1<<partEaten); err != nil {
		t.Fatal(err)
	}
	w.hold()
	done := make(chan error, 1)
	go func() { done <- s.commit(t.Context(), changes...) }()
	<-w.kept
	w.cut()
	if err := <-done; !errors.Is(err, ErrUnknown) {
		t.Fatalf("commit: %v", err)
	}
	old := s.Lease
	s.Lease = must(beside.Raise(t.Context(), old))(t)
	untouched(t, beside, run)
	close(w.release)
	<-w.answers // the server has worked on it
	untouched(t, beside, run)
	s.Committer = beside.Committer()
	defer s.Close()
	if err := s.commit(t.Context(), everything(run, told)...); err != nil {
		t.Errorf("commit at the new epoch: %v", err)
	}
}
