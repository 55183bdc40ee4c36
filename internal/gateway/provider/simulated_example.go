package provider

import (
	"encoding/json"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
)

// What an example of an answer stands behind in a prompt, what its gaps are written as, and what a goal stands behind.
const (
	exampleMark = "\nEXAMPLE of an answer\n"
	exampleGap  = "..."
	goalMark    = "\nGOAL\n"
)

// afterExample gives the answer that a prompt shows an example of, its gaps filled with what the goal is about; empty: it
// shows none. Planners are shown one: what they answer has to be a workflow, which no schema can say.
func afterExample(a agent.Ask, w *writer) string {
	asked := firstRequest(a)
	_, example, ok := strings.Cut(asked, exampleMark)
	if !ok {
		return ""
	}
	example, _, _ = strings.Cut(example, "\n")
	var answer any
	if json.Unmarshal([]byte(example), &answer) != nil {
		return ""
	}
	if _, goal, ok := strings.Cut(asked, goalMark); ok {
		w.about(goal)
	}
	raw, err := json.Marshal(fillGaps(answer, w))
	if err != nil { // it was JSON
		return ""
	}
	return string(raw)
}

func fillGaps(v any, w *writer) any {
	switch v := v.(type) {
	case string:
		if strings.Contains(v, exampleGap) {
			return SimulatedMark + " " + strings.ReplaceAll(v, exampleGap, w.topic())
		}
	case []any:
		for i := range v {
			v[i] = fillGaps(v[i], w)
		}
	case map[string]any:
		for name := range v {
			v[name] = fillGaps(v[name], w)
		}
	}
	return v
}
