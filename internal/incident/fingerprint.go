package incident

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// fingerprintMax bounds a fingerprint, in bytes.
const fingerprintMax = 200

// fingerprintOf is what messages have in common that say the same of different things: words stay, and what differs from
// one to the next becomes a #: numbers, ids and whatever stands in quotes.
func fingerprintOf(message string) string {
	var b strings.Builder
	inWord := false // an apostrophe there opens no quotation
	for rest := message; rest != "" && b.Len() < fingerprintMax; {
		r, size := utf8.DecodeRuneInString(rest)
		sign := rest[:size]
		switch {
		case isLetter(r):
			size = wordLength(rest)
			if sign = rest[:size]; strings.IndexFunc(sign, unicode.IsDigit) >= 0 { // 12, 3f9a-1b, run_01
				sign = "#"
			}
		case unicode.IsSpace(r):
			sign = " "
		case r == 0 || r == utf8.RuneError:
			sign = "#"
		case r == '"' || r == '`' || r == '\'' && !inWord:
			if length, ok := quoted(rest, sign[0]); ok {
				sign, size = "#", length
			}
		}
		inWord, rest = isLetter(r), rest[size:]
		if (sign != "#" && sign != " ") || !strings.HasSuffix(b.String(), sign) && !(sign == " " && b.Len() == 0) {
			b.WriteString(sign)
		}
	}
	return strings.TrimRight(cut(b.String(), fingerprintMax), " ")
}

// wordLength is the length of the word, number or id that a text begins with.
func wordLength(text string) int {
	for i, r := range text {
		if isLetter(r) || r == '.' && i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '9' {
			continue
		}
		return i
	}
	return len(text)
}

func isLetter(r rune) bool {
	return r != utf8.RuneError && (r == '_' || r == '-' || unicode.IsLetter(r) || unicode.IsDigit(r))
}

// quoted is the length of what stands in quotes at the beginning of a text, with them. Quotes do not reach over lines.
func quoted(text string, quote byte) (length int, ok bool) {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '\n':
			return 0, false
		case quote:
			return i + 1, true
		}
	}
	return 0, false
}

// cut bounds a text without cutting a letter in two.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
