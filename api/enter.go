package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/go-chi/chi/v5"

	"github.com/fermata-run/fermata/internal/fault"
)

const (
	mediaJSON        = "application/json"
	mediaYAML        = "application/yaml"
	mediaEventStream = "text/event-stream"
	mediaCSV         = "text/csv"
)

// enter stands between the router and every operation: it lets in by policy, and only what the spec allows.
func (a *API) enter(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		if err := a.check(w, r, x); err != nil {
			a.fail(w, r, err)
			return
		}
		if x.op.keyed && len(r.Header.Values(headerIdempotencyKey)) > 0 {
			a.once(w, r, x, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) check(w http.ResponseWriter, r *http.Request, x *exchange) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if x.op = a.operations[method+" "+chi.RouteContext(r.Context()).RoutePattern()]; x.op == nil {
		return fmt.Errorf("route %s %s has no operation", method, chi.RouteContext(r.Context()).RoutePattern())
	}
	who, err := a.authenticate(r)
	if err != nil && x.op.policy != scopePublic {
		return err
	}
	if err := admit(who, x.op); err != nil {
		return err
	}
	x.tenant = who.tenant
	media, err := negotiate(r, x.op.answers)
	if err != nil {
		return err
	}
	x.media = media
	x.stream = media == mediaEventStream && r.Method != http.MethodHead
	query := r.URL.Query()
	if err := checkQuery(r.URL.RawQuery, query, x.op); err != nil {
		return err
	}
	if err := checkParameters(r, query, x.op); err != nil {
		return err
	}
	return readBody(w, r, x)
}

// checkQuery refuses parameters that the operation does not know: a misspelt filter must not list everything.
func checkQuery(raw string, query url.Values, op *operation) error {
	if raw == "" {
		return nil
	}
	if _, err := url.ParseQuery(raw); err != nil {
		return fault.New(fault.KindMalformed, "invalid_query", "the query string cannot be read")
	}
	var list []fault.Issue
	for name, values := range query {
		switch {
		case !slices.Contains(op.query, name):
			list = append(list, fault.Issue{
				Parameter: clip(name), Code: "unknown_parameter",
				Detail: fmt.Sprintf("unknown parameter %q", clip(name)), Suggest: fault.Nearest(name, op.query),
			})
		case len(values) > 1:
			list = append(list, fault.Issue{Parameter: name, Code: "repeated_parameter", Detail: fmt.Sprintf("%q may be given once", name)})
		}
	}
	return malformed(list)
}

// checkParameters validates path, query and header against the spec.
func checkParameters(r *http.Request, query url.Values, op *operation) error {
	params := chi.RouteContext(r.Context()).URLParams
	path := make(map[string]string, len(params.Keys))
	for i, key := range params.Keys {
		value := params.Values[i]
		if r.URL.RawPath != "" {
			plain, err := url.PathUnescape(value)
			if err != nil {
				return fault.New(fault.KindMalformed, "invalid_path", "the path cannot be read")
			}
			value = plain
		}
		path[key] = value
	}
	err := openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: r, PathParams: path, QueryParams: query, Route: op.spec, Options: &parameterOptions,
	})
	if err == nil {
		return nil
	}
	var list []fault.Issue
	for _, e := range flatten(err) {
		list = append(list, parameterIssue(e))
	}
	return malformed(list)
}

var parameterOptions = openapi3filter.Options{MultiError: true, ExcludeRequestBody: true, SkipSettingDefaults: true}

// parameterCodes are of the parameters whose faults have a code of their own.
var parameterCodes = map[string]string{"id": "invalid_id", "cursor": "invalid_cursor", headerIdempotencyKey: "invalid_idempotency_key"}

func parameterIssue(err error) fault.Issue {
	issue := fault.Issue{Code: "invalid_parameter", Detail: "cannot be read"}
	var req *openapi3filter.RequestError
	if !errors.As(err, &req) || req.Parameter == nil {
		return issue
	}
	issue.Parameter = req.Parameter.Name
	if code := parameterCodes[issue.Parameter]; code != "" {
		issue.Code = code
	}
	var bad *openapi3.SchemaError
	switch {
	case errors.As(req.Err, &bad):
		issue.Detail = reasonOf(bad)
	case errors.Is(req.Err, openapi3filter.ErrInvalidRequired), errors.Is(req.Err, openapi3filter.ErrInvalidEmptyValue):
		issue.Detail = req.Reason
	case req.Parameter.Schema != nil && req.Parameter.Schema.Value.Type != nil:
		issue.Detail = "must be of type " + strings.Join(req.Parameter.Schema.Value.Type.Slice(), " or ")
	}
	return issue
}

// malformed makes one fault of what is wrong with a request, or none; map orders do not show.
func malformed(list []fault.Issue) error {
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b fault.Issue) int {
		return strings.Compare(a.Pointer+a.Parameter, b.Pointer+b.Parameter)
	})
	first := list[0]
	e := fault.New(fault.KindMalformed, first.Code, "%s", first.Parameter+first.Pointer+": "+first.Detail)
	e.Issues = list
	return e
}

// flatten lists the single errors of the validator's nested ones. One parameter is one error, whatever its reasons.
func flatten(err error) []error {
	several, ok := err.(openapi3.MultiError) //nolint:errorlint // the list itself, not one somewhere inside
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range several {
		list = append(list, flatten(e)...)
	}
	return list
}

// readBody reads the body once, strictly, and hands it on to whoever decodes it.
func readBody(w http.ResponseWriter, r *http.Request, x *exchange) error {
	op := x.op
	if len(op.bodies) == 0 {
		return nil
	}
	raw, err := readAll(w, r, op.bodyMax)
	if err != nil {
		return err
	}
	if len(raw) == 0 && !op.bodyRequired {
		r.Body = http.NoBody
		return nil
	}
	media, err := contentType(r, op)
	if err != nil {
		return err
	}
	if len(raw) == 0 {
		return fault.New(fault.KindMalformed, "body_required", "this operation needs a body")
	}
	r.Header.Set("Content-Type", media)
	r.Body = io.NopCloser(bytes.NewReader(raw))
	x.body = raw
	if media != mediaJSON {
		return checkEncoding(raw)
	}
	schema := op.bodies[media]
	value, err := readStrict(raw, schema)
	if err != nil {
		return err
	}
	if err := schema.VisitJSON(value, openapi3.MultiErrors(), openapi3.VisitAsRequest()); err != nil {
		return schemaFault(raw, err)
	}
	return nil
}

func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	tooLarge := func() error {
		return (&refusal{fault: fault.New(fault.KindTooLarge, "body_too_large", "the body is larger than %d bytes", limit)}).with("Connection", "close")
	}
	if r.ContentLength > limit {
		return nil, tooLarge()
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge()
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "body_unreadable", "the body ended before its announced length, or came too slowly").with("Connection", "close")
	}
	return buf.Bytes(), nil
}

// contentType gives the media type of a body the operation takes.
func contentType(r *http.Request, op *operation) (string, error) {
	accepted := make([]string, 0, len(op.bodies))
	for media := range op.bodies {
		accepted = append(accepted, media)
	}
	slices.Sort(accepted)
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	encoding := strings.ToLower(r.Header.Get("Content-Encoding"))
	if err != nil || op.bodies[media] == nil || charset != "" && charset != "utf-8" || encoding != "" && encoding != "identity" {
		return "", refuse(http.StatusUnsupportedMediaType, "unsupported_media_type",
			"the Content-Type must be %s, in plain UTF-8", strings.Join(accepted, " or ")).with("Accept-Post", strings.Join(accepted, ", "))
	}
	return media, nil
}

// schemaCodes say which keyword of a schema was not met.
var schemaCodes = map[string]string{
	"type": "wrong_type", "nullable": "wrong_type", "required": "missing_field", "enum": "unknown_value", "pattern": "invalid_format",
	"format": "invalid_format", "minProperties": "missing_field", "minItems": "missing_field",
	"minimum": "out_of_range", "maximum": "out_of_range", "minLength": "too_short", "maxLength": "too_long",
	"maxProperties": "too_many", "maxItems": "too_many",
}

// reasonOf says why a schema was not met; of times in words, as the validator shows its pattern.
func reasonOf(e *openapi3.SchemaError) string {
	if e.SchemaField == "format" && e.Schema != nil && e.Schema.Format == "date-time" {
		return "must be a time like 2026-03-01T09:30:00Z"
	}
	if e.SchemaField == "pattern" && e.Schema != nil { // a regular expression is no answer to a person
		if len(e.Schema.Examples) > 0 {
			return fmt.Sprintf("must look like %v", e.Schema.Examples[0])
		}
		return "is not of the form " + e.Schema.Pattern
	}
	return e.Reason
}

// schemaFault says what the body's schema was not met with: pointers and reasons, never what was sent.
func schemaFault(raw []byte, err error) error {
	var list []fault.Issue
	for _, e := range flatten(err) {
		issue := fault.Issue{Code: "invalid_body", Detail: "does not meet the schema"}
		var bad *openapi3.SchemaError
		if errors.As(e, &bad) {
			for _, key := range bad.JSONPointer() {
				issue.Pointer += "/" + pointerToken(key)
			}
			issue.Detail = reasonOf(bad)
			if code := schemaCodes[bad.SchemaField]; code != "" {
				issue.Code = code
			}
		}
		if at := locate(raw, issue.Pointer); at >= 0 {
			issue.Line, issue.Col = position(raw, at)
		}
		list = append(list, issue)
	}
	return malformed(list)
}

func pointerToken(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }
