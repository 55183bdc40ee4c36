package main

import (
	"context"
	"errors"
	"fmt"
)

// The exit codes: an interface for scripts, as much as the flags are.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitAuth        = 4
	exitConflict    = 5
	exitRunFailed   = 10
	exitCancelled   = 11
	exitTimeout     = 124
	exitInterrupted = 130
)

// errTimeout ends a command whose --timeout has passed.
var errTimeout = errors.New("timeout")

// exitErr is an error with an exit code of its own.
type exitErr struct {
	code int
	err  error
}

func (e *exitErr) Error() string { return e.err.Error() }
func (e *exitErr) Unwrap() error { return e.err }

// usageError is the caller's mistake.
func usageError(format string, args ...any) error {
	return &exitErr{exitUsage, fmt.Errorf(format, args...)}
}

// runEnded says that a run which a command waited for did not succeed. It was shown already.
type runEnded struct{ status string }

func (e *runEnded) Error() string { return "the run " + e.status }

// codeOf finds the exit code of an error.
func codeOf(ctx context.Context, err error) int {
	var coded *exitErr
	var ended *runEnded
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &ended):
		if ended.status == "cancelled" {
			return exitCancelled
		}
		return exitRunFailed
	case errors.Is(err, errTimeout):
		return exitTimeout
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitOfProblem(err)
}
