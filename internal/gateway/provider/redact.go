package provider

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

const messageBytesMax = 500

// secrets that providers echo, whole or in part.
var secrets = regexp.MustCompile(`(?i)(bearer\s+\S+|\b(?:sk|xai|gsk|pk|rk|key)-[A-Za-z0-9_*.\-]{6,}|\bAIza[A-Za-z0-9_\-]{10,})`)

// redactor makes texts of the outer world fit to be kept and shown.
type redactor struct{ key string }

// text redacts credentials, flattens control characters and bounds the length.
func (r redactor) text(s string) string {
	if r.key != "" { // first: a cut could leave half of it
		s = strings.ReplaceAll(s, r.key, "[redacted]")
	}
	if len(s) > 8*messageBytesMax {
		s = s[:8*messageBytesMax]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = secrets.ReplaceAllString(s, "[redacted]")
	s = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > messageBytesMax {
		s = strings.ToValidUTF8(s[:messageBytesMax], "") + "…"
	}
	return s
}

// err is the text of an error of the HTTP client without the URL, which may carry a credential.
func (r redactor) err(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return r.text(err.Error())
}
