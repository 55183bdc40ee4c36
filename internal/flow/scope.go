package flow

import (
	"encoding/json"
	"iter"
	"maps"

	"github.com/fermata-run/fermata/internal/workflow"
)

const sectionMain = workflow.SectionMain

// scope is what expressions read: the folded state, at the time of the decision.
func (r *Run) scope() *workflow.Scope {
	return &workflow.Scope{Input: r.inputValue(), Run: r.field, Steps: r.stepValue, Now: r.now}
}

func (r *Run) inputValue() any {
	if r.input == nil && len(r.submitted.Input) > 0 {
		r.input, _ = workflow.Decode(r.submitted.Input) //nolint:errcheck // checked when it was submitted
	}
	return r.input
}

// field answers run.<name>.
func (r *Run) field(name string) (any, bool) {
	switch name {
	case "id":
		return r.ID.String(), true
	case "workflow":
		return r.w.Name, true
	case "version":
		return int64(r.submitted.Version), true
	case "stakes":
		return r.submitted.Stakes, true
	case "mode":
		return r.submitted.Mode, true
	case "labels":
		labels := make(map[string]any, len(r.submitted.Labels))
		for k, v := range r.submitted.Labels {
			labels[k] = v
		}
		return labels, true
	case "started_at":
		return r.createdAt, true
	case "now":
		return r.now, true
	case "time_left_s":
		return r.sectionDue().Sub(r.now).Seconds(), true
	case "cost_usd":
		return float64(r.sum.Cost) / 1e9, true
	case "status":
		if r.fate == "" {
			return string(RunStatusSucceeded), r.section != sectionMain
		}
		return string(r.fate), true
	case "error":
		if r.failure == nil {
			return nil, false
		}
		return map[string]any{"step": r.failure.Step, "class": r.failure.Class, "message": r.failure.Message}, true
	}
	return nil, false
}

func (r *Run) stepValue(id string) (workflow.StepValue, bool) {
	def := r.w.Step(id)
	if def == nil {
		return nil, false
	}
	return &r.steps[def.Index], true
}

// Field answers steps.<id>.<name>; see workflow.StepValue.
func (s *step) Field(name string) (any, bool) {
	switch name {
	case "status":
		return string(s.status), true
	case "output":
		if s.status != StepStatusSucceeded {
			return nil, false
		}
		return s.outputValue(), true
	case "confidence":
		if s.status != StepStatusSucceeded || s.last.Confidence == nil {
			return nil, false
		}
		return *s.last.Confidence, true
	case "unresolved":
		list := make([]any, len(s.last.Unresolved))
		for i, u := range s.last.Unresolved {
			list[i] = u
		}
		return list, s.status == StepStatusSucceeded
	case "error":
		return s.errorValue()
	case "duration_s":
		return s.endedAt.Sub(s.startedAt).Seconds(), s.status.Settled() && !s.startedAt.IsZero()
	case "cost_usd":
		return float64(s.total().Cost) / 1e9, true
	case "case":
		return int64(s.chosen), s.chosen >= 0
	case "model":
		c, ok := s.answered()
		return c.Model, ok
	case "usage":
		t := s.total().Tokens
		return map[string]any{
			"input": t.Input, "cache_read": t.CacheRead, "cache_write": t.CacheWrite,
			"output": t.Output, "reasoning": t.Reasoning,
		}, true
	}
	return nil, false
}

func (s *step) outputValue() any {
	if !s.decoded {
		s.value, _ = workflow.Decode(s.last.Output) //nolint:errcheck // was checked to be JSON where it was made
		s.decoded = true
	}
	return s.value
}

func (s *step) errorValue() (any, bool) {
	if s.status != StepStatusFailed || len(s.failures) == 0 {
		return nil, false
	}
	attempts := make([]any, len(s.failures))
	for i, f := range s.failures {
		attempts[i] = map[string]any{"class": f.Class, "message": f.Message}
	}
	last := s.failures[len(s.failures)-1]
	return map[string]any{"class": last.Class, "message": last.Message, "attempts": attempts}, true
}

func mapKeys(m map[Path]json.RawMessage) iter.Seq[Path] { return maps.Keys(m) }
