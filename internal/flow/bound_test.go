package flow_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// TestRunBytesMax: a run whose log is too long to be held ends with a sentence, and can be cancelled or looked at.
func TestRunBytesMax(t *testing.T) {
	s := &stage{t: t, now: playStart, w: compile(t, `
spec: workflow/v1
name: long
steps:
  - id: each
    map:
      items: lists.range(2000)
      max_items: 2000
      concurrency: 1
      steps:
        - {id: go, tool: "builtin:noop"}
`)}
	s.submit("{}")
	output := json.RawMessage(`"` + strings.Repeat("x", 60<<10) + `"`)
	for range 2_000 {
		if s.run.Status().Ended() {
			break
		}
		for start := range s.run.Pending {
			a := s.run.Attempt(start)
			s.run.Decide(flow.Reported{Report: flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Outcome: &flow.Outcome{Output: output}}}, s.now)
			break
		}
	}
	view := s.run.View()
	if view.Status != flow.RunStatusFailed || view.Error.Class != "exhausted" || !strings.Contains(view.Error.Message, "67108864") {
		t.Errorf("it is %s: %+v", view.Status, view.Error)
	}
	if done := view.Steps[0].Inside.Succeeded; done < workflow.RunBytesMax/len(output)-1 || done > workflow.RunBytesMax/len(output)+1 {
		t.Errorf("%d items", done)
	}
}
