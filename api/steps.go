package api

import (
	"context"
	"fmt"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
)

// stepsOf folds a run to look at its steps.
func (a *API) stepsOf(ctx context.Context, id RunID) ([]flow.StepView, error) {
	run, err := parseRunID(id)
	if err != nil {
		return nil, err
	}
	row, err := a.runs.Run(ctx, exchangeOf(ctx).tenant, run)
	if err != nil {
		return nil, err
	}
	folded, err := a.folded(ctx, row)
	if err != nil {
		return nil, err
	}
	return folded.View().Steps, nil
}

// ListEvents reads or follows the log of a run.
func (a *API) ListEvents(ctx context.Context, req ListEventsRequestObject) (ListEventsResponseObject, error) {
	x := exchangeOf(ctx)
	id, err := parseRunID(req.ID)
	if err != nil {
		return nil, err
	}
	after := orZero(req.Params.After)
	if req.Params.LastEventID != nil {
		after = *req.Params.LastEventID
	}
	t := &tail{a: a, tenant: x.tenant, run: id, seq: after}
	if x.stream {
		// A run that is not there must be known before the stream begins.
		if _, err := a.events.LastEvent(ctx, x.tenant, id); err != nil {
			return nil, err
		}
		return &stream{ctx: ctx, tail: t}, nil
	}
	wait := time.Duration(orZero(req.Params.Wait)) * time.Second
	if wait > 0 {
		allow(x.w, wait)
	}
	limit := limitOf(req.Params.Limit)
	events, err := t.page(ctx, limit, wait)
	if err != nil {
		return nil, fmt.Errorf("read the log of %s: %w", formatRunID(id), err)
	}
	page := EventPage{Data: []Event{}, LastSeq: t.seq, Ended: t.ended() && len(events) < limit}
	for _, e := range events {
		page.Data = append(page.Data, eventOf(id, e))
	}
	return ListEvents200JSONResponse(page), nil
}
