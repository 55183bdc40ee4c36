package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// BreakerRow is the last that a node said of a breaker, or an operator through it.
type BreakerRow struct {
	ID        string // provider/model
	Node      uuid.UUID
	ByHand    bool // an operator's word, kept apart from what the node found out
	Action    string
	Reason    string
	Until     time.Time // zero: no end
	At        time.Time // by the node's clock
	ChangedAt time.Time // by the database's
}

// breakerKept is how long news of breakers is kept: a node that starts must learn what operators hold open, and
// nothing that a provider recovered from long ago.
const breakerKept = 24 * time.Hour

// PutBreaker keeps what a node says of a breaker in place of what it said before.
func (db *DB) PutBreaker(ctx context.Context, b BreakerRow) error {
	_, err := exec(ctx, db.background, "put breaker",
		`insert into breaker (id, node, by_hand, action, reason, until_at, at) values ($1, $2, $3, $4, $5, $6, $7)
		on conflict (id, node, by_hand) do update set action = excluded.action, reason = excluded.reason,
			until_at = excluded.until_at, at = excluded.at, changed_at = clock_timestamp()`,
		clean(b.ID), b.Node, b.ByHand, clean(b.Action), clean(b.Reason), epochOf(b.Until), b.At)
	return err
}

// Breakers lists what nodes said of breakers since a time, oldest first, up to 1,000.
func (db *DB) Breakers(ctx context.Context, since time.Time) ([]BreakerRow, error) {
	return collect(ctx, db.background, "read breakers", scanBreaker, breakersSQL, epochOf(since), rowsMax)
}

const breakersSQL = `select id, node, by_hand, action, reason, coalesce(until_at, 'epoch'), at, changed_at from breaker
	where changed_at >= $1 order by changed_at limit $2`

func scanBreaker(row pgx.CollectableRow) (b BreakerRow, err error) {
	err = row.Scan(&b.ID, &b.Node, &b.ByHand, &b.Action, &b.Reason, &b.Until, &b.At, &b.ChangedAt)
	b.Until, b.At, b.ChangedAt = sinceEpoch(b.Until), b.At.UTC(), b.ChangedAt.UTC()
	return b, err
}

// SweepBreakers deletes old news; an operator's word stays.
func (db *DB) SweepBreakers(ctx context.Context) (int, error) {
	return exec(ctx, db.background, "sweep breakers",
		`delete from breaker where changed_at < now() - $1::interval and not by_hand`, breakerKept)
}
