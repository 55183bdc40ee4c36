//go:build unix

// Package pgtest gives tests PostgreSQL databases: a fresh, migrated one per
// test on a server shared by all test processes of the user, or a cluster of a
// test's own to kill and stop.
//
// The shared server lies below os.TempDir(), does not sync to disk, and is
// stopped a moment after the last test process has gone, however it went.
// FERMATA_TEST_DATABASE_URL names another server to use instead; its user must
// be allowed to create databases.
package pgtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/pgembed"
)

const (
	// newLimit bounds New and Cluster; the first call of a machine may make a
	// cluster and a template, while others do the same.
	newLimit   = 3 * time.Minute
	closeLimit = 30 * time.Second
)

// New returns the URL of a database of its own for t: a copy of the migrated
// template, dropped when t ends, with whatever still is connected to it. Tests
// may call it in parallel, and more than once.
func New(t testing.TB) (url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), newLimit)
	defer cancel()
	name, url, err := shared.newDatabase(ctx)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		if err := shared.dropDatabase(ctx, name); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return url
}

// Cluster opens a cluster of its own for t, stopped and removed when t ends.
// It is durable (fsync is on) unless c.Settings says otherwise. c.Dir defaults to
// a temporary directory that the server's account can enter.
func Cluster(t testing.TB, c pgembed.Config) *pgembed.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), newLimit)
	defer cancel()
	kind := stopOwn
	if c.Dir == "" {
		c.Dir, kind = temporaryDir(t), stopRemove
	}
	bins, err := shared.binaries(ctx)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	c.BinDirs = append(c.BinDirs, bins...)
	after, err := stopAfterProcess(c.Dir, kind)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := after.release(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	cluster, err := pgembed.Open(ctx, c)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		if err := cluster.Close(ctx); err != nil {
			t.Errorf("pgtest: %v", err)
		}
		if t.Failed() {
			logServer(t, c.Dir)
		}
	})
	return cluster
}

func temporaryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fermata-test-cluster-") // t.TempDir() keeps other accounts out
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return dir
}

// logServer shows the end of the server's log beside a failed test.
func logServer(t testing.TB, dir string) {
	t.Helper()
	const tailMax = 8 << 10
	text, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil {
		return
	}
	t.Logf("end of the server's log:\n%s", text[max(0, len(text)-tailMax):])
}
