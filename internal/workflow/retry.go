package workflow

import (
	"slices"
	"time"
)

var (
	retryKeys   = keySet{known: []string{"max_attempts", "backoff", "classes", "feedback"}}
	backoffKeys = keySet{known: []string{"initial", "factor", "max", "jitter"}}
)

// Limits of retries.
const (
	BackoffMax       = 24 * time.Hour
	BackoffFactorMax = 100.0
)

// errorClasses are the error classes and groups that retry and on_error may name.
var errorClasses = []string{
	"any", "transient",
	"invalid_request", "capability_mismatch", "auth", "not_found", "quota_exhausted", "rate_limited", "overloaded", "server",
	"network", "timeout", "stream_interrupted", "context_length", "content_policy", "output_truncated", "invalid_output",
	"low_confidence", "budget_exceeded", "gateway_throttled", "unavailable", "unknown", "tool_error", "expression", "internal",
	"gate_failed", "needs_decision", "rejected", "expired", "exhausted", "too_few", "no_quorum", "child_failed",
}

// classesApart are known, too, but nothing may be done about them: a cancelled step is not taken up again, and what may
// have happened to the world is for a person to find out.
var classesApart = []string{"cancelled", "outcome_unknown"}

// classGroups are the words that stand for several classes; any is all of them.
var classGroups = map[string][]string{
	"transient": {"rate_limited", "overloaded", "server", "network", "timeout", "stream_interrupted", "gateway_throttled", "unavailable"},
}

// Covers reports whether a list of error classes and groups has a class in it. None has cancelled and outcome_unknown.
func Covers(classes []string, class string) bool {
	return !slices.Contains(classesApart, class) && slices.ContainsFunc(classes, func(c string) bool {
		return c == class || c == "any" || slices.Contains(classGroups[c], class)
	})
}

// retryOver lays a retry value over another, field by field.
func (c *compiler) retryOver(base Retry, n *node) Retry {
	if n == nil || n.kind == nodeBad {
		return base
	}
	if n.kind == nodeText && n.text == "none" {
		base.MaxAttempts = 1
		return base
	}
	if n.kind != nodeObject {
		c.p.add(n.spot(), codeType, `must be an object or "none", not %s`, n.kind)
		return base
	}
	c.p.object(n, "retry", retryKeys)
	base.MaxAttempts = c.p.integer(n.get("max_attempts"), 1, AttemptsMax, base.MaxAttempts)
	if v := n.get("feedback"); c.p.kind(v, nodeBool) {
		base.Feedback = v.text == "true"
	}
	if v := n.get("classes"); c.p.kind(v, nodeList) {
		base.Classes = c.classes(v, "retried")
	}
	if v := n.get("backoff"); v != nil && c.p.object(v, "backoff", backoffKeys) {
		base = c.backoffOver(base, v)
	}
	return base
}

func (c *compiler) backoffOver(base Retry, n *node) Retry {
	base.Initial = c.p.duration(n.get("initial"), BackoffMax, base.Initial)
	base.Factor = c.p.number(n.get("factor"), 1, BackoffFactorMax, base.Factor)
	base.Max = c.p.duration(n.get("max"), BackoffMax, base.Max)
	if v := n.get("jitter"); v != nil {
		base.Jitter = c.p.oneOf(v, "full", "none") != "none"
	}
	if base.Max < base.Initial {
		if n.get("max") != nil {
			c.p.add(n.get("max").spot(), codeValue, "the backoff's max (%s) is less than its initial (%s)", formatDuration(base.Max), formatDuration(base.Initial))
		}
		base.Max = base.Initial
	}
	return base
}

// classes reads a list of error classes and groups; apart is what is said of those that are in none.
func (c *compiler) classes(n *node, apart string) []string {
	classes := []string{}
	for _, item := range n.items {
		name := c.p.word(item)
		switch {
		case name == "" || slices.Contains(classes, name):
		case slices.Contains(classesApart, name):
			c.p.add(item.spot(), codeValue, "%q is never %s", name, apart)
		case !slices.Contains(errorClasses, name):
			tail, edit := didYouMean(name, errorClasses)
			c.p.suggest(item.spot(), edit, codeValue, "there is no error class %q%s", clip(name), tail)
		default:
			classes = append(classes, name)
		}
	}
	return classes
}
