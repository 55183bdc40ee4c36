package api

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// signalStore tells signals to all who wait for them.
type signalStore interface {
	// SignalAll answers how many runs it was told to. The same id is told once.
	SignalAll(ctx context.Context, tenant uuid.UUID, name, id string, data json.RawMessage) (runs int, err error)
}

// SignalRun sends a signal to a run.
func (a *API) SignalRun(ctx context.Context, req SignalRunRequestObject) (SignalRunResponseObject, error) {
	x := exchangeOf(ctx)
	row, err := a.runOf(ctx, x.tenant, req.ID)
	if err != nil {
		return nil, err
	}
	if row.Status.Ended() {
		return nil, conflict("run_terminal", row.Status, "the run has ended")
	}
	signal, err := signalOf(req.Name, req.Body)
	if err != nil {
		return nil, err
	}
	if err := a.tell(ctx, x.tenant, row.ID, flow.ToldSignal, signal); err != nil {
		return nil, err
	}
	return SignalRun202JSONResponse{
		Body:    RunAccepted{ID: req.ID, Status: RunStatus(row.Status), Links: linksOf(row.ID, row.Status, row.WaitingFor)},
		Headers: SignalRun202ResponseHeaders{Location: "/v1/runs/" + req.ID},
	}, nil
}

// SignalAll sends a signal to every run that waits for its name.
func (a *API) SignalAll(ctx context.Context, req SignalAllRequestObject) (SignalAllResponseObject, error) {
	signal, err := signalOf(req.Name, req.Body)
	if err != nil {
		return nil, err
	}
	if signal.ID == "" {
		signal.ID = uuid.NewString()
	}
	runs, err := a.signals.SignalAll(ctx, exchangeOf(ctx).tenant, signal.Name, signal.ID, signal.Data)
	if err != nil {
		return nil, err
	}
	a.engine.Look()
	return SignalAll202JSONResponse(SignalSent{ID: signal.ID, Runs: runs}), nil
}

func signalOf(name SignalName, body *SignalRequest) (flow.Signal, error) {
	s := flow.Signal{Name: name}
	if body == nil {
		return s, nil
	}
	s.ID, s.Data = body.ID, body.Data
	if len(s.Data) > workflow.OutputBytesMax { // it becomes the output of a step
		e := fault.New(fault.KindInvalid, "signal_too_large", "the data has %d bytes; the limit is %d", len(s.Data), workflow.OutputBytesMax)
		e.Issues = []fault.Issue{{Pointer: "/data", Code: e.Code, Detail: e.Detail}}
		return s, e
	}
	return s, nil
}
