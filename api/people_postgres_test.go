package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fermata-run/fermata/api/client"
)

const askingArticle = `{"spec":"workflow/v1","name":"asking","steps":[` +
	`{"id":"ok","approval":{"title":"Publish ${{ input.what }}?","form":{"schema":` + headlineForm + `,"initial":{"headline":"Tides"}}}},` +
	`{"id":"after","set":{"said":"${{ steps.ok.output.headline }}"}}]}`

// waits watches a run until a step of it waits.
func (n *node) waits(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for e, err := range n.Watch(ctx, id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == "step_waiting" {
			return
		}
	}
	t.Fatal("it ended before it waited")
}

func (n *node) start(t *testing.T, definition, input string) string {
	t.Helper()
	accepted, _, err := n.Submit(t.Context(), client.RunRequest{Definition: json.RawMessage(definition), Input: json.RawMessage(input)}, client.SubmitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return accepted.ID
}

func codeOfProblem(err error) string {
	var p *client.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return fmt.Sprint(err)
}

// A run asks, a person answers, and the run goes on from that.
func testPeopleAnswer(t *testing.T, n *node) {
	ctx := t.Context()
	run := n.start(t, askingArticle, `{"what":"it"}`)
	n.waits(t, run)
	page, err := n.Approvals(ctx, client.ListApprovalsParams{Run: &run})
	if err != nil || len(page.Data) != 1 || page.Data[0].Title != "Publish it?" || page.Data[0].Status != client.ApprovalStatusOpen {
		t.Fatalf("got %+v %v", page, err)
	}
	id := page.Data[0].ID
	shown, err := n.Run(ctx, run)
	if err != nil || shown.WaitingFor.Approval != id || shown.WaitingFor.Kind != "approval" {
		t.Errorf("got %+v %v", shown.WaitingFor, err)
	}
	if _, err := n.Answer(ctx, id, client.ApprovalAnswerRequest{Choice: "approve", Form: json.RawMessage(`{"headline":"x"}`)}); codeOfProblem(err) != "form_invalid" {
		t.Errorf("got %v", err)
	}
	answered, err := n.Answer(ctx, id, client.ApprovalAnswerRequest{Choice: "approve", Form: json.RawMessage(`{"headline":"Moon"}`), Reason: "fine"})
	if err != nil || answered.Status != client.ApprovalStatusAnswered || answered.Answer.By != answeredBy {
		t.Fatalf("got %+v %v", answered, err)
	}
	if _, err := n.Answer(ctx, id, client.ApprovalAnswerRequest{Choice: "reject"}); codeOfProblem(err) != "approval_answered" {
		t.Errorf("got %v", err)
	}
	n.ends(t, run, 0)
	if shown, err = n.Run(ctx, run, client.GetRunParamsIncludeSteps); err != nil || string(shown.Output) != `{"said":"Moon"}` || shown.Steps[0].Answer.Reason != "fine" {
		t.Errorf("got %+v %v", shown, err)
	}
}

func testSignals(t *testing.T, n *node) {
	ctx := t.Context()
	first, second := n.start(t, waiting, `{}`), n.start(t, waiting, `{}`)
	n.waits(t, first)
	n.waits(t, second)
	if _, err := n.Signal(ctx, first, "payment", client.SignalRequest{Data: json.RawMessage(`{"amount":1}`)}); err != nil {
		t.Fatal(err)
	}
	n.ends(t, first, 0)
	sent, err := n.SignalAll(ctx, "payment", client.SignalRequest{ID: "o1", Data: json.RawMessage(`{"amount":2}`)})
	if err != nil || sent.Runs != 1 {
		t.Fatalf("got %+v %v", sent, err)
	}
	if again, err := n.SignalAll(ctx, "payment", client.SignalRequest{ID: "o1"}); err != nil || again.Runs != 1 {
		t.Errorf("got %+v %v", again, err)
	}
	n.ends(t, second, 0)
	for run, want := range map[string]string{first: `{"amount":1}`, second: `{"amount":2}`} {
		if r, err := n.Run(ctx, run); err != nil || string(r.Output) != want {
			t.Errorf("got %+v %v", r, err)
		}
	}
}

// A step runs a published workflow; its run is listed as a child, and names its parent.
func testChildren(t *testing.T, n *node) {
	ctx := t.Context()
	if _, err := n.Publish(ctx, []byte(`{"spec":"workflow/v1","name":"inner","steps":[{"id":"a","set":{"x":1}}]}`)); err != nil {
		t.Fatal(err)
	}
	parent := n.start(t, fmt.Sprintf(outer, "inner"), `{}`)
	n.ends(t, parent, 0)
	page, err := n.Runs(ctx, client.ListRunsParams{Parent: &parent})
	if err != nil || len(page.Data) != 1 || page.Data[0].Workflow != "inner" {
		t.Fatalf("got %+v %v", page, err)
	}
	child, err := n.Run(ctx, page.Data[0].ID)
	if err != nil || child.Parent != (client.RunParent{Run: parent, Step: "inner"}) {
		t.Errorf("got %+v %v", child, err)
	}
	whole, err := n.Run(ctx, parent)
	if err != nil || string(whole.Output) != `{"x":1}` {
		t.Errorf("got %+v %v", whole, err)
	}
}
