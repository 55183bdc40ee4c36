package provider

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// anthropicLimits reads anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}. The
// times of reset are RFC 3339; they are taken against the answer's own Date, so that our clock does not matter.
func anthropicLimits(h http.Header, now time.Time) Limits {
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return Limits{
		Requests:     anthropicLimit(h, "requests", now),
		Tokens:       anthropicLimit(h, "tokens", now),
		InputTokens:  anthropicLimit(h, "input-tokens", now),
		OutputTokens: anthropicLimit(h, "output-tokens", now),
	}
}

// anthropicLimit reads one limit. Without a maximum nothing is said of it.
func anthropicLimit(h http.Header, of string, now time.Time) Limit {
	read := func(what string) string { return strings.TrimSpace(h.Get("anthropic-ratelimit-" + of + "-" + what)) }
	most, err := strconv.ParseInt(read("limit"), 10, 64)
	if err != nil || most <= 0 {
		return Limit{}
	}
	l := Limit{Max: most, Left: most}
	if left, err := strconv.ParseInt(read("remaining"), 10, 64); err == nil {
		l.Left = min(max(left, 0), most)
	}
	if at, err := time.Parse(time.RFC3339, read("reset")); err == nil {
		l.Reset = min(max(at.Sub(now), 0), RetryAfterMax)
	}
	return l
}

// anthropicWait is how long until everything that is used up is there again; 0: not told.
func anthropicWait(l Limits) time.Duration {
	var wait time.Duration
	for _, one := range []Limit{l.Requests, l.Tokens, l.InputTokens, l.OutputTokens} {
		if one.Max > 0 && one.Left == 0 {
			wait = max(wait, one.Reset)
		}
	}
	return wait
}
