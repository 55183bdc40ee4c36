package provider

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// limitHeaders are the names of rate-limit headers; {} is limit, remaining or reset. OpenAI, xAI, Groq, Fireworks and
// others use the first, Mistral the second, Together the third.
var limitHeaders = struct{ requests, tokens []string }{
	requests: []string{"x-ratelimit-{}-requests", "x-ratelimit-{}-req-minute", "x-ratelimit-{}"},
	tokens:   []string{"x-ratelimit-{}-tokens", "x-ratelimit-{}-tokens-minute", "x-tokenlimit-{}"},
}

// rateLimits reads what the headers of an answer tell of the credential's limits.
func rateLimits(h http.Header, now time.Time) Limits {
	return Limits{Requests: rateLimit(h, limitHeaders.requests, now), Tokens: rateLimit(h, limitHeaders.tokens, now)}
}

func rateLimit(h http.Header, names []string, now time.Time) Limit {
	for _, name := range names {
		read := func(what string) string { return strings.TrimSpace(h.Get(strings.ReplaceAll(name, "{}", what))) }
		most, err := strconv.ParseFloat(read("limit"), 64)
		if err != nil || !(most >= 1) { // NaN neither
			continue
		}
		l := Limit{Max: int64(min(most, limitMax)), Reset: resetAfter(read("reset"), now)}
		l.Left = l.Max
		if left, err := strconv.ParseFloat(read("remaining"), 64); err == nil && left == left {
			l.Left = int64(min(max(left, 0), float64(l.Max)))
		}
		return l
	}
	return Limit{}
}

const (
	limitMax       = 1 << 50
	callIDBytesMax = 100
	epochBegin     = 1_000_000_000 // a greater number of seconds is a time, not a wait
)

// resetAfter reads when a limit is full again: a wait as "6m0s" or "120ms", in seconds, or a time in seconds or
// milliseconds since 1970. 0: not told.
func resetAfter(s string, now time.Time) time.Duration {
	wait, err := time.ParseDuration(s)
	if err != nil {
		n, err := strconv.ParseFloat(s, 64)
		switch {
		case err != nil || !(n > 0):
			return 0
		case n > 1000*epochBegin:
			wait = time.UnixMilli(int64(min(n, limitMax))).Sub(now)
		case n > epochBegin:
			wait = time.Unix(int64(n), 0).Sub(now)
		default:
			wait = time.Duration(n * float64(time.Second))
		}
	}
	return min(max(wait, 0), RetryAfterMax)
}

// tryAgain is how OpenAI and Groq tell a wait in the text of a 429.
var tryAgain = regexp.MustCompile(`(?i)try again in ((?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|s))+)`)

// limitWait is how long a 429 without Retry-After asks to wait: by its text, else until what is used up is there again.
func limitWait(message string, l Limits) time.Duration {
	if found := tryAgain.FindStringSubmatch(message); found != nil {
		if wait, err := time.ParseDuration(found[1]); err == nil && wait > 0 {
			return min(wait, RetryAfterMax)
		}
	}
	var wait time.Duration
	for _, one := range []Limit{l.Requests, l.Tokens} {
		if one.Max > 0 && one.Left == 0 {
			wait = max(wait, one.Reset)
		}
	}
	return wait
}

// callID is the provider's own name for a call, by the first of the headers that is there.
func callID(h http.Header, names ...string) string {
	for _, name := range names {
		if id := printable(h.Get(name)); id != "" {
			return id
		}
	}
	return ""
}

// printable bounds a name that came from outside to what can stand in a log.
func printable(id string) string {
	id = strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' {
			return -1
		}
		return c
	}, id)
	return id[:min(len(id), callIDBytesMax)]
}
