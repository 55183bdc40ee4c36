package workflow_test

import (
	"encoding/json"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// settled is a step as a test says it ended.
type settled map[string]any

func (s settled) Field(name string) (any, bool) {
	v, ok := s[name]
	return v, ok
}

// fataler is a test, or a check within one.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

var testNow = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// newScope makes a scope of a run whose steps gave the outputs; a step whose output is "-" was skipped.
func newScope(t fataler, input string, outputs map[string]string) *workflow.Scope {
	t.Helper()
	steps := map[string]settled{}
	for id, raw := range outputs {
		if raw == "-" {
			steps[id] = settled{"status": "skipped", "cost_usd": 0.0}
			continue
		}
		steps[id] = settled{"status": "succeeded", "cost_usd": 0.25, "output": decoded(t, raw), "confidence": 90.0}
	}
	run := map[string]any{
		"id": "run_1", "workflow": "w", "version": int64(3), "stakes": "high", "mode": "batch",
		"labels": map[string]any{"team": "blue"}, "started_at": testNow, "time_left_s": 60.5, "cost_usd": 0.5,
		"status": "failed", "error": map[string]any{"step": "a", "class": "timeout", "message": "late"},
	}
	return &workflow.Scope{
		Input: decoded(t, input),
		Run: func(field string) (any, bool) {
			v, ok := run[field]
			return v, ok
		},
		Steps: func(id string) (workflow.StepValue, bool) {
			s, ok := steps[id]
			return s, ok
		},
		Now: testNow,
	}
}

func decoded(t fataler, raw string) any {
	t.Helper()
	v, err := workflow.Decode(json.RawMessage(raw))
	if err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return v
}
