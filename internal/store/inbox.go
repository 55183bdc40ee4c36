package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

// inboxMax bounds the messages read at once.
const inboxMax = 10_000

// SignalsWaitingMax bounds the messages that wait for a run when it is sent a signal. What people decide about it always
// comes through.
const SignalsWaitingMax = 1_000

// Send puts a message into a run's inbox. The run's row is locked against its owner's updates for that moment, so a
// run that is final is told from one that is not yet: nothing is ever sent to a final run.
func (db *DB) Send(ctx context.Context, tenant uuid.UUID, m Message) error {
	var most *int // nil: any number
	if m.Kind == flow.ToldSignal {
		limit := SignalsWaitingMax
		most = &limit
	}
	type sent struct {
		Status flow.RunStatus
		Room   bool
	}
	s, err := one(ctx, db.api, "send message", pgx.RowToStructByPos[sent],
		`with r as materialized (select id, status,
				$5::int is null or (select count(*) from (select from inbox where run_id = $1 limit $5) c) < $5 as room
			from run where id = $1 and tenant_id = $2 for share),
		i as (insert into inbox (run_id, kind, data)
			select id, $3, $4 from r where status not in ('succeeded', 'cancelled') and room)
		select status, room from r`, m.Run, tenant, clean(m.Kind), clean(string(m.Body)), most)
	if isNoRows(err) {
		return errNoRun()
	}
	switch {
	case err != nil:
		return err
	case s.Status == flow.RunStatusSucceeded || s.Status == flow.RunStatusCancelled:
		return fault.New(fault.KindConflict, "run_ended", "the run is %s, and that is final", s.Status)
	case !s.Room:
		full := fault.New(fault.KindLimited, "signals_waiting", "the run has not taken the messages yet that it was sent; the limit is %d", SignalsWaitingMax)
		full.RetryAfter = time.Second
		return full
	}
	return nil
}

// Inbox reads the messages to runs that these leases own, oldest first.
func (db *DB) Inbox(ctx context.Context, leases []uuid.UUID, limit int) ([]Message, error) {
	return collect(ctx, db.background, "read inbox", scanMessage, inboxSQL, leases, min(limit, inboxMax))
}

// inboxSQL starts from the inbox, which is short, and looks each run up; never from the runs.
const inboxSQL = `select i.id, i.run_id, i.kind, i.data, i.at from (select * from inbox order by id) i
	cross join lateral (select from run r where r.id = i.run_id and r.owner = any ($1::uuid[]) offset 0) r
	limit $2`

// RunInbox reads the messages to some runs, oldest first.
func (db *DB) RunInbox(ctx context.Context, runs []uuid.UUID) ([]Message, error) {
	return collect(ctx, db.background, "read inbox", scanMessage,
		`select id, run_id, kind, data, at from inbox where run_id = any ($1::uuid[]) order by id limit $2`, runs, inboxMax)
}

func scanMessage(row pgx.CollectableRow) (m Message, err error) {
	var body string
	err = row.Scan(&m.ID, &m.Run, &m.Kind, &body, &m.At)
	m.At = m.At.UTC()
	if body != "" {
		m.Body = json.RawMessage(body)
	}
	return m, err
}

// SweepInbox deletes messages that came too late: their run became final while they were on their way.
func (db *DB) SweepInbox(ctx context.Context, limit int) (int, error) {
	return exec(ctx, db.background, "sweep inbox",
		`with x as materialized (
			select i.id from (select id, run_id from inbox order by id) i
			cross join lateral (select from run r
				where r.id = i.run_id and r.status in ('succeeded', 'cancelled') offset 0) r
			limit $1)
		delete from inbox using x where inbox.id = x.id`, limit)
}
