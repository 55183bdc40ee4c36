package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

// approvalStore keeps what people are asked.
type approvalStore interface {
	Approvals(ctx context.Context, tenant uuid.UUID, f store.ApprovalFilter) ([]store.ApprovalRow, error)
	Approval(ctx context.Context, tenant, id uuid.UUID) (store.ApprovalRow, error)
	// AnswerApproval takes the first answer, and tells the run. Any later one is a conflict.
	AnswerApproval(ctx context.Context, tenant, id uuid.UUID, answer store.Answer) (store.ApprovalRow, error)
}

// answeredBy is who answers as long as there are no keys.
const answeredBy = "operator"

// choiceReject is the choice that no form is needed for.
const choiceReject = "reject"

// ListApprovals lists what people are asked, newest first.
func (a *API) ListApprovals(ctx context.Context, req ListApprovalsRequestObject) (ListApprovalsResponseObject, error) {
	limit := limitOf(req.Params.Limit)
	f := store.ApprovalFilter{Workflow: orZero(req.Params.Workflow), Assignee: orZero(req.Params.Assignee), Limit: limit + 1}
	if status := req.Params.Status; status != nil {
		f.Status = []flow.ApprovalStatus{flow.ApprovalStatus(*status)}
	}
	if id := req.Params.Run; id != nil {
		run, err := parseRunID(*id)
		if err != nil {
			return nil, err
		}
		f.Run = run
	}
	if c := req.Params.Cursor; c != nil {
		if err := parseCursor("approvals", *c, &f.After); err != nil {
			return nil, err
		}
	}
	rows, err := a.asked.Approvals(ctx, exchangeOf(ctx).tenant, f)
	if err != nil {
		return nil, err
	}
	page := ApprovalPage{Data: []Approval{}}
	for _, row := range rows[:min(limit, len(rows))] {
		page.Data = append(page.Data, approvalOf(row))
	}
	if len(rows) > limit {
		page.NextCursor = formatCursor("approvals", rows[limit-1].Approval)
	}
	return ListApprovals200JSONResponse(page), nil
}

// GetApproval shows what a person is asked.
func (a *API) GetApproval(ctx context.Context, req GetApprovalRequestObject) (GetApprovalResponseObject, error) {
	id, err := parseApprovalID(req.ID)
	if err != nil {
		return nil, err
	}
	row, err := a.asked.Approval(ctx, exchangeOf(ctx).tenant, id)
	if err != nil {
		return nil, err
	}
	return GetApproval200JSONResponse(approvalOf(row)), nil
}

// AnswerApproval takes an answer, if it is the first.
func (a *API) AnswerApproval(ctx context.Context, req AnswerApprovalRequestObject) (AnswerApprovalResponseObject, error) {
	x := exchangeOf(ctx)
	id, err := parseApprovalID(req.ID)
	if err != nil {
		return nil, err
	}
	row, err := a.asked.Approval(ctx, x.tenant, id)
	if err != nil {
		return nil, err
	}
	answer := store.Answer{Choice: req.Body.Choice, Reason: req.Body.Reason, By: answeredBy}
	if row.Status == flow.ApprovalOpen { // of any other the store says what became of it
		if answer.Form, err = checkAnswer(row, *req.Body); err != nil {
			return nil, err
		}
	}
	answered, err := a.asked.AnswerApproval(ctx, x.tenant, id, answer)
	if closed := fault.Of(err); closed != nil && closed.Kind == fault.KindConflict {
		state := strings.TrimPrefix(closed.Code, "approval_")
		return nil, &refusal{fault: closed, state: state, actions: []string{}}
	}
	if err != nil {
		return nil, err
	}
	a.engine.Look()
	a.log.InfoContext(ctx, "approval_answered", "approval", req.ID, "choice", answer.Choice, "run_id", formatRunID(row.Run), "request_id", x.requestID)
	return AnswerApproval200JSONResponse(approvalOf(answered)), nil
}

// checkAnswer holds an answer against what was asked, and gives the form that counts: left out, what it began with.
func checkAnswer(row store.ApprovalRow, body ApprovalAnswerRequest) (json.RawMessage, error) {
	if !slices.Contains(row.Choices, body.Choice) {
		e := fault.New(fault.KindInvalid, "choice_unknown", "%q is none of the choices: %s", clip(body.Choice), strings.Join(row.Choices, ", "))
		e.Issues = []fault.Issue{{Pointer: "/choice", Code: e.Code, Detail: e.Detail, Suggest: fault.Nearest(body.Choice, row.Choices)}}
		return nil, e
	}
	switch {
	case len(row.Form) == 0 && len(body.Form) > 0:
		e := fault.New(fault.KindInvalid, "form_unexpected", "no form is asked for: send a choice, and a reason if there is one")
		e.Issues = []fault.Issue{{Pointer: "/form", Code: e.Code, Detail: e.Detail}}
		return nil, e
	case len(row.Form) == 0, len(body.Form) == 0 && body.Choice == choiceReject:
		return nil, nil
	}
	form := body.Form
	if len(form) == 0 {
		if form = row.Initial; len(form) == 0 {
			form = json.RawMessage("{}")
		}
	}
	if err := checkForm(row, form); err != nil {
		return nil, err
	}
	return form, checkReplaced(row, body.Choice, form)
}

// checkReplaced: who replaces the output of a step has to give one. The form's schema cannot say so: it knows no choices.
func checkReplaced(row store.ApprovalRow, choice string, form json.RawMessage) error {
	if row.About != flow.AboutEscalation || choice != flow.DecisionReplace {
		return nil
	}
	var given struct {
		Output json.RawMessage `json:"output"`
	}
	if json.Unmarshal(form, &given) == nil && given.Output != nil {
		return nil
	}
	e := fault.New(fault.KindInvalid, "output_missing", "to replace the step's output, give it in the form")
	e.Issues = []fault.Issue{{Pointer: "/form/output", Code: e.Code, Detail: e.Detail}}
	return e
}

func checkForm(row store.ApprovalRow, form json.RawMessage) error {
	if len(form) > workflow.OutputBytesMax { // it becomes the output of a step
		e := fault.New(fault.KindInvalid, "form_too_large", "the form has %d bytes; the limit is %d", len(form), workflow.OutputBytesMax)
		e.Issues = []fault.Issue{{Pointer: "/form", Code: e.Code, Detail: e.Detail}}
		return e
	}
	schema, err := workflow.CompileSchema(row.Form)
	if err != nil {
		return fmt.Errorf("compile the form of approval %s: %w", row.Approval, unkind{err})
	}
	list := schema.Check(form)
	if len(list) == 0 {
		return nil
	}
	for i := range list {
		list[i].Pointer = "/form" + list[i].Pointer
	}
	e := fault.New(fault.KindInvalid, "form_invalid", "the form is not what was asked for")
	e.Issues = list
	return e
}

func approvalOf(row store.ApprovalRow) Approval {
	out := Approval{
		ID: formatApprovalID(row.Approval), Status: ApprovalStatus(row.Status), Run: formatRunID(row.Run), Workflow: row.Workflow,
		Step: row.Step, About: row.About, Title: row.Title, Show: row.Show, Form: row.Form, Initial: row.Initial,
		Choices: row.Choices, Assignees: row.Assignees, AskedAt: row.AskedAt.UTC(), ExpiresAt: utcOrZero(row.Expires),
	}
	if row.AnsweredAt != nil {
		a := row.Answer
		out.Answer = ApprovalAnswer{Choice: a.Choice, Form: a.Form, Reason: a.Reason, By: a.By, At: row.AnsweredAt.UTC()}
	}
	return out
}

func answerOf(a *flow.Answered) ApprovalAnswer {
	return ApprovalAnswer{Choice: a.Choice, Form: a.Form, Reason: a.Reason, By: a.By}
}
