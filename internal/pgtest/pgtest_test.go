//go:build unix

package pgtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/fermata-run/fermata/internal/pgembed"
)

// childProgram makes the test binary another test process: it gets databases,
// prints their URLs and waits for the end of its input.
const childProgram = "PGTEST_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childProgram) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

func child() int {
	name, address, err := shared.newDatabase(context.Background())
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println(address)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := shared.dropDatabase(context.Background(), name); err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func text(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var s string
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func admin(t *testing.T) *pgx.Conn { return connect(t, shared.databaseURL("")) }

func exists(t *testing.T, database string) bool {
	t.Helper()
	return text(t, admin(t), "select count(*)::text from pg_database where datname = $1", database) == "1"
}

func databaseOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

func TestNewIsMigratedAndSeparate(t *testing.T) {
	one, two := connect(t, New(t)), connect(t, New(t))
	if got := text(t, one, "select name from tenant"); got != "default" {
		t.Errorf("tenant = %q", got)
	}
	if _, err := one.Exec(t.Context(), "create table only_here (n int)"); err != nil {
		t.Fatal(err)
	}
	if got := text(t, two, "select count(*)::text from pg_class where relname = 'only_here'"); got != "0" {
		t.Error("two databases share a table")
	}
	if got := text(t, one, "select current_setting('synchronous_commit')"); got != "on" {
		t.Errorf("synchronous_commit = %s", got)
	}
}

func TestDropsWithTheTest(t *testing.T) {
	var name string
	outer := t
	t.Run("inner", func(t *testing.T) {
		address := New(t)
		name = databaseOf(t, address)
		connect(outer, address) // still connected when the inner test ends
		if !exists(t, name) {
			t.Errorf("%s does not exist", name)
		}
	})
	if exists(t, name) {
		t.Errorf("%s remains", name)
	}
}

// Tests that look for leaked goroutines can use New.
func TestNewLeavesNoGoroutines(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("inner", func(t *testing.T) { New(t) })
	t.Run("cluster", func(t *testing.T) { Cluster(t, pgembed.Config{Settings: map[string]string{"fsync": "off"}}) })
	goleak.VerifyNone(t, before)
}

func TestParallelProcesses(t *testing.T) {
	const processes, each = 3, 4
	var wg sync.WaitGroup
	for range processes {
		p := startChild(t)
		wg.Go(func() {
			if line := p.line(); !strings.HasPrefix(line, "postgres:") {
				t.Errorf("child: %s", line)
			}
			p.leave()
		})
	}
	for range each {
		wg.Go(func() {
			conn, err := pgx.Connect(t.Context(), New(t))
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close(t.Context())
		})
	}
	wg.Wait()
}

// What a killed process leaves goes when the next one comes.
func TestAbandonedDatabaseIsDropped(t *testing.T) {
	New(t)
	p := startChild(t)
	name := databaseOf(t, p.line())
	if !exists(t, name) {
		t.Fatalf("%s does not exist", name)
	}
	p.kill()
	next := startChild(t)
	next.line()
	next.leave()
	if exists(t, name) {
		t.Errorf("%s of a killed process remains", name)
	}
}

// migrationsOf is one migration that makes a table.
func migrationsOf(table string) fstest.MapFS {
	return fstest.MapFS{"00001_x.sql": {Data: []byte("-- +goose Up\ncreate table " + table + " (n int);\n")}}
}

// ownServer is a server that shares nothing with other tests.
func ownServer(t *testing.T) (base string) {
	t.Helper()
	c := Cluster(t, pgembed.Config{Settings: map[string]string{
		"fsync": "off", "shared_buffers": "16MB", "max_connections": "30",
	}})
	return c.DatabaseURL("postgres")
}

func serverOn(t *testing.T, base string, files migrationFiles) *server {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{migrations: files, base: u}
	t.Cleanup(func() {
		if s.guard != nil {
			s.guard.Close(context.Background())
		}
	})
	return s
}

func TestTemplates(t *testing.T) {
	base := ownServer(t)
	conn := connect(t, base)
	templates := func() string {
		return text(t, conn, "select coalesce(string_agg(datname, ' ' order by oid), '') from pg_database where datname ~ '^fermata_(template|making)'")
	}
	clone := func(s *server) string {
		_, address, err := s.newDatabase(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return address
	}

	first := serverOn(t, base, migrationsOf("first"))
	clone(first)
	made := templates()
	if made != first.template {
		t.Fatalf("templates %q, want %q", made, first.template)
	}
	clone(serverOn(t, base, migrationsOf("first")))
	if got := templates(); got != made {
		t.Errorf("the same migrations gave another template: %s", got)
	}

	// Another branch's migrations; the first are in use.
	second := serverOn(t, base, migrationsOf("second"))
	if got := text(t, connect(t, clone(second)), "select to_regclass('second')::text"); got != "second" {
		t.Errorf("table %q", got)
	}
	if got := templates(); got != made+" "+second.template {
		t.Errorf("templates %q after the migrations changed", got)
	}
}

func TestUnusedTemplateIsDropped(t *testing.T) {
	base := ownServer(t)
	first, second := serverOn(t, base, migrationsOf("first")), serverOn(t, base, migrationsOf("second"))
	if _, _, err := first.newDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.guard.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, base)
	awaitTrue(t, func() bool { // the session ends a moment after its connection
		return text(t, conn, "select count(*)::text from pg_locks where locktype = 'advisory'") == "0"
	})
	if _, _, err := second.newDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := text(t, conn, "select string_agg(datname, ' ') from pg_database where datname ~ '^fermata_template'")
	if left != second.template {
		t.Errorf("templates %q, want only %q", left, second.template)
	}
	// Its process is alive after all: it makes the template again.
	if _, _, err := first.newDatabase(t.Context()); err != nil {
		t.Errorf("after its template was dropped: %v", err)
	}
}

// A template dropped behind the back of a process that believes in it.
func TestLostTemplateIsMadeAgain(t *testing.T) {
	base := ownServer(t)
	s := serverOn(t, base, migrationsOf("first"))
	if _, _, err := s.newDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.order(t.Context(), "drop database "+s.template); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.newDatabase(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHalfMadeTemplateIsMadeAgain(t *testing.T) {
	base := ownServer(t)
	s := serverOn(t, base, migrationsOf("first"))
	sum, err := hashOf(s.migrations)
	if err != nil {
		t.Fatal(err)
	}
	making := fmt.Sprintf("%s%x", makingPrefix, sum[:6])
	if err := s.order(t.Context(), "create database "+making); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t.Context(), s.urlOf(making), migrationsOf("rubbish")); err != nil {
		t.Fatal(err)
	}
	_, address, err := s.newDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, connect(t, address), "select coalesce(to_regclass('rubbish')::text, 'none') || to_regclass('first')::text"); got != "nonefirst" {
		t.Errorf("tables: %s", got)
	}
}

func TestBrokenMigrationsAreReported(t *testing.T) {
	s := serverOn(t, ownServer(t), fstest.MapFS{"00001_x.sql": {Data: []byte("-- +goose Up\ncreate tabel x (n int);\n")}})
	_, _, err := s.newDatabase(t.Context())
	if err == nil || !strings.Contains(err.Error(), "tabel") {
		t.Errorf("err = %v", err)
	}
}

func TestNamedServer(t *testing.T) {
	base := ownServer(t)
	t.Setenv(urlVariable, base)
	s := &server{migrations: migrationsOf("first")}
	defer func() { s.guard.Close(context.Background()) }()
	name, address, err := s.newDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.cluster != nil || s.stopper != nil {
		t.Error("a server was started although one is named")
	}
	if got := text(t, connect(t, address), "select current_database()"); got != name {
		t.Errorf("connected to %q, want %q", got, name)
	}
	t.Setenv(urlVariable, "host=x dbname=y")
	if _, _, err := (&server{migrations: migrationsOf("first")}).newDatabase(t.Context()); err == nil || !strings.Contains(err.Error(), urlVariable) {
		t.Errorf("with a string that is no URL: %v", err)
	}
}

// The server is killed between two tests of one process.
func TestServerComesBack(t *testing.T) {
	c := Cluster(t, pgembed.Config{Settings: map[string]string{"shared_buffers": "16MB", "max_connections": "30"}})
	s := serverOn(t, c.DatabaseURL("postgres"), migrationsOf("first"))
	s.cluster = c
	if _, _, err := s.newDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	kill(t, postmaster(t, s.databaseURL("")))
	<-c.Done()
	if _, _, err := s.newDatabase(t.Context()); err != nil {
		t.Error(err)
	}
}

// postmaster asks the server for its process number.
func postmaster(t *testing.T, address string) int {
	t.Helper()
	first := text(t, connect(t, address), "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestClusterIsDurableAndCleanedUp(t *testing.T) {
	var dir string
	var pid int
	t.Run("inner", func(t *testing.T) {
		c := Cluster(t, pgembed.Config{})
		conn := connect(t, c.URL())
		if got := text(t, conn, "select current_setting('fsync') || current_setting('synchronous_commit')"); got != "onon" {
			t.Errorf("fsync, synchronous_commit: %s", got)
		}
		dir = text(t, conn, "select current_setting('data_directory')")
		pid = postmaster(t, c.URL())
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s remains: %v", dir, err)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("the server (pid %d) remains", pid)
	}
}

// A test process that dies leaves no server behind.
func TestStopperStopsServerOfKilledProcess(t *testing.T) {
	dir := temporaryDir(t)
	c, err := pgembed.Open(t.Context(), pgembed.Config{Dir: dir, Settings: map[string]string{"fsync": "off", "shared_buffers": "16MB"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	s, err := stopAfterProcess(dir, stopRemove)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.release(); err != nil { // the pipe ends, as with the process
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-t.Context().Done():
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s remains: %v", dir, err)
	}
}

func awaitTrue(t *testing.T, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case <-t.Context().Done():
			t.Fatal("timed out")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// process is another test process with a database of the shared server.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func startChild(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childProgram+"=1")
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout)}
	t.Cleanup(func() {
		p.stdin.Close()
		_ = p.cmd.Wait() // already waited for unless the test failed
	})
	return p
}

func (p *process) line() string {
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		p.t.Errorf("child ended without a word: %v", err)
	}
	return strings.TrimSpace(line)
}

func (p *process) leave() {
	p.stdin.Close()
	rest, _ := io.ReadAll(p.stdout)
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("child: %v: %s", err, rest)
	}
}

func (p *process) kill() {
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Error(err)
	}
	_ = p.cmd.Wait()
}
