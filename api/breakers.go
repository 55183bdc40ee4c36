package api

import (
	"context"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
)

// ListBreakers lists how the models fare that were called from this node.
func (a *API) ListBreakers(context.Context, ListBreakersRequestObject) (ListBreakersResponseObject, error) {
	page := BreakerPage{Data: []Breaker{}}
	if a.models != nil {
		for _, b := range a.models.Breakers() {
			page.Data = append(page.Data, breakerOf(b))
		}
	}
	return ListBreakers200JSONResponse(page), nil
}

// ResetBreaker closes a breaker.
func (a *API) ResetBreaker(ctx context.Context, req ResetBreakerRequestObject) (ResetBreakerResponseObject, error) {
	b, err := a.order(ctx, "reset", req.Body, func(m Models) bool { return m.ResetBreaker(req.Body.ID) })
	return ResetBreaker200JSONResponse(b), err
}

// HoldBreaker opens a breaker until somebody releases it.
func (a *API) HoldBreaker(ctx context.Context, req HoldBreakerRequestObject) (HoldBreakerResponseObject, error) {
	b, err := a.order(ctx, "hold", req.Body, func(m Models) bool { return m.HoldBreaker(req.Body.ID, true, req.Body.Reason) })
	return HoldBreaker200JSONResponse(b), err
}

// ReleaseBreaker lets a breaker go by itself again.
func (a *API) ReleaseBreaker(ctx context.Context, req ReleaseBreakerRequestObject) (ReleaseBreakerResponseObject, error) {
	b, err := a.order(ctx, "release", req.Body, func(m Models) bool { return m.HoldBreaker(req.Body.ID, false, req.Body.Reason) })
	return ReleaseBreaker200JSONResponse(b), err
}

// order has something done to a breaker by hand, notes it, and shows how it stands then.
func (a *API) order(ctx context.Context, what string, body *BreakerRequest, do func(Models) bool) (Breaker, error) {
	if a.models == nil {
		return Breaker{}, errNoModels()
	}
	missing := fault.New(fault.KindNotFound, "breaker_not_found", "there is no breaker of that name: it is a provider that is configured here, a slash, and a model")
	missing.Issues = []fault.Issue{{Pointer: "/id", Code: missing.Code, Detail: missing.Detail}}
	if !do(a.models) {
		return Breaker{}, missing
	}
	a.log.InfoContext(ctx, "breaker_ordered", "action", what, "breaker", body.ID, "reason", body.Reason, "request_id", exchangeOf(ctx).requestID)
	for _, b := range a.models.Breakers() {
		if b.ID == body.ID {
			return breakerOf(b), nil
		}
	}
	return Breaker{}, missing
}

func breakerOf(b gateway.Breaker) Breaker {
	return Breaker{
		ID: b.ID, Provider: b.Provider, Model: b.Model, State: BreakerState(b.State), Held: b.Held, Until: b.Until.UTC(),
		ThrottledUntil: b.ThrottledUntil.UTC(), DisabledUntil: b.DisabledUntil.UTC(), Reason: b.Reason, Samples: b.Samples,
		Failures: b.Failures, Recent: append([]string{}, b.Recent...), ChangedAt: b.ChangedAt.UTC(),
	}
}
