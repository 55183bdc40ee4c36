package flow

import (
	"encoding/json"
	"iter"
	"maps"

	"github.com/fermata-run/fermata/internal/workflow"
)

const sectionMain = workflow.SectionMain

// scope is what expressions read that stand in a frame: the folded state, at the time of the decision.
func (r *Run) scope(f *frame) *workflow.Scope {
	return &workflow.Scope{Input: r.inputValue(), Run: r.field, Steps: f.stepValue, Local: f.local(r.w), Now: r.now, Cost: &r.effort.cost}
}

// local answers the roots that depend on where an expression stands.
func (f *frame) local(w *workflow.Workflow) func(name string) (any, bool) {
	return func(name string) (any, bool) {
		if name == "contracts" {
			return w.ContractValues, true
		}
		for in := f; in.owner != nil; in = in.owner.frame {
			switch def := in.owner.def; {
			case def.Map != nil && (name == "item" || name == def.Map.As):
				return in.owner.many.item(in.n), true
			case def.Map != nil && name == "index":
				return int64(in.n), true
			case def.Loop != nil && name == "iter":
				return in.iter(), true
			}
		}
		return nil, false
	}
}

// item is an item of a map as expressions see it.
func (m *many) item(n int) any {
	if m.values == nil {
		list, err := workflow.Decode(m.items)
		m.values, _ = list.([]any) //nolint:errcheck // it was a list when it was recorded
		if err != nil || m.values == nil {
			m.values = []any{}
		}
	}
	if n >= len(m.values) {
		return nil
	}
	return m.values[n]
}

// iter is what an iteration knows of itself and the one before.
func (f *frame) iter() map[string]any {
	iter := map[string]any{"number": int64(f.n)}
	if f.n > 1 {
		iter["last"] = f.owner.many.frames[f.n-2].outputValue()
	}
	return iter
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
		return RunName(r.ID), true
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
	case "quality":
		return r.qualityValue(), true
	case "error":
		if r.failure == nil {
			return nil, false
		}
		return map[string]any{"step": r.failure.Step, "class": r.failure.Class, "message": r.failure.Message}, true
	}
	return nil, false
}

// stepValue finds a step by its id from inside a frame: ids are not used twice along one line of nesting.
func (f *frame) stepValue(id string) (workflow.StepValue, bool) {
	for {
		if def := f.body.Step(id); def != nil {
			return &f.steps[def.Slot], true
		}
		if f.owner == nil {
			return nil, false
		}
		f = f.owner.frame
	}
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
		return float64(s.sum.Cost) / 1e9, true
	case "model":
		c, ok := s.answered()
		return c.Model, ok
	case "usage":
		t := s.sum.Tokens
		return map[string]any{
			"input": t.Input, "cache_read": t.CacheRead, "cache_write": t.CacheWrite,
			"output": t.Output, "reasoning": t.Reasoning,
		}, true
	}
	return s.fieldOfKind(name)
}

// fieldOfKind answers what only steps of some kinds have.
func (s *step) fieldOfKind(name string) (any, bool) {
	switch name {
	case "case":
		return int64(s.chosen), s.chosen >= 0
	case "summary":
		return s.last.Summary, s.last.Summary != ""
	case "gate":
		if s.last.Gate == nil {
			return nil, false
		}
		gate := map[string]any{"rounds": int64(s.last.Gate.Rounds)}
		if s.last.Gate.Score != nil {
			gate["score"] = *s.last.Gate.Score
		}
		return gate, true
	case "errors":
		return s.itemErrors(), s.def.Map != nil && s.status.Settled()
	case "iterations":
		if s.many == nil {
			return int64(0), s.status.Settled()
		}
		return int64(len(s.many.frames)), true
	case "exhausted":
		return s.last.Exhausted, s.status == StepStatusSucceeded
	case "agreement":
		if s.last.Agreement == nil {
			return nil, false
		}
		return *s.last.Agreement, true
	case "dissent":
		list := make([]any, len(s.last.Dissent))
		for i, id := range s.last.Dissent {
			list[i] = map[string]any{"step": id, "output": s.member(id).outputValue()}
		}
		return list, s.status == StepStatusSucceeded
	case "plan":
		return s.planValue()
	case "run":
		if s.child == nil {
			return nil, false
		}
		return RunName(s.child.Run), true
	case "choice", "by":
		if s.answer == nil {
			return nil, false
		}
		return map[string]string{"choice": s.answer.Choice, "by": s.answer.By}[name], true
	case "event_id":
		id, _ := s.outputValue().(map[string]any) //nolint:errcheck // of an emit that has happened
		v, ok := id["event_id"]
		return v, ok
	}
	return nil, false
}

func (s *step) member(id string) *step { return &s.frame.steps[s.frame.body.Step(id).Slot] }

func (s *step) itemErrors() []any {
	list := []any{}
	if s.many == nil {
		return list
	}
	for _, f := range s.many.frames {
		if f != nil && f.failure != nil {
			list = append(list, map[string]any{"index": int64(f.n), "class": f.failure.Class, "message": f.failure.Message})
		}
	}
	return list
}

func (s *step) planValue() (any, bool) {
	if s.plan == nil {
		return nil, false
	}
	v, err := workflow.Decode(s.plan.Definition)
	return v, err == nil
}

func (r *Run) qualityValue() map[string]any {
	q := r.qualityNow()
	if q == nil {
		q = &Quality{}
	}
	return map[string]any{"level": int64(q.Level), "name": q.Name, "omitted": texts(q.Omitted), "reasons": texts(q.Reasons)}
}

func texts(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func (s *step) outputValue() any {
	if !s.decoded {
		s.value, s.decoded = s.decode(), true
	}
	return s.value
}

// decode gives the output as expressions see it. Those of items are decoded once, not once more with their map.
func (s *step) decode() any {
	if s.last.Assembled && s.many != nil {
		if s.def.Loop != nil {
			return s.taken().outputValue()
		}
		list := make([]any, len(s.many.frames))
		for i, f := range s.many.frames {
			list[i] = f.outputValue()
		}
		return list
	}
	v, _ := workflow.Decode(s.output()) //nolint:errcheck // was checked to be JSON where it was made
	return v
}

func (s *step) errorValue() (any, bool) {
	if s.status != StepStatusFailed && s.skipped != SkippedError || len(s.failures) == 0 {
		return nil, false
	}
	attempts := make([]any, len(s.failures))
	for i, f := range s.failures {
		attempts[i] = map[string]any{"class": f.Class, "message": f.Message}
	}
	last := s.failures[len(s.failures)-1]
	return map[string]any{"class": last.Class, "message": last.Message, "attempts": attempts}, true
}

// frozen is the scope of the asserts of a step's gate: a copy, because they are evaluated beside the run's own work.
func (r *Run) frozen(s *step) *workflow.Scope {
	live := r.scope(s.frame)
	steps, run, local := map[string]copied{}, copied{}, copied{}
	for _, read := range s.def.Reads {
		if v, ok := live.Steps(read.Step.ID); ok && read.Place == workflow.PlaceGate {
			if steps[read.Step.ID] == nil {
				steps[read.Step.ID] = copied{}
			}
			steps[read.Step.ID].take(read.Field, v.Field)
		}
	}
	for _, name := range runFields {
		run.take(name, r.field)
	}
	for _, name := range append(localRoots, s.names()...) {
		local.take(name, live.Local)
	}
	return &workflow.Scope{
		Input: live.Input, Run: run.Field, Local: local.Field, Now: r.now,
		Steps: func(id string) (workflow.StepValue, bool) {
			v, ok := steps[id]
			return v, ok
		},
	}
}

var (
	runFields  = []string{"id", "workflow", "version", "stakes", "mode", "labels", "started_at", "time_left_s", "cost_usd", "quality", "status", "error"}
	localRoots = []string{"contracts", "item", "index", "iter"}
)

// names are those that the maps around give their items.
func (s *step) names() []string {
	var names []string
	for p := s.frame.owner; p != nil; p = p.frame.owner {
		if p.def.Map != nil && p.def.Map.As != "" {
			names = append(names, p.def.Map.As)
		}
	}
	return names
}

// copied are fields of something that goes on changing.
type copied map[string]any

func (c copied) take(name string, from func(string) (any, bool)) {
	if v, ok := from(name); ok {
		c[name] = v
	}
}

// Field implements workflow.StepValue.
func (c copied) Field(name string) (any, bool) {
	v, ok := c[name]
	return v, ok
}

func mapKeys(m map[Path]json.RawMessage) iter.Seq[Path] { return maps.Keys(m) }
