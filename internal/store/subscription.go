package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/usage"
)

// SubscriptionRow is a flat plan: calls through it cost nothing by themselves.
type SubscriptionRow struct {
	Name      string
	Monthly   usage.Money
	From      time.Time
	Until     *time.Time // nil: it goes on
	UpdatedAt time.Time
}

func scanSubscription(row pgx.CollectableRow) (s SubscriptionRow, err error) {
	err = row.Scan(&s.Name, &s.Monthly, &s.From, &s.Until, &s.UpdatedAt)
	s.From, s.UpdatedAt = s.From.UTC(), s.UpdatedAt.UTC()
	if s.Until != nil {
		*s.Until = s.Until.UTC()
	}
	return s, err
}

// PutSubscription keeps a plan; one of the same name is replaced. Created: there was none.
func (db *DB) PutSubscription(ctx context.Context, tenant uuid.UUID, s SubscriptionRow) (row SubscriptionRow, created bool, err error) {
	if s.Name == "" || s.Monthly < 0 || s.From.IsZero() || s.Until != nil && !s.Until.After(s.From) {
		return SubscriptionRow{}, false, fault.New(fault.KindInvalid, "subscription_invalid",
			"a subscription needs a name, a monthly price that is not negative, and a time from which it holds, before the one until which it does")
	}
	scan := func(r pgx.CollectableRow) (SubscriptionRow, error) {
		var s SubscriptionRow
		err := r.Scan(&s.Name, &s.Monthly, &s.From, &s.Until, &s.UpdatedAt, &created)
		return s, err
	}
	row, err = one(ctx, db.api, "put subscription", scan,
		`insert into subscription (tenant_id, name, monthly_nano, from_at, until_at) values ($1, $2, $3, $4, $5)
		on conflict (tenant_id, name) do update set monthly_nano = excluded.monthly_nano, from_at = excluded.from_at,
			until_at = excluded.until_at, updated_at = now()
		returning name, monthly_nano, from_at, until_at, updated_at, xmax = 0`,
		tenant, clean(s.Name), s.Monthly, s.From, s.Until)
	return row, created, err
}

// Subscriptions lists a tenant's plans by name, up to 1,000.
func (db *DB) Subscriptions(ctx context.Context, tenant uuid.UUID) ([]SubscriptionRow, error) {
	return collect(ctx, db.api, "list subscriptions", scanSubscription,
		`select name, monthly_nano, from_at, until_at, updated_at from subscription where tenant_id = $1 order by name limit $2`, tenant, rowsMax)
}

// DeleteSubscription forgets a plan.
func (db *DB) DeleteSubscription(ctx context.Context, tenant uuid.UUID, name string) error {
	n, err := exec(ctx, db.api, "delete subscription", `delete from subscription where tenant_id = $1 and name = $2`, tenant, clean(name))
	if err == nil && n == 0 {
		return fault.New(fault.KindNotFound, "subscription_not_found", "there is no subscription %s", name)
	}
	return err
}
