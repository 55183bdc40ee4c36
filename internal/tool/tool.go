// Package tool calls tools: what a step can do besides asking a model. This version has the built-in ones that
// workflows are tried out with; HTTP and MCP tools come in through the same door.
package tool

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// The built-in tools.
const (
	RefNoop  = "builtin:noop"  // returns its args
	RefSleep = "builtin:sleep" // waits
	RefFail  = "builtin:fail"  // fails, as often as it is told
)

// The classes of failure of a tool.
const (
	ClassToolError      = "tool_error"
	ClassInvalidRequest = "invalid_request" // the args are wrong
	ClassNotFound       = "not_found"       // no such tool
	ClassTimeout        = "timeout"
	ClassCancelled      = "cancelled"
)

// Request is one call of one tool.
type Request struct {
	Ref     string          // which tool
	Args    json.RawMessage // a JSON object
	Key     string          // idempotency key: the same for all attempts of a step
	Attempt int             // from 1
}

// Error is how a tool failed.
type Error struct {
	Class   string
	Message string
}

func (e *Error) Error() string { return e.Class + ": " + e.Message }

func failf(class, format string, args ...any) *Error {
	return &Error{Class: class, Message: fmt.Sprintf(format, args...)}
}

// Tools calls tools. Its zero value has the built-in ones.
type Tools struct{}

// Call calls a tool. Its error is an *Error; the output is one JSON value. It returns soon after ctx is done.
func (t *Tools) Call(ctx context.Context, r Request) (json.RawMessage, error) {
	switch r.Ref {
	case RefNoop:
		return noop(r.Args)
	case RefSleep:
		return sleep(ctx, r.Args)
	case RefFail:
		return fail(r.Args, r.Attempt)
	}
	return nil, failf(ClassNotFound, "there is no tool %q", r.Ref)
}

// cut says why a tool was broken off.
func cut(ctx context.Context, began time.Time) *Error {
	if ctx.Err() == context.DeadlineExceeded { //nolint:errorlint // Err gives one of two values
		return failf(ClassTimeout, "not done after %s", time.Since(began).Round(time.Millisecond))
	}
	return failf(ClassCancelled, "cut after %s", time.Since(began).Round(time.Millisecond))
}
