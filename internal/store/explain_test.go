package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// plan is what explain says of a node of a plan that was carried out.
type plan struct {
	Node    string  `json:"Node Type"`
	Table   string  `json:"Relation Name"`
	Index   string  `json:"Index Name"`
	Rows    float64 `json:"Actual Rows"` // of one loop
	Removed float64 `json:"Rows Removed by Filter"`
	Loops   float64 `json:"Actual Loops"`
	Plans   []plan  `json:"Plans"`
}

// explained is what matters of a whole plan.
type explained struct {
	read    map[string]int // rows read, by table
	indexes []string
	scans   []string // tables read from end to end
}

func (e *explained) add(p plan) {
	if p.Table != "" && strings.HasSuffix(p.Node, "Scan") {
		e.read[p.Table] += int((p.Rows + p.Removed) * p.Loops)
		if p.Node == "Seq Scan" {
			e.scans = append(e.scans, p.Table)
		}
	}
	if p.Index != "" {
		e.indexes = append(e.indexes, p.Index)
	}
	for _, sub := range p.Plans {
		e.add(sub)
	}
}

// explain carries a statement out, as engine connections do and with these literals, and takes it back.
func explain(t *testing.T, conn *pgx.Conn, sql string, literals ...string) explained {
	t.Helper()
	do(t, conn, `begin`)
	defer do(t, conn, `rollback`)
	do(t, conn, `prepare q as `+sql)
	defer do(t, conn, `deallocate q`)
	var plans []struct{ Plan plan }
	raw := ask[[]byte](t, conn, `explain (analyze, format json) execute q (`+strings.Join(literals, ", ")+`)`)
	if err := json.Unmarshal(raw, &plans); err != nil {
		t.Fatal(err)
	}
	e := explained{read: map[string]int{}}
	e.add(plans[0].Plan)
	slices.Sort(e.indexes)
	e.indexes = slices.Compact(e.indexes)
	return e
}

// The statements that run all the time go by their indexes at every moment: on a fresh database (a plan made there is
// kept by its connection while the tables grow), when the tables have grown without statistics, with those of the day
// before, when they were empty, and with good ones.
func TestPlansOnStaleStatistics(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	for _, table := range []string{"run", "inbox", "approval", "signal_wait", "emitted"} {
		do(t, conn, `alter table `+table+` set (autovacuum_enabled = off)`)
	}
	s, other := newShard(t, db), newShard(t, db)
	plansHold(t, db, s.ID, "fresh", false)
	grow(t, conn, s.ID, other.ID)
	plansHold(t, db, s.ID, "grown", true)
	do(t, conn, `create table kept as select * from run; create table kept_inbox as select * from inbox;
		create table kept_approval as select * from approval; create table kept_signal_wait as select * from signal_wait`)
	do(t, conn, `truncate run, inbox, approval, signal_wait; analyze`)
	do(t, conn, `insert into run select * from kept; insert into inbox overriding system value select * from kept_inbox;
		insert into approval select * from kept_approval; insert into signal_wait select * from kept_signal_wait`)
	plansHold(t, db, s.ID, "stale", true)
	do(t, conn, `analyze`)
	plansHold(t, db, s.ID, "analyzed", true)
}

// grow fills the tables with 50,000 runs in all states. Nine of a hundred are children of another one, each was asked
// something, and waits for a signal.
func grow(t *testing.T, conn *pgx.Conn, lease, other uuid.UUID) {
	t.Helper()
	do(t, conn, `insert into run (id, tenant_id, owner, created_at, finished_at, wake_at, version, priority, format, status, workflow, hash, stakes, mode, crashes, parent_id)
		select uuid_from(now() - n * interval '1 s'), case when n % 10 = 0 then gen_random_uuid() else $1::uuid end,
			case when n between 1 and 500 then $2::uuid when n between 501 and 5000 then $3::uuid end,
			now() - n * interval '1 s', case when n > 12000 then now() end,
			case when n between 7001 and 7010 then now() - interval '1 s' when n between 7011 and 9000 then now() + interval '1 day' end,
			1, n % 10, 1,
			case when n <= 5000 then 'running' when n <= 7000 then 'queued' when n <= 9000 then 'waiting' when n <= 12000 then 'quarantined'
				when n % 100 = 1 then 'failed' else 'succeeded' end,
			'wf' || n % 50, sha256('x'), 'normal', 'batch', case when n % 4 = 0 then 1 when n % 4 = 1 then 2 else 0 end,
			case when n % 100 between 1 and 9 then uuid_from(now() - n / 100 * 100 * interval '1 s') end
		from generate_series(1, 50000) n`, TenantDefault, lease, other)
	do(t, conn, `insert into inbox (run_id, kind, data) select id, 'cancel', '' from run where status = 'quarantined' or owner = $1
		or status = 'waiting' and wake_at > now() order by id limit 400`, lease)
	do(t, conn, `insert into approval (id, tenant_id, run_id, step, gen, about, workflow, title, show, form, initial, choices, assignees, status, asked_at, answered_at)
		select gen_random_uuid(), tenant_id, id, 'a', 1, 'approval', workflow, '', '', '', '', '{}', '{}',
			case when status = 'waiting' then 'open' else 'answered' end, created_at, case when status <> 'waiting' then now() end from run`)
	do(t, conn, `insert into signal_wait (tenant_id, name, run_id) select tenant_id, workflow, id from run`)
}

func plansHold(t *testing.T, db *DB, lease uuid.UUID, when string, grown bool) {
	conn := direct(t, db)
	engine, err := pgx.ConnectConfig(t.Context(), db.conn)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close(t.Context())
	literal := func(v any) string { return fmt.Sprintf("'%v'", v) }
	middle, parent, asked := uuid.Max, id(), id()
	if grown {
		middle = ask[uuid.UUID](t, conn, `select id from run order by id offset 25000 limit 1`)
		parent = ask[uuid.UUID](t, conn, `select parent_id from run where parent_id is not null and tenant_id = $1 order by id limit 1`, TenantDefault)
		asked = ask[uuid.UUID](t, conn, `select id from approval where tenant_id = $1 order by asked_at offset 25000 limit 1`, TenantDefault)
	}
	own, tenant, before, room := literal(lease), literal(TenantDefault), literal(middle), "20"
	all := literal("{" + strings.Join(words(runStatuses), ",") + "}")
	rows := rowLiteral(t, conn, lease)
	page := []string{tenant, literal(asked), "50", literal("{open,answered,expired,withdrawn}"), "''", "''"}
	for name, c := range map[string]struct {
		sql      string
		literals []string
		index    string // that it must use; several, with a space between
		not      string // that it must not
		rows     int    // it may read, of run or of the table
		table    string
	}{
		"claim":               {claimSQL, []string{own, "1", room, "1", "1"}, "run_claim", "run_owner", 1_000, "run"},
		"inbox":               {inboxSQL, []string{literal("{" + lease.String() + "}"), "100"}, "run_pkey", "run_owner", 500, "run"},
		"runs":                {runsSQL, []string{tenant, before, "50", all}, "run_list", "", 8*50 + 50, "run"},
		"failed runs":         {runsSQL, []string{tenant, literal(uuid.Max), "50", literal("{failed}")}, "run_list", "", 100, "run"},
		"runs of a workflow":  {runsOfWorkflowSQL, []string{tenant, before, "50", all, literal("wf7"), "false"}, "run_workflow", "", 60, "run"},
		"count":               {countSQL, []string{"1000000"}, "run_owner", "", 12_001, "run"},
		"commit of rows":      {commitSQL(1 << partRow), []string{own, "1", rows}, "run_pkey", "run_owner", 5, "run"},
		"commit of all parts": {commitSQL(1<<partsCount - 1), []string{own, "1", "'{}'", rows, "'{}'", "'{1}'", "'{}'", "'{}'", "'{}'", "'{}'", "'{}'", "'{}'", "'{}'", "'{}'"}, "inbox_pkey approval_pkey signal_wait_run signal_wait_pkey", "run_owner", 5, "run"},
		"free runs":           {freeRunsSQL, []string{own, "100"}, "run_owner", "", 200, "run"},
		"roots":               {rootsSQL, []string{tenant, before, "50", all}, "run_list", "", 8*50*2 + 50, "run"},
		"roots of a workflow": {runsOfWorkflowSQL, []string{tenant, before, "50", all, literal("wf7"), "true"}, "run_workflow", "", 120, "run"},
		"runs of a run":       {childrenSQL, []string{tenant, literal(uuid.Max), "50", all, "''", literal(parent), literal(uuid.Nil)}, "run_parent", "", 9, "run"},
		"approvals":           {approvalsSQL, page, "approval_list", "", 4*50 + 50, "approval"},
		"open approvals":      {openApprovalsSQL, []string{"10000"}, "approval_open", "", 10_000, "approval"},
		"approvals of a run":  {approvalsOfRunSQL, append(slices.Clone(page), literal(parent)), "approval_run", "approval_list", 2, "approval"},
		"approval":            {approvalSQL, []string{literal(asked), tenant}, "approval_pkey", "approval_list", 1, "approval"},
		"signal to all":       {signalAllSQL, []string{tenant, literal("1"), literal("wf7"), "'{}'"}, "signal_wait_pkey", "", 2 * 1_000, "signal_wait"},
		"end of signals":      {commitSQL(1 << partQuiet), []string{own, "1", literal("{" + parent.String() + "}")}, "signal_wait_run", "", 1, "signal_wait"},
	} {
		t.Run(when+" "+name, func(t *testing.T) {
			if name == "free runs" {
				do(t, conn, `update lease set closed_at = now() where id = $1`, lease)
				defer do(t, conn, `update lease set closed_at = null where id = $1`, lease)
			}
			e := explain(t, engine, c.sql, c.literals...)
			missing := slices.DeleteFunc(strings.Fields(c.index), func(index string) bool { return slices.Contains(e.indexes, index) })
			if len(e.scans) > 0 || len(missing) > 0 || c.not != "" && slices.Contains(e.indexes, c.not) {
				t.Errorf("indexes %v, scans of %v; want %s, not %q, no scans", e.indexes, e.scans, c.index, c.not)
			}
			if read := e.read[c.table]; read > c.rows || grown && read == 0 {
				t.Errorf("it read %d rows of %s; up to %d are enough", read, c.table, c.rows)
			}
		})
	}
}

// rowLiteral is a parameter with five summaries of runs of the lease.
func rowLiteral(t *testing.T, conn *pgx.Conn, lease uuid.UUID) string {
	t.Helper()
	return "'" + strings.ReplaceAll(ask[string](t, conn, `select coalesce(array_agg(row(id, false, 'running', 1, '', '', '', null, null, null,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, null, 0, null, null, 0, 0, 0)::run_row_3), '{}')::text from (select id from run where owner = $1 order by id limit 5) r`, lease), "'", "''") + "'"
}
