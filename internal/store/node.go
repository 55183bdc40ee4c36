package store

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Node is a process of the service.
type Node struct {
	ID       uuid.UUID
	Name     string
	Address  string
	Version  string
	Capacity int
}

// Register makes a node known, and closes at once the leases of former nodes of the same name: it takes their place.
// It may be repeated.
func (db *DB) Register(ctx context.Context, n Node) error {
	_, err := exec(ctx, db.background, "register node",
		`insert into node (id, name, address, version, capacity) values ($1, $2, $3, $4, $5)
		on conflict (id) do update set name = excluded.name, address = excluded.address, version = excluded.version, capacity = excluded.capacity`,
		n.ID, clean(n.Name), clean(n.Address), clean(n.Version), n.Capacity)
	if err != nil {
		return err
	}
	former, err := collect(ctx, db.background, "find former leases", pgx.RowTo[uuid.UUID],
		`select l.id from node n join lease l on l.node = n.id where n.name = $1 and n.id <> $2 and l.closed_at is null`,
		clean(n.Name), n.ID)
	if err != nil {
		return err
	}
	for _, id := range former { // each in its own transaction; waits for a batch in flight
		if _, err := exec(ctx, db.background, "close former lease",
			`update lease set epoch = epoch + 1, closed_at = now() where id = $1 and closed_at is null`, id); err != nil {
			return errors.Join(err, db.freeStuckLeases(ctx, stuckAfter))
		}
	}
	_, err = exec(ctx, db.background, "forget former nodes",
		`delete from node n where n.name = $1 and n.id <> $2 and not exists (select from lease l where l.node = n.id)`,
		clean(n.Name), n.ID)
	return err
}
