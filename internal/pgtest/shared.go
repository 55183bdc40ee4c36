//go:build unix

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fermata-run/fermata/internal/pgembed"
	"github.com/fermata-run/fermata/migrations"
)

const (
	// urlVariable names a server to use instead of the shared one.
	urlVariable = "FERMATA_TEST_DATABASE_URL"

	databasePrefix = "fermata_test_"

	cloneTries = 20
	clonePause = 50 * time.Millisecond
)

// shared is the server of all tests in this process. It is the one variable a
// test cannot be handed: packages and parallel tests meet only here.
var shared = server{migrations: migrations.FS}

// server hands out databases on one PostgreSQL server.
type server struct {
	migrations migrationFiles

	mu       sync.Mutex
	cluster  *pgembed.Cluster // nil on a server named by the environment
	stopper  *stopper         // held: stops the server after this process
	base     *url.URL         // of the database to give orders in
	guard    *pgx.Conn        // its session locks mark what this process uses
	token    int32            // names this process's databases
	count    int
	template string // "" until it is known to exist
}

// newDatabase clones the template. What other processes may do meanwhile (drop a
// template, be connected to it, stop the server) is answered by trying again.
func (s *server) newDatabase(ctx context.Context) (name, address string, err error) {
	for try := 1; ; try++ {
		name, address, err = s.clone(ctx)
		if err == nil || try == cloneTries || !passes(err) {
			return name, address, err
		}
		s.doubt()
		select {
		case <-ctx.Done():
			return "", "", errors.Join(err, ctx.Err())
		case <-time.After(clonePause):
		}
	}
}

func (s *server) clone(ctx context.Context) (name, address string, err error) {
	template, name, err := s.reserve(ctx)
	if err != nil {
		return "", "", err
	}
	err = s.order(ctx, fmt.Sprintf("create database %s template %s strategy file_copy", name, template))
	if err != nil {
		return "", "", fmt.Errorf("clone %s: %w", template, err)
	}
	return name, s.databaseURL(name), nil
}

// reserve makes sure of server and template and picks a name.
func (s *server) reserve(ctx context.Context) (template, name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.connect(ctx); err != nil {
		return "", "", err
	}
	if s.template == "" {
		if s.template, err = ensureTemplate(ctx, s.guard, s.migrations, s.urlOf); err != nil {
			return "", "", err
		}
	}
	s.count++
	return s.template, fmt.Sprintf("%s%d_%d", databasePrefix, s.token, s.count), nil
}

// doubt forgets what was known about the template.
func (s *server) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.template = ""
}

func (s *server) dropDatabase(ctx context.Context, name string) error {
	if err := s.order(ctx, "drop database if exists "+name+" with (force)"); err != nil {
		return fmt.Errorf("drop test database: %w", err)
	}
	return nil
}

// order runs one statement on a connection of its own, so that tests do not wait
// for each other.
func (s *server) order(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.databaseURL(""))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is lost with it
	_, err = conn.Exec(ctx, sql)
	return err
}

// databaseURL is the URL of a database, or of the one to give orders in.
func (s *server) databaseURL(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" {
		return s.base.String()
	}
	return s.urlOf(name)
}

func (s *server) urlOf(name string) string {
	u := *s.base
	u.Path = "/" + name
	return u.String()
}

// connect makes sure of the guard's connection and of the server behind it.
func (s *server) connect(ctx context.Context) error {
	if s.guard != nil && s.guard.Ping(ctx) == nil {
		return nil
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.base.String())
	if err != nil {
		return fmt.Errorf("connect to the test server: %w", err)
	}
	if s.token == 0 {
		s.token = rand.Int32N(1<<31-1) + 1
	}
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1, $2)", lockProcess, s.token); err != nil {
		_ = conn.Close(ctx) // the first error counts
		return fmt.Errorf("lock this process's databases: %w", err)
	}
	s.guard, s.template = conn, ""
	return dropAbandoned(ctx, conn, s.token)
}

// open makes sure that the server runs.
func (s *server) open(ctx context.Context) error {
	if s.cluster != nil {
		return s.cluster.Restart(ctx)
	}
	if s.base != nil {
		return nil
	}
	if named := os.Getenv(urlVariable); named != "" {
		u, err := url.Parse(named)
		if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
			return fmt.Errorf("%s is not a postgres:// URL", urlVariable)
		}
		s.base = u
		return nil
	}
	dir, err := sharedDir()
	if err != nil {
		return err
	}
	if s.stopper == nil {
		if s.stopper, err = stopAfterProcess(dir, stopShared); err != nil {
			return err
		}
	}
	cluster, err := pgembed.Open(ctx, pgembed.Config{Dir: dir, Settings: map[string]string{
		"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_connections": "400",
	}})
	if err != nil {
		return err
	}
	if s.base, err = url.Parse(cluster.DatabaseURL("postgres")); err != nil {
		return err
	}
	s.cluster = cluster
	return nil
}

// binaries are the directories of binaries fetched for the shared cluster, so
// that no test fetches them again.
func (s *server) binaries(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if s.cluster == nil {
		return nil, nil
	}
	dir, err := sharedDir()
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "bin", "*", "native", "bin"))
}

// passes reports whether trying again can help: the template was in use or has
// just been dropped by tests of another branch, or the server went away.
func passes(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch refused.Code {
		case "55006", // object_in_use
			"3D000",          // invalid_catalog_name: the template is gone
			"57P01", "57P03", // admin_shutdown, cannot_connect_now
			"53300": // too_many_connections
			return true
		}
		return false
	}
	var unreachable *pgconn.ConnectError
	return errors.As(err, &unreachable) || pgconn.SafeToRetry(err)
}

// sharedDir is this user's directory of the shared server. Others can create
// names below the temporary directory too, so it must be ours.
func sharedDir() (string, error) {
	dir := filepath.Join(os.TempDir(), "fermata-test-postgres-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || !ownedByUs(info) {
		return "", fmt.Errorf("%s is not a directory that only this user can write to: remove it, or set %s", dir, urlVariable)
	}
	return dir, nil
}
