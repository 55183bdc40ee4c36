package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// openAIPrefixes stand before the paths whose callers are clients of OpenAI's API: they read no problem documents. Most of
// them are not here; who asks for them all the same can read why.
var openAIPrefixes = [...]string{
	"/v1/chat/", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations", "/v1/images/", "/v1/audio/", "/v1/models/",
}

// headerShouldRetry is what OpenAI's own clients go by before they repeat a request by themselves.
const headerShouldRetry = "X-Should-Retry"

func speaksOpenAI(path string) bool {
	return slices.ContainsFunc(openAIPrefixes[:], func(p string) bool { return strings.HasPrefix(path, p) })
}

// openAIError is an error as OpenAI's clients read it; its member fermata is ours.
type openAIError struct {
	Message string             `json:"message"`
	Type    string             `json:"type"`
	Param   *string            `json:"param"`
	Code    *string            `json:"code"`
	Fermata openAIErrorDetails `json:"fermata"`
}

type openAIErrorDetails struct {
	Class     string `json:"class,omitempty"` // of a failed model call
	RequestID string `json:"request_id,omitempty"`
	Run       RunID  `json:"run,omitempty"`
	Attempts  []Call `json:"attempts,omitempty"`
}

// openAIErrorBody is an error in its envelope, of an answer or of a chunk.
type openAIErrorBody struct {
	Error openAIError `json:"error"`
}

// errorTypes are the types of OpenAI's errors that do not follow from the status alone being the caller's or ours.
var errorTypes = map[int]string{
	http.StatusUnauthorized:    "authentication_error",
	http.StatusForbidden:       "permission_error",
	http.StatusTooManyRequests: "rate_limit_error",
}

func errorType(status int, code string) string {
	switch {
	case code == codeBudgetExhausted:
		return "insufficient_quota"
	case errorTypes[status] != "":
		return errorTypes[status]
	case status >= http.StatusInternalServerError:
		return "server_error"
	}
	return "invalid_request_error"
}

// The codes that are given in more than one place.
const (
	codeModelNotFound   = "model_not_found"
	codeBudgetExhausted = "budget_exhausted"
	codeUnpricedModel   = "unpriced_model"
)

// wrong is a fault of one parameter; param is its path as OpenAI writes it: messages[2].content.
func wrong(param, format string, args ...any) error {
	e := fault.New(fault.KindMalformed, "invalid_value", format, args...)
	e.Issues = []fault.Issue{{Parameter: param, Code: e.Code, Detail: e.Detail}}
	return e
}

// noModel is what a model's id that means nothing here is answered with.
func noModel(format string, args ...any) error {
	e := fault.New(fault.KindNotFound, codeModelNotFound, format, args...)
	e.Issues = []fault.Issue{{Parameter: "model", Code: e.Code, Detail: e.Detail}}
	return e
}

// classAnswer is what a class of failed model calls is on the wire.
type classAnswer struct {
	status int
	code   string
}

// classAnswers by class; what is not here is 502. What goes wrong between Fermata and a provider (credentials, money) is
// not the caller's fault, and must not look like it.
var classAnswers = map[provider.Class]classAnswer{
	provider.ClassInvalidRequest:     {http.StatusBadRequest, "invalid_request"},
	provider.ClassCapabilityMismatch: {http.StatusBadRequest, "unsupported_value"},
	provider.ClassContextLength:      {http.StatusBadRequest, "context_length_exceeded"},
	provider.ClassContentPolicy:      {http.StatusBadRequest, "content_policy_violation"},
	provider.ClassNotFound:           {http.StatusNotFound, codeModelNotFound},
	provider.ClassBudgetExceeded:     {http.StatusForbidden, codeBudgetExhausted},
	provider.ClassRateLimited:        {http.StatusTooManyRequests, "rate_limit_exceeded"},
	provider.ClassThrottled:          {http.StatusTooManyRequests, "rate_limit_exceeded"},
	provider.ClassUnavailable:        {http.StatusServiceUnavailable, "no_model_available"},
	provider.ClassTimeout:            {http.StatusGatewayTimeout, "timeout"},
	provider.ClassAuth:               {http.StatusBadGateway, "provider_auth_failed"},
	provider.ClassQuotaExhausted:     {http.StatusBadGateway, "provider_quota_exhausted"},
}

// modelError is a failed model call, or a failed run: a refusal, and what it has to show.
type modelError struct {
	refusal *refusal
	class   string
	run     RunID
	calls   []usage.Call
	err     error // logged
}

func (e *modelError) Error() string {
	if e.err == nil {
		return e.refusal.Error()
	}
	return e.err.Error()
}
func (e *modelError) Unwrap() error { return e.refusal }

// callFailed explains why a model call failed. What is no *gateway.FailedError is internal.
func callFailed(err error) error {
	var failed *gateway.FailedError
	if !errors.As(err, &failed) {
		return fmt.Errorf("complete: %w", err)
	}
	out, known := classAnswers[provider.Class(failed.Class)]
	if !known {
		out = classAnswer{http.StatusBadGateway, "all_models_failed"}
	}
	message := failed.Message
	if failed.Budget != nil {
		message = failed.Budget.Error()
		if failed.Budget.Unpriced { // no quota is used up: most likely the name is misspelt
			out = classAnswer{http.StatusForbidden, codeUnpricedModel}
			message = failed.Attempts[len(failed.Attempts)-1].Model + ": " + message
		}
	}
	ref := refuse(out.status, out.code, "%s", message+attemptsText(failed))
	switch out.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		ref.fault.Kind, ref.fault.RetryAfter = fault.KindLimited, failed.RetryAfter
	case http.StatusBadGateway, http.StatusGatewayTimeout: // retries and fallbacks are used up: more of them is a storm
		ref = ref.with(headerShouldRetry, "false")
	}
	return &modelError{refusal: ref, class: failed.Class, calls: failed.Calls, err: err}
}

// attemptsText lists who was tried, where that is more than one.
func attemptsText(failed *gateway.FailedError) string {
	list := failed.Attempts
	if len(list) == 0 {
		for _, c := range failed.Calls {
			list = append(list, gateway.Attempted{Model: modelName(c.Provider, c.Model), Class: c.Class, Asked: true})
		}
	}
	if len(list) < 2 {
		return ""
	}
	parts := make([]string, len(list))
	for i, t := range list {
		parts[i] = t.Model + " " + t.Class
		if !t.Asked {
			parts[i] += " (not asked)"
		}
	}
	return ". Tried: " + strings.Join(parts, ", ")
}

// modelName is a model as a caller may name it.
func modelName(provider, model string) string {
	if provider == "" {
		return model
	}
	return provider + "/" + model
}

// openAIErrorOf puts a problem document into OpenAI's shape. The document has been made with care for what may be shown.
func openAIErrorOf(p Problem, err error) openAIErrorBody {
	e := openAIError{Message: p.Detail, Type: errorType(p.Status, p.Code), Code: &p.Code}
	e.Fermata.RequestID = p.RequestID
	if len(p.Errors) > 0 {
		first := p.Errors[0]
		if param := first.Parameter + paramOf(first.Pointer); param != "" {
			e.Param = &param
		}
		switch {
		case strings.Contains(e.Message, first.Detail):
		case strings.HasPrefix(first.Detail, e.Message):
			e.Message = first.Detail
		default:
			e.Message += ": " + paramOf(first.Pointer) + " " + first.Detail
		}
		if first.Suggest != "" {
			e.Message += fmt.Sprintf("; did you mean %q?", first.Suggest)
		}
	}
	var failed *modelError
	if errors.As(err, &failed) {
		e.Fermata.Class, e.Fermata.Run = failed.class, failed.run
		for _, c := range failed.calls {
			e.Fermata.Attempts = append(e.Fermata.Attempts, callOf(c))
		}
	}
	return openAIErrorBody{Error: e}
}

// paramOf writes a JSON pointer as OpenAI does: /messages/0/role is messages[0].role.
func paramOf(pointer string) string {
	var s strings.Builder
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch _, err := strconv.Atoi(token); {
		case err == nil:
			s.WriteString("[" + token + "]")
		case s.Len() > 0:
			s.WriteString("." + token)
		default:
			s.WriteString(token)
		}
	}
	return s.String()
}

// failOpenAI answers with an error in OpenAI's shape.
func (a *API) failOpenAI(w http.ResponseWriter, r *http.Request, p Problem, header http.Header, err error) {
	a.logOpenAI(r, p, err)
	h := w.Header()
	for key, values := range header {
		h[key] = values
	}
	h.Set("Content-Type", mediaJSON)
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	body := encode(openAIErrorOf(p, err))
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a caller who left cannot be told so
}

// logOpenAI notes what is not the caller's fault: models that fail are the providers', all else is ours.
func (a *API) logOpenAI(r *http.Request, p Problem, err error) {
	var failed *modelError
	switch {
	case p.Status < http.StatusInternalServerError || p.Status == http.StatusServiceUnavailable:
	case errors.As(err, &failed):
		a.log.WarnContext(r.Context(), "models_failed", "request_id", p.RequestID, "class", failed.class, "run_id", failed.run, "error", err)
	default:
		a.log.ErrorContext(r.Context(), "request_failed", "method", r.Method, "path", r.URL.Path, "request_id", p.RequestID, "error", err)
	}
}

// encode gives one line of JSON of a type of our own.
func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil { // strings, numbers and JSON that was read before
		panic(err)
	}
	return append(raw, '\n')
}
