// Package fault holds the kinds of failure a caller can act on. Errors are typed here, in the depths;
// turning them into problem documents and HTTP statuses is the business of the api package alone.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what a caller can do about an error. The zero value is an internal error, whose text is never shown.
type Kind string

// The kinds of failure.
const (
	KindInternal    Kind = ""            // nothing: a defect or a broken world; logged, not shown
	KindMalformed   Kind = "malformed"   // the request itself cannot be read: mend its syntax
	KindInvalid     Kind = "invalid"     // readable, but breaks a rule: mend the fields in Issues
	KindNotFound    Kind = "not_found"   // no such thing for this tenant
	KindConflict    Kind = "conflict"    // the present state does not allow it
	KindTooLarge    Kind = "too_large"   // over a named limit
	KindLimited     Kind = "limited"     // too many at once: wait RetryAfter
	KindUnavailable Kind = "unavailable" // not now: wait RetryAfter
)

// Issue is one thing that is wrong, and where.
type Issue struct {
	Pointer   string `json:"pointer,omitempty"`   // RFC 6901, into the document that was sent
	Parameter string `json:"parameter,omitempty"` // query, path or header parameter, instead of Pointer
	Code      string `json:"code"`                // stable, snake_case
	Detail    string `json:"detail"`
	Line      int    `json:"line,omitempty"` // from 1; where the text has lines
	Col       int    `json:"col,omitempty"`  // from 1
	Suggest   string `json:"suggest,omitempty"`
}

// IssuesMax bounds the issues of one error.
const IssuesMax = 50

// Error is a failure with a kind. Code is stable and snake_case; Detail is one sentence for a person.
type Error struct {
	Kind       Kind
	Code       string
	Detail     string
	Issues     []Issue
	RetryAfter time.Duration
	Err        error // the cause; logged, never shown
}

// New makes an Error; format and args make its Detail.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	s := e.Code
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	for _, i := range e.Issues {
		s += "; " + i.Pointer + i.Parameter + " " + i.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Of finds the Error in err's chain, or nil.
func Of(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// Is reports whether err carries the kind.
func Is(err error, kind Kind) bool {
	e := Of(err)
	return e != nil && e.Kind == kind
}
