package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	keyKept      = 24 * time.Hour
	keyTakenOver = 60 * time.Second // an unfinished claim may be the end of whoever made it
	keyTries     = 5
)

// Key is the idempotency key of a request.
type Key struct {
	Tenant     uuid.UUID
	Key, Route string
	BodyHash   [32]byte
}

// KeyClaim is what a claimed key says. Exactly one of these holds: Fresh (go on, and settle), Mismatch (the key was
// used with another body), InFlight (somebody is at it), or an answer is there to be given again.
type KeyClaim struct {
	Fresh    bool
	Run      uuid.UUID // reserved by the first claim, the same for every claim of the key
	Status   int
	Header   map[string]string
	Body     []byte
	InFlight bool
	Mismatch bool
}

// claimKeySQL takes a key that is free, too old, or unfinished for too long; of the last one the reserved run stays:
// whoever was at it may have submitted it. No row: the key is somebody's.
const claimKeySQL = `insert into idempotency as i (tenant_id, route, key, body_hash, run_id) values ($1, $2, $3, $4, $5)
on conflict (tenant_id, route, key) do update set
	run_id = case when i.created_at < now() - $6::interval then excluded.run_id else i.run_id end,
	created_at = case when i.created_at < now() - $6::interval then now() else i.created_at end,
	body_hash = excluded.body_hash, claimed_at = now(), status = null, header = null, body = null
where i.created_at < now() - $6::interval
	or i.status is null and i.claimed_at < now() - $7::interval and i.body_hash = excluded.body_hash
returning run_id`

// ClaimKey claims a key for a request that would submit `run`.
func (db *DB) ClaimKey(ctx context.Context, k Key, run uuid.UUID) (KeyClaim, error) {
	for range keyTries {
		id, err := one(ctx, db.api, "claim idempotency key", pgx.RowTo[uuid.UUID], claimKeySQL,
			k.Tenant, clean(k.Route), clean(k.Key), k.BodyHash[:], run, keyKept, keyTakenOver)
		if err == nil {
			return KeyClaim{Fresh: true, Run: id}, nil
		}
		if !isNoRows(err) {
			return KeyClaim{}, err
		}
		scan := func(row pgx.CollectableRow) (KeyClaim, error) { return scanKey(row, k) }
		c, err := one(ctx, db.api, "read idempotency key", scan,
			`select run_id, body_hash, status, header, body from idempotency where tenant_id = $1 and route = $2 and key = $3`,
			k.Tenant, clean(k.Route), clean(k.Key))
		if err == nil || !isNoRows(err) {
			return c, err
		}
		// It was dropped in between: it may be free now.
	}
	return KeyClaim{}, errors.New("claim idempotency key: it was dropped each time it was looked at")
}

func scanKey(row pgx.CollectableRow, k Key) (c KeyClaim, err error) {
	var hash []byte
	var status *int
	var header *string
	if err := row.Scan(&c.Run, &hash, &status, &header, &c.Body); err != nil {
		return c, err
	}
	switch {
	case [32]byte(hash) != k.BodyHash:
		return KeyClaim{Run: c.Run, Mismatch: true}, nil
	case status == nil:
		return KeyClaim{Run: c.Run, InFlight: true}, nil
	}
	c.Status = *status
	if err := json.Unmarshal([]byte(*header), &c.Header); err != nil {
		return c, fmt.Errorf("read kept header: %w", err)
	}
	return c, nil
}

// SettleKey keeps the answer to be given again. The first answer stays.
func (db *DB) SettleKey(ctx context.Context, k Key, status int, header map[string]string, body []byte) error {
	if header == nil {
		header = map[string]string{}
	}
	raw, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("settle idempotency key: %w", err)
	}
	if body == nil {
		body = []byte{}
	}
	_, err = exec(ctx, db.api, "settle idempotency key",
		`update idempotency set status = $5, header = $6, body = $7
		where tenant_id = $1 and route = $2 and key = $3 and body_hash = $4 and status is null`,
		k.Tenant, clean(k.Route), clean(k.Key), k.BodyHash[:], status, clean(string(raw)), body)
	return err
}

// DropKey frees a key whose request came to nothing, so that it can be sent again.
func (db *DB) DropKey(ctx context.Context, k Key) error {
	_, err := exec(ctx, db.api, "drop idempotency key",
		`delete from idempotency where tenant_id = $1 and route = $2 and key = $3 and body_hash = $4 and status is null`,
		k.Tenant, clean(k.Route), clean(k.Key), k.BodyHash[:])
	return err
}

// SweepIdempotency deletes keys older than that, at most limit at once.
func (db *DB) SweepIdempotency(ctx context.Context, olderThan time.Duration, limit int) (int, error) {
	return exec(ctx, db.background, "sweep idempotency keys",
		`with x as materialized (select tenant_id, route, key from idempotency where created_at < now() - $1::interval
			order by created_at limit $2 for update skip locked)
		delete from idempotency i using x where (i.tenant_id, i.route, i.key) = (x.tenant_id, x.route, x.key)`, olderThan, limit)
}
