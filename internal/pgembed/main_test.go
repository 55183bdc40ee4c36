//go:build unix

package pgembed

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// childDir, when set, makes the test binary a program that opens the cluster
// there, says so, and leaves when its standard input ends.
const childDir = "PGEMBED_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	leave, err := bringBinaries()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	leave()
	os.Exit(code)
}

// binDir, where it is set, is the directory of the binaries that were fetched for these tests.
const binDir = "PGEMBED_TEST_BIN_DIR"

// bringBinaries fetches the bundle, once for all tests and their children, on a machine without PostgreSQL.
func bringBinaries() (leave func(), err error) {
	if os.Getenv(binDir) != "" {
		return func() {}, nil
	}
	f := finder{config: testConfig("", io.Discard), places: systemPlaces}
	if _, err := f.find(context.Background(), 0); err == nil {
		return func() {}, nil
	}
	if f.config.Dir, err = os.MkdirTemp("", "pgembed-bundle-"); err != nil {
		return nil, err
	}
	leave = func() { os.RemoveAll(f.config.Dir) }
	bin, err := f.fetched(context.Background())
	if err == nil {
		err = os.Chmod(f.config.Dir, 0o755) // for the accounts that the tests drop to
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, os.Setenv(binDir, bin.dir)
}

func child(dir string) int {
	ctx := context.Background()
	c, err := Open(ctx, testConfig(dir, os.Stderr))
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("open", c.postmaster(), c.adopted())
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := c.Close(ctx); err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

// testConfig is small and quick: what these tests kill is processes, never the
// machine.
func testConfig(dir string, log io.Writer) Config {
	var bins []string
	if dir := os.Getenv(binDir); dir != "" {
		bins = []string{dir}
	}
	return Config{
		Dir: dir, Offline: true, BinDirs: bins,
		Settings: map[string]string{"fsync": "off", "shared_buffers": "16MB", "max_connections": "20", "max_wal_size": "256MB"},
		Log:      slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// process is a child that opened a cluster.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// startChild starts a child without waiting for it to open the cluster.
func startChild(t *testing.T, dir string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
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

// opened waits until the child uses the cluster.
func (p *process) opened() (postmaster int, adopted bool) {
	p.t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		p.t.Fatalf("child ended without a word: %v", err)
	}
	if _, err := fmt.Sscanf(line, "open %d %t", &postmaster, &adopted); err != nil {
		p.t.Fatalf("child: %s", line)
	}
	return postmaster, adopted
}

// leave lets the child close the cluster and end.
func (p *process) leave() {
	p.t.Helper()
	p.stdin.Close()
	rest, _ := io.ReadAll(p.stdout)
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("child: %v: %s", err, rest)
	}
}

func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

// reachableDir is a temporary directory that other accounts may enter, where a
// root test drops its privileges; t.TempDir() lets a root test use a namespace.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgembed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// openTest opens the cluster and closes it with the test.
func openTest(t *testing.T, dir string) *Cluster {
	t.Helper()
	c, err := Open(testContext(t), testConfig(dir, t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// query returns one text from the database.
func query(t *testing.T, c *Cluster, sql string) string {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var text string
	if err := conn.QueryRow(ctx, sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// awaitGone waits until a process is no server on the cluster any more.
func awaitGone(t *testing.T, pid int, c *Cluster) {
	t.Helper()
	ctx := testContext(t)
	for isPostmasterOf(pid, c.data) {
		if err := pause(ctx, stopPoll); err != nil {
			t.Fatalf("postmaster %d lives: %v", pid, err)
		}
	}
}

func kill(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// logOf reads the server's log, for messages of failing tests.
func logOf(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
