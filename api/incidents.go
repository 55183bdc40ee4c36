package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/incident"
	"github.com/fermata-run/fermata/internal/store"
)

// incidentStore keeps incidents.
type incidentStore interface {
	Incidents(ctx context.Context, tenant uuid.UUID, f store.IncidentFilter) ([]store.IncidentRow, error)
	ResolveIncident(ctx context.Context, tenant, id uuid.UUID, by, note string) (store.IncidentRow, error)
}

// incidentPosition is where a page of incidents ended.
type incidentPosition struct {
	ID   uuid.UUID `json:"id"`
	Open bool      `json:"open"`
}

// ListIncidents lists incidents, the open ones first.
func (a *API) ListIncidents(ctx context.Context, req ListIncidentsRequestObject) (ListIncidentsResponseObject, error) {
	limit := limitOf(req.Params.Limit)
	f := store.IncidentFilter{Limit: limit + 1}
	if s := req.Params.State; s != nil {
		open := *s == IncidentStateOpen
		f.Open = &open
	}
	if c := req.Params.Cursor; c != nil {
		var at incidentPosition
		if err := parseCursor("incidents", *c, &at); err != nil {
			return nil, err
		}
		f.After, f.AfterOpen = at.ID, at.Open
	}
	rows, err := a.trouble.Incidents(ctx, exchangeOf(ctx).tenant, f)
	if err != nil {
		return nil, err
	}
	page := IncidentPage{Data: []Incident{}}
	for _, row := range rows[:min(limit, len(rows))] {
		page.Data = append(page.Data, incidentOf(row))
	}
	if len(rows) > limit {
		last := rows[limit-1]
		page.NextCursor = formatCursor("incidents", incidentPosition{last.ID, last.ResolvedAt == nil})
	}
	return ListIncidents200JSONResponse(page), nil
}

// ResolveIncident ends an incident; the runs that wait for it go on.
func (a *API) ResolveIncident(ctx context.Context, req ResolveIncidentRequestObject) (ResolveIncidentResponseObject, error) {
	id, err := parseIncidentID(req.ID)
	if err != nil {
		return nil, err
	}
	note := ""
	if req.Body != nil {
		note = req.Body.Note
	}
	x := exchangeOf(ctx)
	row, err := a.trouble.ResolveIncident(ctx, x.tenant, id, store.ResolvedByOperator, note)
	if err != nil {
		return nil, err
	}
	a.log.InfoContext(ctx, "incident_resolved", "incident", req.ID, "note", note, "request_id", x.requestID)
	return ResolveIncident200JSONResponse(incidentOf(row)), nil
}

func incidentOf(row store.IncidentRow) Incident {
	out := Incident{
		ID: incident.Name(row.ID), State: IncidentStateOpen, Workflow: row.Workflow, Agent: row.Agent, Tool: row.Tool, Class: row.Class,
		Fingerprint: row.Fingerprint, Count: row.Count, Samples: []IncidentSample{}, Node: row.Node, OpenedAt: row.OpenedAt, ProbedAt: row.ProbedAt,
		ResolvedAt: orZero(row.ResolvedAt), ResolvedBy: IncidentResolvedBy(row.ResolvedBy), Note: row.Note,
	}
	if row.ResolvedAt != nil {
		out.State = IncidentStateResolved
	}
	for _, s := range row.Samples {
		out.Samples = append(out.Samples, IncidentSample{Run: formatRunID(s.Run), Step: s.Step, Message: s.Message, At: s.At.UTC()})
	}
	return out
}
