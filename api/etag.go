package api

import "strings"

// cacheRevalidate goes with every ETag: keep it, but ask before you use it.
const cacheRevalidate = "private, no-cache"

// matches reports whether an If-Match or If-None-Match header names the tag (RFC 9110, weak comparison).
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}
