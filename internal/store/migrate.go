package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/fermata-run/fermata/migrations"
)

// Migrate brings the schema up to date. Nodes that start together wait for one another.
func (db *DB) Migrate(ctx context.Context) error {
	cfg, err := plainConfig(db.cfg.URL)
	if err != nil {
		return err
	}
	handle := stdlib.OpenDB(*cfg)
	defer handle.Close()
	// A second's pace for up to ten minutes: a first node may be at a long migration.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, handle, migrations.FS,
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	done, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, m := range done {
		db.log.Info("migrated", "version", m.Source.Version, "took", m.Duration)
	}
	return nil
}

// Migrated tells the schema's version and the one this binary wants. A current above the wanted one is the work of a
// newer node and is fine.
func (db *DB) Migrated(ctx context.Context) (current, want int64, err error) {
	current, err = one(ctx, db.background, "ask the schema's version", pgx.RowTo[int64],
		`select coalesce(max(version_id), 0) from goose_db_version where is_applied`)
	if isState(err, "42P01") { // no such table: nothing is migrated
		return 0, db.want, nil
	}
	return current, db.want, err
}

// newestMigration reads the version off the name of the last file.
func newestMigration() (int64, error) {
	files, err := migrations.FS.ReadDir(".")
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	if len(files) == 0 {
		return 0, errors.New("read migrations: there are none")
	}
	version, err := goose.NumericComponent(files[len(files)-1].Name())
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	return version, nil
}
