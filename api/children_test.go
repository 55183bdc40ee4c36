package api

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// The runs that a step started are listed, oldest first, and each names its parent.
func TestChildrenAreListed(t *testing.T) {
	s := newService(t, nil)
	parent, _ := parseRunID(s.submit(t, oneTool).ID)
	w, err := workflow.Compile([]byte(greeting))
	if err != nil {
		t.Fatal(err)
	}
	s.mem.definitions[w.Hash] = w.Source
	var want []string
	for range 3 {
		id := uuid.Must(uuid.NewV7())
		sub := &flow.Submission{ID: id, Tenant: s.tenant, Workflow: w, Priority: -1, Parent: &flow.Parent{Run: parent, Step: "work", Gen: 1, Attempt: 1, Depth: 1}}
		if err := s.mem.Submit(context.Background(), sub); err != nil {
			t.Fatal(err)
		}
		want = append(want, formatRunID(id))
	}
	var got []string
	query := ""
	for {
		var page RunPage
		s.send(t, "GET", "/v1/runs?limit=2&parent="+formatRunID(parent)+query, nil).want(http.StatusOK).json(&page)
		for _, r := range page.Data {
			got = append(got, r.ID)
		}
		if page.NextCursor == "" {
			break
		}
		query = "&cursor=" + page.NextCursor
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var child Run
	s.send(t, "GET", "/v1/runs/"+want[0], nil).want(http.StatusOK).json(&child)
	if child.Parent != (RunParent{Run: formatRunID(parent), Step: "work"}) || child.Links.Children != "/v1/runs?parent="+want[0] {
		t.Errorf("got %+v %+v", child.Parent, child.Links)
	}
	s.send(t, "GET", "/v1/runs?parent=run_1", nil).want(http.StatusBadRequest)
}
