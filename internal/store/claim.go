package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Claimed is a run that a lease owns.
type Claimed struct {
	Run, Tenant uuid.UUID
	Workflow    string
	Version     int
	Hash        workflow.Hash
	Crashes     int16
	Status      flow.RunStatus // as it is now, owned: running, cancelling, or failed with a message waiting
}

// suspectCrashes is how many nodes a run must have seen die, while it was at work, to be suspected of killing them. One
// death is that of the node: all its runs saw it.
const suspectCrashes = 2

// Suspect reports whether the run may be what kills nodes.
func (c Claimed) Suspect() bool { return c.Crashes >= suspectCrashes }

// claimSQL finds runs that nobody owns, in five ways, each by an index of its own and each passing over the rows that
// another claimer has locked: ready ones; those that saw one node die; a suspect, if one is wanted; parked ones whose
// time has come; parked and failed ones that were sent a message. Of all these the first by priority and age are taken.
//
// The exists() stands in each part so that a claimer without a lease locks nothing. $1 lease, $2 epoch, $3 room, $4
// the highest format it can read, $5 how many suspects: 0 or 1.
const claimSQL = `with f as materialized (
	select id from lease where id = $1 and epoch = $2 and closed_at is null for no key update),
ready as materialized (
	select id, priority, crashes from run
	where owner is null and status in ('queued', 'cancelling') and crashes = 0 and format <= $4 and exists (select from f)
	order by priority desc, id limit $3 for no key update skip locked),
again as materialized (
	select id, priority, crashes from run
	where owner is null and status in ('queued', 'cancelling') and crashes = 1 and format <= $4 and exists (select from f)
	order by priority desc, id limit $3 for no key update skip locked),
suspect as materialized (
	select id, priority, crashes from run
	where owner is null and status in ('queued', 'cancelling') and crashes > 1 and format <= $4 and exists (select from f)
	order by crashes, priority desc, id limit $5 for no key update skip locked),
due as materialized (
	select r.* from generate_series(9, 0, -1) p cross join lateral (
		select id, priority, crashes from run
		where status = 'waiting' and priority = p and wake_at <= now() and format <= $4 and exists (select from f)
		order by wake_at limit $3 for no key update skip locked) r limit $3),
told as materialized (
	select id, priority, crashes from run
	where id = any (array(
			select i.run_id from (select id, run_id from inbox order by id) i
			cross join lateral (select from run r
				where r.id = i.run_id and r.owner is null and r.status in ('waiting', 'failed') offset 0) r
			limit $3))
		and owner is null and status in ('waiting', 'failed') and format <= $4 and exists (select from f)
	for no key update skip locked),
ranked as (
	select id, priority, crashes, row_number() over (partition by crashes > 1 order by priority desc, id) as place
	from (select * from ready union select * from again union select * from suspect union select * from due union select * from told) c),
taken as materialized (
	select id from ranked where crashes <= 1 or place <= $5 order by priority desc, id limit $3),
claimed as (
	update run set owner = f.id, wake_at = null, waiting_for = '',
		status = case when run.status in ('queued', 'waiting') then 'running' else run.status end
	from f, taken where run.id = taken.id
	returning run.id, run.tenant_id, run.workflow, run.version, run.hash, run.crashes, run.status, run.priority)
select c.id, c.tenant_id, coalesce(c.workflow, ''), coalesce(c.version, 0), c.hash, coalesce(c.crashes, 0), coalesce(c.status, '')
from f left join claimed c on true order by c.priority desc, c.id`

// Claim takes up to room runs for the lease, in the order in which they should be worked on; at most one of them is a
// suspect, and none if there is no place for one.
func (db *DB) Claim(ctx context.Context, l Lease, room int, formatMax int16, suspect bool) ([]Claimed, error) {
	suspects := 0
	if suspect {
		suspects = 1
	}
	list, err := collect(ctx, db.background, "claim runs", scanClaimed, claimSQL, l.ID, l.Epoch, min(room, rowsMax), formatMax, suspects)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrLeaseLost
	}
	if list[0].Run == uuid.Nil { // the fence alone: nothing to claim
		return nil, nil
	}
	return list, nil
}

func scanClaimed(row pgx.CollectableRow) (c Claimed, err error) {
	var id, tenant *uuid.UUID
	var hash []byte
	if err := row.Scan(&id, &tenant, &c.Workflow, &c.Version, &hash, &c.Crashes, &c.Status); err != nil || id == nil {
		return c, err
	}
	c.Run, c.Tenant = *id, *tenant
	copy(c.Hash[:], hash)
	return c, nil
}

// ownedMax bounds what a shard may own; more is a defect that must not take the memory with it.
const ownedMax = 200_000

// Owned lists the runs that the table says are the lease's.
func (db *DB) Owned(ctx context.Context, l Lease) ([]Claimed, error) {
	return collect(ctx, db.background, "list owned runs", scanClaimed,
		`select id, tenant_id, workflow, version, hash, crashes, status from run where owner = $1 limit $2`, l.ID, ownedMax)
}

// FreeRuns gives runs of a closed lease to whoever has room, at most limit at once, and answers how many. A crash is
// counted against each of them, unless the node drained.
func (db *DB) FreeRuns(ctx context.Context, closed uuid.UUID, limit int) (int, error) {
	return exec(ctx, db.background, "free runs", freeRunsSQL, closed, limit)
}

const freeRunsSQL = `with l as materialized (select drained from lease where id = $1 and closed_at is not null),
	x as materialized (select id from run where owner = $1 and exists (select from l)
		limit $2 for no key update skip locked)
	update run set owner = null, wake_at = null, stage = '',
		crashes = least(run.crashes + case when l.drained then 0 else 1 end, 32767),
		status = case when run.status = 'running' then 'queued' else run.status end
	from x, l where run.id = x.id`

// Quarantine sets a run that the lease owns aside for an operator.
func (db *DB) Quarantine(ctx context.Context, l Lease, run uuid.UUID, reason string) error {
	held, err := one(ctx, db.background, "quarantine run", pgx.RowTo[bool],
		`with f as materialized (select id from lease where id = $1 and epoch = $2 and closed_at is null for no key update),
		q as (update run set status = 'quarantined', owner = null, wake_at = null, finished_at = null, stage = '',
				error_class = 'internal', error_message = $4, error_step = ''
			from f where run.id = $3 and run.owner = f.id returning 1)
		select exists (select from q) from f`, l.ID, l.Epoch, run, clean(reason))
	if isNoRows(err) {
		return ErrLeaseLost
	}
	if err == nil && !held {
		return fmt.Errorf("quarantine run %s: %w", run, errNotOwned)
	}
	return err
}

// Unquarantine gives a run back to the claimers, its crashes forgotten. False: it is not in quarantine.
func (db *DB) Unquarantine(ctx context.Context, tenant, run uuid.UUID) (bool, error) {
	n, err := exec(ctx, db.api, "release run from quarantine",
		`update run set status = 'queued', crashes = 0, error_class = null, error_message = null, error_step = null
		where id = $1 and tenant_id = $2 and status = 'quarantined'`, run, tenant)
	if err != nil || n > 0 {
		return n > 0, err
	}
	_, err = db.Run(ctx, tenant, run)
	return false, err
}
