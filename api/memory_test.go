package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

// memory is a store and an engine without Postgres: the rules are flow's own, what is durable is a map. Attempts stay
// open until a test reports on them.
type memory struct {
	mu          sync.Mutex
	runs        map[uuid.UUID]*memoryRun
	definitions map[workflow.Hash]json.RawMessage
	workflows   map[string][]store.WorkflowRow
	keys        map[store.Key]*memoryKey
	watchers    map[uuid.UUID][]chan struct{}
	money       memoryMoney
	incidents   []store.IncidentRow // as they were opened
	people      memoryPeople
	looks       int // that the engine was told to take

	submitErr   error // of Submit: nothing happens
	submitLost  error // of Submit: the run is made, the answer is lost
	down        error // of every read
	ready       error
	schema      int64
	beforeReply func() // in SettleKey
}

type memoryRun struct {
	row     store.RunRow
	run     *flow.Run
	log     []flow.Event
	signals []string // that its steps wait for
}

type memoryKey struct {
	hash    [32]byte
	claim   store.KeyClaim
	settled bool
	stale   bool // its claim may be taken over
}

func newMemory() *memory {
	return &memory{
		runs: map[uuid.UUID]*memoryRun{}, definitions: map[workflow.Hash]json.RawMessage{}, schema: 1,
		workflows: map[string][]store.WorkflowRow{}, keys: map[store.Key]*memoryKey{}, watchers: map[uuid.UUID][]chan struct{}{}, money: newMemoryMoney(),
		people: memoryPeople{told: map[string]int{}},
	}
}

func (m *memory) Submit(_ context.Context, s *flow.Submission) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.submitErr != nil {
		return m.submitErr
	}
	if m.runs[s.ID] != nil {
		return errors.New("the run exists")
	}
	if m.definitions[s.Workflow.Hash] == nil {
		return errors.New("the definition is not stored")
	}
	now := time.Now().UTC()
	run, events, err := flow.Open(*s, now)
	if err != nil {
		return err
	}
	body := run.View().Submitted
	r := &memoryRun{run: run, signals: s.Workflow.Signals, row: store.RunRow{
		ID: s.ID, Tenant: s.Tenant, Workflow: body.Workflow, Version: body.Version, Hash: s.Workflow.Hash, Labels: s.Labels,
		Stakes: body.Stakes, Mode: body.Mode, Priority: body.Priority, CreatedAt: now, StepsTotal: len(s.Workflow.Steps),
	}}
	if s.Parent != nil {
		r.row.Parent, r.row.ParentStep = &s.Parent.Run, s.Parent.Step
	}
	m.runs[s.ID] = r
	m.record(r, events)
	return m.submitLost
}

func (m *memory) record(r *memoryRun, events []flow.Event) {
	r.log = append(r.log, events...)
	sum := r.run.Summary()
	r.row.Status, r.row.Stage, r.row.Preview, r.row.Error, r.row.Sum, r.row.StepsDone = sum.Status, sum.Stage, sum.Preview, sum.Error, sum.Sum, sum.StepsDone
	r.row.StartedAt, r.row.FinishedAt = pointerTo(sum.StartedAt), pointerTo(sum.FinishedAt)
	r.row.WaitingFor = ""
	if _, parked := r.run.Rest(time.Now()); parked {
		r.row.Status, r.row.WaitingFor = flow.RunStatusWaiting, r.run.WaitingFor()
	}
	for _, c := range m.watchers[r.row.ID] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func pointerTo(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (m *memory) Look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
}

func (m *memory) looked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.looks
}

func (m *memory) Tell(_ context.Context, tenant uuid.UUID, msg store.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(tenant, msg.Run)
	if err != nil {
		return err
	}
	if r.row.Status == flow.RunStatusSucceeded || r.row.Status == flow.RunStatusCancelled {
		return fault.New(fault.KindConflict, "run_ended", "the run is final")
	}
	m.record(r, r.run.Decide(flow.Told{Kind: msg.Kind, Body: msg.Body}, time.Now()))
	return nil
}

// report ends the open attempt of a step.
func (m *memory) report(t testing.TB, id RunID, path string, o flow.Outcome) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	run, err := parseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	r := m.runs[run]
	for start := range r.run.Pending {
		if a := r.run.Attempt(start); a.Path == path {
			report := flow.Report{Path: path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: &o}
			m.record(r, r.run.Decide(flow.Reported{Report: report}, time.Now()))
			return
		}
	}
	t.Fatalf("no attempt of %s is open", path)
}

func (m *memory) Watch(run uuid.UUID) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers[run] = append(m.watchers[run], c)
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.watchers[run] = slices.DeleteFunc(m.watchers[run], func(o chan struct{}) bool { return o == c })
		if len(m.watchers[run]) == 0 {
			delete(m.watchers, run)
		}
	}
}

func (m *memory) watching(id RunID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	run, _ := parseRunID(id)
	return len(m.watchers[run])
}

func (m *memory) Ready() error { return m.ready }

func (m *memory) find(tenant, id uuid.UUID) (*memoryRun, error) {
	if m.down != nil {
		return nil, m.down
	}
	if r := m.runs[id]; r != nil && r.row.Tenant == tenant {
		return r, nil
	}
	return nil, fault.New(fault.KindNotFound, "run_not_found", "there is no such run")
}

func (m *memory) Run(_ context.Context, tenant, id uuid.UUID) (store.RunRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(tenant, id)
	if err != nil {
		return store.RunRow{}, err
	}
	return r.row, nil
}

func (m *memory) Runs(_ context.Context, tenant uuid.UUID, f store.RunFilter) ([]store.RunRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return nil, m.down
	}
	var rows []store.RunRow
	for _, r := range m.runs {
		before := f.Before == uuid.Nil || r.row.ID.String() < f.Before.String()
		if f.Parent != nil && (r.row.Parent == nil || *r.row.Parent != *f.Parent || r.row.ID.String() <= f.After.String()) {
			continue
		}
		if r.row.Tenant == tenant && before && (f.Workflow == "" || f.Workflow == r.row.Workflow) &&
			(len(f.Status) == 0 || slices.Contains(f.Status, r.row.Status)) {
			rows = append(rows, r.row)
		}
	}
	slices.SortFunc(rows, func(a, b store.RunRow) int {
		if f.Parent != nil {
			a, b = b, a // oldest first
		}
		return -slices.Compare(a.ID[:], b.ID[:])
	})
	return rows[:min(f.Limit, len(rows))], nil
}

func (m *memory) Unquarantine(_ context.Context, tenant, id uuid.UUID) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(tenant, id)
	if err != nil || r.row.Status != flow.RunStatusQuarantined {
		return false, err
	}
	r.row.Status = flow.RunStatusQueued
	return true, nil
}

func (m *memory) Events(_ context.Context, tenant, id uuid.UUID, after int32, limit int) ([]flow.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(tenant, id)
	if err != nil {
		return nil, err
	}
	from := min(int(after), len(r.log))
	return slices.Clone(r.log[from:min(from+limit, len(r.log))]), nil
}

func (m *memory) LastEvent(_ context.Context, tenant, id uuid.UUID) (flow.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(tenant, id)
	if err != nil {
		return flow.Event{}, err
	}
	if len(r.log) == 0 {
		return flow.Event{}, fault.New(fault.KindNotFound, "events_not_found", "the run's events are past their retention")
	}
	return r.log[len(r.log)-1], nil
}

func (m *memory) Definition(_ context.Context, _ uuid.UUID, hash workflow.Hash) (json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if body := m.definitions[hash]; body != nil {
		return body, nil
	}
	return nil, fault.New(fault.KindNotFound, "definition_not_found", "there is no definition %s", hash)
}

func (m *memory) PutDefinition(_ context.Context, _ uuid.UUID, hash workflow.Hash, body json.RawMessage) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.definitions[hash] = body
	return nil
}

func (m *memory) Publish(_ context.Context, _ uuid.UUID, name string, hash workflow.Hash, body json.RawMessage, expect int) (store.WorkflowRow, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return store.WorkflowRow{}, false, m.down
	}
	list := m.workflows[name]
	if n := len(list); n > 0 && list[n-1].Hash == hash {
		return list[n-1], false, nil
	}
	if expect >= 0 && expect != len(list) {
		return store.WorkflowRow{}, false, fault.New(fault.KindConflict, "version_mismatch", "the latest version is %d", len(list))
	}
	row := store.WorkflowRow{Name: name, Version: len(list) + 1, Hash: hash, CreatedAt: time.Now(), Body: body}
	m.workflows[name], m.definitions[hash] = append(list, row), body
	return row, true, nil
}

func (m *memory) Workflow(_ context.Context, _ uuid.UUID, name string, version int) (store.WorkflowRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return store.WorkflowRow{}, m.down
	}
	list := m.workflows[name]
	if version == 0 {
		version = len(list)
	}
	if version < 1 || version > len(list) {
		return store.WorkflowRow{}, fault.New(fault.KindNotFound, "workflow_not_found", "there is no workflow %s", name)
	}
	return list[version-1], nil
}

func (m *memory) Workflows(_ context.Context, _ uuid.UUID, after string, limit int) ([]store.WorkflowRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []store.WorkflowRow
	for _, name := range slices.Sorted(maps.Keys(m.workflows)) {
		if list := m.workflows[name]; name > after {
			rows = append(rows, list[len(list)-1])
		}
	}
	return rows[:min(limit, len(rows))], nil
}

func (m *memory) WorkflowVersions(_ context.Context, _ uuid.UUID, name string, before, limit int) ([]store.WorkflowRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.workflows[name]
	if len(list) == 0 {
		return nil, fault.New(fault.KindNotFound, "workflow_not_found", "there is no workflow %s", name)
	}
	var rows []store.WorkflowRow
	for _, row := range slices.Backward(list) {
		if before == 0 || row.Version < before {
			rows = append(rows, row)
		}
	}
	return rows[:min(limit, len(rows))], nil
}

// place is what the keys of one place have in common.
func place(k store.Key) store.Key { return store.Key{Tenant: k.Tenant, Key: k.Key, Route: k.Route} }

func (m *memory) ClaimKey(_ context.Context, k store.Key, run uuid.UUID) (store.KeyClaim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.keys[place(k)]
	switch {
	case e == nil:
		m.keys[place(k)] = &memoryKey{hash: k.BodyHash, claim: store.KeyClaim{Run: run}}
		return store.KeyClaim{Fresh: true, Run: run}, nil
	case e.hash != k.BodyHash:
		return store.KeyClaim{Run: e.claim.Run, Mismatch: true}, nil
	case e.settled:
		return e.claim, nil
	case e.stale:
		e.stale = false
		return store.KeyClaim{Fresh: true, Run: e.claim.Run}, nil
	}
	return store.KeyClaim{Run: e.claim.Run, InFlight: true}, nil
}

func (m *memory) SettleKey(_ context.Context, k store.Key, status int, header map[string]string, body []byte) error {
	if m.beforeReply != nil {
		m.beforeReply()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.keys[place(k)]
	e.claim.Status, e.claim.Header, e.claim.Body, e.settled = status, header, slices.Clone(body), true
	return nil
}

func (m *memory) DropKey(_ context.Context, k store.Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.keys, place(k))
	return nil
}

func (m *memory) Ping(context.Context) error { return m.down }

func (m *memory) Migrated(context.Context) (current, want int64, err error) {
	return m.schema, 1, m.down
}
