package provider

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RetryAfterMax bounds what a provider may ask for; more is as good as never.
const RetryAfterMax = 24 * time.Hour

// retryAfter reads how long a provider asks to be left alone: retry-after-ms, x-ms-retry-after-ms, Retry-After as
// seconds or as a date (against the answer's own Date, so that our clock does not matter). What is negative or
// unreadable counts as nothing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"retry-after-ms", "x-ms-retry-after-ms"} {
		if d, ok := number(h.Get(name), time.Millisecond); ok {
			return d
		}
	}
	value := strings.TrimSpace(h.Get("Retry-After"))
	if d, ok := number(value, time.Second); ok {
		return d
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), 0), RetryAfterMax)
}

func number(s string, unit time.Duration) (time.Duration, bool) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(f) || f < 0 {
		return 0, false
	}
	return time.Duration(min(f*float64(unit), float64(RetryAfterMax))), true
}

// retryInfo reads Google's RetryInfo, which stands in the error body instead of a header.
func retryInfo(details json.RawMessage) time.Duration {
	var list []struct {
		Type  string `json:"@type"`
		Delay string `json:"retryDelay"`
	}
	if json.Unmarshal(details, &list) != nil {
		return 0
	}
	for _, d := range list {
		if strings.HasSuffix(d.Type, "RetryInfo") {
			if wait, err := time.ParseDuration(d.Delay); err == nil && wait > 0 {
				return min(wait, RetryAfterMax)
			}
		}
	}
	return 0
}
