//go:build unix

package pgembed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestStartStop(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	c := openTest(t, dir)
	if got := query(t, c, "select current_database() || ' ' || current_user"); got != "fermata postgres" {
		t.Errorf("connected as %q", got)
	}
	if v := query(t, c, "select current_setting('server_version_num')"); !strings.HasPrefix(v, strconv.Itoa(c.Version())) {
		t.Errorf("Version() = %d, server says %s", c.Version(), v)
	}
	query(t, c, "select pg_notify('x', '')")
	pid := c.postmaster()
	if err := c.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if isPostmasterOf(pid, c.data) {
		t.Error("the last one out left the server running")
	}
	select {
	case <-c.Done():
	case <-testContext(t).Done():
		t.Error("Done is open after the server's exit")
	}
	if err := c.Close(testContext(t)); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := c.Restart(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Restart after Close = %v", err)
	}

	again := openTest(t, dir)
	if again.URL() != c.URL() {
		t.Errorf("URL changed: %s, then %s", c.URL(), again.URL())
	}
	query(t, again, "select version()")
}

func TestSettings(t *testing.T) {
	t.Parallel()
	config := testConfig(reachableDir(t), t.Output())
	config.Settings["work_mem"] = "5MB"
	delete(config.Settings, "fsync")
	c, err := Open(testContext(t), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for name, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
		"work_mem": "5MB", "checkpoint_timeout": "15min", "listen_addresses": "", "TimeZone": "UTC", "server_encoding": "UTF8",
	} {
		got := strings.TrimPrefix(query(t, c, "select current_setting('"+name+"')"), "Etc/")
		if got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := query(t, c, "select current_setting('wal_compression')"); got != "lz4" && got != "pglz" && got != "on" {
		t.Errorf("wal_compression = %s", got)
	}
	hba := query(t, c, "select string_agg(distinct auth_method, ',') from pg_hba_file_rules where type like 'host%'")
	if hba != "reject" {
		t.Errorf("network connections are %s by pg_hba.conf", hba)
	}
	config.Settings["port"] = "5433"
	if _, err := Open(testContext(t), config); err == nil || !strings.Contains(err.Error(), "port") {
		t.Errorf("Open with a port = %v", err)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	first := openTest(t, dir)
	second := openTest(t, dir)
	if second.postmaster() != first.postmaster() || !second.adopted() || first.adopted() {
		t.Error("the second opener did not join the first one's server")
	}
	if second.Version() != first.Version() {
		t.Errorf("versions %d and %d", first.Version(), second.Version())
	}
	if err := first.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	query(t, second, "select 'still here'")
	pid := second.postmaster()
	if err := second.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid, second)
}

func TestThreeColdStarters(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	children := []*process{startChild(t, dir), startChild(t, dir), startChild(t, dir)}
	starters, pids := 0, map[int]bool{}
	for _, p := range children {
		pid, adopted := p.opened()
		pids[pid] = true
		if !adopted {
			starters++
		}
	}
	if starters != 1 || len(pids) != 1 {
		t.Errorf("%d starters, servers %v; want one of each", starters, pids)
	}
	for _, p := range children {
		p.leave()
	}
	if h, pid := readHolder(filepath.Join(dir, "data", "postmaster.pid"), filepath.Join(dir, "data")); h != holderNone {
		t.Errorf("server %d runs although all have left", pid)
	}
}

// A namespace is what root needs where the server's account cannot enter.
func TestUnreachableDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	c := openTest(t, dir)
	if want := os.Geteuid() == 0 || !hasName(os.Geteuid()); c.account.namespace != want {
		t.Errorf("namespace used: %v, want %v", c.account.namespace, want)
	}
	query(t, c, "select version()")
	if err := c.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	query(t, openTest(t, dir), "select version()") // the cluster made there is usable again
}

func TestLongPathGetsShortSocket(t *testing.T) {
	dir := filepath.Join(reachableDir(t), strings.Repeat("long name, ", 12))
	c := openTest(t, dir)
	t.Cleanup(func() { os.RemoveAll(c.sockets) })
	if !socketUsable(c.sockets) {
		t.Errorf("socket directory %s is too long", c.sockets)
	}
	query(t, c, "select version()")
	t.Setenv("TMPDIR", reachableDir(t)) // another place for the stand-in
	query(t, openTest(t, dir), "select version()")
}

func TestPathWithSpecialCharacters(t *testing.T) {
	t.Parallel()
	c := openTest(t, filepath.Join(reachableDir(t), `a b,"c'+%`))
	query(t, c, "select version()")
}

// Whoever owns the stand-in below a shared directory could play the server.
func TestForeignSocketDirectoryIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a directory of another account")
	}
	dir := reachableDir(t)
	a, err := chooseAccount(dir, filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	evil := filepath.Join(dir, "evil")
	if err := os.Mkdir(evil, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(evil, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(evil, a); err == nil {
		t.Error("a directory of another account was taken")
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/", link); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(link, a); err == nil {
		t.Error("a symbolic link was taken")
	}
}

// A socket that answers for another cluster is not ours.
func TestForeignServerOnSocketIsNotJoined(t *testing.T) {
	t.Parallel()
	other := openTest(t, reachableDir(t))
	dir := reachableDir(t)
	c, err := prepare(testConfig(dir, t.Output()), systemPlaces)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ping(testContext(t), other.sockets); err == nil || !strings.Contains(err.Error(), other.data) {
		t.Errorf("ping = %v", err)
	}
	if err := c.ping(testContext(t), other.sockets+"-none"); err == nil {
		t.Error("ping without a server succeeded")
	}
}

func TestOpenGivesUpWithContext(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	c := openTest(t, dir)
	held, err := lockFile(testContext(t), c.path("start.lock"), syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, testConfig(dir, t.Output())); !errors.Is(err, context.Canceled) {
		t.Errorf("Open = %v", err)
	}
}

func TestSocketURL(t *testing.T) {
	got := socketURL("/var/my state/run", "a/b")
	if want := "postgres:///a%2Fb?host=%2Fvar%2Fmy%20state%2Frun&port=5432&user=postgres"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	config, err := pgx.ParseConfig(got)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "/var/my state/run" || config.Database != "a/b" || config.User != "postgres" {
		t.Errorf("read back: host %q database %q user %q", config.Host, config.Database, config.User)
	}
}

func TestDefaultDir(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/state/one:/state/two")
	if got := DefaultDir(); got != "/state/one/postgres" {
		t.Errorf("with STATE_DIRECTORY: %s", got)
	}
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "/xdg")
	want := "/xdg/fermata/postgres"
	if os.Geteuid() == 0 {
		want = "/var/lib/fermata/postgres"
	}
	if got := DefaultDir(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
