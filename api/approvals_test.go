package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

const headlineForm = `{"type":"object","required":["headline"],"additionalProperties":false,"properties":{"headline":{"type":"string","minLength":3}}}`

// articleQuestion is an approval with a form that a person may answer.
func articleQuestion(number int) store.ApprovalRow {
	id := uuid.MustParse(fmt.Sprintf("0195f0a6-b1c8-7d3e-9a4f-%012d", 100+number))
	return store.ApprovalRow{
		Ask: flow.Ask{Step: "publish_ok", Gen: 1, Asked: flow.Asked{
			Approval: id, About: flow.AboutApproval, Title: fmt.Sprint("Publish article ", number), Show: json.RawMessage(`{"draft":"Tides"}`),
			Form: json.RawMessage(headlineForm), Initial: json.RawMessage(`{"headline":"Why the sea breathes"}`),
			Choices: []string{"approve", "reject"}, Assignees: []string{"editors"},
		}},
		Tenant: store.TenantDefault, Run: uuid.MustParse(fmt.Sprintf("0195f0a6-b1c8-7d3e-9a4f-%012d", number)), Workflow: "greet",
		Status: flow.ApprovalOpen, AskedAt: time.Date(2026, 3, 1, 9, 30, number, 0, time.UTC),
	}
}

func askPeople(s *service, n int) []store.ApprovalRow {
	for i := 1; i <= n; i++ {
		s.mem.people.approvals = append(s.mem.people.approvals, articleQuestion(i))
	}
	return s.mem.people.approvals
}

func TestApprovalIsShown(t *testing.T) {
	s := newService(t, nil)
	row := askPeople(s, 1)[0]
	row.Expires = pointerTo(row.AskedAt.Add(24 * time.Hour))
	s.mem.people.approvals[0] = row
	var got Approval
	s.send(t, "GET", "/v1/approvals/"+formatApprovalID(row.Approval), nil).want(http.StatusOK).json(&got)
	want := Approval{
		ID: formatApprovalID(row.Approval), Status: ApprovalStatusOpen, Run: formatRunID(row.Run), Workflow: "greet", Step: "publish_ok",
		About: "approval", Title: "Publish article 1", Show: row.Show, Form: row.Form, Initial: row.Initial, Choices: row.Choices,
		Assignees: row.Assignees, AskedAt: row.AskedAt, ExpiresAt: *row.Expires,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.send(t, "GET", "/v1/approvals/apr_0195f0a6b1c87d3e9a4f000000000999", nil).wantProblem(http.StatusNotFound, "approval_not_found")
	s.send(t, "GET", "/v1/approvals/apr_1", nil).wantProblem(http.StatusBadRequest, "invalid_id")
}

func TestApprovalsAreListed(t *testing.T) {
	s := newService(t, nil)
	rows := askPeople(s, 4)
	rows[1].Status = flow.ApprovalWithdrawn
	rows[2].Workflow, rows[2].Assignees = "other", []string{"chief"}
	titles := func(query string) (list []string, next string) {
		t.Helper()
		var page ApprovalPage
		s.send(t, "GET", "/v1/approvals?"+query, nil).want(http.StatusOK).json(&page)
		for _, a := range page.Data {
			list = append(list, strings.TrimPrefix(a.Title, "Publish article "))
		}
		return list, page.NextCursor
	}
	first, next := titles("limit=3")
	rest, end := titles("limit=3&cursor=" + next)
	if diff := cmp.Diff([]string{"4", "3", "2", "1"}, append(first, rest...)); diff != "" || len(first) != 3 || end != "" {
		t.Error(diff, end)
	}
	for query, want := range map[string][]string{
		"status=open": {"4", "3", "1"}, "status=withdrawn": {"2"}, "workflow=other": {"3"}, "assignee=chief": {"3"},
		"run=" + formatRunID(rows[0].Run): {"1"}, "status=answered": nil,
	} {
		if got, _ := titles(query); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	s.send(t, "GET", "/v1/approvals?status=opened", nil).want(http.StatusBadRequest)
	s.send(t, "GET", "/v1/approvals?cursor="+formatCursor("runs", rows[0].Run), nil).wantProblem(http.StatusBadRequest, "invalid_cursor")
}

func TestApprovalIsAnswered(t *testing.T) {
	for name, c := range map[string]struct{ body, form string }{
		"with a form":          {`{"choice":"approve","form":{"headline":"Tides"},"reason":"good"}`, `{"headline":"Tides"}`},
		"as it began":          {`{"choice":"approve","reason":"good"}`, `{"headline":"Why the sea breathes"}`},
		"rejected without one": {`{"choice":"reject","reason":"good"}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, nil)
			row := askPeople(s, 1)[0]
			var got Approval
			s.send(t, "POST", "/v1/approvals/"+formatApprovalID(row.Approval), c.body).want(http.StatusOK).json(&got)
			if got.Status != ApprovalStatusAnswered || got.Answer.By != answeredBy || got.Answer.At.IsZero() || got.Answer.Reason != "good" || string(got.Answer.Form) != c.form {
				t.Errorf("got %+v", got.Answer)
			}
			if n := s.mem.looked(); n != 1 {
				t.Errorf("the node was told %d times to look for messages", n)
			}
		})
	}
}

// An answer that is none is refused with all that is wrong with it, and changes nothing.
func TestApprovalAnswerIsChecked(t *testing.T) {
	s := newService(t, nil)
	rows := askPeople(s, 2)
	rows[1].Form, rows[1].Initial, rows[1].Choices = nil, nil, []string{"publish", "hold"}
	path := "/v1/approvals/" + formatApprovalID(rows[0].Approval)
	p := s.send(t, "POST", path, `{"choice":"aprove"}`).wantProblem(http.StatusUnprocessableEntity, "choice_unknown")
	if i := p.Errors[0]; i.Pointer != "/choice" || i.Suggest != "approve" || !strings.Contains(i.Detail, "approve, reject") {
		t.Errorf("got %+v", i)
	}
	p = s.send(t, "POST", path, `{"choice":"approve","form":{"headline":"x","draft":1}}`).wantProblem(http.StatusUnprocessableEntity, "form_invalid")
	var pointers []string
	for _, i := range p.Errors {
		pointers = append(pointers, i.Pointer)
	}
	if diff := cmp.Diff([]string{"/form/draft", "/form/headline"}, pointers); diff != "" {
		t.Error(diff)
	}
	s.send(t, "POST", path, `{"form":{}}`).wantProblem(http.StatusBadRequest, "missing_field")
	s.send(t, "POST", path, "").wantProblem(http.StatusBadRequest, "body_required")
	other := "/v1/approvals/" + formatApprovalID(rows[1].Approval)
	s.send(t, "POST", other, `{"choice":"hold","form":{"headline":"Tides"}}`).wantProblem(http.StatusUnprocessableEntity, "form_unexpected")
	s.send(t, "POST", other, `{"choice":"hold"}`).want(http.StatusOK)
	s.send(t, "POST", path, `{"choice":"approve","form":{"headline":"`+strings.Repeat("x", workflow.OutputBytesMax)+`"}}`).
		wantProblem(http.StatusUnprocessableEntity, "form_too_large")
	if rows[0].Status != flow.ApprovalOpen {
		t.Errorf("a refused answer closed it: %s", rows[0].Status)
	}
}

// Who replaces the output of a failed step gives one; nobody takes null for an object that was promised.
func TestReplacedOutputIsGiven(t *testing.T) {
	s := newService(t, nil)
	row := &askPeople(s, 1)[0]
	row.About, row.Initial, row.Choices = flow.AboutEscalation, nil, []string{flow.DecisionReplace, flow.DecisionFail}
	row.Form = json.RawMessage(`{"type":"object","properties":{"output":{"type":["object","null"]},"notes":{"type":"string"}}}`)
	path := "/v1/approvals/" + formatApprovalID(row.Approval)
	for _, body := range []string{`{"choice":"replace"}`, `{"choice":"replace","form":{}}`, `{"choice":"replace","form":{"notes":"n"}}`} {
		p := s.send(t, "POST", path, body).wantProblem(http.StatusUnprocessableEntity, "output_missing")
		if p.Errors[0].Pointer != "/form/output" {
			t.Errorf("got %+v", p.Errors)
		}
	}
	s.send(t, "POST", path, `{"choice":"replace","form":{"output":null}}`).want(http.StatusOK)
}

// Of many answers at once one counts; the others are told that they came second.
func TestFirstAnswerCounts(t *testing.T) {
	s := newService(t, nil)
	path := "/v1/approvals/" + formatApprovalID(askPeople(s, 1)[0].Approval)
	var taken, refused atomic.Int32
	var all sync.WaitGroup
	for _, choice := range []string{"approve", "reject", "approve", "reject"} {
		all.Go(func() {
			switch a := s.send(t, "POST", path, `{"choice":"`+choice+`"}`); a.status {
			case http.StatusOK:
				taken.Add(1)
			case http.StatusConflict:
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if taken.Load() != 1 || refused.Load() != 3 {
		t.Errorf("%d were taken, %d refused", taken.Load(), refused.Load())
	}
	p := s.send(t, "POST", path, `{"choice":"nonsense"}`).wantProblem(http.StatusConflict, "approval_answered")
	if p.State != "answered" {
		t.Errorf("got %+v", p)
	}
}

func TestClosedApprovalIsNotAnswered(t *testing.T) {
	for _, status := range []flow.ApprovalStatus{flow.ApprovalExpired, flow.ApprovalWithdrawn} {
		s := newService(t, nil)
		row := &askPeople(s, 1)[0]
		row.Status = status
		p := s.send(t, "POST", "/v1/approvals/"+formatApprovalID(row.Approval), `{"choice":"approve"}`).wantProblem(http.StatusConflict, "approval_"+string(status))
		if p.State != string(status) {
			t.Errorf("got %+v", p)
		}
	}
}
