package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// collect runs a query and reads all its rows. `what` says what was attempted, for the error.
func collect[T any](ctx context.Context, q querier, what string, row pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	bounded, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := q.Query(bounded, sql, args...)
	if err != nil {
		return nil, failed(ctx, what, err)
	}
	list, err := pgx.CollectRows(rows, row)
	if err != nil {
		return nil, failed(ctx, what, err)
	}
	return list, nil
}

// one runs a query that answers at least one row. pgx.ErrNoRows is in the error's chain when it does not.
func one[T any](ctx context.Context, q querier, what string, row pgx.RowToFunc[T], sql string, args ...any) (T, error) {
	list, err := collect(ctx, q, what, row, sql, args...)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: %w", what, pgx.ErrNoRows)
	}
	if err != nil {
		var none T
		return none, err
	}
	return list[0], nil
}

// exec runs a statement and answers how many rows it wrote.
func exec(ctx context.Context, q querier, what, sql string, args ...any) (int, error) {
	bounded, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	tag, err := q.Exec(bounded, sql, args...)
	if err != nil {
		return 0, failed(ctx, what, err)
	}
	return int(tag.RowsAffected()), nil
}

// within runs fn in one read committed transaction.
func within(ctx context.Context, pool *pgxpool.Pool, what string, fn func(pgx.Tx) error) error {
	bounded, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	err := pgx.BeginTxFunc(bounded, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, fn)
	if err != nil {
		return failed(ctx, what, err)
	}
	return nil
}

func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
