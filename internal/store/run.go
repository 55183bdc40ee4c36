package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// RunRow is the summary of a run.
type RunRow struct {
	ID, Tenant            uuid.UUID
	Workflow              string
	Version               int // 0: submitted inline
	Hash                  workflow.Hash
	Status                flow.RunStatus
	Stage                 string // the first step at work when the row was written
	WaitingFor            string
	Preview               string // the beginning of the input; of the output once there is one
	Error                 *flow.Failure
	Sum                   usage.Sum
	StepsDone, StepsTotal int
	Labels                map[string]string
	Stakes, Mode          string
	Priority              int
	Owner                 *uuid.UUID // the lease of the node that works on it
	WakeAt                *time.Time
	Crashes, Format       int16
	CreatedAt             time.Time
	StartedAt, FinishedAt *time.Time
	Parent                *uuid.UUID // the run whose step started it; nil: nobody's
	ParentStep            string
	Depth                 int // runs around it
}

const runColumns = `r.id, r.tenant_id, r.workflow, r.version, r.hash, r.status, r.stage, r.waiting_for, r.preview,
	r.error_class, r.error_message, r.error_step, r.cost_nano, r.tokens_input, r.tokens_cache_read, r.tokens_cache_write,
	r.tokens_output, r.tokens_reasoning, r.calls, r.unpriced_calls, r.simulated_calls, r.steps_done, r.steps_total,
	r.labels, r.stakes, r.mode, r.priority, r.owner, r.wake_at, r.crashes, r.format, r.created_at, r.started_at, r.finished_at,
	r.baseline_nano, r.cache_saved_nano, r.parent_id, r.parent_step, r.depth`

func scanRun(row pgx.CollectableRow) (r RunRow, err error) {
	var hash, labels []byte
	var class, message, step *string
	t := &r.Sum.Tokens
	err = row.Scan(&r.ID, &r.Tenant, &r.Workflow, &r.Version, &hash, &r.Status, &r.Stage, &r.WaitingFor, &r.Preview,
		&class, &message, &step, &r.Sum.Cost, &t.Input, &t.CacheRead, &t.CacheWrite,
		&t.Output, &t.Reasoning, &r.Sum.Calls, &r.Sum.Unpriced, &r.Sum.Simulated, &r.StepsDone, &r.StepsTotal,
		&labels, &r.Stakes, &r.Mode, &r.Priority, &r.Owner, &r.WakeAt, &r.Crashes, &r.Format, &r.CreatedAt, &r.StartedAt, &r.FinishedAt,
		&r.Sum.Baseline, &r.Sum.CacheSaved, &r.Parent, &r.ParentStep, &r.Depth)
	if err != nil {
		return r, err
	}
	copy(r.Hash[:], hash)
	if class != nil {
		r.Error = &flow.Failure{Class: *class, Message: *message}
		if step != nil {
			r.Error.Step = *step
		}
	}
	if labels != nil {
		err = json.Unmarshal(labels, &r.Labels)
	}
	r.CreatedAt = r.CreatedAt.UTC()
	for _, at := range []*time.Time{r.WakeAt, r.StartedAt, r.FinishedAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
	return r, err
}

func errNoRun() error { return fault.New(fault.KindNotFound, "run_not_found", "there is no such run") }

// Run reads a tenant's run.
func (db *DB) Run(ctx context.Context, tenant, id uuid.UUID) (RunRow, error) {
	r, err := one(ctx, db.api, "read run", scanRun, `select `+runColumns+` from run r where r.id = $1 and r.tenant_id = $2`, id, tenant)
	if isNoRows(err) {
		return RunRow{}, errNoRun()
	}
	return r, err
}

// HasRun reports whether a run is durable.
func (db *DB) HasRun(ctx context.Context, run uuid.UUID) (bool, error) {
	return one(ctx, db.background, "look for run", pgx.RowTo[bool], `select exists (select from run where id = $1)`, run)
}

// RunFilter narrows a list of runs. Zero values do not narrow.
type RunFilter struct {
	Status   []flow.RunStatus
	Workflow string
	Roots    bool       // only those that no step started
	Parent   *uuid.UUID // only those that its steps started, oldest first
	Before   uuid.UUID  // ids below this one: the last of the page before
	After    uuid.UUID  // of Parent's: ids above this one
	Limit    int        // at most 1,000
}

// runStatuses are all there are, as in the table's check.
var runStatuses = []flow.RunStatus{
	flow.RunStatusQueued, flow.RunStatusRunning, flow.RunStatusWaiting, flow.RunStatusCancelling,
	flow.RunStatusSucceeded, flow.RunStatusFailed, flow.RunStatusCancelled, flow.RunStatusQuarantined,
}

// Runs lists a tenant's runs, newest first; those of a parent oldest first.
func (db *DB) Runs(ctx context.Context, tenant uuid.UUID, f RunFilter) ([]RunRow, error) {
	before := f.Before
	if before == uuid.Nil {
		before = uuid.Max
	}
	statuses := f.Status
	if len(statuses) == 0 {
		statuses = runStatuses
	}
	args := []any{tenant, before, min(f.Limit, rowsMax), words(statuses)}
	switch {
	case f.Parent != nil:
		return collect(ctx, db.api, "list runs of a run", scanRun, childrenSQL, append(args, clean(f.Workflow), *f.Parent, f.After)...)
	case f.Workflow != "":
		return collect(ctx, db.api, "list runs of workflow", scanRun, runsOfWorkflowSQL, append(args, clean(f.Workflow), f.Roots)...)
	case f.Roots:
		return collect(ctx, db.api, "list runs", scanRun, rootsSQL, args...)
	}
	return collect(ctx, db.api, "list runs", scanRun, runsSQL, args...)
}

// runsSQL takes the newest of each status, which is where the index run_list has them together, and of these the
// newest of all. Ids first: the rows are wide. rootsSQL passes over the runs that a step started.
const (
	runsSQL  = newestHead + newestTail
	rootsSQL = newestHead + ` and parent_id is null` + newestTail

	newestHead = `with newest as materialized (
		select r.id from unnest($4::text[]) u(status)
		cross join lateral (select id from run
			where tenant_id = $1 and status = u.status and id < $2`
	newestTail = ` order by tenant_id desc, status desc, id desc limit $3) r
		order by r.id desc limit $3)
	select ` + runColumns + ` from newest n cross join lateral (select * from run where id = n.id offset 0) r order by r.id desc`
)

// runsOfWorkflowSQL goes down the index run_workflow and passes over other statuses.
const runsOfWorkflowSQL = `select ` + runColumns + ` from run r
	where r.tenant_id = $1 and r.workflow = $5 and r.id < $2 and r.status = any ($4::text[]) and (not $6 or r.parent_id is null)
	order by r.tenant_id desc, r.workflow desc, r.id desc limit $3`

// childrenSQL goes up the index run_parent.
const childrenSQL = `select ` + runColumns + ` from run r
	where r.parent_id = $6 and r.tenant_id = $1 and r.id > $7 and r.id < $2 and r.status = any ($4::text[]) and ($5 = '' or r.workflow = $5)
	order by r.parent_id, r.id limit $3`

func words[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

// liveMax bounds a count of live runs: a gauge that stands there means "at least".
const liveMax = 1_000_000

// CountLive counts the runs that are not at an end, by status, each up to a million. Every status has its index.
func (db *DB) CountLive(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	for _, s := range runStatuses {
		if !s.Ended() {
			counts[string(s)] = 0
		}
	}
	scan := func(row pgx.CollectableRow) (struct{}, error) {
		var status string
		var n int
		err := row.Scan(&status, &n)
		if _, live := counts[status]; live {
			counts[status] += n
		}
		return struct{}{}, err
	}
	_, err := collect(ctx, db.background, "count live runs", scan, countSQL, liveMax)
	if err != nil {
		return nil, err
	}
	return counts, nil
}

const countSQL = `select status, count(*) from (
		(select status from run where owner is null and status in ('queued', 'cancelling') limit $1)
		union all (select status from run where owner is not null limit $1)
		union all (select status from run where status = 'waiting' limit $1)
		union all (select status from run where status = 'quarantined' limit $1)
	) live group by status`
