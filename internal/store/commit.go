package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Committer commits batches, one at a time, on a connection of its own. It belongs to one goroutine.
type Committer struct {
	db     *DB
	schema string // empty: the service's own; else a scratch copy comes first
	batch  *batch
	params [][]byte

	conn     *pgconn.PgConn
	oids     [partsCount]uint32 // of partTypes
	prepared map[parts]string   // names of the statements this connection knows
}

// Committer makes a committer; it connects with its first commit.
func (db *DB) Committer() *Committer { return &Committer{db: db, batch: newBatch()} }

// Close gives up the connection.
func (c *Committer) Close() { c.drop() }

func (c *Committer) drop() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout) //nolint:forbidigo // closing is not cancelled with the work
	defer cancel()
	_ = c.conn.Close(ctx)
	c.conn, c.prepared = nil, nil
}

// Commit writes a batch under the lease, all of it or nothing. The error is nil (written and durable), ErrLeaseLost
// (nothing written, ever), ErrUnknown (find out by Raise), a *RefusedError (nothing written; something in it will not
// do), or any other: certainly nothing was written, and the batch may be sent again.
func (c *Committer) Commit(ctx context.Context, lease Lease, changes []Change) error {
	if err := c.batch.encode(lease, changes); err != nil {
		return err
	}
	if c.batch.have == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	name, err := c.ready(ctx, c.batch.have)
	if err != nil {
		c.drop()
		return err
	}
	held, err := c.send(ctx, name)
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		return err
	case err != nil:
		c.drop() // whatever it was, the next commit starts on a connection known to be good
		return err
	case !held:
		return ErrLeaseLost
	}
	return nil
}

// binaryFormat is the format of all parameters and results.
var binaryFormat = []int16{1}

// send is the one round trip. Where Postgres or the connection dies in here, the batch may or may not be written.
func (c *Committer) send(ctx context.Context, name string) (held bool, err error) {
	c.params = c.batch.params(c.params[:0], &c.oids)
	result := c.conn.ExecPrepared(ctx, name, c.params, binaryFormat, binaryFormat).Read()
	if result.Err != nil {
		return false, fate(result.Err)
	}
	if len(result.Rows) != 1 || len(result.Rows[0][0]) != 8 {
		return false, fmt.Errorf("%w: %d rows answered", ErrUnknown, len(result.Rows))
	}
	return binary.BigEndian.Uint64(result.Rows[0][0]) == 1, nil
}

// ready connects and prepares as far as needed. Nothing of the batch is sent by it.
func (c *Committer) ready(ctx context.Context, have parts) (string, error) {
	if c.conn == nil || c.conn.IsClosed() {
		if err := c.connect(ctx); err != nil {
			return "", err
		}
	}
	if name, ok := c.prepared[have]; ok {
		return name, nil
	}
	name := "commit_" + strconv.Itoa(int(have))
	if _, err := c.conn.Prepare(ctx, name, commitSQL(have), nil); err != nil {
		return "", fmt.Errorf("prepare commit: %w", err)
	}
	c.prepared[have] = name
	return name, nil
}

func (c *Committer) connect(ctx context.Context) error {
	cfg := c.db.commitConfig()
	conn, err := pgconn.ConnectConfig(ctx, &cfg.Config)
	if err != nil {
		return fmt.Errorf("connect committer: %w", err)
	}
	c.conn, c.prepared = conn, map[parts]string{}
	if c.schema != "" {
		if err := conn.Exec(ctx, `select set_config('search_path', '`+c.schema+`, ' || current_setting('search_path'), false)`).Close(); err != nil {
			return fmt.Errorf("enter scratch schema: %w", err)
		}
	}
	// Asked for with each connection: the setting may have changed since the service started.
	if err := durable(ctx, conn, c.db.cfg.AllowUnsafeCommit); err != nil {
		return err
	}
	return c.learnTypes(ctx)
}

// learnTypes asks for the oids of the composite types, which each database gives anew.
func (c *Committer) learnTypes(ctx context.Context) error {
	ask := make([]string, partsCount)
	for p, name := range partTypes {
		ask[p] = "'" + name + "'::regtype::oid"
	}
	result := c.conn.ExecParams(ctx, `select `+strings.Join(ask, ", "), nil, nil, nil, binaryFormat).Read()
	if result.Err != nil {
		return fmt.Errorf("learn types: %w", result.Err)
	}
	for p, oid := range result.Rows[0] {
		c.oids[p] = binary.BigEndian.Uint32(oid)
	}
	return nil
}
