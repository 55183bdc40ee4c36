package flow_test

import (
	"encoding/json"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

// Whoever judges, helps or sums up after the author of an output has not made it.
func TestWhoMadeAnOutput(t *testing.T) {
	low, lower := 50.0, 20.0
	author, judge := usage.Call{Provider: "p", Model: "author"}, usage.Call{Provider: "p", Model: "judge", Who: "judge.0"}
	refused := func(model string, confidence float64) usage.Call {
		return usage.Call{Provider: "p", Model: model, Class: "low_confidence", Confidence: &confidence}
	}
	for name, c := range map[string]struct {
		turns []flow.Turn
		last  []usage.Call
		below bool
		want  string
	}{
		"alone":          {nil, []usage.Call{author}, false, "author"},
		"judged":         {[]flow.Turn{{Calls: []usage.Call{author}}}, []usage.Call{judge}, false, "author"},
		"revised":        {[]flow.Turn{{Calls: []usage.Call{{Model: "first"}}}, {Who: "judge.0", Calls: []usage.Call{judge}}, {Calls: []usage.Call{author}}}, []usage.Call{judge}, false, "author"},
		"the best taken": {nil, []usage.Call{refused("worse", lower), refused("author", low)}, true, "author"},
		"and judged": {
			[]flow.Turn{{BelowGate: true, Calls: []usage.Call{refused("author", low), refused("worse", lower)}}},
			[]usage.Call{{Model: "judge", Who: "judge.0", Class: "low_confidence", Confidence: &low}, judge},
			true, "author",
		},
	} {
		run, _, err := flow.Open(flow.Submission{ID: playRun, Workflow: compile(t, oneAgent), Input: json.RawMessage(`{}`), Priority: -1}, playStart)
		if err != nil {
			t.Fatal(err)
		}
		report := flow.Report{Path: "a", Gen: 1, No: 1}
		for i := range c.turns {
			report.Turn = &c.turns[i]
			run.Decide(flow.Reported{Report: report}, playStart)
		}
		report.Turn, report.Outcome = nil, &flow.Outcome{Output: json.RawMessage(`"x"`), BelowGate: c.below, Calls: c.last}
		run.Decide(flow.Reported{Report: report}, playStart)
		result := run.View().Result
		if result == nil || len(result.Provenance) != 1 || result.Provenance[0].Model != c.want {
			t.Errorf("%s: %+v", name, result)
		}
	}
}
