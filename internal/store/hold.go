package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

// Held is a reservation of a node that died.
type Held struct {
	Node, ID uuid.UUID
	Run      uuid.UUID // zero: none
}

const (
	// holdGrace is how old a reservation must be to be swept: a node that starts reserves before it has a lease.
	holdGrace = 30 * time.Second
	lostKept  = 7 * 24 * time.Hour // a lost reservation is corrected up to then
	voidKept  = time.Hour          // a void one keeps a late statement from making it up to then
)

// deadHoldsSQL finds the nodes that hold anything by hopping from one to the next in the primary key, and of these the
// ones that have no lease any more.
const deadHoldsSQL = `with recursive n as (
		(select node from reservation order by node limit 1)
		union all
		select (select node from reservation r where r.node > n.node order by r.node limit 1) from n where n.node is not null),
	dead as materialized (
		select node from n where node is not null and not exists (select from lease l where l.node = n.node and l.closed_at is null))
	select h.node, h.id, coalesce(h.run_id, '00000000-0000-0000-0000-000000000000') from dead
	cross join lateral (select * from reservation r where r.node = dead.node and r.state = 'held' and r.created_at < now() - $1::interval
		order by r.id limit $2) h limit $2`

// DeadHolds lists reservations of nodes that have no open lease: nobody settles them any more. Nothing can be added to
// the logs of their runs under those leases.
func (db *DB) DeadHolds(ctx context.Context, limit int) ([]Held, error) {
	return collect(ctx, db.background, "look for reservations of dead nodes", pgx.RowToStructByPos[Held], deadHoldsSQL, holdGrace, min(limit, rowsMax))
}

// EventsNaming reads the events of a run whose rows hold a word: enough of its log to find one call.
func (db *DB) EventsNaming(ctx context.Context, run uuid.UUID, word string) ([]flow.Event, error) {
	var list []flow.Event
	scan := func(row pgx.CollectableRow) (_ struct{}, err error) {
		list, err = scanEventsAfter(list, row)
		return struct{}{}, err
	}
	_, err := collect(ctx, db.background, "search log", scan, eventsNamingSQL, run, word, rowsMax)
	return list, err
}

const eventsNamingSQL = `select ` + eventColumns + ` from event e
	where e.run_id = $1 and (strpos(e.data, $2) > 0 or strpos(e.more, $2) > 0) order by e.seq limit $3`

// SweepHolds deletes lost and void reservations that nobody will come back to, the budgets of runs that ended a while ago,
// and long past windows.
func (db *DB) SweepHolds(ctx context.Context, limit int) (int, error) {
	holds, err := exec(ctx, db.background, "sweep reservations",
		`delete from reservation where (node, id) in (select node, id from reservation
			where state = 'lost' and created_at < now() - $1::interval or state = 'void' and created_at < now() - $2::interval limit $3)`,
		lostKept, voidKept, limit)
	if err != nil {
		return 0, err
	}
	windows, err := exec(ctx, db.background, "sweep budgets of runs", sweepRunBudgetsSQL, runBudgetKept, limit)
	if err != nil {
		return holds, err
	}
	past, err := exec(ctx, db.background, "sweep past windows of budgets", sweepWindowsSQL, windowKept, limit)
	return holds + windows + past, err
}

// windowKept is how long a past window of a budget is kept: a year can be compared with the one before.
const windowKept = 800 * 24 * time.Hour

// A lifetime began with the epoch and is never past. What is left of a deleted budget is past at once.
const sweepWindowsSQL = `delete from budget_window where reserved_nano = 0 and reserved_tokens = 0 and id = any (array(
	select w.id from budget_window w left join budget b on b.id = w.budget
	where not w.run and w.reserved_nano = 0 and w.reserved_tokens = 0
		and (b.id is null or b.period <> 'lifetime' and w.started < now() - $1::interval) limit $2))`

// runBudgetKept is how long the budgets of a run and of its steps are kept after its end. A run resumed later begins anew
// with what its log says was spent.
const runBudgetKept = time.Hour

// That nothing is set aside is asked twice: only what is asked of the row itself is asked again when a booking held it.
// Runs are looked up one by one: there are many more of them than budgets, and no plan is to read them all.
const sweepRunBudgetsSQL = `delete from budget_window where reserved_nano = 0 and reserved_tokens = 0 and id = any (array(
	select w.id from budget_window w left join lateral (select id, finished_at from run where id = coalesce(w.run_id, w.budget) offset 0) r on true
	where w.run and w.reserved_nano = 0 and w.reserved_tokens = 0 and (r.id is null or r.finished_at < now() - $1::interval) limit $2))`

// RunLevel is where a run's own budget stands: what is spent and set aside as calls are made, those of the runs that its
// steps started included. Of a run without a budget, or before its first call, nothing is spent, and set aside is what
// other budgets hold for its calls that are being made by the node that owns it.
type RunLevel struct {
	Spent, Reserved             usage.Money
	SpentTokens, ReservedTokens int64
}

// RunLevel reads where the budget of a tenant's run stands.
func (db *DB) RunLevel(ctx context.Context, tenant, run uuid.UUID) (RunLevel, error) {
	return one(ctx, db.api, "read budget of run", pgx.RowToStructByPos[RunLevel],
		`select coalesce(w.spent_nano, 0), coalesce(w.reserved_nano, h.nano), coalesce(w.spent_tokens, 0), coalesce(w.reserved_tokens, h.tokens)
		from run r left join budget_window w on w.budget = r.id and w.started = 'epoch'
		cross join lateral (select coalesce(sum(h.nano), 0)::int8 as nano, coalesce(sum(h.tokens), 0)::int8 as tokens from lease l
			join reservation h on h.node = l.node and h.run_id = r.id and h.state = 'held' where l.id = r.owner) h
		where r.id = $1 and r.tenant_id = $2`, run, tenant)
}
