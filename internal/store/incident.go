package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

// IncidentSamplesMax is how many failures an incident shows.
const IncidentSamplesMax = 5

// Who resolves an incident.
const (
	ResolvedByProbe    = "probe"    // an attempt succeeded
	ResolvedByOperator = "operator" // somebody said so
)

const (
	incidentKept = 90 * 24 * time.Hour // after it was resolved
	probeEvery   = time.Minute         // by all nodes together
)

// IncidentOf says whose attempts an incident is about. Either Agent or Tool is empty.
type IncidentOf struct {
	Tenant                uuid.UUID
	Workflow, Agent, Tool string
}

// IncidentSample is a failure that an incident is about.
type IncidentSample struct {
	Run     uuid.UUID `json:"run"`
	Step    string    `json:"step"`
	Message string    `json:"message"`
	At      time.Time `json:"at"` // by the node's clock
}

// IncidentRow is an incident: attempts that failed alike, and what became of it.
type IncidentRow struct {
	ID uuid.UUID
	IncidentOf
	Class, Fingerprint string
	Count              int64 // failures so far
	Samples            []IncidentSample
	Node               string // that opened it
	OpenedAt           time.Time
	ProbedAt           time.Time  // when a probe was last let through; at first when it was opened
	ResolvedAt         *time.Time // nil: it is open
	ResolvedBy         string     // ResolvedByProbe, ResolvedByOperator; empty: it is open
	Note               string
}

const incidentColumns = `i.id, i.tenant_id, i.workflow, i.agent, i.tool, i.class, i.fingerprint, i.count, i.samples, i.node, i.opened_at,
	i.probed_at, i.resolved_at, i.resolved_by, i.note`

func scanIncident(row pgx.CollectableRow) (IncidentRow, error) { return scanIncidentAnd(row) }

// scanIncidentAnd reads an incident, and what stands behind it.
func scanIncidentAnd(row pgx.CollectableRow, more ...any) (i IncidentRow, err error) {
	var samples []byte
	err = row.Scan(append([]any{
		&i.ID, &i.Tenant, &i.Workflow, &i.Agent, &i.Tool, &i.Class, &i.Fingerprint, &i.Count, &samples, &i.Node, &i.OpenedAt,
		&i.ProbedAt, &i.ResolvedAt, &i.ResolvedBy, &i.Note,
	}, more...)...)
	if err != nil {
		return i, err
	}
	i.OpenedAt, i.ProbedAt = i.OpenedAt.UTC(), i.ProbedAt.UTC()
	if i.ResolvedAt != nil {
		*i.ResolvedAt = i.ResolvedAt.UTC()
	}
	if err := json.Unmarshal(samples, &i.Samples); err != nil {
		return i, fmt.Errorf("samples of incident %s: %w", i.ID, err)
	}
	return i, nil
}

// OpenIncident makes an incident: its ID, what it is of, its class, fingerprint, count, samples and node. Where one of
// the same is open already, by another node, that one stands, and has the count added. Opened: there was none.
func (db *DB) OpenIncident(ctx context.Context, i IncidentRow) (row IncidentRow, opened bool, err error) {
	samples, err := samplesOf(i.Samples)
	if err != nil {
		return IncidentRow{}, false, err
	}
	scan := func(r pgx.CollectableRow) (IncidentRow, error) { return scanIncidentAnd(r, &opened) }
	row, err = one(ctx, db.background, "open incident", scan,
		`insert into incident as i (id, tenant_id, workflow, agent, tool, class, fingerprint, count, samples, node)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		on conflict (tenant_id, workflow, agent, tool) where resolved_at is null do update set count = i.count + excluded.count
		returning `+incidentColumns+`, i.xmax = 0`,
		i.ID, i.Tenant, clean(i.Workflow), clean(i.Agent), clean(i.Tool), clean(i.Class), clean(i.Fingerprint), i.Count, samples, clean(i.Node))
	return row, opened, err
}

func samplesOf(list []IncidentSample) (string, error) {
	kept := make([]IncidentSample, 0, IncidentSamplesMax)
	for _, s := range list[:min(len(list), IncidentSamplesMax)] {
		s.Step, s.Message = clean(s.Step), clean(s.Message)
		kept = append(kept, s)
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("write samples of an incident: %w", err)
	}
	return string(raw), nil
}

// CountIncident adds failures to an incident that is open, and shows the first few of them.
func (db *DB) CountIncident(ctx context.Context, id uuid.UUID, failures int64, more []IncidentSample) error {
	samples, err := samplesOf(more)
	if err != nil {
		return err
	}
	_, err = exec(ctx, db.background, "count failures of incident",
		`update incident set count = count + $2, samples = jsonb_path_query_array(samples || $3::jsonb, '$[0 to `+fmt.Sprint(IncidentSamplesMax-1)+`]')
		where id = $1 and resolved_at is null`, id, failures, samples)
	return err
}

// AskIncident tells the open incident of some attempts. Probe: the caller may let one through now, and nobody else for a
// minute; it is only granted where it is asked for. Open: there is one.
func (db *DB) AskIncident(ctx context.Context, of IncidentOf, ask bool) (row IncidentRow, open, probe bool, err error) {
	scan := func(r pgx.CollectableRow) (IncidentRow, error) { return scanIncidentAnd(r, &probe) }
	row, err = one(ctx, db.background, "ask for incident", scan, askIncidentSQL,
		of.Tenant, clean(of.Workflow), clean(of.Agent), clean(of.Tool), ask, probeEvery)
	if isNoRows(err) {
		return IncidentRow{}, false, false, nil
	}
	return row, err == nil, probe, err
}

const askIncidentSQL = `with p as (
		update incident set probed_at = clock_timestamp()
		where tenant_id = $1 and workflow = $2 and agent = $3 and tool = $4 and resolved_at is null and $5
			and probed_at <= clock_timestamp() - $6::interval
		returning id)
	select ` + incidentColumns + `, exists (select from p where p.id = i.id) from incident i
	where i.tenant_id = $1 and i.workflow = $2 and i.agent = $3 and i.tool = $4 and i.resolved_at is null`

// IncidentsOpenMax bounds what OpenIncidents answers.
const IncidentsOpenMax = rowsMax

// OpenIncidents lists what is open, of all tenants, oldest first.
func (db *DB) OpenIncidents(ctx context.Context) ([]IncidentRow, error) {
	return collect(ctx, db.background, "read incidents", scanIncident,
		`select `+incidentColumns+` from incident i where i.resolved_at is null order by i.id limit $1`, IncidentsOpenMax)
}

// IncidentFilter is a page of a tenant's incidents: what is open first, the newest first in each part.
type IncidentFilter struct {
	Open  *bool     // only those that are open, or only those that are not
	After uuid.UUID // the last of the page before; nil: none
	// AfterOpen: that one was open.
	AfterOpen bool
	Limit     int
}

// Incidents lists incidents.
func (db *DB) Incidents(ctx context.Context, tenant uuid.UUID, f IncidentFilter) ([]IncidentRow, error) {
	if f.After == uuid.Nil {
		f.After, f.AfterOpen = uuid.Max, true
	}
	return collect(ctx, db.api, "list incidents", scanIncident, incidentsSQL, tenant, f.AfterOpen, f.After, f.Open, min(f.Limit, rowsMax))
}

const incidentsSQL = `select ` + incidentColumns + ` from incident i
	where i.tenant_id = $1 and ((i.resolved_at is null), i.id) < ($2, $3) and ($4::boolean is null or (i.resolved_at is null) = $4)
	order by (i.resolved_at is null) desc, i.id desc limit $5`

// ResolveIncident ends an incident, and tells the runs that wait for it to go on.
func (db *DB) ResolveIncident(ctx context.Context, tenant, id uuid.UUID, by, note string) (row IncidentRow, err error) {
	err = within(ctx, db.api, "resolve incident", func(tx pgx.Tx) error {
		row, err = one(ctx, tx, "resolve incident", scanIncident,
			`update incident i set resolved_at = now(), resolved_by = $3, note = $4
			where i.tenant_id = $1 and i.id = $2 and i.resolved_at is null returning `+incidentColumns, tenant, id, by, clean(note))
		if isNoRows(err) {
			return notOpen(ctx, tx, tenant, id)
		}
		if err != nil {
			return err
		}
		_, err = exec(ctx, tx, "wake runs that wait for an incident", wakeIncidentSQL, tenant, row.Workflow, wakeMax)
		return err
	})
	if err != nil {
		return IncidentRow{}, err
	}
	return row, nil
}

// Those that wait for another incident of the workflow look once in vain.
const wakeIncidentSQL = `insert into inbox (run_id, kind, data)
	select r.id, '` + MessageIncident + `', '{}' from run r
	where r.tenant_id = $1 and r.workflow = $2 and r.status = 'waiting' and r.waiting_for = '` + flow.HeldIncident + `'
	order by r.tenant_id, r.status, r.id limit $3`

// notOpen says why an incident cannot be resolved.
func notOpen(ctx context.Context, q querier, tenant, id uuid.UUID) error {
	at, err := one(ctx, q, "look for incident", pgx.RowTo[time.Time],
		`select coalesce(resolved_at, now()) from incident where tenant_id = $1 and id = $2`, tenant, id)
	switch {
	case isNoRows(err):
		return fault.New(fault.KindNotFound, "incident_not_found", "there is no such incident")
	case err != nil:
		return err
	}
	return fault.New(fault.KindConflict, "incident_resolved", "the incident was resolved at %s", at.UTC().Format(time.RFC3339))
}

// SweepIncidents deletes incidents that were resolved long ago.
func (db *DB) SweepIncidents(ctx context.Context) (int, error) {
	return exec(ctx, db.background, "sweep incidents", `delete from incident where resolved_at < now() - $1::interval`, incidentKept)
}
