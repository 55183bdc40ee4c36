//go:build !unix

// Package pgembed gives a program a PostgreSQL server when nobody gave it one.
// It needs flock and Unix sockets; elsewhere Open says so.
package pgembed

import (
	"context"
	"errors"
	"log/slog"
)

var (
	// ErrClosed is returned by Restart after Close.
	ErrClosed = errors.New("the cluster is closed")
	// ErrNoPostgres means that no usable PostgreSQL was found or could be fetched.
	ErrNoPostgres = errors.New("no usable PostgreSQL")
	// ErrForeignMajor means that the cluster was made by a major version that is
	// not available.
	ErrForeignMajor = errors.New("the cluster was made by another PostgreSQL major version")

	errUnsupported = errors.New("an embedded postgres is not available on this system: set DATABASE_URL")
)

// Config says which cluster to open.
type Config struct {
	Dir      string
	BinDirs  []string
	Offline  bool
	Settings map[string]string
	Log      *slog.Logger
}

// Cluster is never made on this system.
type Cluster struct{}

// DefaultDir is empty on this system.
func DefaultDir() string { return "" }

// Open fails: this system lacks what an embedded server needs.
func Open(context.Context, Config) (*Cluster, error) { return nil, errUnsupported }

// URL is empty on this system.
func (*Cluster) URL() string { return "" }

// DatabaseURL is empty on this system.
func (*Cluster) DatabaseURL(string) string { return "" }

// Done never closes on this system.
func (*Cluster) Done() <-chan struct{} { return nil }

// Version is 0 on this system.
func (*Cluster) Version() int { return 0 }

// Restart fails on this system.
func (*Cluster) Restart(context.Context) error { return errUnsupported }

// Keep waits for ctx on this system.
func (*Cluster) Keep(ctx context.Context) { <-ctx.Done() }

// Close does nothing on this system.
func (*Cluster) Close(context.Context) error { return nil }
