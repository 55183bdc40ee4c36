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
		Body:    RunAccepted{ID: req.ID, Status: RunStatusCancelling, Links: linksOf(row.ID, flow.RunStatusCancelling)},
		Headers: CancelRun202ResponseHeaders{Location: "/v1/runs/" + req.ID},
	}, nil
}

// ResumeRun lets a failed run go on, or one that was set aside.
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
	switch row.Status {
	case flow.RunStatusFailed:
		err = a.resumeFailed(ctx, row, body)
	case flow.RunStatusQuarantined:
		status = flow.RunStatusQueued
		err = a.release(ctx, row, body)
	default:
		err = conflict("run_not_failed", row.Status, "only a run that failed or was set aside can be resumed")
	}
	if err != nil {
		return nil, err
	}
	return ResumeRun202JSONResponse{
		Body:    RunAccepted{ID: req.ID, Status: RunStatus(status), Links: linksOf(row.ID, status)},
		Headers: ResumeRun202ResponseHeaders{Location: "/v1/runs/" + req.ID},
	}, nil
}

func (a *API) resumeFailed(ctx context.Context, row store.RunRow, body ResumeRequest) error {
	set, err := outputsSet(body.Set)
	if err != nil {
		return err
	}
	run, err := a.folded(ctx, row)
	if err != nil {
		return err
	}
	if err := run.CanResume(set); err != nil {
		if fault.Is(err, fault.KindConflict) { // it moved while we looked
			return conflict("run_not_failed", run.Status(), "only a run that failed or was set aside can be resumed")
		}
		return err
	}
	if err := a.tell(ctx, row.Tenant, row.ID, flow.ToldResume, flow.Resume{Set: set, Reason: body.Reason}); err != nil {
		return err
	}
	// Who watches next should not be told that the run has ended: a node takes the message in within milliseconds. The
	// resume is durable already, so nothing that goes wrong here matters.
	t := &tail{a: a, tenant: row.Tenant, run: row.ID, seq: run.Seq(), kind: flow.KindRunResumed}
	_, _ = t.page(ctx, 1, resumeWait)
	return nil
}

// resumeWait bounds how long an accepted resume is looked after before it is answered.
const resumeWait = 2 * time.Second

// release gives a run that was set aside back to the nodes. Nothing of it has failed, so nothing can be set.
func (a *API) release(ctx context.Context, row store.RunRow, body ResumeRequest) error {
	if len(body.Set) > 0 {
		return conflict("run_quarantined", row.Status, "the run is set aside as it was: resume it without set")
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
	actions := actionsOf(status)
	allowed := "nothing"
	if len(actions) > 0 {
		allowed = strings.Join(actions, ", ")
	}
	return &refusal{
		fault: fault.New(fault.KindConflict, code, "%s: it is %s, which allows %s", why, status, allowed),
		state: string(status), actions: actions,
	}
}
