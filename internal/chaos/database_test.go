//go:build unix

package chaos

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/pgembed"
	"github.com/fermata-run/fermata/internal/pgtest"
)

const (
	databaseLimit = 30 * time.Second
	queryLimit    = 20 * time.Second
)

// database is a Postgres of the test's own, which syncs to disk.
type database struct {
	t       *testing.T
	cluster *pgembed.Cluster
	url     string
	dir     string // PGDATA
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	d := &database{t: t, cluster: pgtest.Cluster(t, pgembed.Config{
		Settings: map[string]string{"track_commit_timestamp": "on"}, // the judge asks when an event became durable
	})}
	d.url = d.cluster.URL()
	d.dir = one[string](d, `select current_setting('data_directory')`)
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if v := one[string](d, `select current_setting($1)`, setting); v != "on" {
			t.Fatalf("the database has %s %s: nothing it survives would prove anything", setting, v)
		}
	}
	return d
}

// kill is kill -9 of the postmaster. It returns when the postmaster is gone.
func (d *database) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
}

// stop is a fast shutdown: transactions at work are cut. It returns when the server is gone.
func (d *database) stop() {
	d.t.Helper()
	d.signal(syscall.SIGINT)
}

func (d *database) signal(s syscall.Signal) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, "postmaster.pid"))
	if err != nil {
		d.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		d.t.Fatal(err)
	}
	gone := d.cluster.Done()
	if err := syscall.Kill(pid, s); err != nil {
		d.t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(databaseLimit):
		d.t.Fatalf("the postmaster has not ended after %s", databaseLimit)
	}
}

func (d *database) restart() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), databaseLimit)
	defer cancel()
	if err := d.cluster.Restart(ctx); err != nil {
		d.t.Fatal(err)
	}
}

// rows asks the database on a connection of its own. It is the judge's: it works beside the service, not through it.
func rows[T any](d *database, row pgx.RowToFunc[T], sql string, args ...any) []T {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		d.t.Fatalf("ask the database: %v", err)
	}
	defer conn.Close(ctx)
	got, err := conn.Query(ctx, sql, args...)
	if err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	list, err := pgx.CollectRows(got, row)
	if err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return list
}

// one asks for a single value.
func one[T any](d *database, sql string, args ...any) T {
	d.t.Helper()
	list := rows(d, pgx.RowTo[T], sql, args...)
	if len(list) != 1 {
		d.t.Fatalf("%s: %d rows", sql, len(list))
	}
	return list[0]
}
