package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fermata-run/fermata/internal/fault"
)

// The fates of a commit that a caller acts on. Any other error of Commit but a RefusedError says that the batch
// certainly was not written and may be sent again.
var (
	// ErrLeaseLost: the lease is gone, or another epoch holds. Nothing was written under it, nothing will be.
	ErrLeaseLost = errors.New("the lease is lost")
	// ErrUnknown: the answer to a commit was lost; it may have landed, and it may still land. Raise tells.
	ErrUnknown = errors.New("the fate of the commit is unknown")
)

// RefusedError says that Postgres refused a batch for what is in it: nothing of it was written, and it would be
// refused again.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return "the batch was refused: " + e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

func refusedOf(run uuid.UUID, err error) error {
	return &RefusedError{Err: fmt.Errorf("run %s: %w", run, err)}
}

// The SQLSTATEs that decide something here.
const (
	stateDivisionByZero   = "22012" // the proof in the commit statement
	stateUnique           = "23505"
	stateInvalidParameter = "22023"
	stateCanceled         = "57014" // by the statement timeout
	stateLockTimeout      = "55P03"
)

// fate classifies the error of a commit that was sent, or tried to be.
func fate(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR":
		// ERROR means that the transaction was rolled back. FATAL does not: a backend can be terminated after its
		// commit, before its answer.
		if isRefusal(pg.Code) {
			return &RefusedError{Err: refusalOf(pg)}
		}
		return fmt.Errorf("commit: %w", err)
	case pgconn.SafeToRetry(err): // nothing was sent
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// isRefusal: the data is at fault, by the class of the SQLSTATE.
func isRefusal(state string) bool {
	switch state[:min(2, len(state))] {
	case "21", "22", "23", "54": // cardinality, data, integrity, program limit
		return true
	}
	return false
}

var errNotOwned = errors.New("a run in the batch is not owned by this lease")

func refusalOf(pg *pgconn.PgError) error {
	if pg.Code == stateDivisionByZero {
		return errNotOwned
	}
	return pg
}

func isState(err error, state string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == state
}

// failed says what was attempted. A database that is away or overloaded becomes a fault the caller can act on.
func failed(ctx context.Context, what string, err error) error {
	if fault.Of(err) != nil {
		return err
	}
	err = fmt.Errorf("%s: %w", what, err)
	if ctx.Err() != nil || !isAway(err) {
		return err
	}
	f := fault.New(fault.KindUnavailable, "database_unavailable", "the database does not answer")
	f.RetryAfter = time.Second
	f.Err = err
	return f
}

// isAway: no answer at all, or one that says that the server cannot work now.
func isAway(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		var connect *pgconn.ConnectError
		return errors.As(err, &connect) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) || isBroken(err)
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "08", "53", "57", "58": // connection, resources, operator, system
		return true
	}
	return pg.Code == stateLockTimeout || pg.SeverityUnlocalized != "ERROR"
}

func isBroken(err error) bool {
	var wire net.Error
	return errors.As(err, &wire) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed)
}
