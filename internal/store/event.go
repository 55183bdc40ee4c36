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

const eventColumns = `e.seq, e.at, e.kind, e.v, e.step, e.gen, e.attempt, e.data, e.more`

// HasEvent reports whether an event is durable.
func (db *DB) HasEvent(ctx context.Context, run uuid.UUID, seq int32) (bool, error) {
	scan := func(row pgx.CollectableRow) ([]flow.Event, error) { return scanEventsAfter(nil, row) }
	rows, err := collect(ctx, db.background, "look for event", scan,
		`select `+eventColumns+` from event e where run_id = $1 and seq <= $2 order by seq desc limit 1`, run, seq)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	return rows[0][len(rows[0])-1].Seq >= seq, nil
}

// Logs reads the whole logs of some runs, each in order. Whoever asks bounds how much that is.
func (db *DB) Logs(ctx context.Context, runs []uuid.UUID) (map[uuid.UUID][]flow.Event, error) {
	logs := make(map[uuid.UUID][]flow.Event, len(runs))
	scan := func(row pgx.CollectableRow) (struct{}, error) {
		var run uuid.UUID
		events, err := scanEventsAfter(nil, row, &run)
		logs[run] = append(logs[run], events...)
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

// Events reads the events of a tenant's run after a number, in order. The page begins with the row that holds the
// first of them.
func (db *DB) Events(ctx context.Context, tenant, run uuid.UUID, after int32, limit int) ([]flow.Event, error) {
	limit = min(limit, rowsMax)
	list, err := db.events(ctx,
		`select `+eventColumns+` from run r
		left join lateral (select * from event where run_id = r.id
			and seq >= coalesce((select max(seq) from event where run_id = r.id and seq <= $3 + 1), 0)
			order by seq limit $4) e on true
		where r.id = $1 and r.tenant_id = $2 order by e.seq`, run, tenant, after, limit)
	list = slices.DeleteFunc(list, func(e flow.Event) bool { return e.Seq <= after })
	return list[:min(len(list), limit)], err
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
	return list[len(list)-1], nil
}

// events runs a query that answers no row when the run is not the tenant's, and one of nulls when it has no events.
func (db *DB) events(ctx context.Context, sql string, args ...any) ([]flow.Event, error) {
	var list []flow.Event
	scan := func(row pgx.CollectableRow) (_ struct{}, err error) {
		if row.RawValues()[0] != nil {
			list, err = scanEventsAfter(list, row)
		}
		return struct{}{}, err
	}
	rows, err := collect(ctx, db.api, "read events", scan, sql, args...)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errNoRun()
	}
	return list, nil
}

// scanEventsAfter reads the events of a row, whose columns stand after some others, to the end of a list.
func scanEventsAfter(list []flow.Event, row pgx.CollectableRow, before ...any) ([]flow.Event, error) {
	var e flow.Event
	var body, more string
	if err := row.Scan(append(before, &e.Seq, &e.At, &e.Kind, &e.V, &e.Step, &e.Gen, &e.Attempt, &body, &more)...); err != nil {
		return nil, err
	}
	e.At = e.At.UTC()
	if body != "" {
		e.Body = json.RawMessage(body)
	}
	return unpack(list, e, more)
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
