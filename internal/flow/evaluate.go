package flow

import (
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// ScopeAt is what an expression reads that stands where a step does, as the run is now, and the names it may read; an empty
// path is the top of the definition. It reads the run: nothing may be decided or applied as long as it is used. False:
// there is no such step, or not yet.
func (r *Run) ScopeAt(path Path, now time.Time) (*workflow.Scope, workflow.Names, bool) {
	f := r.root
	if path != "" {
		s := r.at(path)
		if s == nil {
			return nil, workflow.Names{}, false
		}
		f = s.frame
	}
	scope := r.scope(f)
	scope.Now = now
	return scope, f.names(), true
}

// names are those that mean something in a frame, and in the ones around it.
func (f *frame) names() workflow.Names {
	names := workflow.Names{Roots: []string{"contracts"}}
	inMap, inLoop := false, false
	for at := f; ; at = at.owner.frame {
		for _, def := range at.body.Steps {
			names.Steps = append(names.Steps, def.ID)
		}
		if at.owner == nil {
			return names
		}
		switch m := at.owner.def.Map; {
		case m == nil && !inLoop:
			inLoop, names.Roots = true, append(names.Roots, "iter")
		case m == nil:
		case !inMap:
			inMap, names.Roots = true, append(names.Roots, "item", "index")
			fallthrough
		default:
			if m.As != "" {
				names.Roots = append(names.Roots, m.As)
			}
		}
	}
}
