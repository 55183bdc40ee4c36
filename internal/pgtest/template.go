//go:build unix

package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// migrationFiles is a directory of goose SQL migrations.
type migrationFiles interface {
	fs.FS
	fs.ReadDirFS
}

const (
	templatePrefix = "fermata_template_"
	makingPrefix   = "fermata_making_"
)

// Classes of advisory locks in the database that orders are given in.
const (
	lockProcess  int32 = 0x0F_E1 + iota // (class, token): the process with that token lives
	lockTemplate                        // (class, hash), shared: a process uses that template
	lockMaking                          // (class, 0): somebody makes or drops templates
)

// ensureTemplate returns the name of the migrated template, which it makes if no
// process has yet, and keeps it from being dropped while the guard is connected.
func ensureTemplate(ctx context.Context, guard *pgx.Conn, files migrationFiles, urlOf func(string) string) (name string, err error) {
	sum, err := hashOf(files)
	if err != nil {
		return "", fmt.Errorf("hash migrations: %w", err)
	}
	name = templatePrefix + hex.EncodeToString(sum[:6])
	if _, err := guard.Exec(ctx, "select pg_advisory_lock($1, 0)", lockMaking); err != nil {
		return "", fmt.Errorf("lock templates: %w", err)
	}
	defer func() {
		_, unlockErr := guard.Exec(ctx, "select pg_advisory_unlock($1, 0)", lockMaking)
		err = errors.Join(err, unlockErr)
	}()
	if _, err := guard.Exec(ctx, "select pg_advisory_lock_shared($1, $2)", lockTemplate, templateKey(name)); err != nil {
		return "", fmt.Errorf("lock template: %w", err)
	}
	known, err := databases(ctx, guard, templatePrefix)
	if err != nil {
		return "", err
	}
	for _, other := range known {
		if other == name {
			return name, nil
		}
		if err := dropUnused(ctx, guard, other); err != nil {
			return "", err
		}
	}
	return name, makeTemplate(ctx, guard, files, name, urlOf)
}

// makeTemplate migrates a database under another name: the template's appears
// only when it is whole, and then nobody can connect to it.
func makeTemplate(ctx context.Context, guard *pgx.Conn, files migrationFiles, name string, urlOf func(string) string) error {
	making := makingPrefix + strings.TrimPrefix(name, templatePrefix)
	for _, sql := range []string{
		"drop database if exists " + making + " with (force)", // of a killed process
		"create database " + making,
	} {
		if _, err := guard.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make template: %w", err)
		}
	}
	if err := migrate(ctx, urlOf(making), files); err != nil {
		return fmt.Errorf("make template: %w", err)
	}
	for _, sql := range []string{
		"alter database " + making + " with allow_connections false",
		"alter database " + making + " rename to " + name,
	} {
		if _, err := guard.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make template: %w", err)
		}
	}
	return nil
}

// migrate brings a database to the newest migration.
func migrate(ctx context.Context, address string, files fs.FS) (err error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// dropUnused drops a template that no living process uses: another version of
// the migrations made it.
func dropUnused(ctx context.Context, guard *pgx.Conn, name string) error {
	return ifUnlocked(ctx, guard, lockTemplate, templateKey(name), func() error {
		return drop(ctx, guard, name)
	})
}

// dropAbandoned drops the databases of test processes that were killed. own is
// this process's token, whose lock its session could take twice.
func dropAbandoned(ctx context.Context, guard *pgx.Conn, own int32) error {
	names, err := databases(ctx, guard, databasePrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		token, _, _ := strings.Cut(strings.TrimPrefix(name, databasePrefix), "_")
		key, err := strconv.ParseInt(token, 10, 32)
		if err != nil || int32(key) == own {
			continue
		}
		err = ifUnlocked(ctx, guard, lockProcess, int32(key), func() error { return drop(ctx, guard, name) })
		if err != nil {
			return err
		}
	}
	return nil
}

func drop(ctx context.Context, guard *pgx.Conn, name string) error {
	if _, err := guard.Exec(ctx, "drop database if exists "+pgx.Identifier{name}.Sanitize()+" with (force)"); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	return nil
}

// ifUnlocked calls do under an exclusive lock, if no other session holds it.
func ifUnlocked(ctx context.Context, guard *pgx.Conn, class, key int32, do func() error) error {
	var free bool
	if err := guard.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", class, key).Scan(&free); err != nil {
		return fmt.Errorf("look whether a process uses it: %w", err)
	}
	if !free {
		return nil
	}
	err := do()
	_, unlockErr := guard.Exec(ctx, "select pg_advisory_unlock($1, $2)", class, key)
	return errors.Join(err, unlockErr)
}

// databases lists the databases whose names begin with the prefix.
func databases(ctx context.Context, conn *pgx.Conn, prefix string) ([]string, error) {
	rows, err := conn.Query(ctx, "select datname::text from pg_database where starts_with(datname, $1) order by 1", prefix)
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	return names, nil
}

// templateKey turns a template's name into the key of its lock.
func templateKey(name string) int32 {
	sum := sha256.Sum256([]byte(name))
	return int32(binary.BigEndian.Uint32(sum[:4]) >> 1)
}

// hashOf depends on the names and the contents of all migrations.
func hashOf(files migrationFiles) (sum [sha256.Size]byte, err error) {
	entries, err := files.ReadDir(".") // sorted by name
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	for _, e := range entries {
		text, err := fs.ReadFile(files, e.Name())
		if err != nil {
			return sum, err
		}
		fmt.Fprintf(h, "%s %d\n%s", e.Name(), len(text), text)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
