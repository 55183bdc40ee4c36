package incident_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/incident"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/workflow"
)

// table is a store that can be away.
type table struct {
	*store.DB
	away  atomic.Bool
	asked atomic.Int32
	conn  *pgx.Conn
}

var errAway = errors.New("away")

func (t *table) OpenIncident(ctx context.Context, i store.IncidentRow) (store.IncidentRow, bool, error) {
	if t.away.Load() {
		return store.IncidentRow{}, false, errAway
	}
	return t.DB.OpenIncident(ctx, i)
}

func (t *table) AskIncident(ctx context.Context, of store.IncidentOf, ask bool) (store.IncidentRow, bool, bool, error) {
	t.asked.Add(1)
	if t.away.Load() {
		return store.IncidentRow{}, false, false, errAway
	}
	return t.DB.AskIncident(ctx, of, ask)
}

func (t *table) OpenIncidents(ctx context.Context) ([]store.IncidentRow, error) {
	if t.away.Load() {
		return nil, errAway
	}
	return t.DB.OpenIncidents(ctx)
}

func (t *table) ResolveIncident(ctx context.Context, tenant, id uuid.UUID, by, note string) (store.IncidentRow, error) {
	if t.away.Load() {
		return store.IncidentRow{}, errAway
	}
	return t.DB.ResolveIncident(ctx, tenant, id, by, note)
}

func newTable(t *testing.T) *table {
	t.Helper()
	url := pgtest.New(t)
	db, err := store.Open(t.Context(), store.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return &table{DB: db, conn: conn}
}

// aMinuteLater lets the next probe be due.
func (t *table) aMinuteLater(test *testing.T) {
	test.Helper()
	if _, err := t.conn.Exec(test.Context(), `update incident set probed_at = probed_at - interval '1 minute'`); err != nil {
		test.Fatal(err)
	}
}

// only is the one incident there is.
func (t *table) only(test *testing.T) store.IncidentRow {
	test.Helper()
	rows, err := t.Incidents(test.Context(), store.TenantDefault, store.IncidentFilter{Limit: 10})
	if err != nil || len(rows) != 1 {
		test.Fatalf("%d incidents, want one: %v", len(rows), err)
	}
	return rows[0]
}

// node is a board, and what is done at it.
type node struct {
	*incident.Board
	t *testing.T
}

func newNode(t *testing.T, tb *table, name string) node {
	return node{incident.New(incident.Config{Store: tb, Node: name}), t}
}

// writer is the first attempt of an agent; each has a run of its own.
func writer(edit ...func(*flow.Attempt)) flow.Attempt {
	a := flow.Attempt{
		Run: uuid.Must(uuid.NewV7()), Tenant: store.TenantDefault, Workflow: "wf", Path: "write", Gen: 1, No: 1,
		Agent: &workflow.Agent{Name: "writer"}, Step: &workflow.Step{Retry: workflow.Retry{MaxAttempts: 1}},
	}
	for _, e := range edit {
		e(&a)
	}
	return a
}

func failing(class, message string) *flow.Outcome {
	return &flow.Outcome{Failure: &flow.Failure{Class: class, Message: message}}
}

// try makes an attempt that fails, if it is admitted.
func (n node) try(a flow.Attempt) (held string) {
	n.t.Helper()
	if refused := n.Admit(n.t.Context(), a); refused != nil {
		if refused.Class != "incident" {
			n.t.Errorf("refused with %+v", refused)
		}
		return refused.Message
	}
	n.Ended(n.t.Context(), a, failing("invalid_output", "asked 3 times; it is not JSON"))
	return ""
}

func (n node) fails(times int) {
	n.t.Helper()
	for range times {
		if held := n.try(writer()); held != "" {
			n.t.Fatalf("held: %s", held)
		}
	}
}

func (n node) exchange() {
	n.t.Helper()
	if err := n.Exchange(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// One node opens an incident, and it is durable before the third outcome is reported. All nodes hold what is like it and
// nothing else; one probe in a minute is made by all of them together; its success lets all go on at once.
func TestIncidentOnTwoNodes(t *testing.T) {
	tb := newTable(t)
	one, two := newNode(t, tb, "one"), newNode(t, tb, "two")
	one.fails(3)
	row := tb.only(t)
	if row.Agent != "writer" || row.Workflow != "wf" || row.Class != "invalid_output" || row.Count != 3 || len(row.Samples) != 3 || row.Node != "one" ||
		row.Fingerprint != "asked # times; it is not JSON" || row.Samples[2].Step != "write" {
		t.Errorf("%+v", row)
	}
	held := one.try(writer())
	for _, part := range []string{incident.Name(row.ID), "agent writer failed 3 times", "workflow wf", "invalid_output: asked 3 times; it is not JSON"} {
		if !strings.Contains(held, part) {
			t.Errorf("held says no %q: %s", part, held)
		}
	}
	for name, other := range map[string]flow.Attempt{
		"agent":    writer(func(a *flow.Attempt) { a.Agent.Name = "reader" }),
		"workflow": writer(func(a *flow.Attempt) { a.Workflow = "another" }),
		"tenant":   writer(func(a *flow.Attempt) { a.Tenant = uuid.Must(uuid.NewV7()) }),
		"tool": writer(func(a *flow.Attempt) {
			a.Step = &workflow.Step{Tool: &workflow.ToolStep{Ref: "writer"}, Retry: workflow.Retry{MaxAttempts: 1}}
		}),
	} {
		if refused := one.Admit(t.Context(), other); refused != nil {
			t.Errorf("another %s is held: %+v", name, refused)
		}
	}
	two.exchange()
	if two.try(writer()) == "" {
		t.Error("the other node does not hold it")
	}

	tb.aMinuteLater(t)
	probe := writer()
	if refused := two.Admit(t.Context(), probe); refused != nil {
		t.Fatalf("no probe: %s", refused.Message)
	}
	if one.try(writer()) == "" || two.try(writer()) == "" {
		t.Error("two probes at once")
	}
	tb.aMinuteLater(t)
	if two.try(writer()) == "" {
		t.Error("a probe beside the one that is at work")
	}
	two.Ended(t.Context(), probe, failing("invalid_output", "asked 5 times; it is not JSON"))
	two.exchange()
	if row := tb.only(t); row.ResolvedAt != nil || row.Count != 4 || len(row.Samples) != 4 {
		t.Errorf("after a probe that failed: %+v", row)
	}
	tb.aMinuteLater(t)
	if refused := two.Admit(t.Context(), probe); refused != nil {
		t.Fatalf("no second probe: %s", refused.Message)
	}
	two.Ended(t.Context(), probe, &flow.Outcome{})
	if row := tb.only(t); row.ResolvedBy != store.ResolvedByProbe || !strings.Contains(row.Note, strings.ReplaceAll(probe.Run.String(), "-", "")) {
		t.Errorf("after a probe that succeeded: %+v", row)
	}
	one.fails(2) // it asks before it holds; two failures alike are none
	two.fails(2)
}

// What an operator resolves goes on at once, on the node that heard nothing of it too.
func TestOperatorResolves(t *testing.T) {
	tb := newTable(t)
	one, two := newNode(t, tb, "one"), newNode(t, tb, "two")
	one.fails(3)
	two.exchange()
	if _, err := tb.DB.ResolveIncident(t.Context(), store.TenantDefault, tb.only(t).ID, store.ResolvedByOperator, "mended"); err != nil {
		t.Fatal(err)
	}
	one.fails(2)
	two.fails(2)
	one.exchange()
	one.fails(1)
	if open, err := tb.OpenIncidents(t.Context()); err != nil || len(open) != 1 {
		t.Errorf("it fails on, and %d incidents are open: %v", len(open), err)
	}
}

// While Postgres is away a node goes by what it knows, and makes up for it when it is back.
func TestPostgresAway(t *testing.T) {
	tb := newTable(t)
	n := newNode(t, tb, "one")
	tb.away.Store(true)
	n.fails(3)
	if held := n.try(writer()); !strings.Contains(held, "an incident that is being recorded") {
		t.Errorf("held: %q", held)
	}
	if err := n.Exchange(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("exchange: %v", err)
	}
	tb.away.Store(false)
	if held := n.try(writer()); !strings.Contains(held, incident.Name(tb.only(t).ID)) {
		t.Errorf("held: %q", held)
	}

	tb.away.Store(true)
	late := writer() // was at work since before
	n.Ended(t.Context(), late, &flow.Outcome{})
	if held := n.try(writer()); held != "" {
		t.Errorf("held after a success: %s", held)
	}
	if err := n.Exchange(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("exchange: %v", err)
	}
	tb.away.Store(false)
	n.exchange()
	if row := tb.only(t); row.ResolvedAt == nil {
		t.Errorf("%+v", row)
	}
	n.fails(2)
}

// An incident that ended before it could be written is not written.
func TestEndedBeforeAnybodyHeard(t *testing.T) {
	tb := newTable(t)
	n := newNode(t, tb, "one")
	tb.away.Store(true)
	n.fails(3)
	n.Ended(t.Context(), writer(), &flow.Outcome{})
	tb.away.Store(false)
	n.exchange()
	if rows, err := tb.Incidents(t.Context(), store.TenantDefault, store.IncidentFilter{Limit: 10}); err != nil || len(rows) != 0 {
		t.Errorf("%+v %v", rows, err)
	}
	n.fails(2)
}

// Failures count that are final and point at the work.
func TestWhatCounts(t *testing.T) {
	tb := newTable(t)
	retried := func(a *flow.Attempt) {
		a.Step.Retry = workflow.Retry{MaxAttempts: 3, Classes: []string{"transient", "tool_error"}}
	}
	last := func(a *flow.Attempt) { a.No = 3 }
	for i, c := range []struct {
		class string
		edit  []func(*flow.Attempt)
		want  bool
	}{
		{"invalid_output", nil, true},
		{"tool_error", nil, true},
		{"low_confidence", nil, true},
		{"content_policy", nil, true},
		{"context_length", nil, true},
		{"timeout", nil, true},
		{"server", nil, false},
		{"rate_limited", nil, false},
		{"auth", nil, false},
		{"unavailable", nil, false},
		{"budget_exceeded", nil, false},
		{"cancelled", nil, false},
		{"outcome_unknown", nil, false},
		{"tool_error", []func(*flow.Attempt){retried}, false},
		{"tool_error", []func(*flow.Attempt){retried, last}, true},
		{"invalid_output", []func(*flow.Attempt){retried}, true},
		{"timeout", []func(*flow.Attempt){retried}, false},
	} {
		n, name := newNode(t, tb, "one"), func(a *flow.Attempt) { a.Workflow = fmt.Sprint("wf", i) }
		for range 3 {
			n.Ended(t.Context(), writer(append(c.edit, name)...), failing(c.class, "m"))
		}
		if held := n.Admit(t.Context(), writer(name)) != nil; held != c.want {
			t.Errorf("%d %s: held %t, want %t", i, c.class, held, c.want)
		}
	}
}

// Many who ask at once share what the table says, and one of them is the probe.
func TestManyAsk(t *testing.T) {
	tb := newTable(t)
	n := newNode(t, tb, "one")
	n.fails(3)
	tb.aMinuteLater(t)
	var admitted atomic.Int32
	var asking sync.WaitGroup
	for range 200 {
		asking.Go(func() {
			a := writer()
			if n.Admit(t.Context(), a) == nil {
				admitted.Add(1)
			}
		})
	}
	asking.Wait()
	if admitted.Load() != 1 {
		t.Errorf("%d of 200 were admitted, asked %d times", admitted.Load(), tb.asked.Load())
	}
}

// Without trouble nothing is asked of anybody, and nothing allocated.
func TestQuietBoardCostsNothing(t *testing.T) {
	n := node{incident.New(incident.Config{}), t} // no store: asking it would panic
	a, fine, refused := writer(), &flow.Outcome{}, failing("rate_limited", "m")
	allocs := testing.AllocsPerRun(1_000, func() {
		if n.Admit(t.Context(), a) != nil {
			t.Fatal("held")
		}
		n.Ended(t.Context(), a, fine)
		n.Ended(t.Context(), a, refused)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestMetrics(t *testing.T) {
	tb, registry := newTable(t), prometheus.NewRegistry()
	board := incident.New(incident.Config{Store: tb, Metrics: telemetry.New(registry, telemetry.Build{}), Now: time.Now})
	n := node{board, t}
	n.fails(3)
	n.exchange()
	got := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	if got["fermata_incidents_open"] != 1 || got["fermata_incidents_total"] != 1 {
		t.Errorf("open %v, opened %v", got["fermata_incidents_open"], got["fermata_incidents_total"])
	}
}
