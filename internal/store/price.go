package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
)

// pricesMax bounds the own prices of all tenants: every node keeps them in memory.
const pricesMax = 10_000

// PriceOverride is a price that came through the API: it stands before the configured and the built-in ones.
type PriceOverride struct {
	Model         string
	EffectiveFrom time.Time       // zero: since ever
	Body          json.RawMessage // a gateway.PriceRow
	UpdatedAt     time.Time
}

const priceColumns = `model, effective_from, body, updated_at`

func scanPrice(row pgx.CollectableRow) (p PriceOverride, err error) {
	var body string
	err = row.Scan(&p.Model, &p.EffectiveFrom, &body, &p.UpdatedAt)
	p.EffectiveFrom, p.UpdatedAt, p.Body = sinceEpoch(p.EffectiveFrom), p.UpdatedAt.UTC(), json.RawMessage(body)
	return p, err
}

// PutPrices keeps the own prices of a model in place of those it had.
func (db *DB) PutPrices(ctx context.Context, tenant uuid.UUID, model string, rows []PriceOverride) error {
	from, bodies := make([]time.Time, len(rows)), make([]string, len(rows))
	for i, r := range rows {
		from[i], bodies[i] = epochOf(r.EffectiveFrom), clean(string(r.Body))
	}
	return within(ctx, db.api, "put prices", func(tx pgx.Tx) error {
		if _, err := exec(ctx, tx, "lock prices", `select pg_advisory_xact_lock(hashtextextended('prices', 0))`); err != nil {
			return err
		}
		if _, err := exec(ctx, tx, "replace prices", `delete from price_override where tenant_id = $1 and model = $2`, tenant, clean(model)); err != nil {
			return err
		}
		n, err := exec(ctx, tx, "insert prices",
			`insert into price_override (tenant_id, model, place, effective_from, body)
			select $1, $2, u.place, u.effective_from, u.body from unnest($3::timestamptz[], $4::text[]) with ordinality u(effective_from, body, place)
			where (select count(*) from price_override) + cardinality($4::text[]) <= $5`, tenant, clean(model), from, bodies, pricesMax)
		if err == nil && n < len(rows) {
			return fault.New(fault.KindTooLarge, "too_many_prices", "there would be more than %d prices of one's own, and that is the limit", pricesMax)
		}
		return err
	})
}

// Prices lists a tenant's own prices by model, those of each as they were put.
func (db *DB) Prices(ctx context.Context, tenant uuid.UUID) ([]PriceOverride, error) {
	return collect(ctx, db.api, "list prices", scanPrice,
		`select `+priceColumns+` from price_override where tenant_id = $1 order by model, place limit $2`, tenant, pricesMax)
}

// AllPrices lists the own prices of all tenants by model: what a node's gateway goes by.
func (db *DB) AllPrices(ctx context.Context) ([]PriceOverride, error) {
	return collect(ctx, db.background, "read prices", scanPrice,
		`select `+priceColumns+` from price_override order by model, tenant_id, place limit $1`, pricesMax)
}

// DeletePrices forgets a model's own prices.
func (db *DB) DeletePrices(ctx context.Context, tenant uuid.UUID, model string) error {
	n, err := exec(ctx, db.api, "delete prices", `delete from price_override where tenant_id = $1 and model = $2`, tenant, clean(model))
	if err == nil && n == 0 {
		return fault.New(fault.KindNotFound, "price_not_found", "there is no price of one's own for %s", model)
	}
	return err
}
