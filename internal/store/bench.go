package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

const rawEventsPerRun = 20 // of a run of ten steps

// RawAppends measures what the database takes at best: rows of `bytes` each, appended in batches by some committers,
// into tables of the same shape in a schema of their own, which is dropped afterwards. Bare rows, or (full) by the
// service's own statement with all that goes along: fence, submissions, finished runs, and spend.
func (db *DB) RawAppends(ctx context.Context, rows, batch, bytes, committers int, full bool) (rowsPerSecond float64, err error) {
	if rows < 1 || batch < 1 || committers < 1 || batch*committers > rows {
		return 0, fmt.Errorf("measure appends: %d rows are too few for %d committers with batches of %d", rows, committers, batch)
	}
	schema, drop, err := db.scratch(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	appenders := make([]*appender, committers)
	for i := range appenders {
		if appenders[i], err = db.appender(ctx, schema, batch, bytes, full); err != nil {
			return 0, err
		}
		defer appenders[i].c.Close()
		if err := appenders[i].append(ctx); err != nil { // connects and prepares
			return 0, err
		}
	}
	batches := rows / batch / committers
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range appenders {
		group.Go(func() error {
			for range batches {
				if err := a.append(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return float64(batches*batch*committers) / time.Since(began).Seconds(), nil
}

// scratch makes empty tables of the same shape as the service's, in a schema of their own.
func (db *DB) scratch(ctx context.Context) (schema string, drop func() error, err error) {
	cfg, err := plainConfig(db.cfg.URL)
	if err != nil {
		return "", nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return "", nil, fmt.Errorf("make scratch tables: %w", err)
	}
	schema = "fermata_bench_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	drop = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
		defer cancel()
		_, err := conn.Exec(ctx, `drop schema if exists `+schema+` cascade`)
		return errors.Join(err, conn.Close(ctx))
	}
	_, err = conn.Exec(ctx, strings.ReplaceAll(`create schema SCRATCH;
		create table SCRATCH.event (like event including all) partition by range (run_id);
		create table SCRATCH.event_other partition of SCRATCH.event default;
		create table SCRATCH.run (like run including all) with (fillfactor = 80);
		create table SCRATCH.lease (like lease including all) with (fillfactor = 50);
		create table SCRATCH.inbox (like inbox including all);
		create table SCRATCH.spend (like spend including all) with (fillfactor = 70)`, "SCRATCH", schema))
	if err == nil {
		err = copyTriggers(ctx, conn, schema)
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("make scratch tables: %w", err), drop())
	}
	return schema, drop, nil
}

// copyTriggers: "like" leaves them out.
func copyTriggers(ctx context.Context, conn *pgx.Conn, schema string) error {
	type trigger struct{ Table, From, Def string }
	triggers, err := collect(ctx, conn, "read triggers", pgx.RowToStructByPos[trigger],
		`select c.relname::text, c.oid::regclass::text, pg_get_triggerdef(t.oid, true) from pg_trigger t join pg_class c on c.oid = t.tgrelid
		where c.oid in ('run'::regclass, 'event'::regclass) and not t.tgisinternal`)
	if err != nil {
		return err
	}
	for _, t := range triggers {
		def := strings.Replace(t.Def, " ON "+t.From+" ", " ON "+schema+"."+t.Table+" ", 1)
		if def == t.Def {
			return fmt.Errorf("copy trigger: %q does not name its table as expected", t.Def)
		}
		if _, err := conn.Exec(ctx, def); err != nil {
			return fmt.Errorf("copy trigger: %w", err)
		}
	}
	return nil
}

// appender appends like a shard's committer does.
type appender struct {
	c     *Committer
	lease Lease
	size  int
	full  bool
	body  json.RawMessage
	last  []uuid.UUID // runs submitted by the batch before, finished by this one
	began time.Time
}

func (db *DB) appender(ctx context.Context, schema string, batch, size int, full bool) (*appender, error) {
	now, err := db.Now(ctx)
	if err != nil {
		return nil, err
	}
	a := &appender{c: db.Committer(), lease: Lease{Epoch: 1}, size: batch, full: full, began: now}
	a.c.schema = schema
	body := append([]byte{'"'}, bytes.Repeat([]byte{'x'}, max(0, size-2))...)
	a.body = append(body, '"')
	if a.lease.ID, err = uuid.NewV7(); err != nil {
		return nil, fmt.Errorf("measure appends: %w", err)
	}
	_, err = exec(ctx, db.background, "make scratch lease",
		`insert into `+schema+`.lease (id, node, epoch, since, until) values ($1, $1, 1, now(), now())`, a.lease.ID)
	return a, err
}

func (a *appender) append(ctx context.Context) error {
	changes, err := a.changes()
	if err != nil {
		return err
	}
	if a.full {
		return a.c.Commit(ctx, a.lease, changes)
	}
	return a.c.appendBare(ctx, changes)
}

// changes is a batch as a shard would gather it: runs of ten steps, submitted in one batch and finished in the next.
func (a *appender) changes() ([]Change, error) {
	now := time.Now()
	var changes []Change
	for _, run := range a.last {
		changes = append(changes, Change{Run: run, Row: &Row{
			Status: flow.RunStatusSucceeded, Preview: "scratch", StepsDone: 10, Release: true, Format: 1, StartedAt: &now, FinishedAt: &now,
		}})
	}
	a.last = a.last[:0]
	for left := a.size; left > 0; left -= rawEventsPerRun {
		run, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("measure appends: %w", err)
		}
		c := Change{Run: run, Events: make([]flow.Event, min(left, rawEventsPerRun))}
		for i := range c.Events { // an instant each: a row each
			c.Events[i] = flow.Event{
				Seq: int32(i + 1), At: now.Add(time.Duration(i) * time.Microsecond), Kind: flow.KindStepSucceeded, V: 1, Step: "step_01", Gen: 1, Attempt: 1, Body: a.body, //nolint:gosec // small
			}
		}
		if a.full {
			c.New = &NewRun{
				Tenant: TenantDefault, Workflow: "scratch", Version: 1, Status: flow.RunStatusRunning, Stakes: "normal",
				Mode: "batch", Priority: 5, Preview: "scratch", StepsTotal: 10, Format: 1, Owned: true, At: now,
			}
			c.Spend = []SpendLine{{
				Hour: a.began.Truncate(time.Hour), Tenant: TenantDefault, Workflow: "scratch", Agent: "scratch",
				Provider: "scratch", Model: "scratch", Calls: 10, Tokens: usage.Tokens{Input: 1, Output: 1}, Cost: 1,
			}}
			a.last = append(a.last, run)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// appendBare appends the events of changes, and nothing else: no fence, no rows.
func (c *Committer) appendBare(ctx context.Context, changes []Change) error {
	if err := c.batch.encode(Lease{}, changes); err != nil {
		return err
	}
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return err
		}
		sql := `insert into event (run_id, at, seq, gen, attempt, v, kind, step, data, more) select * from unnest(` + placeholder(partEvent, 1) + `)`
		if _, err := c.conn.Prepare(ctx, "append", sql, nil); err != nil {
			return fmt.Errorf("prepare append: %w", err)
		}
	}
	c.params = c.batch.params(c.params[:0], &c.oids)
	if err := c.conn.ExecPrepared(ctx, "append", c.params[fenceParams:], binaryFormat, binaryFormat).Read().Err; err != nil {
		return fmt.Errorf("append: %w", err)
	}
	return nil
}

// WALBytes is how much write-ahead log the server has written since it exists.
func (db *DB) WALBytes(ctx context.Context) (int64, error) {
	return one(ctx, db.background, "read WAL position", pgx.RowTo[int64], `select (pg_current_wal_insert_lsn() - '0/0')::int8`)
}
