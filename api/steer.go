package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// CancelRun asks a run to stop.
func (a *API) CancelRun(ctx context.Context, req CancelRunRequestObject) (CancelRunResponseObject, error) {
	x := exchangeOf(ctx)
	row, err := a.runOf(ctx, x.tenant, req.ID)
	if err != nil {
		return nil, err
	}
	switch {
	case row.Status.Ended():
		return nil, conflict("run_terminal", row.Status, "the run has ended")
	case row.Status == flow.RunStatusQuarantined:
		return nil, conflict("run_quarantined", row.Status, "the run is set aside, nobody works on it; resume it first")
	}
	body := flow.Cancelling{}
	if req.Body != nil {
		body.Reason = req.Body.Reason
	}
	if err := a.tell(ctx, x.tenant, row.ID, flow.ToldCancel, body); err != nil {
		return nil, err
	}
	return CancelRun202JSONResponse{
		Body:    RunAccepted{ID: req.ID, Status: RunStatusCancelling, Links: linksOf(row.ID, flow.RunStatusCancelling, "")},
		Headers: CancelRun202ResponseHeaders{Location: "/v1/runs/" + req.ID},
	}, nil
}

// ResumeRun lets a run go on that failed, was set aside, or is short of money.
func (a *API) ResumeRun(ctx context.Context, req ResumeRunRequestObject) (ResumeRunResponseObject, error) {
	x := exchangeOf(ctx)
	row, err := a.runOf(ctx, x.tenant, req.ID)
	if err != nil {
		return nil, err
	}
	body := ResumeRequest{}
	if req.Body != nil {
		body = *req.Body
	}
	status := flow.RunStatusRunning
	switch waits := row.Status == flow.RunStatusWaiting && row.WaitingFor == flow.HeldBudget; {
	case row.Status == flow.RunStatusFailed:
		err = a.resumeFailed(ctx, row, body)
	case row.Status == flow.RunStatusQuarantined:
		status = flow.RunStatusQueued
		err = a.release(ctx, row, body)
	case waits, !row.Status.Ended() && body.Budget != (RunBudgetRequest{}):
		err = a.raise(ctx, row, body)
	default:
		err = conflict("run_not_failed", row.Status, "only a run that failed or was set aside can be resumed")
	}
	if err != nil {
		return nil, err
	}
	return ResumeRun202JSONResponse{
		Body:    RunAccepted{ID: req.ID, Status: RunStatus(status), Links: linksOf(row.ID, status, "")},
		Headers: ResumeRun202ResponseHeaders{Location: "/v1/runs/" + req.ID},
	}, nil
}

func (a *API) resumeFailed(ctx context.Context, row store.RunRow, body ResumeRequest) error {
	set, err := outputsSet(body.Set)
	if err != nil {
		return err
	}
	raise, err := raiseOf(body.Budget)
	if err != nil {
		return err
	}
	run, err := a.folded(ctx, row)
	if err != nil {
		return err
	}
	if raise != nil {
		if err := run.CheckRaise(*raise); err != nil {
			return err
		}
	}
	if err := run.CanResume(set); err != nil {
		if fault.Is(err, fault.KindConflict) { // it moved while we looked
			return conflict("run_not_failed", run.Status(), "only a run that failed or was set aside can be resumed")
		}
		return err
	}
	if err := a.tell(ctx, row.Tenant, row.ID, flow.ToldResume, flow.Resume{Set: set, Budget: raise, Reason: body.Reason}); err != nil {
		return err
	}
	// Who watches next should not be told that the run has ended: a node takes the message in within milliseconds. The
	// resume is durable already, so nothing that goes wrong here matters.
	t := &tail{a: a, tenant: row.Tenant, run: row.ID, seq: run.Seq(), kind: flow.KindRunResumed}
	_, _ = t.page(ctx, 1, resumeWait)
	return nil
}

// raise gives a run that has not ended more money, or lets it look again whether there is some.
func (a *API) raise(ctx context.Context, row store.RunRow, body ResumeRequest) error {
	if len(body.Set) > 0 {
		return conflict("run_not_failed", row.Status, "outputs can be set of a run that failed: resume it with a budget alone")
	}
	raise, err := raiseOf(body.Budget)
	if err != nil {
		return err
	}
	told := flow.BudgetRaise{}
	if raise != nil {
		told = *raise
		told.Reason = body.Reason
		run, err := a.folded(ctx, row)
		if err != nil {
			return err
		}
		if err := run.CanRaise(told); err != nil {
			return err
		}
	}
	return a.tell(ctx, row.Tenant, row.ID, flow.ToldBudget, told)
}

// resumeWait bounds how long an accepted resume is looked after before it is answered.
const resumeWait = 2 * time.Second

// release gives a run that was set aside back to the nodes. Nothing of it has failed, so nothing can be set.
func (a *API) release(ctx context.Context, row store.RunRow, body ResumeRequest) error {
	if len(body.Set) > 0 {
		return conflict("run_quarantined", row.Status, "the run is set aside as it was: resume it without set")
	}
	if body.Budget != (RunBudgetRequest{}) {
		return conflict("run_quarantined", row.Status, "the run is set aside as it was: resume it first, then raise its budget")
	}
	done, err := a.runs.Unquarantine(ctx, row.Tenant, row.ID)
	if err != nil {
		return err
	}
	if !done { // somebody was faster
		return conflict("run_not_failed", flow.RunStatusQueued, "the run is not set aside any more")
	}
	a.metrics.Intervention(flow.ToldResume)
	return nil
}

// outputsSet reads the keys of set: steps.<path>.output.
func outputsSet(set map[string]json.RawMessage) (map[flow.Path]json.RawMessage, error) {
	out := make(map[flow.Path]json.RawMessage, len(set))
	var list []fault.Issue
	for key, value := range set {
		path, isStep := strings.CutPrefix(key, "steps.")
		path, isOutput := strings.CutSuffix(path, ".output")
		if !isStep || !isOutput || path == "" {
			list = append(list, fault.Issue{
				Pointer: "/set/" + pointerToken(clip(key)), Code: "unknown_target", Detail: "what can be set is steps.<path>.output",
			})
			continue
		}
		out[path] = value
	}
	if len(list) == 0 {
		return out, nil
	}
	e := fault.New(fault.KindInvalid, "resume_invalid", "the outputs set by hand cannot be taken")
	e.Issues = list
	return nil, e
}

func (a *API) runOf(ctx context.Context, tenant uuid.UUID, id RunID) (store.RunRow, error) {
	run, err := parseRunID(id)
	if err != nil {
		return store.RunRow{}, err
	}
	return a.runs.Run(ctx, tenant, run)
}

func (a *API) tell(ctx context.Context, tenant, run uuid.UUID, kind string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	err = a.engine.Tell(ctx, tenant, store.Message{Run: run, Kind: kind, Body: raw})
	if !fault.Is(err, fault.KindConflict) {
		return err
	}
	row, again := a.runs.Run(ctx, tenant, run) // it ended while we looked
	if again != nil {
		return again
	}
	return conflict("run_terminal", row.Status, "the run has ended")
}

// conflict says that a run's status does not allow what was asked, and what it does allow.
func conflict(code string, status flow.RunStatus, why string) error {
	actions := actionsOf(status, "")
	allowed := "is final"
	if len(actions) > 0 {
		allowed = "allows " + strings.Join(actions, ", ")
	}
	return &refusal{
		fault: fault.New(fault.KindConflict, code, "%s: it is %s, which %s", why, status, allowed),
		state: string(status), actions: actions,
	}
}
