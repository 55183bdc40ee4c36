package api

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// memoryPeople is what runs ask of people, and the signals to all.
type memoryPeople struct {
	approvals []store.ApprovalRow // as they were asked
	told      map[string]int      // signals to all, by id: how many runs
}

func (m *memory) Approvals(_ context.Context, tenant uuid.UUID, f store.ApprovalFilter) ([]store.ApprovalRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return nil, m.down
	}
	var rows []store.ApprovalRow
	passed := f.After == uuid.Nil
	for _, row := range slices.Backward(m.people.approvals) {
		wanted := row.Tenant == tenant && (len(f.Status) == 0 || slices.Contains(f.Status, row.Status)) &&
			(f.Run == uuid.Nil || f.Run == row.Run) && (f.Workflow == "" || f.Workflow == row.Workflow) &&
			(f.Assignee == "" || len(row.Assignees) == 0 || slices.Contains(row.Assignees, f.Assignee))
		if passed && wanted && len(rows) < f.Limit {
			rows = append(rows, row)
		}
		passed = passed || row.Approval == f.After
	}
	return rows, nil
}

func (m *memory) approval(tenant, id uuid.UUID) (*store.ApprovalRow, error) {
	if m.down != nil {
		return nil, m.down
	}
	for i := range m.people.approvals {
		if row := &m.people.approvals[i]; row.Approval == id && row.Tenant == tenant {
			return row, nil
		}
	}
	return nil, fault.New(fault.KindNotFound, "approval_not_found", "there is no such approval")
}

func (m *memory) Approval(_ context.Context, tenant, id uuid.UUID) (store.ApprovalRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, err := m.approval(tenant, id)
	if err != nil {
		return store.ApprovalRow{}, err
	}
	return *row, nil
}

func (m *memory) AnswerApproval(_ context.Context, tenant, id uuid.UUID, answer store.Answer) (store.ApprovalRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, err := m.approval(tenant, id)
	if err != nil {
		return store.ApprovalRow{}, err
	}
	if row.Status != flow.ApprovalOpen {
		return store.ApprovalRow{}, fault.New(fault.KindConflict, "approval_"+string(row.Status), "it is %s", row.Status)
	}
	row.Status, row.Answer, row.AnsweredAt = flow.ApprovalAnswered, answer, pointerTo(time.Now().UTC())
	return *row, nil
}

func (m *memory) SignalAll(_ context.Context, tenant uuid.UUID, name, id string, _ json.RawMessage) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return 0, m.down
	}
	if n, told := m.people.told[id]; told {
		return n, nil
	}
	n := 0
	for _, r := range m.runs {
		if r.row.Tenant == tenant && !r.row.Status.Ended() && slices.Contains(r.signals, name) {
			n++
		}
	}
	m.people.told[id] = n
	return n, nil
}
