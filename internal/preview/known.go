package preview

import (
	"encoding/json"

	"github.com/fermata-run/fermata/internal/workflow"
)

// eval evaluates an expression that reads only what is known before anything runs.
func (r *reader) eval(x *workflow.Expr, in *workflow.Body) (any, bool) {
	for _, ref := range x.Refs() {
		if !r.knows(ref, in) {
			return nil, false
		}
	}
	v, err := x.Eval(r.scope(in))
	return v, err == nil
}

func (r *reader) knows(ref workflow.Ref, in *workflow.Body) bool {
	switch ref.Root {
	case "input":
		return r.isGiven
	case "contracts":
		return true
	case "run":
		return len(ref.Names) > 0 && r.words[ref.Names[0]] != nil
	case "steps":
		s := find(in, ref)
		return s != nil && len(ref.Names) > 1 && ref.Names[1] == "output" && r.set(s).known
	}
	return false
}

// set is the output of a step that sets values, where all of them are known.
func (r *reader) set(s *workflow.Step) *value {
	if v := r.known[s]; v != nil {
		return v
	}
	v := &value{}
	r.known[s] = v
	if s.Set != nil && !mayMiss(s) {
		v.of, v.known = r.rendered(s.Set.Parts(), s.Body)
	}
	return v
}

// rendered is what a template gives, if it is known.
func (r *reader) rendered(p workflow.TemplatePart, in *workflow.Body) (any, bool) {
	switch {
	case p.Const != nil:
		v, err := workflow.Decode(p.Const)
		return v, err == nil
	case p.Expr != nil:
		return r.eval(p.Expr, in)
	case p.Items != nil:
		list := make([]any, len(p.Items))
		for i, item := range p.Items {
			var ok bool
			if list[i], ok = r.rendered(item, in); !ok {
				return nil, false
			}
		}
		return list, true
	case p.Members != nil:
		object := make(map[string]any, len(p.Members))
		for _, m := range p.Members {
			var ok bool
			if object[m.Name], ok = r.rendered(m.Part, in); !ok {
				return nil, false
			}
		}
		return object, true
	}
	return nil, false // of a text only the size matters
}

// scope is what is known, as expressions read it.
func (r *reader) scope(in *workflow.Body) *workflow.Scope {
	return &workflow.Scope{
		Input: r.given,
		Run:   func(field string) (any, bool) { v, ok := r.words[field]; return v, ok },
		Steps: func(id string) (workflow.StepValue, bool) {
			s := find(in, workflow.Ref{Root: "steps", Names: []string{id}})
			if s == nil {
				return nil, false
			}
			return setOutput{r.set(s).of}, true
		},
		Local: func(name string) (any, bool) { return r.w.ContractValues, name == "contracts" },
	}
}

// setOutput is a step of which only the output is known.
type setOutput struct{ output any }

// Field implements workflow.StepValue.
func (s setOutput) Field(name string) (any, bool) { return s.output, name == "output" }

// holds says whether a condition holds, if that is known.
func (r *reader) holds(x *workflow.Expr, in *workflow.Body) (holds, known bool) {
	if x == nil {
		return true, true
	}
	v, known := r.eval(x, in)
	holds, isBool := v.(bool)
	return holds, known && isBool
}

// childInput is the input that a workflow step gives, if it is known.
func (r *reader) childInput(s *workflow.Step) json.RawMessage {
	if s.Workflow.Input == nil {
		return json.RawMessage("{}")
	}
	if _, ok := r.rendered(s.Workflow.Input.Parts(), s.Body); !ok {
		return nil
	}
	raw, err := s.Workflow.Input.Render(r.scope(s.Body))
	if err != nil {
		return nil
	}
	return raw
}
