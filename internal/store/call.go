package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/usage"
)

// CallLine is a call that belongs to no run.
type CallLine struct {
	ID              uuid.UUID // UUIDv7: lines are kept once, and in the order of their ids
	Tenant          uuid.UUID
	At              time.Time
	Agent, Workflow string
	Labels          map[string]string
	Call            usage.Call
}

func (r *records) call(node uuid.UUID, l *CallLine) error {
	labels, err := labelsJSON(l.Labels)
	if err != nil {
		return err
	}
	c := &l.Call
	var rates []byte
	if c.Rates != nil {
		if rates, err = json.Marshal(c.Rates); err != nil {
			return fmt.Errorf("encode rates: %w", err)
		}
	}
	r.begin()
	r.uuid(l.ID)
	r.uuid(l.Tenant)
	r.time(l.At)
	r.uuid(node)
	r.optionalUUID(c.Hold)
	r.text(l.Agent)
	r.text(l.Workflow)
	r.jsonb(labels)
	r.text(c.Provider)
	r.text(c.Model)
	r.bool(c.Simulated)
	r.text(c.Class)
	r.text(c.Message)
	r.int4(c.Depth)
	r.int4(c.Try)
	r.int8(c.Millis)
	r.int8(c.FirstMillis)
	t := &c.Tokens
	for _, n := range []int64{
		t.Input, t.CacheRead, t.CacheWrite, t.CacheWrite1h, t.Output, t.Reasoning, t.AudioInput, t.AudioOutput, t.ImageInput,
	} {
		r.int8(amount(n))
	}
	r.bool(c.Estimated)
	r.bool(c.Unpriced)
	r.int8(amount(c.Cost))
	r.int8(amount(c.Baseline))
	r.int8(min(max(int64(c.CacheSaved), -amountMax), amountMax)) // below zero: the cache cost more than it saved
	r.text(c.Price)
	r.jsonb(rates)
	r.text(c.Subscription)
	r.text(c.Rule)
	r.text(c.RequestID)
	r.int8(c.Trimmed)
	r.bool(c.Hedged)
	r.end()
	return nil
}
