package store

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

const eventColumns = `e.seq, e.at, e.kind, e.v, e.step, e.gen, e.attempt, e.data`

// HasEvent reports whether an event is durable.
func (db *DB) HasEvent(ctx context.Context, run uuid.UUID, seq int32) (bool, error) {
	return one(ctx, db.background, "look for event", pgx.RowTo[bool],
		`select exists (select from event where run_id = $1 and seq = $2)`, run, seq)
}

// Logs reads the whole logs of some runs, each in order. Whoever asks bounds how much that is.
func (db *DB) Logs(ctx context.Context, runs []uuid.UUID) (map[uuid.UUID][]flow.Event, error) {
	logs := make(map[uuid.UUID][]flow.Event, len(runs))
	scan := func(row pgx.CollectableRow) (struct{}, error) {
		var run uuid.UUID
		e, err := scanEventAfter(row, &run)
		logs[run] = append(logs[run], e)
		return struct{}{}, err
	}
	// Run by run, so that each is looked up in its own partition only, and comes out in the order of the key.
	_, err := collect(ctx, db.background, "read logs", scan,
		`select u.id, `+eventColumns+` from unnest($1::uuid[]) u(id)
		cross join lateral (select * from event where run_id = u.id order by seq) e`, runs)
	if err != nil {
		return nil, err
	}
	for _, log := range logs {
		if !slices.IsSortedFunc(log, bySeq) { // nothing in the statement promises it
			slices.SortFunc(log, bySeq)
		}
	}
	return logs, nil
}

func bySeq(a, b flow.Event) int { return int(a.Seq) - int(b.Seq) }

// Events reads the events of a tenant's run after a number, in order.
func (db *DB) Events(ctx context.Context, tenant, run uuid.UUID, after int32, limit int) ([]flow.Event, error) {
	return db.events(ctx,
		`select `+eventColumns+` from run r
		left join lateral (select * from event where run_id = r.id and seq > $3 order by seq limit $4) e on true
		where r.id = $1 and r.tenant_id = $2 order by e.seq`, run, tenant, after, min(limit, rowsMax))
}

// LastEvent reads the newest event of a tenant's run.
func (db *DB) LastEvent(ctx context.Context, tenant, run uuid.UUID) (flow.Event, error) {
	list, err := db.events(ctx,
		`select `+eventColumns+` from run r
		left join lateral (select * from event where run_id = r.id order by seq desc limit 1) e on true
		where r.id = $1 and r.tenant_id = $2`, run, tenant)
	if err == nil && len(list) == 0 {
		return flow.Event{}, fault.New(fault.KindNotFound, "events_not_found", "the run's events are past their retention")
	}
	if err != nil {
		return flow.Event{}, err
	}
	return list[0], nil
}

// events runs a query that answers no row when the run is not the tenant's, and one of nulls when it has no events.
func (db *DB) events(ctx context.Context, sql string, args ...any) ([]flow.Event, error) {
	scan := func(row pgx.CollectableRow) (flow.Event, error) {
		if row.RawValues()[0] == nil {
			return flow.Event{}, nil
		}
		return scanEventAfter(row)
	}
	list, err := collect(ctx, db.api, "read events", scan, sql, args...)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errNoRun()
	}
	if list[0].Seq == 0 {
		return nil, nil
	}
	return list, nil
}

// scanEventAfter reads the columns of an event that stand after some others.
func scanEventAfter(row pgx.CollectableRow, before ...any) (e flow.Event, err error) {
	var body string
	err = row.Scan(append(before, &e.Seq, &e.At, &e.Kind, &e.V, &e.Step, &e.Gen, &e.Attempt, &body)...)
	e.At = e.At.UTC()
	if body != "" {
		e.Body = json.RawMessage(body)
	}
	return e, err
}

// partitionsPeriod is how long partitions are known to be made: they are made a month ahead.
const partitionsPeriod = time.Hour

// EnsurePartitions makes the partitions of event for this month and the next. It is cheap to be called often.
func (db *DB) EnsurePartitions(ctx context.Context) error {
	if time.Now().Unix() < db.partitions.Load() {
		return nil
	}
	_, err := exec(ctx, db.background, "make partitions",
		`select event_partition(now()), event_partition(now() + interval '1 month')`)
	if err == nil {
		db.partitions.Store(time.Now().Add(partitionsPeriod).Unix())
	}
	return err
}
