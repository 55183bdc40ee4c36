package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Cost shows what a run cost, call by call.
func (c *Client) Cost(ctx context.Context, id string) (*RunCost, error) {
	return read[RunCost](c.raw.GetRunCost(ctx, id))
}

// Spend adds up what was spent.
func (c *Client) Spend(ctx context.Context, params GetSpendParams) (*Spend, error) {
	return read[Spend](c.raw.GetSpend(ctx, &params, accept("application/json")))
}

// SpendCSV is the rows of Spend as a table for spreadsheets.
func (c *Client) SpendCSV(ctx context.Context, params GetSpendParams) ([]byte, error) {
	resp, err := c.raw.GetSpend(ctx, &params, accept("text/csv"))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", resp.Request.URL.Path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, problem(resp, body)
	}
	return body, nil
}

// Models lists what can be asked.
func (c *Client) Models(ctx context.Context) ([]Model, error) {
	list, err := read[ModelList](c.raw.ListModels(ctx))
	if err != nil {
		return nil, err
	}
	return list.Data, nil
}

// Chains lists the chains that every workflow can name.
func (c *Client) Chains(ctx context.Context) ([]Chain, error) {
	page, err := read[ChainPage](c.raw.ListChains(ctx))
	if err != nil {
		return nil, err
	}
	return page.Data, nil
}

// ExplainRoute says where a call would go, and calls nobody.
func (c *Client) ExplainRoute(ctx context.Context, q RouteQuestion) (*RouteExplanation, error) {
	return read[RouteExplanation](c.raw.ExplainRoute(ctx, nil, q))
}

// Prices lists price rows; of one model, or of all where it is empty.
func (c *Client) Prices(ctx context.Context, model string) ([]PriceRow, error) {
	params := &ListPricesParams{}
	if model != "" {
		params.Model = &model
	}
	page, err := read[PricePage](c.raw.ListPrices(ctx, params))
	if err != nil {
		return nil, err
	}
	return page.Data, nil
}

// PutPrices replaces one model's own prices.
func (c *Client) PutPrices(ctx context.Context, req PriceRequest) ([]PriceRow, error) {
	page, err := read[PricePage](c.raw.PutPrices(ctx, req))
	if err != nil {
		return nil, err
	}
	return page.Data, nil
}

// DeletePrices takes one model's own prices back.
func (c *Client) DeletePrices(ctx context.Context, model string) error {
	return done(c.raw.DeletePrices(ctx, &DeletePricesParams{Model: model}))
}

// Budgets lists budgets with where they stand, by name.
func (c *Client) Budgets(ctx context.Context, params ListBudgetsParams) (*BudgetPage, error) {
	return read[BudgetPage](c.raw.ListBudgets(ctx, &params))
}

// Budget shows one budget.
func (c *Client) Budget(ctx context.Context, name string) (*Budget, error) {
	return read[Budget](c.raw.GetBudget(ctx, name))
}

// PutBudget makes a budget, or changes it.
func (c *Client) PutBudget(ctx context.Context, name string, req BudgetRequest) (*Budget, error) {
	return read[Budget](c.raw.PutBudget(ctx, name, req))
}

// DeleteBudget ends a budget.
func (c *Client) DeleteBudget(ctx context.Context, name string) error {
	return done(c.raw.DeleteBudget(ctx, name))
}

// Subscriptions lists the flat plans, by name.
func (c *Client) Subscriptions(ctx context.Context) ([]Subscription, error) {
	page, err := read[SubscriptionPage](c.raw.ListSubscriptions(ctx))
	if err != nil {
		return nil, err
	}
	return page.Data, nil
}

// PutSubscription says what a flat plan costs.
func (c *Client) PutSubscription(ctx context.Context, name string, req SubscriptionRequest) (*Subscription, error) {
	return read[Subscription](c.raw.PutSubscription(ctx, name, req))
}

// DeleteSubscription forgets a flat plan.
func (c *Client) DeleteSubscription(ctx context.Context, name string) error {
	return done(c.raw.DeleteSubscription(ctx, name))
}

// Breakers lists how the models fare at the node that answers, by id (provider/model).
func (c *Client) Breakers(ctx context.Context) ([]Breaker, error) {
	page, err := read[BreakerPage](c.raw.ListBreakers(ctx))
	if err != nil {
		return nil, err
	}
	return page.Data, nil
}

// ResetBreaker closes a breaker.
func (c *Client) ResetBreaker(ctx context.Context, id string) (*Breaker, error) {
	return read[Breaker](c.raw.ResetBreaker(ctx, nil, BreakerRequest{ID: id}))
}

// HoldBreaker opens a breaker until it is released.
func (c *Client) HoldBreaker(ctx context.Context, id, reason string) (*Breaker, error) {
	return read[Breaker](c.raw.HoldBreaker(ctx, nil, BreakerRequest{ID: id, Reason: reason}))
}

// ReleaseBreaker lets a breaker go by itself again.
func (c *Client) ReleaseBreaker(ctx context.Context, id string) (*Breaker, error) {
	return read[Breaker](c.raw.ReleaseBreaker(ctx, nil, BreakerRequest{ID: id}))
}

// Incidents lists incidents, the open ones first.
func (c *Client) Incidents(ctx context.Context, params ListIncidentsParams) (*IncidentPage, error) {
	return read[IncidentPage](c.raw.ListIncidents(ctx, &params))
}

// ResolveIncident ends an incident, so that the runs that wait for it go on. The note says what was wrong.
func (c *Client) ResolveIncident(ctx context.Context, id, note string) (*Incident, error) {
	return read[Incident](c.raw.ResolveIncident(ctx, id, nil, IncidentResolution{Note: note}))
}

// done takes an answer without a body apart.
func done(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", resp.Request.URL.Path, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return problem(resp, body)
	}
	return nil
}
