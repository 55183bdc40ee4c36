package incident

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFingerprint(t *testing.T) {
	for _, c := range []struct{ what, message, like, want string }{
		{"numbers", "asked 3 times; 12 of 40.5 failed", "asked 12 times; 1 of 7 failed", "asked # times; # of # failed"},
		{"ids", "run_0190ab12 at 0190c3f2-1b2d-7aaa-8000-1234567890ab", "run_77 at 00000000-0000-7000-8000-000000000001", "# at #"},
		{"quotes", `/a: "Hello \"you\"" is no number`, `/a: "" is no number`, "/a: # is no number"},
		{"a letter of the answer", "invalid character 'H' looking for beginning of value", "invalid character '\\'' looking for beginning of value", "invalid character # looking for beginning of value"},
		{"an apostrophe", "the answer doesn't fit the model's schema", "the answer  doesn't\nfit the model's schema", "the answer doesn't fit the model's schema"},
		{"an open quote", `it says "yes`, `it  says "yes`, `it says "yes`},
		{"no text", "a\x00\xffb", "a\xfe\xfe\xfeb", "a#b"},
		{"spaces", "  out of \n\t range ", "out of range", "out of range"},
	} {
		if a, b := fingerprintOf(c.message), fingerprintOf(c.like); a != c.want || b != c.want {
			t.Errorf("%s: %q and %q, want %q", c.what, a, b, c.want)
		}
	}
	if a, b := fingerprintOf("no such tool"), fingerprintOf("no such step"); a == b {
		t.Errorf("both are %q", a)
	}
}

// A fingerprint is short, is text, and keeps no digits, whichever they are.
func FuzzFingerprint(f *testing.F) {
	f.Add(`asked 3 times; "x\" is not 'y'`)
	f.Add("\xff\x00'`\\")
	f.Fuzz(func(t *testing.T, message string) {
		got := fingerprintOf(message)
		if len(got) > fingerprintMax || !utf8.ValidString(got) || strings.ContainsAny(got, "0123456789\x00\n") {
			t.Errorf("%q: %q", message, got)
		}
		other := strings.Map(func(r rune) rune {
			if '0' <= r && r <= '9' {
				return '9' - (r - '0')
			}
			return r
		}, strings.ToValidUTF8(message, "\ufffd"))
		if like := fingerprintOf(other); like != got {
			t.Errorf("%q: %q, with other digits %q", message, got, like)
		}
	})
}
