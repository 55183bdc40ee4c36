package api

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// negotiate picks the media type to answer with: of those offered, the one the caller likes best, the first where it
// does not care. Where nothing is offered, the answer has no body, and whatever the caller likes is met.
func negotiate(r *http.Request, offered []string) (string, error) {
	if len(offered) == 0 {
		return "", nil
	}
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return offered[0], nil
	}
	best, quality := "", 0.0
	for _, media := range offered {
		if q := acceptable(accept, media); q > quality {
			best, quality = media, q
		}
	}
	if best == "" {
		return "", refuse(http.StatusNotAcceptable, "not_acceptable", "this can be had as %s", strings.Join(offered, " or "))
	}
	return best, nil
}

// acceptable gives the quality a caller accepts a media type with: that of the most specific range that covers it.
func acceptable(accept, media string) float64 {
	kind, _, _ := strings.Cut(media, "/")
	quality, rank := 0.0, 0
	for part := range strings.SplitSeq(accept, ",") {
		name, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		specific := map[string]int{"*/*": 1, kind + "/*": 2, media: 3}[name]
		if specific <= rank {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil || q > 1 {
				q = 1
			}
		}
		quality, rank = q, specific
	}
	return quality
}
