package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	versionLeast = 150_000 // PostgreSQL 15

	keepaliveIdle     = 5 * time.Second
	keepaliveInterval = 2 * time.Second
	keepaliveCount    = 3 // a dead peer is noticed within 11 s
)

// engineOptions are set on each connection as it starts. Statements are few, known and prepared: they run by plans
// that do not depend on statistics, which are stale just when it matters (array joins then flip to scans). A server
// behind which we die frees our locks by its own keepalives.
func engineOptions() map[string]string {
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	seconds := func(d time.Duration) string { return strconv.FormatInt(int64(d.Seconds()), 10) }
	return map[string]string{
		"timezone":                      "UTC",
		"default_transaction_isolation": "read committed",
		"enable_seqscan":                "off",
		"enable_hashjoin":               "off",
		"enable_mergejoin":              "off",
		"plan_cache_mode":               "force_generic_plan",
		"jit":                           "off", // scans that are switched off look expensive enough to compile for

		"statement_timeout":                   millis(statementTimeout),
		"lock_timeout":                        millis(lockTimeout),
		"idle_in_transaction_session_timeout": millis(statementTimeout),

		"tcp_keepalives_idle":     seconds(keepaliveIdle),
		"tcp_keepalives_interval": seconds(keepaliveInterval),
		"tcp_keepalives_count":    strconv.Itoa(keepaliveCount),
	}
}

// plainConfig reads the URL for a connection without the engine's options: migrations take their time.
func plainConfig(url string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > connectTimeout {
		cfg.ConnectTimeout = connectTimeout
	}
	dialer := &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount},
	}
	cfg.DialFunc = dialer.DialContext
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "fermata"
	}
	return cfg, nil
}

func connConfig(url string) (*pgx.ConnConfig, error) {
	cfg, err := plainConfig(url)
	if err != nil {
		return nil, err
	}
	maps.Copy(cfg.RuntimeParams, engineOptions())
	return cfg, nil
}

// commitConfig is for the connection of a committer: a batch may take longer than a query.
func (db *DB) commitConfig() *pgx.ConnConfig {
	cfg := db.conn.Copy()
	cfg.RuntimeParams["statement_timeout"] = strconv.FormatInt(commitStatement.Milliseconds(), 10)
	cfg.RuntimeParams["lock_timeout"] = strconv.FormatInt(commitLock.Milliseconds(), 10)
	cfg.RuntimeParams["work_mem"] = "64MB" // the arrays of a large batch must not go to disk on their way
	return cfg
}

// check refuses a server that cannot keep the service's promises.
func (db *DB) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, db.conn)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", connectHint(err))
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing depends on it
	var version int
	var name, fsync string
	err = conn.QueryRow(ctx, `select current_setting('server_version_num')::int, version(), current_setting('fsync')`).Scan(&version, &name, &fsync)
	if err != nil {
		return fmt.Errorf("ask the server's version: %w", err)
	}
	if version < versionLeast {
		return fmt.Errorf("the server is %s: PostgreSQL 15 or newer is needed", name)
	}
	if fsync == "off" {
		db.log.Warn("the server runs with fsync=off: a crash of its machine may lose everything")
	}
	if err := durable(ctx, conn.PgConn(), db.cfg.AllowUnsafeCommit); err != nil {
		return err
	}
	return db.checkPooler(ctx, conn)
}

// durable refuses a connection whose commits are acknowledged before they are on disk.
func durable(ctx context.Context, conn *pgconn.PgConn, allowUnsafe bool) error {
	if allowUnsafe {
		return nil
	}
	result := conn.ExecParams(ctx, `select current_setting('synchronous_commit')`, nil, nil, nil, nil).Read()
	if result.Err != nil {
		return fmt.Errorf("ask for synchronous_commit: %w", result.Err)
	}
	if string(result.Rows[0][0]) == "off" {
		return errors.New("synchronous_commit is off: a crash of the database would lose what was acknowledged; set it on, or allow unsafe commits explicitly")
	}
	return nil
}

var (
	errPooler         = errors.New("a pooler in transaction mode (PgBouncer or alike) stands before the database: connect to Postgres itself, or through a pool in session mode")
	errOptionsDropped = errors.New("a pooler before the database drops the options that connections start with: connect to Postgres itself")
)

// connectHint explains the refusal by which a PgBouncer in its default settings shows itself.
func connectHint(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "08P01" {
		return fmt.Errorf("%w (%w)", errPooler, err)
	}
	return err
}

// checkPooler finds out whether this connection keeps its server process. A direct one is told the process id by
// the process itself. Behind a pooler, two clients take turns in transactions: in transaction mode one of them comes
// to find itself on the other's process.
func (db *DB) checkPooler(ctx context.Context, conn *pgx.Conn) error {
	first, err := serverProcess(ctx, conn)
	if err != nil {
		return err
	}
	if first == conn.PgConn().PID() {
		return nil
	}
	other, err := pgx.ConnectConfig(ctx, db.conn)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer other.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing depends on it
	for range 3 {
		swapped, err := swaps(ctx, conn, other)
		if err != nil {
			return err
		}
		if swapped {
			return errPooler
		}
		conn, other = other, conn
	}
	var seqscan string
	if err := conn.QueryRow(ctx, `select current_setting('enable_seqscan')`).Scan(&seqscan); err != nil {
		return fmt.Errorf("ask for the connection's options: %w", err)
	}
	if seqscan != "off" {
		return errOptionsDropped
	}
	db.log.Warn("a pooler in session mode stands before the database: it adds a hop to each commit")
	return nil
}

// swaps opens a transaction on each connection, ends both, and looks whether the first is then still where it was.
func swaps(ctx context.Context, a, b *pgx.Conn) (bool, error) {
	was, err := serverProcess(ctx, a)
	if err != nil {
		return false, err
	}
	ta, err := a.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("probe for a pooler: %w", err)
	}
	tb, err := b.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("probe for a pooler: %w", err)
	}
	if err := errors.Join(ta.Rollback(ctx), tb.Rollback(ctx)); err != nil {
		return false, fmt.Errorf("probe for a pooler: %w", err)
	}
	is, err := serverProcess(ctx, a)
	return is != was, err
}

func serverProcess(ctx context.Context, conn *pgx.Conn) (uint32, error) {
	var pid uint32
	if err := conn.QueryRow(ctx, `select pg_backend_pid()`, pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		return 0, fmt.Errorf("ask for the server process: %w", err)
	}
	return pid, nil
}
