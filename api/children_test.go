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

// Events name runs and approvals as paths do, and what a run of its own cost is what its step cost.
func TestEventsNameIDs(t *testing.T) {
	const bare, hex = "0195f0a6-b1c8-7d3e-9a4f-0c2b7d6e5f41", "0195f0a6b1c87d3e9a4f0c2b7d6e5f41"
	for _, c := range []struct {
		kind       flow.Kind
		body, want string
		tokens     int64
	}{
		{flow.KindStepWaiting, `{"for":"child","child":{"run":"` + bare + `","hash":"x"}}`, `{"child":{"hash":"x","run":"run_` + hex + `"},"for":"child"}`, 0},
		{flow.KindStepWaiting, `{"for":"approval","asked":{"approval":"` + bare + `"}}`, `{"asked":{"approval":"apr_` + hex + `"},"for":"approval"}`, 0},
		{flow.KindApprovalAnswered, `{"approval":"` + bare + `","choice":"approve"}`, `{"approval":"apr_` + hex + `","choice":"approve"}`, 0},
		{flow.KindRunSubmitted, `{"workflow":"w","parent":{"run":"` + bare + `"}}`, `{"parent":{"run":"run_` + hex + `"},"workflow":"w"}`, 0},
		{
			flow.KindStepSucceeded, `{"output":{"child":{"run":"` + bare + `"}},"child":{"run":"` + bare + `","sum":{"calls":2,"tokens":{"input":7}}}}`,
			`{"child":{"run":"run_` + hex + `","sum":{"calls":2,"tokens":{"input":7}}},"output":{"child":{"run":"` + bare + `"}}}`, 7,
		},
		{flow.KindStepSucceeded, `{"output":1}`, `{"output":1}`, 0},
		{flow.KindStepWaiting, `[1]`, `[1]`, 0},
	} {
		got := eventOf(uuid.Nil, flow.Event{Kind: c.kind, Body: []byte(c.body)})
		if string(got.Data) != c.want || got.Usage.Tokens.Input != c.tokens {
			t.Errorf("%s: got %s, %+v, want %s", c.kind, got.Data, got.Usage, c.want)
		}
	}
}
