package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/pgtest"
)

func TestOpenRefusesUnsafeCommits(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn := direct(t, db)
	do(t, conn, `alter database `+ask[string](t, conn, `select quote_ident(current_database())`)+` set synchronous_commit = off`)
	if _, err := Open(t.Context(), Config{URL: db.cfg.URL}); err == nil || !strings.Contains(err.Error(), "synchronous_commit") {
		t.Errorf("open: %v", err)
	}
	// Switched off while the service runs: the next connection notices, and nothing is sent.
	err := s.commit(t.Context(), Change{Run: id(), Events: events(1, 1)})
	if err == nil || errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "synchronous_commit") {
		t.Errorf("commit: %v", err)
	}
	unsafe, err := Open(t.Context(), Config{URL: db.cfg.URL, AllowUnsafeCommit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer unsafe.Close()
	c := unsafe.Committer()
	defer c.Close()
	if err := c.Commit(t.Context(), s.Lease, []Change{{Run: id(), Events: events(1, 1)}}); err != nil {
		t.Errorf("commit, allowed: %v", err)
	}
}

func TestOpenWithoutPostgres(t *testing.T) {
	for _, url := range []string{"postgres://x@127.0.0.1:1/x", "postgres://\x00", "odd"} {
		if _, err := Open(t.Context(), Config{URL: url}); err == nil {
			t.Errorf("%q was opened", url)
		}
	}
}

func TestConnectionsStartWithTheEnginesOptions(t *testing.T) {
	db := open(t)
	c := db.Committer()
	defer c.Close()
	if err := c.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "plan_cache_mode": "force_generic_plan", "jit": "off",
		"transaction_isolation": "read committed", "TimeZone": "UTC", "statement_timeout": "10s", "lock_timeout": "2s",
		"idle_in_transaction_session_timeout": "10s", "application_name": "fermata",
	} {
		var got string
		if err := db.api.QueryRow(t.Context(), `select current_setting($1)`, name).Scan(&got); err != nil || got != want {
			t.Errorf("%s of a query: %s %v, want %s", name, got, err, want)
		}
		switch name {
		case "statement_timeout":
			want = "20s"
		case "lock_timeout":
			want = "10s"
		}
		r := c.conn.ExecParams(t.Context(), `select current_setting($1)`, [][]byte{[]byte(name)}, nil, nil, nil).Read()
		if r.Err != nil || string(r.Rows[0][0]) != want {
			t.Errorf("%s of a commit: %v, want %s", name, r, want)
		}
	}
}

// Nodes that start together migrate an empty database once.
func TestMigrateTogether(t *testing.T) {
	url := pgtest.New(t)
	empty := connect(t, url)
	do(t, empty, `drop schema public cascade; create schema public`)
	var group sync.WaitGroup
	for range 3 {
		db, err := Open(t.Context(), Config{URL: url, MaxConns: 5})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		current, want, err := db.Migrated(t.Context())
		if err != nil || current > want || want < 1 {
			t.Errorf("before: %d of %d, %v", current, want, err)
		}
		group.Go(func() {
			if err := db.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
			if current, want, err := db.Migrated(t.Context()); err != nil || current != want {
				t.Errorf("after: %d of %d, %v", current, want, err)
			}
		})
	}
	group.Wait()
}

// A server that hangs costs a caller its deadline, not its life, and is told from a refusal.
func TestQueriesOfAServerThatIsAway(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	hold := direct(t, db)
	do(t, hold, `begin; lock table definition`)
	done := make(chan error, 1)
	go func() { _, err := db.Definition(t.Context(), TenantDefault, [32]byte{}); done <- err }()
	waiting(t, conn, 1)
	do(t, conn, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
	if err := <-done; !fault.Is(err, fault.KindUnavailable) {
		t.Errorf("its process was ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, err := db.Definition(ctx, TenantDefault, [32]byte{}); done <- err }()
	waiting(t, conn, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || fault.Of(err) != nil {
		t.Errorf("the caller gave up: %v", err)
	}
	go func() { _, err := db.Definition(t.Context(), TenantDefault, [32]byte{}); done <- err }()
	if err := <-done; !fault.Is(err, fault.KindUnavailable) { // the lock timeout
		t.Errorf("a lock that is not given: %v", err)
	}
	do(t, hold, `rollback`)
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if now := must(db.Now(t.Context()))(t); time.Since(now).Abs() > time.Hour {
		t.Errorf("the time is %s", now)
	}
}

func TestRawAppends(t *testing.T) {
	db := open(t)
	for _, full := range []bool{false, true} {
		rate, err := db.RawAppends(t.Context(), 200, 50, 100, 2, full)
		if err != nil || rate <= 0 {
			t.Errorf("full %t: %f, %v", full, rate, err)
		}
	}
	if _, err := db.RawAppends(t.Context(), 10, 50, 100, 2, false); err == nil {
		t.Error("10 rows in batches of 50")
	}
	conn := direct(t, db)
	if n := ask[int](t, conn, `select (select count(*) from pg_namespace where nspname like 'fermata_bench%') + (select count(*) from event) + (select count(*) from run)`); n != 0 {
		t.Error("something was left behind")
	}
}
