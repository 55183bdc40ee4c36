package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Grant makes a new lease for a node. The time is the database's.
func (db *DB) Grant(ctx context.Context, node uuid.UUID, ttl time.Duration) (Lease, time.Time, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Lease{}, time.Time{}, fmt.Errorf("grant lease: %w", err)
	}
	now, err := one(ctx, db.background, "grant lease", pgx.RowTo[time.Time],
		`insert into lease (id, node, epoch, since, until) values ($1, $2, 1, now(), now() + $3) returning now()`, id, node, ttl)
	return Lease{ID: id, Epoch: 1}, now, err
}

// Renew keeps a lease for another ttl. A lease that ran out and was not taken over goes on, but loses what it counts
// as its unbroken time, which is what a sweeper is trusted for. The time is the database's.
func (db *DB) Renew(ctx context.Context, l Lease, ttl time.Duration) (time.Time, error) {
	now, err := one(ctx, db.background, "renew lease", pgx.RowTo[time.Time],
		`update lease set since = case when until < now() then now() else since end, until = now() + $3
		where id = $1 and epoch = $2 and closed_at is null returning now()`, l.ID, l.Epoch, ttl)
	if isNoRows(err) {
		return time.Time{}, ErrLeaseLost
	}
	return now, err
}

// Raise moves a lease to its next epoch, on a new connection. It waits for a batch in flight under the old one; after
// it, nothing that was sent under the old one can be written any more. It may be repeated when its own answer is
// lost: only the lease's owner raises it by one, and it has not used an epoch it does not know of.
func (db *DB) Raise(ctx context.Context, l Lease) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, db.commitConfig())
	if err != nil {
		return Lease{}, fmt.Errorf("raise epoch: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing depends on it
	raised := Lease{ID: l.ID, Epoch: l.Epoch + 1}
	tag, err := conn.Exec(ctx, `update lease set epoch = $3 where id = $1 and epoch in ($2, $3) and closed_at is null`,
		l.ID, l.Epoch, raised.Epoch)
	if err != nil {
		return Lease{}, fmt.Errorf("raise epoch: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return Lease{}, ErrLeaseLost
	}
	return raised, nil
}

// CloseOwn gives up a lease when its node drains. Its runs are freed without counting a crash.
func (db *DB) CloseOwn(ctx context.Context, l Lease) error {
	n, err := exec(ctx, db.background, "close lease",
		`update lease set epoch = epoch + 1, closed_at = now(), drained = true where id = $1 and epoch = $2 and closed_at is null`,
		l.ID, l.Epoch)
	if err == nil && n == 0 {
		return ErrLeaseLost
	}
	return err
}

// CloseExpired closes the leases that ran out, one per transaction, and raises their epochs: after that nothing is
// written under them. Only a sweeper whose own lease has been renewed without a break for one ttl may do so: after a
// stall of Postgres, in which nobody could renew, nobody steals from everybody. A lease whose batch is in flight is
// left to the next sweep.
func (db *DB) CloseExpired(ctx context.Context, sweeper Lease, ttl time.Duration) ([]uuid.UUID, error) {
	var closed []uuid.UUID
	for {
		id, err := one(ctx, db.background, "close expired lease", pgx.RowTo[uuid.UUID],
			`with me as materialized (select from lease
				where id = $1 and epoch = $2 and closed_at is null and since < now() - $3::interval and until > now()),
			x as materialized (select id from lease
				where closed_at is null and until < now() and exists (select from me)
				order by until limit 1 for no key update skip locked)
			update lease set epoch = epoch + 1, closed_at = now() from x where lease.id = x.id returning lease.id`,
			sweeper.ID, sweeper.Epoch, ttl)
		if isNoRows(err) {
			return closed, db.freeStuckLeases(ctx, stuckAfter)
		}
		if err != nil {
			return closed, err
		}
		closed = append(closed, id)
	}
}

// stuckAfter is how long a server process may hold an expired lease without getting on.
const stuckAfter = 2 * time.Second

// freeStuckLeases ends server processes that hold an expired lease and wait for a client that may never speak again:
// half a batch was sent. One that waits for a synchronous replica is left alone: its commit is on its way.
func (db *DB) freeStuckLeases(ctx context.Context, after time.Duration) error {
	// Materialized: ending a process must not be tried before it is known to hold a lease.
	ended, err := collect(ctx, db.background, "free stuck leases", pgx.RowTo[int32],
		`with stuck as materialized (
			select a.pid from lease l
			join pg_locks k on k.locktype = 'transactionid' and k.transactionid = l.xmax and k.granted
			join pg_stat_activity a on a.pid = k.pid
			where l.closed_at is null and l.until < now() and a.pid <> pg_backend_pid()
				and a.wait_event_type = 'Client'
				and greatest(a.state_change, a.query_start) < now() - $1::interval)
		select pid from stuck where pg_terminate_backend(pid)`, after)
	if err != nil {
		return err
	}
	if len(ended) > 0 {
		db.log.Warn("ended server processes that held expired leases", "processes", ended)
	}
	return nil
}

// ClosedLeases lists the leases that are closed and not dropped: their runs are to be freed.
func (db *DB) ClosedLeases(ctx context.Context) ([]uuid.UUID, error) {
	return collect(ctx, db.background, "list closed leases", pgx.RowTo[uuid.UUID],
		`select id from lease where closed_at is not null order by closed_at limit $1`, rowsMax)
}

// DropLease deletes a closed lease that owns no run any more.
func (db *DB) DropLease(ctx context.Context, closed uuid.UUID) (bool, error) {
	n, err := exec(ctx, db.background, "drop lease",
		`delete from lease where id = $1 and closed_at is not null and not exists (select from run where owner = $1)`, closed)
	return n > 0, err
}
