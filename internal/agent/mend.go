package agent

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

const (
	candidatesMax = 16  // values looked at in one reply: the work stays linear in its length
	depthMax      = 200 // of a value that is mended
)

// candidates finds the JSON values (objects and arrays) in a reply that is not JSON as a whole, mending what models
// get wrong in well-known ways: code fences and prose around the value, trailing commas, raw line breaks in strings,
// invalid escapes, comments, Python's constants. What a reply lacks is never made up, and a part is never taken for
// the whole: broken is the beginning of a value that could not be mended; then nothing found beside it can be trusted.
func candidates(text string) (found [][]byte, broken string) {
	if block, ok := onlyFence(text); ok {
		if found, broken := scan(block); len(found) > 0 || broken != "" {
			return found, broken
		}
	}
	return scan(text)
}

// onlyFence is the content of the fenced block of a text that has exactly one.
func onlyFence(text string) (string, bool) {
	_, after, ok := strings.Cut(text, "```")
	if !ok {
		return "", false
	}
	block, rest, ok := strings.Cut(after, "```")
	if !ok || strings.Contains(rest, "```") {
		return "", false
	}
	if info, body, ok := strings.Cut(block, "\n"); ok && !strings.ContainsAny(info, "{[") {
		return body, true // without the language
	}
	return block, true
}

func scan(text string) (found [][]byte, broken string) {
	for range candidatesMax {
		i := strings.IndexAny(text, "{[")
		if i < 0 {
			return found, ""
		}
		text = text[i:]
		value, used := mendValue(text)
		switch {
		case value != nil && json.Valid(value):
			found = append(found, value)
		case looksLikeJSON(text):
			return found, text
		default: // a bracket of the prose
			used = 1
		}
		text = text[used:]
	}
	if i := strings.IndexAny(text, "{["); i >= 0 {
		return found, text[i:]
	}
	return found, ""
}

// looksLikeJSON tells a value from a bracket in prose by what follows the bracket.
func looksLikeJSON(text string) bool {
	rest := strings.TrimLeft(text[1:], " \t\r\n")
	if rest == "" {
		return false
	}
	if text[0] == '{' {
		return strings.IndexByte(`"'}/`, rest[0]) >= 0
	}
	return strings.IndexByte(`"'{[]/-0123456789`, rest[0]) >= 0
}

// mender copies one JSON value, mending as it goes.
type mender struct {
	in    string
	at    int
	out   []byte
	open  []byte // brackets to be closed
	stuck bool
}

// mendValue reads the value that text begins with and says how much of text it took; nil if it has no end.
func mendValue(text string) (value []byte, used int) {
	m := mender{in: text, out: make([]byte, 0, min(len(text), 4096))}
	for m.at < len(m.in) && !m.stuck {
		m.token()
		if len(m.open) == 0 {
			return m.out, m.at
		}
	}
	return nil, m.at
}

func (m *mender) token() {
	switch c := m.in[m.at]; c {
	case '{', '[':
		if len(m.open) == depthMax {
			m.stuck = true
			return
		}
		m.open = append(m.open, c+2) // '{'+2 == '}', '['+2 == ']'
		m.copy(1)
	case '}', ']':
		if m.open[len(m.open)-1] != c {
			m.stuck = true
			return
		}
		m.open = m.open[:len(m.open)-1]
		m.dropComma()
		m.copy(1)
	case '"':
		m.text('"')
	case '\'':
		m.text('\'')
	case '/':
		m.comment()
	default:
		if isLetter(c) {
			m.word()
			return
		}
		m.copy(1)
	}
}

func (m *mender) copy(n int) {
	m.out = append(m.out, m.in[m.at:m.at+n]...)
	m.at += n
}

// dropComma takes back a comma that nothing follows.
func (m *mender) dropComma() {
	end := len(m.out)
	for end > 0 && isSpace(m.out[end-1]) {
		end--
	}
	if end > 0 && m.out[end-1] == ',' {
		m.out = m.out[:end-1]
	}
}

// text copies a string, whichever quotes it stands in, and escapes what must not stand raw in one.
func (m *mender) text(quote byte) {
	m.out = append(m.out, '"')
	m.at++
	for m.at < len(m.in) {
		switch c := m.in[m.at]; {
		case c == quote:
			m.out = append(m.out, '"')
			m.at++
			return
		case c == '\\':
			m.escape()
		case c < 0x20:
			m.out = appendEscaped(m.out, c)
			m.at++
		case c == '"': // in single quotes
			m.out = append(m.out, '\\', '"')
			m.at++
		default:
			m.copy(1)
		}
	}
	m.stuck = true
}

// escape copies an escape that JSON knows and drops the backslash of any other.
func (m *mender) escape() {
	rest := m.in[m.at+1:]
	switch {
	case rest == "":
		m.at++ // the end: text sees it
	case strings.IndexByte(`"\/bfnrt`, rest[0]) >= 0:
		m.copy(2)
	case rest[0] == 'u' && len(rest) >= 5 && isHex(rest[1:5]):
		m.copy(6)
	case rest[0] == '\n': // a line continued
		m.at += 2
	case rest[0] == '\'':
		m.out = append(m.out, '\'')
		m.at += 2
	case rest[0] > 0x20 && rest[0] < utf8.RuneSelf && !isLetter(rest[0]) && (rest[0] < '0' || rest[0] > '9'):
		m.at++ // \_ \* \-: Markdown's escapes
	default: // a path, a regular expression: the backslash was meant
		m.out = append(m.out, '\\', '\\')
		m.at++
	}
}

// comment drops // and /* */; a lone slash is left for the check to refuse.
func (m *mender) comment() {
	rest := m.in[m.at:]
	switch {
	case strings.HasPrefix(rest, "//"):
		if end := strings.IndexByte(rest, '\n'); end >= 0 {
			m.at += end
			return
		}
		m.stuck = true
	case strings.HasPrefix(rest, "/*"):
		if end := strings.Index(rest, "*/"); end >= 0 {
			m.at += end + 2
			return
		}
		m.stuck = true
	default:
		m.copy(1)
	}
}

// constants of other languages.
var constants = map[string]string{"True": "true", "False": "false", "None": "null", "undefined": "null"}

func (m *mender) word() {
	end := m.at
	for end < len(m.in) && isLetter(m.in[end]) {
		end++
	}
	word := m.in[m.at:end]
	if c, ok := constants[word]; ok {
		word = c
	}
	m.out = append(m.out, word...)
	m.at = end
}

func isSpace(c byte) bool  { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isHex(s string) bool {
	for i := range len(s) {
		if !strings.Contains("0123456789abcdefABCDEF", s[i:i+1]) {
			return false
		}
	}
	return true
}
