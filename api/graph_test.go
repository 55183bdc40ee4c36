package api

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
)

func TestWorkflowGraph(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "POST", "/v1/workflows", `{"definition":`+wide+`}`).want(http.StatusCreated)
	for _, query := range []string{"", "?version=1"} {
		var g Graph
		s.send(t, "GET", "/v1/workflows/wide/graph"+query, nil).want(http.StatusOK).json(&g)
		var paths []string
		for _, n := range g.Nodes {
			paths = append(paths, n.Path)
		}
		if diff := cmp.Diff([]string{"build", "build.make", "build.note", "after"}, paths); diff != "" || g.Nodes[1].Container != "build" || g.Nodes[1].Tool != "builtin:noop" || g.Version != 1 {
			t.Errorf("%s %+v", diff, g)
		}
		if diff := cmp.Diff([]GraphEdge{{From: "build", To: "after", Why: "needs"}}, g.Edges); diff != "" {
			t.Error(diff)
		}
	}
	s.send(t, "GET", "/v1/workflows/wide/graph?version=2", nil).wantProblem(http.StatusNotFound, "workflow_not_found")
	s.send(t, "GET", "/v1/workflows/narrow/graph", nil).wantProblem(http.StatusNotFound, "workflow_not_found")
}

// A run's graph says where each step stands; what is inside a map is counted.
func TestRunGraph(t *testing.T) {
	s := newService(t, nil)
	run := s.submitWide(t, 3)
	s.mem.report(t, run, "build.1.make", flow.Outcome{Output: []byte(`1`)})
	var g Graph
	s.send(t, "GET", "/v1/runs/"+run+"/graph", nil).want(http.StatusOK).json(&g)
	build, inside := g.Nodes[0], g.Nodes[1]
	if build.Status != StepStatusRunning || build.Inside.Total != 3 || build.Counts != nil || g.Nodes[3].Status != StepStatusPending {
		t.Errorf("got %+v", build)
	}
	if diff := cmp.Diff(map[string]int{"running": 2, "succeeded": 1}, inside.Counts); diff != "" || inside.Status != "" {
		t.Error(diff, inside.Status)
	}
}
