package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

// Limits of one signal to all that wait for it. Of more, the runs submitted first are told.
const (
	SignalRunsMax  = 10_000
	SignalBytesMax = 64 << 20 // its size times the runs
)

// emittedKept is how long it is known of a signal that it was told.
const emittedKept = 30 * 24 * time.Hour

// The statement that tells a signal to whoever waits for it stands around where signals come from. Nobody is told of one
// that was told before: the messages are those of the rows that were inserted.
var (
	emittedFrom = `m as (insert into emitted (tenant_id, id, name, data, run_id, told, left_off)
	select u.*, least(c.n, s.room), c.n > s.room from `

	emittedTold = fmt.Sprintf(` cross join lateral (select least(%d, %d / greatest(octet_length(u.data), 1)) as room) s
	cross join lateral (select count(*) as n from (select from signal_wait w
		where w.tenant_id = u.tenant_id and w.name = u.name limit s.room + 1) w) c
	on conflict do nothing returning tenant_id, name, data, told, left_off),
i as (insert into inbox (run_id, kind, data)
	select r.run_id, '`+flow.ToldSignal+`', m.data from m cross join lateral (select w.run_id from signal_wait w
		where w.tenant_id = m.tenant_id and w.name = m.name order by w.tenant_id, w.name, w.run_id limit m.told) r)`,
		SignalRunsMax, SignalBytesMax)

	signalAllSQL = `with ` + emittedFrom +
		`(select $1::uuid as tenant_id, $2::text as id, $3::text as name, $4::text as data, null::uuid as run_id) u` + emittedTold + `
	select name, told, left_off, true from m`
)

// Signal tells one run a signal. A run takes the same id once; one that nobody waits for yet is kept.
func (db *DB) Signal(ctx context.Context, tenant, run uuid.UUID, name, id string, data json.RawMessage) error {
	body, err := signalBody(name, id, data)
	if err != nil {
		return err
	}
	return db.Send(ctx, tenant, Message{Run: run, Kind: flow.ToldSignal, Body: body})
}

// told is what became of a signal to all that wait for it.
type told struct {
	name    string
	runs    int
	leftOff bool
	now     bool // not before
}

// SignalAll tells a signal to every run of the tenant that waits for its name, and answers how many they are. The same id
// is told once; the answer is then that of the first time. A run that is submitted meanwhile may miss it. Nobody is
// told if there are too many.
func (db *DB) SignalAll(ctx context.Context, tenant uuid.UUID, name, id string, data json.RawMessage) (n int, err error) {
	body, err := signalBody(name, id, data)
	if err != nil {
		return 0, err
	}
	name, id = clean(name), clean(id)
	err = within(ctx, db.api, "signal runs", func(tx pgx.Tx) error {
		done, err := one(ctx, tx, "signal runs", scanTold, signalAllSQL, tenant, id, name, string(body))
		if isNoRows(err) {
			done, err = one(ctx, tx, "read signal", scanTold,
				`select name, told, left_off, false from emitted where tenant_id = $1 and id = $2`, tenant, id)
		}
		switch {
		case err != nil:
			return err
		case done.name != name:
			return fault.New(fault.KindConflict, "signal_id_used", "the signal %q was sent under this id before", done.name)
		case done.now && done.leftOff:
			return fault.New(fault.KindTooLarge, "signal_runs_too_many",
				"more runs wait for %q than can be told at once: the limit is %d runs, and %d bytes for all together", name, SignalRunsMax, SignalBytesMax)
		}
		n = done.runs
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func scanTold(row pgx.CollectableRow) (t told, err error) {
	err = row.Scan(&t.name, &t.runs, &t.leftOff, &t.now)
	return t, err
}

// SweepEmitted forgets signals that were told long ago.
func (db *DB) SweepEmitted(ctx context.Context, limit int) (int, error) {
	return exec(ctx, db.background, "sweep signals",
		`with x as materialized (select tenant_id, id from emitted where at < now() - $1::interval
			order by at limit $2 for update skip locked)
		delete from emitted e using x where (e.tenant_id, e.id) = (x.tenant_id, x.id)`, emittedKept, limit)
}
