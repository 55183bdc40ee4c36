package store

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/workflow"
)

const ttl = 15 * time.Second

// open gives a store on a fresh database.
func open(t testing.TB) *DB {
	t.Helper()
	db, err := Open(t.Context(), Config{URL: pgtest.New(t), MaxConns: 12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// must fails the test on an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func id() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// shard is a lease with its committer.
type shard struct {
	Lease
	*Committer
}

func (s shard) commit(ctx context.Context, changes ...Change) error {
	return s.Commit(ctx, s.Lease, changes)
}

// newNode registers a node of a name.
func newNode(t testing.TB, db *DB, name string) uuid.UUID {
	t.Helper()
	n := Node{ID: id(), Name: name, Address: "127.0.0.1:1", Version: "test", Capacity: 100}
	if err := db.Register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.ID
}

func newShard(t testing.TB, db *DB) shard {
	t.Helper()
	node := newNode(t, db, "node-"+uuid.NewString())
	return grant(t, db, node)
}

func grant(t testing.TB, db *DB, node uuid.UUID) shard {
	t.Helper()
	lease, _, err := db.Grant(t.Context(), node, ttl)
	if err != nil {
		t.Fatal(err)
	}
	c := db.Committer()
	t.Cleanup(c.Close)
	return shard{lease, c}
}

func newRun(status flow.RunStatus) *NewRun {
	return &NewRun{
		Tenant: TenantDefault, Workflow: "wf", Version: 1, Hash: workflow.Hash{1}, Status: status, Stakes: "normal", Mode: "batch",
		Priority: 5, Preview: "{}", StepsTotal: 3, Format: 1, Owned: status == flow.RunStatusRunning, At: time.Now(),
	}
}

func events(from, to int32) []flow.Event {
	var list []flow.Event
	for seq := from; seq <= to; seq++ {
		list = append(list, flow.Event{
			Seq: seq, At: time.Now().UTC().Truncate(time.Microsecond), Kind: flow.KindStepStarted, V: 1, Step: "a", Gen: 1, Attempt: 1,
		})
	}
	return list
}

// submit commits a run that the shard owns, or a queued one.
func submit(t testing.TB, s shard, status flow.RunStatus, edit ...func(*NewRun)) uuid.UUID {
	t.Helper()
	run, n := id(), newRun(status)
	for _, e := range edit {
		e(n)
	}
	if err := s.commit(t.Context(), Change{Run: run, New: n, Events: events(1, 1)}); err != nil {
		t.Fatal(err)
	}
	return run
}

func row(status flow.RunStatus) *Row {
	r := &Row{Status: status, Format: 1}
	switch status {
	case flow.RunStatusSucceeded, flow.RunStatusFailed, flow.RunStatusCancelled:
		now := time.Now()
		r.FinishedAt, r.Release = &now, true
	case flow.RunStatusWaiting:
		r.Release, r.WaitingFor = true, "retry"
	}
	return r
}

// direct is a connection beside the store, for looking and meddling.
func direct(t testing.TB, db *DB) *pgx.Conn {
	t.Helper()
	return connect(t, db.cfg.URL)
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func ask[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func do(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// waiting waits until some server process of the database waits for a lock.
func waiting(t testing.TB, conn *pgx.Conn, processes int) {
	t.Helper()
	for range 2_000 {
		n := ask[int](t, conn, `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
		if n >= processes {
			return
		}
		do(t, conn, `select pg_sleep(0.005)`)
	}
	t.Fatal("nobody came to wait for a lock")
}
