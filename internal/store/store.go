// Package store holds every SQL statement and every transaction. A transaction is open only inside a call of this
// package, never across a model or tool call. Isolation is read committed everywhere, set explicitly.
package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// TenantDefault is the tenant of everybody as long as there are no keys.
var TenantDefault = uuid.MustParse("00000000-0000-7000-8000-000000000001")

// Config of a DB.
type Config struct {
	URL               string       // postgres://… or key=value
	MaxConns          int          // of the pools together: 20. Each Committer and each Raise has one more of its own
	AllowUnsafeCommit bool         // take a server with synchronous_commit off: a crash may lose what was acknowledged
	Log               *slog.Logger // nil: silent
}

// Limits of the store.
const (
	maxConnsDefault = 20
	maxConnsLeast   = 5
	rowsMax         = 1_000 // rows of one page of any list

	connectTimeout   = 5 * time.Second
	pingTimeout      = 2 * time.Second
	queryTimeout     = 12 * time.Second // of a statement, seen from here; the server gives up before
	statementTimeout = 10 * time.Second
	lockTimeout      = 2 * time.Second
	commitTimeout    = 30 * time.Second // of a batch, seen from here
	commitStatement  = 20 * time.Second
	commitLock       = 10 * time.Second
)

// DB is the database. It is safe for concurrent use.
type DB struct {
	cfg  Config
	log  *slog.Logger
	conn *pgx.ConnConfig // of engine connections, to be copied

	api        *pgxpool.Pool // reads for callers, and their short writes
	background *pgxpool.Pool // leases, claims, sweeps: a flood of callers must not cost a node its lease

	want       int64        // version of the newest migration
	partitions atomic.Int64 // unix seconds until which event's partitions are known to be made
}

// Open connects and checks that the database can keep the service's promises: its version, that a commit is durable,
// and that no pooler in transaction mode stands in between. It fails while Postgres is away: the caller tries again.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = maxConnsDefault
	}
	cfg.MaxConns = max(cfg.MaxConns, maxConnsLeast)
	db := &DB{cfg: cfg, log: cfg.Log}
	var err error
	if db.want, err = newestMigration(); err != nil {
		return nil, err
	}
	if db.conn, err = connConfig(cfg.URL); err != nil {
		return nil, err
	}
	if err := db.check(ctx); err != nil {
		return nil, err
	}
	background := max(3, cfg.MaxConns*2/5)
	if db.background, err = db.pool(ctx, background); err != nil {
		return nil, err
	}
	if db.api, err = db.pool(ctx, cfg.MaxConns-background); err != nil {
		db.background.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) pool(ctx context.Context, conns int) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(db.cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	cfg.ConnConfig = db.conn.Copy()
	cfg.MaxConns = int32(conns) //nolint:gosec // a small number
	cfg.MaxConnLifetime = time.Hour
	cfg.MaxConnLifetimeJitter = 10 * time.Minute
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.HealthCheckPeriod = 30 * time.Second
	// A pool outlives the context it was opened with.
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return nil, fmt.Errorf("open connection pool: %w", err)
	}
	return pool, nil
}

// Close closes the pools; it waits until their connections are given back.
func (db *DB) Close() {
	db.api.Close()
	db.background.Close()
}

// Ping reports whether the database answers now.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	_, err := one(ctx, db.background, "ping database", pgx.RowTo[int], `select 1`)
	return err
}

// Now is the time by the database's clock.
func (db *DB) Now(ctx context.Context) (time.Time, error) {
	return one(ctx, db.background, "ask the time", pgx.RowTo[time.Time], `select clock_timestamp()`)
}
