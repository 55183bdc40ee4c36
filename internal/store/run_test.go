package store

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

func TestRuns(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	foreign := uuid.New()
	var all []uuid.UUID // newest first
	byStatus, byWorkflow := map[flow.RunStatus][]uuid.UUID{}, map[string][]uuid.UUID{}
	for i := range 30 {
		status := []flow.RunStatus{flow.RunStatusQueued, flow.RunStatusRunning}[i%2]
		name := []string{"a", "b", "c"}[i%3]
		run := submit(t, s, status, func(n *NewRun) { n.Workflow = name })
		submit(t, s, status, func(n *NewRun) { n.Workflow, n.Tenant = name, foreign })
		all = slices.Insert(all, 0, run)
		byStatus[status] = slices.Insert(byStatus[status], 0, run)
		byWorkflow[name] = slices.Insert(byWorkflow[name], 0, run)
	}
	var both []uuid.UUID
	for _, run := range byWorkflow["a"] {
		if slices.Contains(byStatus[flow.RunStatusQueued], run) {
			both = append(both, run)
		}
	}
	for name, c := range map[string]struct {
		filter RunFilter
		want   []uuid.UUID
	}{
		"all":      {RunFilter{}, all},
		"status":   {RunFilter{Status: []flow.RunStatus{"queued"}}, byStatus["queued"]},
		"statuses": {RunFilter{Status: []flow.RunStatus{"running", "queued", "failed"}}, all},
		"none":     {RunFilter{Status: []flow.RunStatus{"failed"}}, nil},
		"workflow": {RunFilter{Workflow: "a"}, byWorkflow["a"]},
		"both":     {RunFilter{Workflow: "a", Status: []flow.RunStatus{"queued"}}, both},
		"unknown":  {RunFilter{Workflow: "x\x00"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uuid.UUID
			for f := c.filter; ; {
				f.Limit = 4
				page := must(db.Runs(t.Context(), TenantDefault, f))(t)
				for _, r := range page {
					got = append(got, r.ID)
				}
				if len(page) < f.Limit {
					break
				}
				f.Before = got[len(got)-1]
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOthersRunsAreNotFound(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	for _, c := range []struct{ tenant, run uuid.UUID }{{uuid.New(), run}, {TenantDefault, id()}} {
		_, read := db.Run(t.Context(), c.tenant, c.run)
		_, events := db.Events(t.Context(), c.tenant, c.run, 0, 10)
		_, last := db.LastEvent(t.Context(), c.tenant, c.run)
		_, released := db.Unquarantine(t.Context(), c.tenant, c.run)
		for _, err := range []error{read, events, last, released, db.Send(t.Context(), c.tenant, Message{Run: c.run, Kind: "x"})} {
			if !fault.Is(err, fault.KindNotFound) {
				t.Errorf("%v, want not found", err)
			}
		}
	}
}

// The statuses of the rules, of this package and of the tables are the same.
func TestStatuses(t *testing.T) {
	conn := direct(t, open(t))
	for _, c := range []struct {
		file, prefix, constraint string
		own                      []string
	}{
		{"../flow/event.go", "RunStatus", "run_status", words(runStatuses)},
		{"../flow/wait.go", "Approval", "approval_status", words(approvalStatuses)},
	} {
		rules := declared(t, c.file, c.prefix)
		table := quoted(ask[string](t, conn, `select pg_get_constraintdef(oid) from pg_constraint where conname = $1`, c.constraint))
		for _, list := range [][]string{rules, table, c.own} {
			slices.Sort(list)
		}
		if len(rules) < 4 || !slices.Equal(rules, table) || !slices.Equal(rules, c.own) {
			t.Errorf("rules %v, table %v, store %v", rules, table, c.own)
		}
	}
	finished := ask[string](t, conn, `select pg_get_constraintdef(oid) from pg_constraint where conname = 'run_finished'`)
	for _, s := range runStatuses {
		if strings.Contains(finished, "'"+string(s)+"'") != s.Ended() {
			t.Errorf("%s: the rules and the table differ on whether it is an end", s)
		}
	}
}

// declared lists the values of the constants of a file whose names begin with a prefix.
func declared(t *testing.T, file, prefix string) (values []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, prefix) {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, s)
		}
		return true
	})
	return values
}

func quoted(text string) (list []string) {
	for _, m := range regexp.MustCompile(`'(\w+)'`).FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// The runs that a run's steps started are listed in the order of their ids; roots are those that no step started.
func TestParents(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	parent, foreign := submit(t, s, flow.RunStatusRunning), uuid.New()
	roots, children := []uuid.UUID{parent}, []uuid.UUID(nil)
	of := func(parent uuid.UUID) func(*NewRun) {
		return func(n *NewRun) { n.Parent, n.ParentStep, n.Depth, n.Workflow = parent, "build.3.make", 2, "inner" }
	}
	for i := range 6 {
		status := []flow.RunStatus{flow.RunStatusQueued, flow.RunStatusRunning}[i%2]
		children = append(children, submit(t, s, status, of(parent)))
		submit(t, s, status, of(parent), func(n *NewRun) { n.Tenant = foreign })
		submit(t, s, status, of(children[0]))
		roots = slices.Insert(roots, 0, submit(t, s, status, func(n *NewRun) { n.Workflow = "inner" }))
	}
	for name, c := range map[string]struct {
		filter RunFilter
		want   []uuid.UUID
	}{
		"children":               {RunFilter{Parent: &parent}, children},
		"queued children":        {RunFilter{Parent: &parent, Status: []flow.RunStatus{"queued"}}, []uuid.UUID{children[0], children[2], children[4]}},
		"children of a workflow": {RunFilter{Parent: &parent, Workflow: "wf"}, nil},
		"children up to one":     {RunFilter{Parent: &parent, Before: children[2]}, children[:2]},
		"nobody's children":      {RunFilter{Parent: &foreign}, nil},
		"roots":                  {RunFilter{Roots: true}, roots},
		"roots of a workflow":    {RunFilter{Roots: true, Workflow: "inner"}, roots[:6]},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uuid.UUID
			for f := c.filter; ; {
				f.Limit = 4
				page := must(db.Runs(t.Context(), TenantDefault, f))(t)
				for _, r := range page {
					got = append(got, r.ID)
				}
				if len(page) < f.Limit {
					break
				}
				if f.Parent != nil {
					f.After = got[len(got)-1]
				} else {
					f.Before = got[len(got)-1]
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if r := must(db.Run(t.Context(), TenantDefault, children[1]))(t); r.Parent == nil || *r.Parent != parent || r.ParentStep != "build.3.make" || r.Depth != 2 {
		t.Errorf("%+v", r)
	}
	if r := must(db.Run(t.Context(), TenantDefault, parent))(t); r.Parent != nil || r.ParentStep != "" || r.Depth != 0 {
		t.Errorf("%+v", r)
	}
	for _, sql := range []string{`parent_id = null`, `parent_step = ''`, `depth = 0`} {
		if _, err := direct(t, db).Exec(t.Context(), `update run set `+sql+` where id = $1`, children[0]); !isState(err, "23000") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// A run has as many steps as its last row said.
func TestStepsGrow(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	total := func(run uuid.UUID) int {
		t.Helper()
		return must(db.Run(t.Context(), TenantDefault, run))(t).StepsTotal
	}
	run := submit(t, s, flow.RunStatusRunning)
	for _, c := range []struct{ said, want int }{{0, 3}, {100_000, 100_000}, {0, 100_000}, {7, 7}} {
		r := row(flow.RunStatusRunning)
		r.StepsTotal = c.said
		if err := s.commit(t.Context(), Change{Run: run, Row: r}); err != nil {
			t.Fatal(err)
		}
		if got := total(run); got != c.want {
			t.Errorf("said %d: %d, want %d", c.said, got, c.want)
		}
	}
	done, r := id(), row(flow.RunStatusSucceeded)
	r.StepsTotal = 12
	if err := s.commit(t.Context(), Change{Run: done, New: newRun(flow.RunStatusRunning), Row: r}); err != nil {
		t.Fatal(err)
	}
	if got := total(done); got != 12 {
		t.Errorf("submitted and ended at once: %d", got)
	}
}

func TestPartitions(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	for range 2 {
		if err := db.EnsurePartitions(t.Context()); err != nil {
			t.Fatal(err)
		}
		db.partitions.Store(0)
	}
	run := submit(t, newShard(t, db), flow.RunStatusRunning)
	got := ask[bool](t, conn, `select tableoid::regclass::text = 'event_' || to_char(now() at time zone 'UTC', 'YYYY_MM') from event where run_id = $1`, run)
	if !got {
		t.Error("the event is not in this month's partition")
	}
	// The bounds of a month: its first and its last run, and the first of the next.
	for at, want := range map[string]string{
		"2031-05-01 00:00:00+00": "event_2031_05", "2031-05-31 23:59:59.999+00": "event_2031_05", "2031-06-01 00:00:00+00": "event_other",
	} {
		do(t, conn, `select event_partition('2031-05-17 12:00:00+00')`)
		do(t, conn, `insert into event select uuid_from($1::timestamptz), now(), 1, 1, 1, 1, '', '', ''`, at)
		if in := ask[string](t, conn, `select tableoid::regclass::text from event where run_id = uuid_from($1::timestamptz)`, at); in != want {
			t.Errorf("a run of %s is in %s, want %s", at, in, want)
		}
	}
	if ask[bool](t, conn, `select event_partition('2031-06-17 12:00:00+00')`) {
		t.Error("a partition was made for a month whose runs are in the default one")
	}
	for _, sql := range []string{`update event set data = 'x'`, `delete from event`} { // the guard holds in each partition
		if _, err := conn.Exec(t.Context(), sql+` where run_id = uuid_from('2031-05-01 00:00:00+00')`); !isState(err, "23000") {
			t.Errorf("%s in a partition made later: %v", sql, err)
		}
	}
}
