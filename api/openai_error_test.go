package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// openAIErrorIn reads an error as a client of OpenAI's API does.
func openAIErrorIn(t fataler, a *answered) openAIError {
	t.Helper()
	var body openAIErrorBody
	a.json(&body)
	return body.Error
}

// checkOpenAIError holds every error of the paths for OpenAI's clients against what those read.
func checkOpenAIError(t fataler, req *http.Request, a *answered) {
	t.Helper()
	e := openAIErrorIn(t, a)
	bad := ""
	switch {
	case a.header.Get("Content-Type") != mediaJSON:
		bad = "the media type is not JSON"
	case e.Message == "" || e.Type == "" || e.Code == nil || *e.Code == "":
		bad = "something is missing"
	case !strings.Contains(string(a.body), `"param":`):
		bad = "param is missing"
	case e.Fermata.RequestID != a.header.Get("Request-Id"):
		bad = "the request id differs"
	case (a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable) && a.header.Get("Retry-After") == "":
		bad = "it does not say when to try again"
	case a.status >= 500 && e.Type != "server_error":
		bad = "the type blames the caller"
	}
	if bad != "" {
		t.Fatalf("%s %s: %s: %v %s", req.Method, req.URL, bad, a.header, a.body)
	}
}

const hello = `{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}`

// Everything that a request can be refused for on its way in has OpenAI's shape.
func TestChatRefusals(t *testing.T) {
	s, _ := newChat(t, nil)
	big := strings.Repeat("x", bodyChatBytesMax)
	for _, c := range []struct {
		name, method, path string
		body               any
		headers            []string
		status             int
		code, param        string
	}{
		{"wrong method", "GET", "/v1/chat/completions", nil, nil, 405, "method_not_allowed", ""},
		{"no such path", "POST", "/v1/chat/nothing", `{}`, nil, 404, "route_not_found", ""},
		{"too large", "POST", "/v1/chat/completions", `{"model":"` + big + `"}`, nil, 413, "body_too_large", ""},
		{"not JSON by its type", "POST", "/v1/chat/completions", hello, []string{"Content-Type: text/plain"}, 415, "unsupported_media_type", ""},
		{"not acceptable", "POST", "/v1/chat/completions", hello, []string{"Accept: text/html"}, 406, "not_acceptable", ""},
		{"no body", "POST", "/v1/chat/completions", "", nil, 400, "body_required", ""},
		{"not JSON", "POST", "/v1/chat/completions", `{"model":`, nil, 400, "json_syntax", "model"},
		{"not an object", "POST", "/v1/chat/completions", `[]`, nil, 400, "json_type", ""},
		{"no model", "POST", "/v1/chat/completions", `{"messages":[]}`, nil, 400, "missing_field", "model"},
		{"no messages", "POST", "/v1/chat/completions", `{"model":"gpt-4o"}`, nil, 400, "missing_field", "messages"},
		{"model is no text", "POST", "/v1/chat/completions", `{"model":7,"messages":[]}`, nil, 400, "wrong_type", "model"},
		{"bad header", "POST", "/v1/chat/completions", hello, []string{"Fermata-Restart: yes"}, 400, "invalid_parameter", "Fermata-Restart"},
		{"bad key", "POST", "/v1/chat/completions", hello, []string{"Idempotency-Key: "}, 400, "invalid_idempotency_key", "Idempotency-Key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.send(t, c.method, c.path, c.body, c.headers...).want(c.status)
			e := openAIErrorIn(t, a)
			param := ""
			if e.Param != nil {
				param = *e.Param
			}
			if *e.Code != c.code || param != c.param || e.Type != "invalid_request_error" {
				t.Errorf("got %s, want %s about %q", a.body, c.code, c.param)
			}
		})
	}
}

func TestChatScope(t *testing.T) {
	if got := errorType(401, "unauthenticated"); got != "authentication_error" {
		t.Errorf("401 is of type %s", got)
	}
	if got := errorType(403, "insufficient_scope"); got != "permission_error" {
		t.Errorf("403 is of type %s", got)
	}
}

// Each class of failure has its status, type and code; what is wrong with our credentials is not the caller's fault.
func TestChatFailures(t *testing.T) {
	two := []usage.Call{
		{Provider: "openai", Model: "gpt-4o", Class: "overloaded", Message: "busy", Try: 1, Millis: 12, Cost: 1000},
		{Provider: "xai", Model: "grok-3", Class: "auth", Message: "key refused", Depth: 1, Try: 1, Millis: 3},
	}
	for _, c := range []struct {
		class      provider.Class
		wait       time.Duration
		status     int
		kind, code string
		repeat     string // X-Should-Retry
	}{
		{provider.ClassInvalidRequest, 0, 400, "invalid_request_error", "invalid_request", ""},
		{provider.ClassCapabilityMismatch, 0, 400, "invalid_request_error", "unsupported_value", ""},
		{provider.ClassContextLength, 0, 400, "invalid_request_error", "context_length_exceeded", ""},
		{provider.ClassContentPolicy, 0, 400, "invalid_request_error", "content_policy_violation", ""},
		{provider.ClassNotFound, 0, 404, "invalid_request_error", "model_not_found", ""},
		{provider.ClassBudgetExceeded, 0, 403, "insufficient_quota", "budget_exhausted", ""},
		{provider.ClassRateLimited, 2500 * time.Millisecond, 429, "rate_limit_error", "rate_limit_exceeded", ""},
		{provider.ClassThrottled, 0, 429, "rate_limit_error", "rate_limit_exceeded", ""},
		{provider.ClassUnavailable, 7 * time.Second, 503, "server_error", "no_model_available", ""},
		{provider.ClassTimeout, 0, 504, "server_error", "timeout", "false"},
		{provider.ClassAuth, 0, 502, "server_error", "provider_auth_failed", "false"},
		{provider.ClassQuotaExhausted, 0, 502, "server_error", "provider_quota_exhausted", "false"},
		{provider.ClassOverloaded, 0, 502, "server_error", "all_models_failed", "false"},
		{provider.ClassServer, 0, 502, "server_error", "all_models_failed", "false"},
		{provider.ClassNetwork, 0, 502, "server_error", "all_models_failed", "false"},
		{provider.ClassStreamInterrupted, 0, 502, "server_error", "all_models_failed", "false"},
		{provider.ClassLowConfidence, 0, 502, "server_error", "all_models_failed", "false"},
		{"a class to come", 0, 502, "server_error", "all_models_failed", "false"},
	} {
		t.Run(string(c.class), func(t *testing.T) {
			s, _ := newChat(t, func(context.Context, gateway.Request) (gateway.Answer, error) {
				return gateway.Answer{}, &gateway.FailedError{Class: string(c.class), Message: "gpt-4o: no", RetryAfter: c.wait, Calls: two}
			})
			for _, body := range []string{hello, strings.Replace(hello, "{", `{"stream":true,`, 1)} { // before anything is told, a stream fails alike
				a := s.send(t, "POST", "/v1/chat/completions", body).want(c.status)
				e := openAIErrorIn(t, a)
				if e.Type != c.kind || *e.Code != c.code || e.Fermata.Class != string(c.class) || a.header.Get("X-Should-Retry") != c.repeat {
					t.Errorf("got %v %s", a.header, a.body)
				}
				if !strings.Contains(e.Message, "Tried: openai/gpt-4o overloaded, xai/grok-3 auth") || len(e.Fermata.Attempts) != 2 {
					t.Errorf("the attempts are not told: %s", a.body)
				}
				if want := map[time.Duration]string{2500 * time.Millisecond: "3", 7 * time.Second: "7"}[c.wait]; want != "" && a.header.Get("Retry-After") != want {
					t.Errorf("Retry-After is %q, want %s", a.header.Get("Retry-After"), want)
				}
			}
		})
	}
}

func TestChatBudgetIsExplained(t *testing.T) {
	s, _ := newChat(t, func(context.Context, gateway.Request) (gateway.Answer, error) {
		return gateway.Answer{}, &gateway.FailedError{
			Class: "budget_exceeded", Message: "refused",
			Budget: &gateway.BudgetError{Budget: "team", Scope: "label team=a", Limit: usage.USD, Spent: usage.USD, Need: 5_000_000},
		}
	})
	e := openAIErrorIn(t, s.send(t, "POST", "/v1/chat/completions", hello).want(403))
	if !strings.Contains(e.Message, `budget "team" (label team=a) is exhausted: spent $1.00`) {
		t.Errorf("got %q", e.Message)
	}
}

// Of an error that is no failed call nothing is shown.
func TestChatHidesInternalErrors(t *testing.T) {
	s, _ := newChat(t, func(context.Context, gateway.Request) (gateway.Answer, error) {
		return gateway.Answer{}, errors.New("sk-canary")
	})
	a := s.send(t, "POST", "/v1/chat/completions", hello).want(500)
	if e := openAIErrorIn(t, a); *e.Code != "internal" || strings.Contains(string(a.body), "canary") {
		t.Errorf("got %s", a.body)
	}
	if !strings.Contains(s.log.String(), "canary") {
		t.Error("the log does not have it")
	}
}

func TestChatWithoutModels(t *testing.T) {
	s := newService(t, func(c *Config) { c.Gateway = nil })
	if e := openAIErrorIn(t, s.send(t, "POST", "/v1/chat/completions", hello).want(404)); *e.Code != "model_not_found" {
		t.Errorf("got %+v", e)
	}
}

func TestParamOf(t *testing.T) {
	for pointer, want := range map[string]string{"": "", "/model": "model", "/messages/0/role": "messages[0].role", "/a~1b/~0": "a/b.~"} {
		if got := paramOf(pointer); got != want {
			t.Errorf("%s is %q, want %q", pointer, got, want)
		}
	}
}

// Whatever a body holds, reading it gives a request or an error of the caller's: never a panic.
func FuzzReadChat(f *testing.F) {
	f.Add(hello)
	f.Add(`{"messages":[{"role":"tool","content":[{"type":"text"}],"tool_calls":[{}]}],"tools":[{}],"stop":["a"],"tool_choice":{}}`)
	f.Add(`{"messages":[{"role":"user","content":{"a":1}}],"metadata":{"input":"{"},"response_format":{"type":"json_schema"}}`)
	f.Fuzz(func(t *testing.T, body string) {
		if !json.Valid([]byte(body)) {
			return
		}
		req, err := readChat([]byte(body))
		if err != nil {
			return
		}
		if ask, err := req.ask(); err == nil && len(ask.Messages) == 0 {
			t.Errorf("nothing is asked: %s", body)
		}
		if _, err := req.labels(); err != nil {
			return
		}
		if input, err := req.input(nil); err == nil && !json.Valid(input) {
			t.Errorf("the input is not JSON: %s", input)
		}
	})
}
