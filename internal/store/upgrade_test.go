package store

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/migrations"
)

// What a node of the version before sends: the parts of its commit that have changed since.
const (
	formerNew = fence + `, n as (insert into run (id, tenant_id, created_at, version, steps_total, priority, format, status, workflow,
	hash, stakes, mode, preview, labels, owner, stage, waiting_for, error_class, error_message, error_step,
	cost_nano, tokens_input, tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning,
	calls, unpriced_calls, simulated_calls, steps_done, wake_at, crashes, started_at, finished_at,
	baseline_nano, cache_saved_nano)
	select u.id, u.tenant_id, u.created_at, u.version, u.steps_total, u.priority, u.format, u.status, u.workflow,
		u.hash, u.stakes, u.mode, u.preview, u.labels, case when u.owned then f.id end,
		u.stage, u.waiting_for, u.error_class, u.error_message, u.error_step,
		u.cost_nano, u.tokens_input, u.tokens_cache_read, u.tokens_cache_write, u.tokens_output, u.tokens_reasoning,
		u.calls, u.unpriced_calls, u.simulated_calls, u.steps_done, u.wake_at, u.crashes, u.started_at, u.finished_at,
		u.baseline_nano, u.cache_saved_nano
	from f, unnest(array[row($3::uuid, $4::uuid, now(), 1, 3, 5, 'wf', sha256('x'), 'normal', 'batch', null, true,
		'running', 1, '', '', '', null, null, null, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, null, 0, null, null, 0, 0)::run_new_2]) u),
e as (insert into event (run_id, at, seq, gen, attempt, v, kind, step, data, more)
	select u.* from f, unnest(array[row($3::uuid, now(), 1, 0, 0, 1, 'run_submitted', '', '{}', '')::event_new]) u)
select count(*) from f`

	formerRow = fence + `, d as (update run set status = u.status, stage = u.stage, waiting_for = u.waiting_for, preview = u.preview,
	error_class = u.error_class, error_message = u.error_message, error_step = u.error_step,
	cost_nano = u.cost_nano, tokens_input = u.tokens_input, tokens_cache_read = u.tokens_cache_read,
	tokens_cache_write = u.tokens_cache_write, tokens_output = u.tokens_output, tokens_reasoning = u.tokens_reasoning,
	calls = u.calls, unpriced_calls = u.unpriced_calls, simulated_calls = u.simulated_calls,
	steps_done = u.steps_done, wake_at = u.wake_at, crashes = u.crashes, format = u.format,
	started_at = u.started_at, finished_at = u.finished_at,
	baseline_nano = u.baseline_nano, cache_saved_nano = u.cache_saved_nano, owner = case when not u.release then f.id end
	from f, unnest(array[row($3::uuid, false, 'running', 1, 'now', '', '', null, null, null, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, null, 0,
		null, null, 0, 0)::run_row_2]) u
	where run.id = u.id and run.owner is not distinct from f.id returning 1)
select count(*) from d`
)

// Nodes of the version before work side by side with this one: what they send is taken, before the migration and after,
// and what they do not know of stays as it is.
func TestNodesOfTheVersionBefore(t *testing.T) {
	db := openAt(t, 3)
	s, conn := newShard(t, db), direct(t, db)
	send := func(sql string, args ...any) {
		t.Helper()
		if n := ask[int](t, conn, sql, append([]any{s.ID, s.Epoch}, args...)...); n != 1 {
			t.Errorf("%d rows", n)
		}
	}
	old := id()
	send(formerNew, old, TenantDefault)
	send(formerRow, old)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	young := id()
	send(formerNew, young, TenantDefault)
	send(formerRow, old)
	child := submit(t, s, flow.RunStatusRunning, func(n *NewRun) {
		n.Parent, n.ParentStep, n.Depth, n.StepsTotal, n.Signals = old, "sub", 1, 70, []string{"go"}
	})
	send(formerRow, child)
	for _, run := range []uuid.UUID{old, young, child} {
		r := must(db.Run(t.Context(), TenantDefault, run))(t)
		want := RunRow{Stage: "now", StepsDone: 2, StepsTotal: 3}
		switch run {
		case young:
			want = RunRow{StepsTotal: 3}
		case child:
			want = RunRow{Stage: "now", StepsDone: 2, StepsTotal: 70, Parent: &old, ParentStep: "sub", Depth: 1}
		}
		got := RunRow{Stage: r.Stage, StepsDone: r.StepsDone, StepsTotal: r.StepsTotal, Parent: r.Parent, ParentStep: r.ParentStep, Depth: r.Depth}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := s.commit(t.Context(), Change{Run: run, Row: row(flow.RunStatusRunning), Events: events(2, 2)}); err != nil {
			t.Errorf("this version goes on with it: %v", err)
		}
	}
	if list := must(db.Runs(t.Context(), TenantDefault, RunFilter{Parent: &old, Limit: 10}))(t); len(list) != 1 || list[0].ID != child {
		t.Errorf("children: %+v", list)
	}
	if !ask[bool](t, conn, `select indisvalid from pg_index where indexrelid = 'run_parent'::regclass`) {
		t.Error("the index of children is not valid")
	}
}

// An index whose building was cut is built anew.
func TestCutIndexIsBuiltAgain(t *testing.T) {
	db := openAt(t, 4)
	conn := direct(t, db)
	do(t, conn, `create index run_parent on run (parent_id)`)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if def := ask[string](t, conn, `select pg_get_indexdef('run_parent'::regclass)`); !strings.Contains(def, "(parent_id, id) WHERE") {
		t.Errorf("the index is %s", def)
	}
}

// openAt gives a store on a database whose schema is of a former version.
func openAt(t *testing.T, version int64) *DB {
	t.Helper()
	url := pgtest.New(t)
	do(t, connect(t, url), `drop schema public cascade; create schema public`)
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	handle := stdlib.OpenDB(*cfg)
	defer handle.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, handle, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), Config{URL: url, MaxConns: 12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// What a node of the version before books meets the same rows.
func TestBookingsOfTheVersionBefore(t *testing.T) {
	db := open(t)
	conn, b := direct(t, db), newBooks(t, db)
	run, node := id(), id()
	const former = `select count(*) from budget_book($1, array[row($2::uuid, true, 100, 0, 30, 0)]::budget_need[],
		array[row($3::uuid, $4::uuid, $2, 's', 1, 1, 50, 0, false, array[1]::int2[])]::hold_new[], '{}', '{}')`
	for want := range 2 { // the second does not fit
		if n := ask[int](t, conn, former, node, run, id(), TenantDefault); n != want {
			t.Errorf("%d notes, want %d", n, want)
		}
	}
	booked := b.book(Booking{Node: b.node, Needs: []Need{{ID: run, Run: run, Limit: 100}}, Holds: []HoldNew{{ID: id(), Tenant: TenantDefault, Run: run, Amount: 20, Needs: []int16{0}}}})
	if len(booked.Refused) != 0 {
		t.Errorf("refused: %+v", booked.Refused)
	}
	wantLevels(t, conn, run, [2]int64{30, 70})
}
