//go:build unix

package pgembed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// insert commits one row and returns how many there are.
func insert(t *testing.T, c *Cluster) string {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{"create table if not exists kept (id bigserial primary key)", "insert into kept default values"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	return query(t, c, "select count(*)::text from kept")
}

func TestKilledMidInitdb(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startChild(t, dir)
	ctx := testContext(t)
	halfMade := filepath.Join(dir, newDataPrefix+"*", "PG_VERSION")
	for found, _ := filepath.Glob(halfMade); len(found) == 0; found, _ = filepath.Glob(halfMade) {
		if err := pause(ctx, readyPollMin); err != nil {
			t.Fatal(err)
		}
	}
	p.kill()
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Fatal("the cluster was whole already: nothing is tested")
	}
	c := openTest(t, dir)
	query(t, c, "select version()")
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
	again := openTest(t, dir) // nothing half-made is in its way or taken for a cluster
	query(t, again, "select version()")
}

func TestLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	left := filepath.Join(dir, newDataPrefix+"123")
	if err := os.MkdirAll(filepath.Join(left, "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	openTest(t, dir)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("%s remains: %v", left, err)
	}
}

func TestOwnerKilledServerAdopted(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startChild(t, dir)
	pid, _ := p.opened()
	p.kill()
	c := openTest(t, dir)
	if c.postmaster() != pid || !c.adopted() {
		t.Errorf("server %d (adopted: %v), want the orphan %d", c.postmaster(), c.adopted(), pid)
	}
	insert(t, c)
	if err := c.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid, c)
}

func TestOwnerAndServerKilledRowsStay(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startChild(t, dir)
	pid, _ := p.opened()
	joined := openTest(t, dir)
	for range 10 {
		insert(t, joined)
	}
	p.kill()
	kill(t, pid, syscall.SIGKILL)
	awaitGone(t, pid, joined)
	if err := joined.Close(testContext(t)); err != nil { // nothing left to stop
		t.Fatal(err)
	}
	c := openTest(t, dir)
	if c.adopted() {
		t.Error("a dead server was adopted")
	}
	if rows := query(t, c, "select count(*)::text from kept"); rows != "10" {
		t.Errorf("%s rows, want 10", rows)
	}
}

// A lock file that names no server must not keep the cluster down.
func TestStaleLockFiles(t *testing.T) {
	t.Parallel()
	zombie := exec.Command("/bin/sh", "-c", ":")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = zombie.Wait() })
	dead := exec.Command("/bin/sh", "-c", ":")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	dir := reachableDir(t)
	c := openTest(t, dir)
	insert(t, c)
	if err := c.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":          "",
		"garbage":        "\x00\x00\x00\x00",
		"another's pid":  fmt.Sprintln(os.Getpid()),
		"zombie's pid":   fmt.Sprintln(zombie.Process.Pid),
		"dead pid":       fmt.Sprintln(dead.Process.Pid),
		"pid of the OS":  "1\n",
		"single-user":    fmt.Sprintln(-os.Getpid()),
		"pid, no return": fmt.Sprint(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{filepath.Join(c.data, "postmaster.pid"), filepath.Join(c.sockets, ".s.PGSQL.5432.lock")} {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				if a := c.account; a.cred != nil {
					if err := os.Chown(path, int(a.cred.Uid), int(a.cred.Gid)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if rows := query(t, openTest(t, dir), "select count(*)::text from kept"); rows != "1" {
				t.Errorf("%s rows, want 1", rows)
			}
		})
	}
}

func TestForeignMajorIsRefusedNotWiped(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	c := openTest(t, dir)
	insert(t, c)
	if err := c.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	version := filepath.Join(c.data, "PG_VERSION")
	own, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	for major, words := range map[string][]string{
		"14": {"14", "pg_upgrade", "DATABASE_URL", "--data-dir", "untouched"},
		"99": {"Install PostgreSQL 99", "pg_upgrade", "DATABASE_URL", "--data-dir", "untouched"},
	} {
		if err := os.WriteFile(version, []byte(major+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(testContext(t), testConfig(dir, t.Output()))
		if !errors.Is(err, ErrForeignMajor) {
			t.Fatalf("major %s: %v", major, err)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("major %s: the message lacks %q: %v", major, word, err)
			}
		}
	}
	if err := os.WriteFile(version, own, 0o600); err != nil {
		t.Fatal(err)
	}
	if rows := query(t, openTest(t, dir), "select count(*)::text from kept"); rows != "1" {
		t.Errorf("%s rows, want 1", rows)
	}
}

func TestStartFailureShowsLog(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	config := testConfig(dir, t.Output())
	config.Settings["work_mem"] = "nonsense"
	_, err := Open(testContext(t), config)
	if err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("Open = %v", err)
	}
	query(t, openTest(t, dir), "select version()") // and nothing of it stays
}

func TestLargeLogIsSetAside(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	path := filepath.Join(dir, "postgres.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, logBytesMax+1); err != nil {
		t.Fatal(err)
	}
	openTest(t, dir)
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() != logBytesMax+1 {
		t.Errorf("the old log was not set aside: %v", err)
	}
	if log := logOf(dir); !strings.Contains(log, "ready to accept connections") {
		t.Errorf("the new log says %q", log)
	}
}
