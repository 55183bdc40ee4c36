package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/tool"
)

// watched refuses attempts and writes down what it is told.
type watched struct {
	refuse bool
	said   []string
}

func (w *watched) Admit(_ context.Context, a flow.Attempt) *flow.Failure {
	w.said = append(w.said, "may "+a.Path)
	if w.refuse {
		return &flow.Failure{Class: "incident", Message: "incident 1"}
	}
	return nil
}

func (w *watched) Ended(_ context.Context, a flow.Attempt, o *flow.Outcome) {
	class := "ok"
	if o.Failure != nil {
		class = o.Failure.Class
	}
	w.said = append(w.said, a.Path+" ended: "+class)
}

// breaks is a tool that fails, or brings the worker down with it.
type breaks struct{ hard bool }

func (b breaks) Call(context.Context, tool.Request) (json.RawMessage, error) {
	if b.hard {
		panic("it broke")
	}
	return nil, &tool.Error{Class: tool.ClassToolError, Message: "no"}
}

// Each attempt asks whether it may be made, and tells how it ended before it is reported. One that is refused asks nobody
// anything, costs nothing and is held.
func TestIncidents(t *testing.T) {
	for name, c := range map[string]struct {
		tools  Tools
		refuse bool
		want   []string
	}{
		"fine":    {nil, false, []string{"may step", "step ended: ok", "reported"}},
		"failing": {breaks{}, false, []string{"may step", "step ended: tool_error", "reported"}},
		"a panic": {breaks{hard: true}, false, []string{"may step", "step ended: internal", "reported"}},
		"held":    {breaks{hard: true}, true, []string{"may step", "reported"}},
	} {
		t.Run(name, func(t *testing.T) {
			trouble := &watched{refuse: c.refuse}
			a := toolAttempt(tool.RefNoop, `{}`)
			a.Path = "step"
			var reports []flow.Report
			New(Config{Tools: c.tools, Incidents: trouble}).Do(t.Context(), a, func(r flow.Report) {
				trouble.said = append(trouble.said, "reported")
				reports = append(reports, r)
			})
			if diff := cmp.Diff(c.want, trouble.said); diff != "" {
				t.Error(diff)
			}
			if !c.refuse {
				return
			}
			want := []flow.Report{{Path: "step", Gen: a.Gen, No: a.No, Outcome: &flow.Outcome{
				Held: flow.HeldIncident, Unbegun: true, Failure: &flow.Failure{Class: "incident", Message: "incident 1"},
			}}}
			if diff := cmp.Diff(want, reports); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A held agent takes no place from those that work, and its timeout does not run: it is not asked for at all.
func TestHeldAgentTakesNoPlace(t *testing.T) {
	w := New(Config{AgentsMax: 1, Incidents: &watched{refuse: true}})
	w.places <- struct{}{} // the only one
	for i := range 3 {
		_, outcome, _ := do(t.Context(), w, agentAttempt(t))
		if outcome.Held != flow.HeldIncident || len(outcome.Calls) != 0 {
			t.Errorf("%d: %s", i, fmt.Sprintf("%+v", outcome))
		}
	}
}
