package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
)

// problemTypeBase stands before a problem's code in its type.
const problemTypeBase = "https://fermata.run/problems/"

// statusClientGone is what the access log shows of a caller who left before the answer; nobody reads it.
const statusClientGone = 499

// retryDefault is told to callers who may try again where nobody knows when.
const retryDefault = time.Second

// statuses of the kinds of fault: the only place where they meet.
var statuses = map[fault.Kind]int{
	fault.KindInternal:    http.StatusInternalServerError,
	fault.KindMalformed:   http.StatusBadRequest,
	fault.KindInvalid:     http.StatusUnprocessableEntity,
	fault.KindNotFound:    http.StatusNotFound,
	fault.KindConflict:    http.StatusConflict,
	fault.KindTooLarge:    http.StatusRequestEntityTooLarge,
	fault.KindLimited:     http.StatusTooManyRequests,
	fault.KindUnavailable: http.StatusServiceUnavailable,
}

// refusal is a fault that HTTP has a status of its own for, or more to say about than a fault can.
type refusal struct {
	fault   *fault.Error
	status  int           // 0: by the fault's kind
	state   string        // of a conflict: what the thing is
	actions []string      // of a conflict: what can be done with it
	budget  BudgetRefusal // of a budget that has no money for it
	header  http.Header   // goes out with the answer
}

func (r *refusal) Error() string { return r.fault.Error() }
func (r *refusal) Unwrap() error { return r.fault }

// refuse makes a refusal with a status of its own.
func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{fault: fault.New(fault.KindMalformed, code, format, args...), status: status}
}

func (r *refusal) with(key, value string) *refusal {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Add(key, value)
	return r
}

// explain turns an error into its problem document. What has no kind is internal: its text is not shown.
func explain(r *http.Request, err error) (Problem, http.Header) {
	var ref *refusal
	if !errors.As(err, &ref) {
		ref = &refusal{fault: fault.Of(err)}
	}
	f := ref.fault
	switch {
	case f != nil && f.Kind != fault.KindInternal:
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		ref.status, f = statusClientGone, fault.New(fault.KindMalformed, "client_gone", "the caller went away before the answer")
	default:
		f = fault.New(fault.KindInternal, "internal", "something went wrong inside; the log has the details under this request id")
	}
	status := ref.status
	if status == 0 {
		status = statuses[f.Kind]
	}
	p := Problem{
		Type: problemTypeBase + f.Code, Title: title(status), Status: status, Code: f.Code, Detail: f.Detail,
		Instance: r.URL.EscapedPath(), RequestID: exchangeOf(r.Context()).requestID,
		State: ref.state, Actions: ref.actions, Budget: ref.budget, Errors: issues(f.Issues),
	}
	if wait := f.RetryAfter; wait > 0 || f.Kind == fault.KindLimited || f.Kind == fault.KindUnavailable {
		if wait <= 0 {
			wait = retryDefault
		}
		p.Retryable, p.RetryAfter = true, int(math.Ceil(wait.Seconds()))
	}
	return p, ref.header
}

func title(status int) string {
	if t := http.StatusText(status); t != "" {
		return t
	}
	return "Client Closed Request"
}

func issues(list []fault.Issue) []Issue {
	list = list[:min(len(list), fault.IssuesMax)]
	out := make([]Issue, len(list))
	for i, f := range list {
		out[i] = Issue{Pointer: f.Pointer, Parameter: f.Parameter, Code: f.Code, Detail: f.Detail, Line: f.Line, Col: f.Col, Suggest: f.Suggest}
	}
	return out
}

// fail answers with the problem document of err: every answer ≥ 400 is written here.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if x := exchangeOf(r.Context()); x.w != nil && x.w.began() { // it broke while it was written: the caller left
		a.log.DebugContext(r.Context(), "answer_broken", "request_id", x.requestID, "error", err)
		return
	}
	p, header := explain(r, err)
	if speaksOpenAI(r.URL.Path) {
		a.failOpenAI(w, r, p, header, err)
		return
	}
	if p.Status >= http.StatusInternalServerError && p.Status != http.StatusServiceUnavailable {
		a.log.ErrorContext(r.Context(), "request_failed", "method", r.Method, "path", r.URL.Path, "request_id", p.RequestID, "error", err)
	}
	h := w.Header()
	for key, values := range header {
		h[key] = values
	}
	for _, stale := range []string{"ETag", "Location", "Preference-Applied"} {
		h.Del(stale)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers only
		panic(err)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // a caller who left cannot be told so
}

// failBinding answers for what the generated code cannot read although the spec's validator could.
func (a *API) failBinding(w http.ResponseWriter, r *http.Request, err error) {
	a.log.WarnContext(r.Context(), "binding_failed", "request_id", exchangeOf(r.Context()).requestID, "error", err)
	f := fault.New(fault.KindMalformed, "invalid_request", "the request cannot be read")
	var format *InvalidParamFormatError
	var several *TooManyValuesForParamError
	switch {
	case errors.As(err, &format):
		f.Issues = []fault.Issue{{Parameter: format.ParamName, Code: "invalid_parameter", Detail: "cannot be read"}}
	case errors.As(err, &several):
		f.Issues = []fault.Issue{{Parameter: several.ParamName, Code: "repeated_parameter", Detail: "may be given once"}}
	}
	a.fail(w, r, f)
}
