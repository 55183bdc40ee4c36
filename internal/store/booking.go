package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fermata-run/fermata/internal/usage"
)

// BookMax bounds the bookings of one batch: rows that all calls share stay locked while it is worked out.
const BookMax = 512

// amountMax bounds an amount: sums of what is spent and set aside must stay far from the end of the integers, or one
// absurd call would refuse the batch that it is in.
const amountMax = 1 << 54

// Booking is a batch: what is ended gives back first, then each reservation in turn is made in all its budgets or in
// none.
type Booking struct {
	Node  uuid.UUID // whose reservations these are
	Needs []Need    // the budgets that Holds are about, by ascending id, each once
	Holds []HoldNew
	Ends  []HoldEnd
	Voids []uuid.UUID // reservations that nobody wants, whether they were made or not
	Calls []CallLine  // to be kept in the ledger, and added to what was spent
}

// Need is a budget that is to hold a reservation.
type Need struct {
	ID  uuid.UUID
	Run uuid.UUID // the run that it belongs to, or a step of it: it is forgotten some time after that run's end; zero: a row of budget
	// Of one that belongs to a run only: its limits (0: none), and what was spent under it before its first reservation.
	Limit, Spent             usage.Money
	LimitTokens, SpentTokens int64
}

// HoldNew is what is to be set aside for one call.
type HoldNew struct {
	ID           uuid.UUID
	Tenant       uuid.UUID
	Run          uuid.UUID // zero: none
	Step         string
	Gen, Attempt int16
	Amount       usage.Money
	Tokens       int64
	Unpriced     bool    // no budget in money holds it
	Needs        []int16 // places in Booking.Needs, from 0; the first that refuses is reported
}

// HoldEnd replaces what was set aside by what was spent.
type HoldEnd struct {
	ID     uuid.UUID
	Spent  usage.Money
	Tokens int64
	Lost   bool // its node died: all of it is taken as spent, until somebody knows better
}

// Booked is what came of a batch.
type Booked struct {
	Refused map[int]Refusal // by place in Holds; the others were made
	Crossed []Crossing
}

// Refusal is the state of the budget that did not hold a reservation.
type Refusal struct {
	Budget                                   uuid.UUID
	Unpriced, InTokens                       bool
	Limit, Spent, Reserved                   usage.Money
	LimitTokens, SpentTokens, ReservedTokens int64
	Resets                                   time.Time // zero: never
}

// Crossing is a soft limit that was passed. It is reported once a window, to whoever settled what passed it.
type Crossing struct {
	Budget      uuid.UUID
	Percent     int
	Spent       usage.Money
	SpentTokens int64
}

// Booker books batches, one at a time, on a connection of its own. It belongs to one goroutine.
type Booker struct {
	db    *DB
	batch bookingBatch
	conn  *pgconn.PgConn
	oids  [bookTypesCount]uint32
}

// Booker makes a booker; it connects with its first batch.
func (db *DB) Booker() *Booker { return &Booker{db: db} }

// Close gives up the connection.
func (b *Booker) Close() {
	if b.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout) //nolint:forbidigo // closing is not cancelled with the work
	defer cancel()
	_ = b.conn.Close(ctx)
	b.conn = nil
}

// Book carries a batch out in one transaction, in one round trip. The error is nil, ErrUnknown (it may have been
// written, and may still be: ends may be sent again, holds must be voided), a *RefusedError (nothing written;
// something in it will not do), or any other: certainly nothing was written.
func (b *Booker) Book(ctx context.Context, booking *Booking) (Booked, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if b.conn == nil || b.conn.IsClosed() {
		if err := b.connect(ctx); err != nil {
			b.Close()
			return Booked{}, err
		}
	}
	if err := b.batch.encode(booking); err != nil {
		return Booked{}, &RefusedError{Err: err}
	}
	booked, err := b.send(ctx)
	var refused *RefusedError
	if err != nil && !errors.As(err, &refused) {
		b.Close()
	}
	return booked, err
}

// send is the one round trip. What is sent up to the Sync is one transaction.
func (b *Booker) send(ctx context.Context) (Booked, error) {
	var wire pgconn.Batch
	if b.batch.books {
		wire.ExecPrepared("book", b.batch.bookParams(&b.oids), binaryFormat, binaryFormat)
	}
	if b.batch.calls.n > 0 {
		wire.ExecPrepared("ledger", b.batch.callParams(&b.oids), binaryFormat, binaryFormat)
	}
	results, err := b.conn.ExecBatch(ctx, &wire).ReadAll()
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		return Booked{}, fate(err)
	case err != nil:
		// The connection calls it safe to retry when the answer could not be read, though the batch was sent.
		return Booked{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	var booked Booked
	if b.batch.books {
		if booked, err = readNotes(results[0].Rows); err != nil {
			return Booked{}, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
	return booked, nil
}

func (b *Booker) connect(ctx context.Context) error {
	conn, err := pgconn.ConnectConfig(ctx, &b.db.conn.Copy().Config)
	if err != nil {
		return fmt.Errorf("connect booker: %w", err)
	}
	b.conn = conn
	if err := durable(ctx, conn, b.db.cfg.AllowUnsafeCommit); err != nil {
		return err
	}
	ask := make([]string, bookTypesCount)
	for i, name := range bookTypes {
		ask[i] = "'" + name + "'::regtype::oid"
	}
	result := conn.ExecParams(ctx, `select `+strings.Join(ask, ", "), nil, nil, nil, binaryFormat).Read()
	if result.Err != nil {
		return fmt.Errorf("learn types: %w", result.Err)
	}
	for i, oid := range result.Rows[0] {
		b.oids[i] = binary.BigEndian.Uint32(oid)
	}
	for name, sql := range map[string]string{"book": bookSQL, "ledger": ledgerSQL} {
		if _, err := conn.Prepare(ctx, name, sql, nil); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
	}
	return nil
}

// The composite types of the parameters.
const (
	typeNeed = iota
	typeHold
	typeEnd
	typeCall
	bookTypesCount
)

var bookTypes = [bookTypesCount]string{
	typeNeed: "budget_need_2", typeHold: "hold_new", typeEnd: "hold_end", typeCall: "call_new",
}

const bookSQL = `select hold, budget, percent, unpriced, in_tokens, coalesce(limit_nano, 0), spent_nano, reserved_nano,
	coalesce(limit_tokens, 0), spent_tokens, reserved_tokens, coalesce(resets, 'epoch')
	from budget_book($1, $2::budget_need_2[], $3::hold_new[], $4::hold_end[], $5::uuid[])`

// ledgerSQL keeps calls and adds them to what was spent: each once, however often it is sent. In spend the node stands
// for the lease: no other one writes these rows.
const ledgerSQL = `with c as (insert into call select u.* from unnest($2::call_new[]) u on conflict do nothing returning call.*),
	s as (select date_trunc('hour', at, 'UTC') as hour, tenant_id, workflow, agent, provider, model, simulated,
		count(*) as calls, count(*) filter (where unpriced) as unpriced,
		sum(tokens_input + tokens_audio_input + tokens_image_input)::int8 as tokens_input, sum(tokens_cache_read)::int8 as tokens_cache_read,
		sum(tokens_cache_write + tokens_cache_write_1h)::int8 as tokens_cache_write,
		sum(tokens_output + tokens_audio_output)::int8 as tokens_output, sum(tokens_reasoning)::int8 as tokens_reasoning,
		sum(cost_nano)::int8 as cost_nano, sum(baseline_nano)::int8 as baseline_nano, sum(cache_saved_nano)::int8 as cache_saved_nano
		from c group by 1, 2, 3, 4, 5, 6, 7)
	insert into spend (hour, tenant_id, workflow, agent, provider, model, simulated, calls, unpriced, tokens_input, tokens_cache_read,
		tokens_cache_write, tokens_output, tokens_reasoning, cost_nano, baseline_nano, cache_saved_nano, lease)
	select s.*, $1::uuid from s
	on conflict (hour, tenant_id, workflow, agent, provider, model, simulated, lease) do update set ` + spendAdded
