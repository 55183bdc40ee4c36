package rehearsal

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// answererKeys say who answers for an agent; they exclude each other.
var answererKeys = []string{"model", "chain", "route"}

// replaced is the workflow with other models behind its agents, by name; * is all that are not named. Those of workflows
// that it runs are replaced as well.
func replaced(w *workflow.Workflow, models map[string]order) (*workflow.Workflow, error) {
	var definition map[string]any
	if err := json.Unmarshal(w.Source, &definition); err != nil {
		return nil, fmt.Errorf("read %s: %w", w.Name, err)
	}
	met := map[string]bool{"*": true}
	replaceIn(definition, models, met)
	for _, name := range slices.Sorted(maps.Keys(models)) {
		if met[name] {
			continue
		}
		e := fault.New(fault.KindInvalid, "unknown_agent", "models_replace: the workflow has no agent %q", name)
		if near := fault.Nearest(name, slices.Collect(maps.Keys(w.Agents))); near != "" {
			e.Detail += fmt.Sprintf("; did you mean %q?", near)
		}
		return nil, e
	}
	source, err := json.Marshal(definition)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", w.Name, err)
	}
	return workflow.Load(source)
}

// replaceIn replaces the models of a definition, and of those it carries.
func replaceIn(definition map[string]any, models map[string]order, met map[string]bool) {
	agents, _ := definition["agents"].(map[string]any)
	for name, v := range agents {
		o, named := models[name]
		if !named {
			o = models["*"]
		}
		agent, ok := v.(map[string]any)
		if !ok || len(o) == 0 {
			continue
		}
		met[name] = true
		dropAnswerers(agent)
		if len(o) == 1 {
			agent["model"] = o[0]
		} else {
			agent["chain"] = entries(o)
		}
		letGo(definition, name)
	}
	carried, _ := definition["carried"].(map[string]any)
	workflows, _ := carried["workflows"].(map[string]any)
	for _, v := range workflows {
		if inner, ok := v.(map[string]any); ok {
			replaceIn(inner, models, met)
		}
	}
}

func entries(o order) []any {
	list := make([]any, len(o))
	for i, model := range o {
		list[i] = map[string]any{"model": model}
	}
	return list
}

func dropAnswerers(m map[string]any) {
	for _, key := range answererKeys {
		delete(m, key)
	}
}

// letGo takes from the steps of an agent what they say themselves of who answers for it.
func letGo(v any, agent string) {
	switch v := v.(type) {
	case []any:
		for _, inner := range v {
			letGo(inner, agent)
		}
	case map[string]any:
		if v["agent"] == agent {
			dropAnswerers(v)
		}
		for key, inner := range v {
			if key != "carried" { // names mean something else there
				letGo(inner, agent)
			}
		}
	}
}
