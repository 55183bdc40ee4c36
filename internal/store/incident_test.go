package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

func incidentOf(agent string) IncidentRow {
	return IncidentRow{
		ID: id(), IncidentOf: IncidentOf{Tenant: TenantDefault, Workflow: "wf", Agent: agent}, Class: "invalid_output",
		Fingerprint: "not JSON", Count: 3, Node: "n1", Samples: []IncidentSample{
			{Run: id(), Step: "a", Message: "not JSON\x00", At: time.Now().UTC().Truncate(time.Microsecond)},
		},
	}
}

// An incident is opened once, counts what follows, and is ended once; another may be opened after it.
func TestIncident(t *testing.T) {
	db := open(t)
	made := incidentOf("a")
	row, opened, err := db.OpenIncident(t.Context(), made)
	if err != nil || !opened {
		t.Fatal(opened, err)
	}
	want := made
	want.Samples[0].Message = "not JSON\ufffd"
	stamps := cmpopts.IgnoreFields(IncidentRow{}, "OpenedAt", "ProbedAt")
	if diff := cmp.Diff(want, row, stamps); diff != "" || row.OpenedAt.IsZero() || !row.ProbedAt.Equal(row.OpenedAt) {
		t.Errorf("%s%+v", diff, row)
	}
	same := incidentOf("a")
	again, opened, err := db.OpenIncident(t.Context(), same)
	if err != nil || opened || again.ID != row.ID || again.Count != 6 {
		t.Errorf("opened again: %t %v %+v", opened, err, again)
	}
	if err := db.CountIncident(t.Context(), row.ID, 7, make([]IncidentSample, 7)); err != nil {
		t.Fatal(err)
	}
	list := must(db.OpenIncidents(t.Context()))(t)
	if len(list) != 1 || list[0].Count != 13 || len(list[0].Samples) != IncidentSamplesMax || list[0].Samples[0].Message != want.Samples[0].Message {
		t.Fatalf("%+v", list)
	}
	for name, try := range map[string]struct {
		tenant, id uuid.UUID
	}{"no such": {TenantDefault, id()}, "another tenant's": {id(), row.ID}} {
		if _, err := db.ResolveIncident(t.Context(), try.tenant, try.id, ResolvedByOperator, ""); !fault.Is(err, fault.KindNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended := must(db.ResolveIncident(t.Context(), TenantDefault, row.ID, ResolvedByOperator, "mended\x00"))(t)
	if ended.ResolvedAt == nil || ended.ResolvedBy != ResolvedByOperator || ended.Note != "mended\ufffd" {
		t.Errorf("%+v", ended)
	}
	if _, err := db.ResolveIncident(t.Context(), TenantDefault, row.ID, ResolvedByProbe, ""); !fault.Is(err, fault.KindConflict) {
		t.Errorf("resolved twice: %v", err)
	}
	if _, open, _, err := db.AskIncident(t.Context(), made.IncidentOf, true); open || err != nil {
		t.Errorf("it is open: %v", err)
	}
	if next, opened, err := db.OpenIncident(t.Context(), same); err != nil || !opened || next.ID != same.ID {
		t.Errorf("the next one: %t %v", opened, err)
	}
}

// Of all nodes together one lets a probe through in a minute, and only who asks for it.
func TestProbeIsGrantedOnce(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	row, _, err := db.OpenIncident(t.Context(), incidentOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	asked := func(ask bool) bool {
		t.Helper()
		got, open, probe, err := db.AskIncident(t.Context(), row.IncidentOf, ask)
		if err != nil || !open || got.ID != row.ID {
			t.Fatalf("%t %v %+v", open, err, got)
		}
		return probe
	}
	if asked(true) {
		t.Error("a probe at once")
	}
	do(t, conn, `update incident set probed_at = now() - interval '61 s'`)
	if asked(false) {
		t.Error("a probe that was not asked for")
	}
	granted := make(chan bool)
	for range 8 {
		go func() {
			_, _, probe, err := db.AskIncident(t.Context(), row.IncidentOf, true)
			granted <- probe && err == nil
		}()
	}
	probes := 0
	for range 8 {
		if <-granted {
			probes++
		}
	}
	if probes != 1 || asked(true) {
		t.Errorf("%d probes at once, want 1", probes)
	}
}

// The list begins with what is open, the newest first in each part, and goes on where a page ended.
func TestListOfIncidents(t *testing.T) {
	db := open(t)
	var ids []uuid.UUID
	for _, agent := range []string{"a", "b", "c", "d"} {
		row, _, err := db.OpenIncident(t.Context(), incidentOf(agent))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, row.ID)
	}
	for _, of := range []int{3, 0} {
		must(db.ResolveIncident(t.Context(), TenantDefault, ids[of], ResolvedByOperator, ""))(t)
	}
	want := []uuid.UUID{ids[2], ids[1], ids[3], ids[0]}
	for _, limit := range []int{1, 2, 3, 10} {
		var got []uuid.UUID
		f := IncidentFilter{Limit: limit}
		for {
			page := must(db.Incidents(t.Context(), TenantDefault, f))(t)
			for _, row := range page {
				got = append(got, row.ID)
				f.After, f.AfterOpen = row.ID, row.ResolvedAt == nil
			}
			if len(page) < limit {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("by %d:\n%s", limit, diff)
		}
	}
	for open, want := range map[bool][]uuid.UUID{true: want[:2], false: want[2:]} {
		var got []uuid.UUID
		for _, row := range must(db.Incidents(t.Context(), TenantDefault, IncidentFilter{Open: &open, Limit: 10}))(t) {
			got = append(got, row.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("open %t:\n%s", open, diff)
		}
	}
	if others := must(db.Incidents(t.Context(), id(), IncidentFilter{Limit: 10}))(t); len(others) != 0 {
		t.Errorf("another tenant sees %+v", others)
	}
}

// Runs that wait for an incident of the workflow are told when it is resolved, and no others.
func TestResolvedIncidentWakesRuns(t *testing.T) {
	db := open(t)
	s, conn := newShard(t, db), direct(t, db)
	waiting := func(workflow, reason string) uuid.UUID {
		run := submit(t, s, flow.RunStatusRunning, func(n *NewRun) { n.Workflow = workflow })
		r := row(flow.RunStatusWaiting)
		r.WaitingFor = reason
		if err := s.commit(t.Context(), Change{Run: run, Row: r}); err != nil {
			t.Fatal(err)
		}
		return run
	}
	first, second := waiting("wf", "incident"), waiting("wf", "incident")
	waiting("wf", "budget")
	waiting("another", "incident")
	made, _, err := db.OpenIncident(t.Context(), incidentOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	must(db.ResolveIncident(t.Context(), TenantDefault, made.ID, ResolvedByProbe, ""))(t)
	var told []uuid.UUID
	for _, m := range must(db.RunInbox(t.Context(), []uuid.UUID{first, second}))(t) {
		if m.Kind != MessageIncident || string(m.Body) != "{}" {
			t.Errorf("told %s %s", m.Kind, m.Body)
		}
		told = append(told, m.Run)
	}
	if diff := cmp.Diff([]uuid.UUID{first, second}, told); diff != "" || ask[int](t, conn, `select count(*) from inbox`) != 2 {
		t.Error(diff)
	}
}

// What was resolved long ago is forgotten; what is open never is.
func TestSweepIncidents(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	for _, agent := range []string{"a", "b", "c"} {
		if _, _, err := db.OpenIncident(t.Context(), incidentOf(agent)); err != nil {
			t.Fatal(err)
		}
	}
	do(t, conn, `update incident set opened_at = now() - interval '1 year'`)
	do(t, conn, `update incident set resolved_at = now() - interval '91 days', resolved_by = 'probe' where agent = 'b'`)
	do(t, conn, `update incident set resolved_at = now() - interval '89 days', resolved_by = 'probe' where agent = 'c'`)
	if n := must(db.SweepIncidents(t.Context()))(t); n != 1 || ask[int](t, conn, `select count(*) from incident where agent <> 'b'`) != 2 {
		t.Errorf("%d swept", n)
	}
}
