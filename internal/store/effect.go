package store

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
)

var errNoTenant = errors.New("it asks, emits or waits for signals, and the change names no tenant")

func (c *Change) tenant() uuid.UUID {
	if c.New != nil {
		return c.New.Tenant
	}
	return c.Tenant
}

func (c *Change) workflow() string {
	if c.New != nil {
		return c.New.Workflow
	}
	return c.Workflow
}

// effects adds what a change does to people and to whoever waits for signals.
func (b *batch) effects(c *Change) error {
	if len(c.Asked)+len(c.Emitted) > 0 && c.tenant() == uuid.Nil {
		return errNoTenant
	}
	if len(c.Asked)+len(c.Withdrawn) > 0 {
		b.approvals(c)
	}
	for i := range c.Emitted {
		if err := b.emitted(c, &c.Emitted[i]); err != nil {
			return err
		}
	}
	return nil
}

// approvals adds what people are asked and what they are not asked any more. An approval may be both in one batch: the
// update does not see what the same statement inserts.
func (b *batch) approvals(c *Change) {
	over := make(map[uuid.UUID]flow.ApprovalStatus, len(c.Withdrawn))
	for _, w := range c.Withdrawn {
		over[w.ID] = flow.ApprovalWithdrawn
		if w.Expired {
			over[w.ID] = flow.ApprovalExpired
		}
		r := b.add(partWithdrawn)
		r.begin()
		r.uuid(w.ID)
		r.text(string(over[w.ID]))
		r.end()
	}
	for i := range c.Asked {
		status, ok := over[c.Asked[i].Approval]
		if !ok {
			status = flow.ApprovalOpen
		}
		b.asked(c, &c.Asked[i], status)
	}
}

func (b *batch) asked(c *Change, a *flow.Ask, status flow.ApprovalStatus) {
	r := b.add(partAsked)
	r.begin()
	r.uuid(a.Approval)
	r.uuid(c.tenant())
	r.uuid(c.Run)
	r.text(a.Step)
	r.int2(a.Gen)
	r.text(a.About)
	r.text(c.workflow())
	r.text(a.Title)
	r.json(a.Show)
	r.json(a.Form)
	r.json(a.Initial)
	r.texts(a.Choices)
	r.texts(a.Assignees)
	r.text(string(status))
	r.optionalTime(a.Expires)
	r.end()
}

func (b *batch) emitted(c *Change, e *flow.Emitted) error {
	body, err := signalBody(e.Name, e.ID, e.Data)
	if err != nil {
		return err
	}
	r := b.add(partEmitted)
	r.begin()
	r.uuid(c.tenant())
	r.text(e.ID)
	r.text(e.Name)
	r.json(body)
	r.uuid(c.Run)
	r.end()
	return nil
}

// signals lets a run be told of signals as long as it goes on. One whose row says so again, after a resume or at any
// other time, waits again.
func (b *batch) signals(run, tenant uuid.UUID, names []string, status flow.RunStatus, fresh bool) error {
	switch {
	case len(names) == 0:
		return nil
	case tenant == uuid.Nil:
		return errNoTenant
	case status.Ended():
		if !fresh {
			b.add(partQuiet).element(run)
		}
		return nil
	}
	for _, name := range names {
		r := b.add(partSignal)
		r.begin()
		r.uuid(tenant)
		r.text(name)
		r.uuid(run)
		r.end()
	}
	return nil
}

// signalBody is a signal as a run is told it.
func signalBody(name, id string, data json.RawMessage) ([]byte, error) {
	body, err := json.Marshal(flow.Signal{ID: clean(id), Name: clean(name), Data: data})
	if err != nil {
		return nil, fmt.Errorf("write signal %q: %w", name, err)
	}
	return body, nil
}
