package api

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/store"
)

// subscriptionStore keeps the flat plans.
type subscriptionStore interface {
	PutSubscription(ctx context.Context, tenant uuid.UUID, s store.SubscriptionRow) (row store.SubscriptionRow, created bool, err error)
	Subscriptions(ctx context.Context, tenant uuid.UUID) ([]store.SubscriptionRow, error)
	DeleteSubscription(ctx context.Context, tenant uuid.UUID, name string) error
}

// ListSubscriptions lists the flat plans, by name.
func (a *API) ListSubscriptions(ctx context.Context, _ ListSubscriptionsRequestObject) (ListSubscriptionsResponseObject, error) {
	rows, err := a.plans.Subscriptions(ctx, exchangeOf(ctx).tenant)
	if err != nil {
		return nil, err
	}
	page := SubscriptionPage{Data: []Subscription{}}
	for _, row := range rows {
		page.Data = append(page.Data, subscriptionOf(row))
	}
	return ListSubscriptions200JSONResponse(page), nil
}

// GetSubscription shows one flat plan.
func (a *API) GetSubscription(ctx context.Context, req GetSubscriptionRequestObject) (GetSubscriptionResponseObject, error) {
	rows, err := a.plans.Subscriptions(ctx, exchangeOf(ctx).tenant)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Name == req.Name {
			return GetSubscription200JSONResponse(subscriptionOf(row)), nil
		}
	}
	return nil, fault.New(fault.KindNotFound, "subscription_not_found", "there is no subscription %s", req.Name)
}

// PutSubscription says what a flat plan costs.
func (a *API) PutSubscription(ctx context.Context, req PutSubscriptionRequestObject) (PutSubscriptionResponseObject, error) {
	monthly, err := parseDollars(req.Body.Monthly)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	plan := store.SubscriptionRow{Name: req.Name, Monthly: monthly, From: time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC), Until: req.Body.Until}
	if req.Body.From != nil {
		plan.From = *req.Body.From
	}
	if plan.Until != nil && !plan.Until.After(plan.From) {
		e := fault.New(fault.KindInvalid, "subscription_invalid", "the plan must begin before it ends")
		e.Issues = []fault.Issue{{Pointer: "/until", Code: e.Code, Detail: e.Detail}}
		return nil, e
	}
	row, created, err := a.plans.PutSubscription(ctx, exchangeOf(ctx).tenant, plan)
	if err != nil {
		return nil, err
	}
	if created {
		return PutSubscription201JSONResponse{
			Body: subscriptionOf(row), Headers: PutSubscription201ResponseHeaders{Location: "/v1/subscriptions/" + row.Name},
		}, nil
	}
	return PutSubscription200JSONResponse(subscriptionOf(row)), nil
}

// DeleteSubscription forgets a flat plan.
func (a *API) DeleteSubscription(ctx context.Context, req DeleteSubscriptionRequestObject) (DeleteSubscriptionResponseObject, error) {
	if err := a.plans.DeleteSubscription(ctx, exchangeOf(ctx).tenant, req.Name); err != nil {
		return nil, err
	}
	return DeleteSubscription204Response{}, nil
}

func subscriptionOf(row store.SubscriptionRow) Subscription {
	return Subscription{Name: row.Name, Monthly: moneyOf(row.Monthly), From: row.From.UTC(), Until: orZero(row.Until).UTC()}
}
