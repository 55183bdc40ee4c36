package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

// ApprovalRow is what a person is asked, and what became of it.
type ApprovalRow struct {
	flow.Ask
	Tenant, Run uuid.UUID
	Workflow    string
	Status      flow.ApprovalStatus // open also when its time is over and the run has not noticed yet
	Answer      Answer              // empty unless it was answered
	AskedAt     time.Time
	AnsweredAt  *time.Time
}

// Answer is what a person says to an approval.
type Answer struct {
	Choice string
	Form   json.RawMessage // empty: nothing; whoever answers holds it against the approval's form
	Reason string
	By     string
}

const approvalColumns = `a.id, a.tenant_id, a.run_id, a.step, a.gen, a.about, a.workflow, a.title, a.show, a.form, a.initial, a.choices,
	a.assignees, a.status, a.choice, a.form_sent, a.reason, a.answered_by, a.asked_at, a.expires_at, a.answered_at`

func scanApproval(row pgx.CollectableRow) (ApprovalRow, error) { return scanApprovalAnd(row) }

// scanApprovalAnd reads an approval, and what stands behind it.
func scanApprovalAnd(row pgx.CollectableRow, more ...any) (a ApprovalRow, err error) {
	var show, form, initial, sent string
	err = row.Scan(append([]any{
		&a.Approval, &a.Tenant, &a.Run, &a.Step, &a.Gen, &a.About, &a.Workflow, &a.Title, &show, &form, &initial, &a.Choices,
		&a.Assignees, &a.Status, &a.Answer.Choice, &sent, &a.Answer.Reason, &a.Answer.By, &a.AskedAt, &a.Expires, &a.AnsweredAt,
	}, more...)...)
	a.Show, a.Form, a.Initial, a.Answer.Form = rawJSON(show), rawJSON(form), rawJSON(initial), rawJSON(sent)
	a.AskedAt = a.AskedAt.UTC()
	for _, at := range []*time.Time{a.Expires, a.AnsweredAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
	return a, err
}

// rawJSON is nil for nothing.
func rawJSON(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

func errNoApproval() error {
	return fault.New(fault.KindNotFound, "approval_not_found", "there is no such approval")
}

// "is not distinct from" keeps the planner off the index of the lists.
const (
	approvalSQL = `select ` + approvalColumns + approvalFrom

	approvalFrom = ` from approval a where a.id = $1 and a.tenant_id is not distinct from $2`
)

// Approval reads a tenant's approval.
func (db *DB) Approval(ctx context.Context, tenant, id uuid.UUID) (ApprovalRow, error) {
	a, err := one(ctx, db.api, "read approval", scanApproval, approvalSQL, id, tenant)
	if isNoRows(err) {
		return ApprovalRow{}, errNoApproval()
	}
	return a, err
}

// ApprovalFilter narrows a list of approvals. Zero values do not narrow.
type ApprovalFilter struct {
	Status   []flow.ApprovalStatus
	Run      uuid.UUID
	Workflow string
	Assignee string    // those put to them, and those put to anybody
	After    uuid.UUID // the last of the page before
	Limit    int       // at most 1,000
}

// approvalStatuses are all there are, as in the table's check.
var approvalStatuses = []flow.ApprovalStatus{
	flow.ApprovalOpen, flow.ApprovalAnswered, flow.ApprovalExpired, flow.ApprovalWithdrawn,
}

// Approvals lists a tenant's approvals, newest first.
func (db *DB) Approvals(ctx context.Context, tenant uuid.UUID, f ApprovalFilter) ([]ApprovalRow, error) {
	statuses := f.Status
	if len(statuses) == 0 {
		statuses = approvalStatuses
	}
	args := []any{tenant, f.After, min(f.Limit, rowsMax), words(statuses), clean(f.Workflow), clean(f.Assignee)}
	if f.Run != uuid.Nil {
		return collect(ctx, db.api, "list approvals of run", scanApproval, approvalsOfRunSQL, append(args, f.Run)...)
	}
	return collect(ctx, db.api, "list approvals", scanApproval, approvalsSQL, args...)
}

// approvalWanted: the page begins behind the approval $2, if there is one.
const approvalWanted = `(asked_at, id) < (coalesce((select c.asked_at from approval c where c.id = $2 and c.tenant_id is not distinct from $1), 'infinity'), $2)
		and ($5 = '' or workflow = $5) and ($6 = '' or assignees = '{}' or $6 = any (assignees))`

// approvalsSQL takes the newest of each status, and of these the newest of all.
const approvalsSQL = `select ` + approvalColumns + ` from unnest($4::text[]) u(status)
	cross join lateral (select * from approval where tenant_id = $1 and status = u.status and ` + approvalWanted + `
		order by tenant_id desc, status desc, asked_at desc, id desc limit $3) a
	order by a.asked_at desc, a.id desc limit $3`

// approvalsOfRunSQL goes down the index approval_run.
const approvalsOfRunSQL = `select ` + approvalColumns + ` from approval a
	where run_id = $7 and tenant_id is not distinct from $1 and status = any ($4::text[]) and ` + approvalWanted + `
	order by run_id desc, asked_at desc, id desc limit $3`

// AnswerApproval answers an open approval and tells its run, both or neither. Of several answers the first one counts;
// who comes later is told of it (a conflict, approval_answered). One whose time is over is not answered any more
// (approval_expired), nor is one that nobody waits for (approval_withdrawn).
func (db *DB) AnswerApproval(ctx context.Context, tenant, id uuid.UUID, answer Answer) (a ApprovalRow, err error) {
	err = within(ctx, db.api, "answer approval", func(tx pgx.Tx) error {
		var late bool
		scan := func(row pgx.CollectableRow) (ApprovalRow, error) { return scanApprovalAnd(row, &late) }
		a, err = one(ctx, tx, "lock approval", scan,
			`select `+approvalColumns+`, coalesce(a.expires_at <= clock_timestamp(), false)`+approvalFrom+` for no key update`, id, tenant)
		if isNoRows(err) {
			return errNoApproval()
		}
		if err != nil {
			return err
		}
		if err := a.takes(answer.Choice, late); err != nil {
			return err
		}
		a, err = one(ctx, tx, "answer approval", scanApproval,
			`update approval a set status = 'answered', choice = $2, form_sent = $3, reason = $4, answered_by = $5, answered_at = clock_timestamp()
			where a.id = $1 returning `+approvalColumns,
			id, answer.Choice, clean(string(answer.Form)), clean(answer.Reason), clean(answer.By))
		if err != nil {
			return err
		}
		return a.tell(ctx, tx)
	})
	if err != nil {
		return ApprovalRow{}, err
	}
	return a, nil
}

// takes says why an answer comes too late or is none. Late: its time is over.
func (a *ApprovalRow) takes(choice string, late bool) error {
	switch {
	case a.Status == flow.ApprovalAnswered:
		by := a.Answer.By
		if by == "" {
			by = "somebody"
		}
		return fault.New(fault.KindConflict, "approval_answered", "it was answered with %q by %s at %s",
			a.Answer.Choice, by, a.AnsweredAt.Format(time.RFC3339))
	case a.Status == flow.ApprovalWithdrawn:
		return fault.New(fault.KindConflict, "approval_withdrawn", "nobody waits for an answer any more: its step went on without one")
	case a.Status == flow.ApprovalExpired || late:
		detail := "its time is over"
		if a.Expires != nil {
			detail += ": it could be answered until " + a.Expires.Format(time.RFC3339)
		}
		return fault.New(fault.KindConflict, "approval_expired", "%s", detail)
	case !slices.Contains(a.Choices, choice):
		f := fault.New(fault.KindInvalid, "choice_unknown", "%q is none of the choices", choice)
		f.Issues = []fault.Issue{{Pointer: "/choice", Code: "unknown", Detail: "it must be one of " + strings.Join(a.Choices, ", ")}}
		return f
	}
	return nil
}

// tell puts the answer into the run's inbox.
func (a *ApprovalRow) tell(ctx context.Context, q querier) error {
	body, err := json.Marshal(flow.Answered{
		Approval: a.Approval, Choice: a.Answer.Choice, Form: a.Answer.Form, Reason: a.Answer.Reason, By: a.Answer.By,
	})
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	_, err = exec(ctx, q, "tell run of answer", `insert into inbox (run_id, kind, data) values ($1, $2, $3)`, a.Run, flow.ToldApproval, string(body))
	return err
}

// OpenApprovals counts those that wait for a person, in all tenants and up to approvalsCounted, and says since when the
// first of them does; zero: none.
func (db *DB) OpenApprovals(ctx context.Context) (n int, oldest time.Time, err error) {
	scan := func(row pgx.CollectableRow) (struct{}, error) {
		var at *time.Time
		err := row.Scan(&n, &at)
		if at != nil {
			oldest = at.UTC()
		}
		return struct{}{}, err
	}
	_, err = one(ctx, db.background, "count open approvals", scan, openApprovalsSQL, approvalsCounted)
	return n, oldest, err
}

const approvalsCounted = 10_000

const openApprovalsSQL = `select count(*), min(asked_at) from (
	select asked_at from approval where status = 'open' order by asked_at limit $1) open`
