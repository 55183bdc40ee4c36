package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/incident"
	"github.com/fermata-run/fermata/internal/store"
)

// noIncident is the name of an incident that nobody has.
const noIncident = "inc_0195f0a6b1c87d3e9a4f0c2b7d6e5f41"

func (m *memory) Incidents(_ context.Context, tenant uuid.UUID, f store.IncidentFilter) ([]store.IncidentRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := slices.Clone(m.incidents)
	slices.SortFunc(rows, func(a, b store.IncidentRow) int {
		return strings.Compare(incidentPlace(b.ID, b.ResolvedAt == nil), incidentPlace(a.ID, a.ResolvedAt == nil))
	})
	rows = slices.DeleteFunc(rows, func(row store.IncidentRow) bool {
		open := row.ResolvedAt == nil
		return row.Tenant != tenant || f.Open != nil && *f.Open != open || f.After != uuid.Nil && incidentPlace(row.ID, open) >= incidentPlace(f.After, f.AfterOpen)
	})
	return rows[:min(f.Limit, len(rows))], nil
}

func incidentPlace(id uuid.UUID, open bool) string { return fmt.Sprint(count(open), id) }

func (m *memory) ResolveIncident(_ context.Context, tenant, id uuid.UUID, by, note string) (store.IncidentRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.incidents {
		row := &m.incidents[i]
		if row.ID != id || row.Tenant != tenant {
			continue
		}
		if row.ResolvedAt != nil {
			return store.IncidentRow{}, fault.New(fault.KindConflict, "incident_resolved", "the incident was resolved")
		}
		row.ResolvedAt, row.ResolvedBy, row.Note = pointerTo(time.Now().UTC()), by, note
		return *row, nil
	}
	return store.IncidentRow{}, fault.New(fault.KindNotFound, "incident_not_found", "there is no such incident")
}

// brokenContract is an open incident.
func brokenContract(number int) store.IncidentRow {
	id := uuid.MustParse(fmt.Sprintf("0195f0a6-b1c8-7d3e-9a4f-%012d", number))
	at := time.Date(2026, 3, 1, 9, 30, number, 0, time.UTC)
	return store.IncidentRow{
		ID: id, IncidentOf: store.IncidentOf{Tenant: store.TenantDefault, Workflow: "greet", Agent: fmt.Sprint("writer", number)},
		Class: "invalid_output", Fingerprint: "asked # times", Count: 3, Node: "n1", OpenedAt: at, ProbedAt: at,
		Samples: []store.IncidentSample{{Run: id, Step: "hello", Message: "asked 3 times", At: at}},
	}
}

func TestIncidents(t *testing.T) {
	s := newService(t, nil)
	s.mem.incidents = []store.IncidentRow{brokenContract(1), brokenContract(2), brokenContract(3)}
	var got Incident
	newest := incident.Name(s.mem.incidents[2].ID)
	s.send(t, "POST", "/v1/incidents/"+newest+":resolve", `{"note":"the prompt asked for prose"}`).want(http.StatusOK).json(&got)
	if got.ID != newest || got.State != IncidentStateResolved || got.ResolvedBy != IncidentResolvedByOperator || got.Note != "the prompt asked for prose" || got.ResolvedAt.IsZero() {
		t.Errorf("got %+v", got)
	}
	s.send(t, "POST", "/v1/incidents/"+newest+":resolve", nil).wantProblem(http.StatusConflict, "incident_resolved")
	agents := func(query string) (list []string, next string) {
		t.Helper()
		var page IncidentPage
		s.send(t, "GET", "/v1/incidents?"+query, nil).want(http.StatusOK).json(&page)
		for _, i := range page.Data {
			list = append(list, i.Agent)
		}
		return list, page.NextCursor
	}
	first, next := agents("limit=2")
	rest, end := agents("limit=2&cursor=" + next)
	if diff := cmp.Diff([]string{"writer2", "writer1", "writer3"}, append(first, rest...)); diff != "" || len(first) != 2 || end != "" {
		t.Error(diff, len(first), end)
	}
	for state, want := range map[string][]string{"open": {"writer2", "writer1"}, "resolved": {"writer3"}} {
		if list, _ := agents("state=" + state); !slices.Equal(list, want) {
			t.Errorf("%s: %v", state, list)
		}
	}
	var page IncidentPage
	s.send(t, "GET", "/v1/incidents?state=open&limit=1", nil).json(&page)
	row := s.mem.incidents[1]
	want := Incident{
		ID: incident.Name(row.ID), State: IncidentStateOpen, Workflow: "greet", Agent: "writer2", Class: "invalid_output", Fingerprint: "asked # times",
		Count: 3, Node: "n1", OpenedAt: row.OpenedAt, ProbedAt: row.ProbedAt,
		Samples: []IncidentSample{{Run: formatRunID(row.ID), Step: "hello", Message: "asked 3 times", At: row.OpenedAt}},
	}
	if diff := cmp.Diff([]Incident{want}, page.Data); diff != "" {
		t.Error(diff)
	}
}

// A run that waits for an incident says so, and which; it can be cancelled, and nobody can resume it past the incident.
func TestRunThatWaitsForAnIncident(t *testing.T) {
	s := newService(t, nil)
	id := s.submit(t, oneTool).ID
	s.mem.report(t, id, "work", flow.Outcome{
		Held: flow.HeldIncident, Failure: &flow.Failure{Class: "incident", Message: "incident " + noIncident + ": tool builtin:noop failed 3 times alike"},
	})
	var got Run
	s.send(t, "GET", "/v1/runs/"+id, nil).want(http.StatusOK).json(&got)
	if got.Status != RunStatusWaiting || got.WaitingFor.Kind != "incident" || got.WaitingFor.Step != "work" || got.WaitingFor.Until.IsZero() ||
		!strings.Contains(got.WaitingFor.Sentence, noIncident) || !strings.Contains(got.WaitingFor.Sentence, "resolve the incident") ||
		got.Links.Resume != "" || got.Links.Cancel == "" {
		t.Errorf("got %s %+v %+v", got.Status, got.WaitingFor, got.Links)
	}
	s.send(t, "POST", "/v1/runs/"+id+"/resume", `{}`).wantProblem(http.StatusConflict, "run_not_failed")
}
