package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/store"
)

const (
	headerIdempotencyKey = "Idempotency-Key"
	headerReplayed       = "Idempotent-Replayed"

	// settleTimeout bounds keeping or freeing a key after the answer is known, also when the caller has left.
	settleTimeout = 5 * time.Second
	// inProgressRetry is told to whoever repeats a request that is still being answered.
	inProgressRetry = time.Second
)

// keptHeaders are the headers of an answer that are given again with it.
var keptHeaders = []string{"Content-Type", "Location", "ETag", "Preference-Applied", "Cache-Control"}

type keyStore interface {
	ClaimKey(ctx context.Context, k store.Key, run uuid.UUID) (store.KeyClaim, error)
	SettleKey(ctx context.Context, k store.Key, status int, header map[string]string, body []byte) error
	DropKey(ctx context.Context, k store.Key) error
}

// once carries a request with an Idempotency-Key out at most once.
//
// A crash before the answer is kept leaves the key claimed. If the run that the claim reserved was made, the same request
// finds it at once; if not, it may claim the key again after a minute, with the same reserved run.
func (a *API) once(w http.ResponseWriter, r *http.Request, x *exchange, next http.Handler) {
	key, claim, err := a.claim(r, x)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if !claim.Fresh {
		a.replay(w, claim)
		return
	}
	// What was begun under a key is finished although the caller may leave: who repeats it wants the answer.
	r = r.WithContext(context.WithoutCancel(r.Context()))
	kept := &recorder{header: w.Header(), under: w}
	x.w = kept
	next.ServeHTTP(kept, r)
	a.settle(r.Context(), key, kept)
	w.WriteHeader(kept.status)
	_, _ = w.Write(kept.body.Bytes())
}

func (a *API) claim(r *http.Request, x *exchange) (store.Key, store.KeyClaim, error) {
	values := r.Header.Values(headerIdempotencyKey)
	if len(values) != 1 || values[0] == "" {
		return store.Key{}, store.KeyClaim{}, malformed([]fault.Issue{{
			Parameter: headerIdempotencyKey, Code: "invalid_idempotency_key", Detail: "must be given once, and not be empty",
		}})
	}
	key := store.Key{Tenant: x.tenant, Key: values[0], Route: x.op.method + " " + x.op.path, BodyHash: fingerprint(r, x.body)}
	proposed, err := uuid.NewV7()
	if err != nil {
		return key, store.KeyClaim{}, fmt.Errorf("make run id: %w", err)
	}
	claim, err := a.keys.ClaimKey(r.Context(), key, proposed)
	switch {
	case err != nil:
		return key, claim, err
	case claim.Mismatch:
		a.metrics.Idempotency("mismatch")
		return key, claim, fault.New(fault.KindInvalid, "idempotency_key_reused", "this key was used with another request")
	case claim.InFlight && a.made(r.Context(), x.tenant, claim.Run):
		// Whoever was at it made the run and died, or is about to answer: the answer is known either way.
		a.metrics.Idempotency("replay")
		claim.Fresh, x.run, x.again = true, claim.Run, true
	case claim.InFlight:
		a.metrics.Idempotency("conflict")
		busy := fault.New(fault.KindConflict, "idempotency_in_progress", "the first request with this key is still being answered")
		busy.RetryAfter = inProgressRetry
		return key, claim, busy
	case claim.Fresh:
		a.metrics.Idempotency("new")
		x.run, x.again = claim.Run, claim.Run != proposed
	default:
		a.metrics.Idempotency("replay")
	}
	return key, claim, nil
}

// made reports whether the run that a claim reserved is durable.
func (a *API) made(ctx context.Context, tenant, run uuid.UUID) bool {
	_, err := a.runs.Run(ctx, tenant, run)
	return err == nil
}

// fingerprint tells requests apart: another path, query, media type or body is another request.
func fingerprint(r *http.Request, body []byte) [32]byte {
	h := sha256.New()
	for _, part := range []string{r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Content-Type")} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	h.Write(body)
	return [32]byte(h.Sum(nil))
}

func (a *API) replay(w http.ResponseWriter, claim store.KeyClaim) {
	for name, value := range claim.Header {
		w.Header().Set(name, value)
	}
	w.Header().Set(headerReplayed, "true")
	w.WriteHeader(claim.Status)
	_, _ = w.Write(claim.Body)
}

// settle keeps a good answer, and frees the key of a refused request: that has left nothing behind. After any other
// failure it is open what has happened, so the key stays claimed until its time is over.
func (a *API) settle(ctx context.Context, key store.Key, kept *recorder) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var err error
	switch {
	case kept.status < http.StatusBadRequest:
		header := map[string]string{}
		for _, name := range keptHeaders {
			if value := kept.header.Get(name); value != "" {
				header[name] = value
			}
		}
		err = a.keys.SettleKey(ctx, key, kept.status, header, kept.body.Bytes())
	case kept.status < http.StatusInternalServerError, kept.status == http.StatusServiceUnavailable:
		err = a.keys.DropKey(ctx, key)
	}
	if err != nil { // the answer stands; a repetition will find the key in flight, then the run
		a.log.WarnContext(ctx, "idempotency_key_not_settled", "request_id", exchangeOf(ctx).requestID, "error", err)
	}
}

// recorder holds an answer back until its key is settled.
type recorder struct {
	header http.Header
	under  http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

func (r *recorder) began() bool { return r.status != 0 }

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.under }
