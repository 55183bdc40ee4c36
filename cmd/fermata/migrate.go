package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/fermata-run/fermata/internal/store"
)

type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Bring the schema up to date. Nodes do so themselves when they start."`
	Status migrateStatus `cmd:"" help:"Show which version the schema has, and which one this program wants."`
}

// databaseFlags say which database a command works on.
type databaseFlags struct {
	DatabaseURL string `env:"DATABASE_URL" required:"" placeholder:"URL" help:"The Postgres: postgres://…"`
}

func (f databaseFlags) open(ctx context.Context, s *screen) (*store.DB, error) {
	// What cannot keep the service's promises may be migrated all the same: it is not served on yet.
	return store.Open(ctx, store.Config{URL: f.DatabaseURL, AllowUnsafeCommit: true, Log: newLog(s.err, s.talkTTY, slog.LevelInfo)})
}

// schema is the state of a database's schema, as JSON.
type schema struct {
	Current int64 `json:"current"`
	Wanted  int64 `json:"wanted"`
}

// showSchema shows the version. A schema that is behind is an error, so that scripts can ask.
func showSchema(ctx context.Context, s *screen, db *store.DB) error {
	current, wanted, err := db.Migrated(ctx)
	if err != nil {
		return err
	}
	var behind error
	if current < wanted {
		behind = fmt.Errorf("the schema is behind: version %d of %d; fermata migrate up", current, wanted)
	}
	if s.json {
		return errors.Join(s.showJSON(schema{current, wanted}), behind)
	}
	switch {
	case current == wanted:
		s.print("the schema is up to date: version %d", current)
	case current > wanted:
		s.print("the schema has version %d, made by a newer fermata; this one wants %d", current, wanted)
	}
	return behind
}

type migrateUp struct{ databaseFlags }

// Run migrates.
func (m *migrateUp) Run(ctx context.Context, s *screen) error {
	db, err := m.open(ctx, s)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	return showSchema(ctx, s, db)
}

type migrateStatus struct{ databaseFlags }

// Run shows the version.
func (m *migrateStatus) Run(ctx context.Context, s *screen) error {
	db, err := m.open(ctx, s)
	if err != nil {
		return err
	}
	defer db.Close()
	return showSchema(ctx, s, db)
}
