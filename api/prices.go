package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
)

// priceStore keeps the prices that came through the API.
type priceStore interface {
	PutPrices(ctx context.Context, tenant uuid.UUID, model string, rows []store.PriceOverride) error
	Prices(ctx context.Context, tenant uuid.UUID) ([]store.PriceOverride, error)
	DeletePrices(ctx context.Context, tenant uuid.UUID, model string) error
}

// ListPrices lists the price rows that are known on this node.
func (a *API) ListPrices(_ context.Context, req ListPricesRequestObject) (ListPricesResponseObject, error) {
	return ListPrices200JSONResponse(a.pricesOf(orZero(req.Params.Model))), nil
}

// pricesOf shows the rows of one model, or all.
func (a *API) pricesOf(model string) PricePage {
	page := PricePage{Data: []PriceRow{}}
	if a.models == nil {
		return page
	}
	for _, r := range a.models.Prices() {
		if model == "" || r.Model == model || r.Provider+"/"+r.Model == model {
			page.Data = append(page.Data, priceRowOf(r))
		}
	}
	return page
}

// PutPrices replaces one model's own prices.
func (a *API) PutPrices(ctx context.Context, req PutPricesRequestObject) (PutPricesResponseObject, error) {
	if a.models == nil {
		return nil, errNoModels()
	}
	rows := make([]gateway.PriceRow, len(req.Body.Rows))
	for i, r := range req.Body.Rows {
		rows[i] = priceRow(req.Body.Model, r)
	}
	if issues := gateway.ValidatePrices(rows); len(issues) > 0 {
		e := fault.New(fault.KindInvalid, "prices_invalid", "the prices cannot be taken")
		for _, issue := range issues {
			issue.Pointer = "/rows" + issue.Pointer
			e.Issues = append(e.Issues, issue)
		}
		return nil, e
	}
	if err := a.checkBeside(ctx, req.Body.Model, rows); err != nil {
		return nil, err
	}
	overrides := make([]store.PriceOverride, len(rows))
	for i, r := range rows {
		body, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encode price: %w", err)
		}
		overrides[i] = store.PriceOverride{Body: body, Model: r.Model, EffectiveFrom: momentOf(r.EffectiveFrom)}
	}
	if err := a.prices.PutPrices(ctx, exchangeOf(ctx).tenant, req.Body.Model, overrides); err != nil {
		return nil, err
	}
	if err := a.takePrices(ctx); err != nil {
		return nil, err
	}
	return PutPrices200JSONResponse(a.pricesOf(req.Body.Model)), nil
}

// DeletePrices takes one model's own prices back.
func (a *API) DeletePrices(ctx context.Context, req DeletePricesRequestObject) (DeletePricesResponseObject, error) {
	if a.models == nil {
		return nil, errNoModels()
	}
	if err := a.prices.DeletePrices(ctx, exchangeOf(ctx).tenant, req.Params.Model); err != nil {
		return nil, err
	}
	if err := a.takePrices(ctx); err != nil {
		return nil, err
	}
	return DeletePrices204Response{}, nil
}

// checkBeside says why rows cannot stand beside those of other models: two names may mean one model of one provider. What
// was stored would hold up every price after it, on every node.
func (a *API) checkBeside(ctx context.Context, model string, rows []gateway.PriceRow) error {
	others, err := a.ownPrices(ctx, model)
	if err != nil {
		return err
	}
	if issues := gateway.ValidatePrices(append(others, rows...)); len(issues) > 0 {
		return fault.New(fault.KindConflict, "prices_conflict", "beside the prices that were put for other models: %s", issues[0].Detail)
	}
	return nil
}

// ownPrices are the rows that came through the API, but for those of one model.
func (a *API) ownPrices(ctx context.Context, but string) ([]gateway.PriceRow, error) {
	stored, err := a.prices.Prices(ctx, exchangeOf(ctx).tenant)
	if err != nil {
		return nil, err
	}
	rows := []gateway.PriceRow{}
	for _, o := range stored {
		var row gateway.PriceRow
		if err := json.Unmarshal(o.Body, &row); err != nil {
			return nil, fmt.Errorf("read the price of %s: %w", o.Model, err)
		}
		if o.Model != but {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// takePrices gives this node's gateway the rows as they stand now; the other nodes look for themselves.
func (a *API) takePrices(ctx context.Context) error {
	rows, err := a.ownPrices(ctx, "")
	if err != nil {
		return err
	}
	if err := a.models.SetPrices(rows); err != nil {
		return fmt.Errorf("take prices: %w", err)
	}
	return nil
}

// momentOf reads a day or a time that gateway.ValidatePrices has let through; zero: since ever.
func momentOf(text string) time.Time {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

func priceRow(model string, r PriceRowRequest) gateway.PriceRow {
	return gateway.PriceRow{
		Model: model, Provider: r.Provider, EffectiveFrom: strings.TrimSpace(r.EffectiveFrom), ContextOver: r.ContextOver,
		Input: r.Input, CacheRead: r.CacheRead, CacheWrite: r.CacheWrite, CacheWrite1h: r.CacheWrite1H, Output: r.Output,
		Reasoning: r.Reasoning, AudioInput: r.AudioInput, AudioOutput: r.AudioOutput, ImageInput: r.ImageInput,
		PerCall: r.PerCall, Source: r.Source, Checked: r.Checked, Note: r.Note,
	}
}

func priceRowOf(r gateway.PriceRow) PriceRow {
	return PriceRow{
		Model: r.Model, Provider: r.Provider, EffectiveFrom: r.EffectiveFrom, ContextOver: r.ContextOver,
		Input: r.Input, CacheRead: r.CacheRead, CacheWrite: r.CacheWrite, CacheWrite1H: r.CacheWrite1h, Output: r.Output,
		Reasoning: r.Reasoning, AudioInput: r.AudioInput, AudioOutput: r.AudioOutput, ImageInput: r.ImageInput,
		PerCall: r.PerCall, Source: r.Source, Checked: r.Checked, Note: r.Note, Origin: PriceRowOrigin(r.Origin),
	}
}
