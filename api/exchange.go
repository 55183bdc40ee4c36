package api

import (
	"context"
	"net/http"

	"github.com/google/uuid"
)

// exchange is what is known of one request and its answer, gathered on its way in.
type exchange struct {
	requestID string
	tenant    uuid.UUID
	op        *operation // nil until the router has found it
	body      []byte     // read strictly; nil: there is none
	run       uuid.UUID  // reserved by an Idempotency-Key for the run to be submitted; zero: none
	again     bool       // that key was claimed before, by a request that got no answer
	w         writer     // what the answer is written to
	media     string     // of the answer that the caller likes best
	stream    bool       // the caller wants events as they come
}

// writer is what an answer is written to: it knows whether that has begun.
type writer interface {
	http.ResponseWriter
	began() bool
}

type exchangeKey struct{}

// exchangeOf finds the exchange of a request; outside of one it is empty, never nil.
func exchangeOf(ctx context.Context) *exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return &exchange{}
}
