package provider

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// wireError is what an error body says, in whichever of the many shapes it came.
type wireError struct {
	message string
	words   []string // type, code and status, in lower case
	status  int      // a numeric code inside the body
	wait    time.Duration
}

// readError reads an error body: {"error":{…}} (OpenAI, Anthropic, OpenRouter), [{"error":{…}}] (Gemini),
// {"code":…,"error":"text"} (xAI, Ollama), {"message":…} (vLLM, Mistral), {"detail":…} (FastAPI), HTML and plain text.
func readError(body []byte) wireError {
	body = bytes.TrimSpace(body)
	var list []json.RawMessage
	if len(body) > 0 && body[0] == '[' && json.Unmarshal(body, &list) == nil && len(list) > 0 {
		body = list[0]
	}
	var e wireError
	if !e.object(body, 0) {
		e.message = plainText(body)
	}
	return e
}

// object reads an error object and reports whether body is one. Nested ones are looked into: gateways wrap.
func (e *wireError) object(body json.RawMessage, depth int) bool {
	var o map[string]json.RawMessage
	if depth > 3 || json.Unmarshal(body, &o) != nil {
		return false
	}
	for _, name := range []string{"type", "code", "status"} {
		e.word(o[name])
	}
	for _, name := range []string{"message", "error", "detail", "errors", "error_message", "msg"} {
		raw, ok := o[name]
		if !ok {
			continue
		}
		var s string
		switch {
		case json.Unmarshal(raw, &s) == nil:
			if e.message == "" {
				e.message = s
			}
		case e.object(raw, depth+1):
		case e.message == "" && string(raw) != "null":
			e.message = string(raw)
		}
	}
	if raw, ok := o["details"]; ok {
		if wait := retryInfo(raw); wait > 0 {
			e.wait = wait
		}
	}
	var wrapped struct {
		Raw string `json:"raw"` // OpenRouter: the error of the provider behind it
	}
	if raw, ok := o["metadata"]; ok && json.Unmarshal(raw, &wrapped) == nil && wrapped.Raw != "" {
		e.message = strings.TrimSpace(e.message + ": " + wrapped.Raw)
	}
	return true
}

// word notes a type, code or status: a word, a number, or a number in quotes.
func (e *wireError) word(raw json.RawMessage) {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		s = string(raw)
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n >= 400 && n < 600 {
			e.status = n
		}
		return
	}
	if s = strings.ToLower(strings.TrimSpace(s)); s != "" && s != "null" && s != "error" {
		e.words = append(e.words, s)
	}
}

var (
	htmlTags   = regexp.MustCompile(`(?s)<(?:script|style).*?</(?:script|style)>|<[^>]*>`)
	contextual = regexp.MustCompile(`(?i)context.{0,12}(length|window)|maximum context|too many (input )?tokens|prompt is too long|input is too long|exceeds? the (available )?context|input token count.{0,40}exceeds`)
	political  = regexp.MustCompile(`(?i)content.{0,3}(filter|policy|management policy)|safety (system|filter|settings)|flagged (as|by|for)|violat\w+ .{0,30}(policy|policies|usage guidelines)`)
	incapable  = regexp.MustCompile(`(?i)(unsupported|unknown|unrecognized|not supported|does not support|doesn't support|isn't supported|is not available|not permitted|extra inputs).{0,80}(parameter|value|field|argument|response_format|json_schema|stream_options|temperature|max_tokens|max_completion_tokens|model|input|tools?\b|function|images?\b|vision)|(response_format|json_schema|stream_options|temperature|max_tokens|max_completion_tokens|prefill).{0,120}(not supported|unsupported|does not support|unavailable|not available|not permitted|is not allowed|only the default)|no endpoints found that (support|can handle)|tool.?choice requires|(images?|image_url|tools?|tool.?calling|function.?calling|vision|audio).{0,40}(not supported|only supported|unsupported|is unsupported)`)
	penniless  = regexp.MustCompile(`(?i)credit balance|insufficient.{0,3}(quota|credits?|balance|funds)|billing|payment required|spending limit|out of credits`)
	noModel    = regexp.MustCompile(`(?i)model.{0,80}(not found|does not exist|not exist|no longer available|is not available|has been deprecated|decommissioned)|(no such|unknown|invalid) model`)
)

// plainText is what a person would read of a body that is not JSON.
func plainText(body []byte) string {
	s := string(body[:min(len(body), 8<<10)])
	if strings.Contains(s, "<") {
		s = htmlTags.ReplaceAllString(s, " ")
	}
	return strings.TrimSpace(s)
}

// words that providers use for the classes, in type, code or status. What only says "the request is wrong"
// (invalid_request_error) is not here: the status and the text say more.
var classOfWord = map[string]Class{
	"insufficient_quota": ClassQuotaExhausted, "billing_hard_limit_reached": ClassQuotaExhausted, "billing_not_active": ClassQuotaExhausted,
	"billing_error": ClassQuotaExhausted, "insufficient_credits": ClassQuotaExhausted, "quota_exceeded": ClassQuotaExhausted,
	"rate_limit_exceeded": ClassRateLimited, "rate_limit_error": ClassRateLimited, "rate_limited": ClassRateLimited,
	"resource_exhausted": ClassRateLimited, "too_many_requests": ClassRateLimited, "requests": ClassRateLimited, "tokens": ClassRateLimited,
	"overloaded_error": ClassOverloaded, "overloaded": ClassOverloaded, "server_overloaded": ClassOverloaded,
	"engine_overloaded": ClassOverloaded, "unavailable": ClassOverloaded, "service_unavailable": ClassOverloaded, "slow_down": ClassOverloaded,
	"context_length_exceeded": ClassContextLength, "string_above_max_length": ClassContextLength, "request_too_large": ClassContextLength,
	"content_filter": ClassContentPolicy, "content_policy_violation": ClassContentPolicy, "moderation_blocked": ClassContentPolicy, "safety": ClassContentPolicy,
	"invalid_api_key": ClassAuth, "authentication_error": ClassAuth, "permission_error": ClassAuth, "permission_denied": ClassAuth,
	"unauthenticated": ClassAuth, "account_deactivated": ClassAuth,
	"model_not_found": ClassNotFound, "not_found_error": ClassNotFound, "not_found": ClassNotFound, "model_not_available": ClassNotFound,
	"unsupported_parameter": ClassCapabilityMismatch, "unsupported_value": ClassCapabilityMismatch, "unsupported_model": ClassCapabilityMismatch,
	"tool_use_failed": ClassStreamInterrupted, "json_validate_failed": ClassStreamInterrupted, // Groq: the model wrote what is no tool call, no JSON
	"api_error": ClassServer, "server_error": ClassServer, "internal_server_error": ClassServer, "internal": ClassServer, "timeout_error": ClassServer,
}

// classify decides from the status, the provider's own words and, where those say little, the text. Status is the
// HTTP status, or 200 for an error inside a successful answer.
func classify(status int, e wireError) Class {
	if status < 400 && e.status != 0 {
		status = e.status
	}
	if status != 429 || !penniless.MatchString(e.message) || e.wait > 0 {
		for _, w := range e.words {
			if c, ok := classOfWord[w]; ok && !(c == ClassServer && status >= 400 && status < 500) {
				return c
			}
		}
	}
	switch {
	case status == 401:
		return ClassAuth
	case status == 403: // also xAI's answer to policy and to money
		return classifyText(e.message, ClassAuth)
	case status == 402:
		return ClassQuotaExhausted
	case status == 404 && incapable.MatchString(e.message):
		return ClassCapabilityMismatch
	case status == 404:
		return ClassNotFound
	case status == 413:
		return ClassContextLength
	case status == 429 && penniless.MatchString(e.message) && e.wait == 0:
		return ClassQuotaExhausted
	case status == 429:
		return ClassRateLimited
	case status == 408, status == 409, status == 425:
		return ClassServer
	case status == 503, status == 529:
		return ClassOverloaded
	case status >= 500:
		return ClassServer
	case status >= 400:
		return classifyText(e.message, ClassInvalidRequest)
	case status >= 300:
		return ClassNotFound
	}
	return classifyText(e.message, ClassServer)
}

// classifyText is for errors of which only the text says more than "wrong".
func classifyText(message string, otherwise Class) Class {
	switch {
	case contextual.MatchString(message):
		return ClassContextLength
	case penniless.MatchString(message):
		return ClassQuotaExhausted
	case political.MatchString(message):
		return ClassContentPolicy
	case noModel.MatchString(message):
		return ClassNotFound
	case incapable.MatchString(message):
		return ClassCapabilityMismatch
	case strings.Contains(strings.ToLower(message), "overloaded"):
		return ClassOverloaded
	}
	return otherwise
}
