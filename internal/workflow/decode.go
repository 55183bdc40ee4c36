package workflow

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// decodeDepthMax bounds how deep decoded values stand inside each other.
const decodeDepthMax = 1_000

// TooDeep says what is wrong with valid JSON whose values stand deeper inside each other than expressions can read them; or
// nothing. A log with such a value in it could not be read again: there it stands deeper still.
func TooDeep(raw json.RawMessage) string {
	depth, text := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > decodeDepthMax {
				return fmt.Sprintf("its values stand more than %d deep inside each other", decodeDepthMax)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return ""
}

// Decode reads JSON into plain values: map[string]any, []any, string, int64 (numbers spelled as integers, where they
// fit), float64, bool and nil. It takes what models emit: a repeated name counts as its last value, a lone surrogate
// is kept, raw bytes that are not UTF-8 become U+FFFD, and a number beyond float64 becomes its largest value.
func Decode(raw json.RawMessage) (any, error) { return decode(raw, false) }

// decodeExact keeps numbers as spelled (json.Number); those whose exponent no float64 has are errors.
func decodeExact(raw json.RawMessage) (any, error) { return decode(raw, true) }

func decode(raw json.RawMessage, exact bool) (any, error) {
	d := decoder{raw: raw, exact: exact}
	d.space()
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if d.space(); d.i < len(d.raw) {
		return nil, d.fail("something follows the value")
	}
	return v, nil
}

type decoder struct {
	raw   []byte
	i     int
	exact bool
}

func (d *decoder) fail(what string) error { return fmt.Errorf("read JSON: %s at byte %d", what, d.i) }

func (d *decoder) space() {
	for d.i < len(d.raw) {
		switch d.raw[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

// peek is the next byte, or 0 at the end.
func (d *decoder) peek() byte {
	if d.i < len(d.raw) {
		return d.raw[d.i]
	}
	return 0
}

func (d *decoder) value(depth int) (any, error) {
	if depth > decodeDepthMax {
		return nil, d.fail(fmt.Sprintf("values stand more than %d deep inside each other", decodeDepthMax))
	}
	switch c := d.peek(); c {
	case '{':
		return d.object(depth)
	case '[':
		return d.list(depth)
	case '"':
		return d.text()
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return d.number()
		}
	}
	return nil, d.fail("no value")
}

func (d *decoder) word(w string) error {
	if len(d.raw)-d.i < len(w) || string(d.raw[d.i:d.i+len(w)]) != w {
		return d.fail("no value")
	}
	d.i += len(w)
	return nil
}

func (d *decoder) object(depth int) (any, error) {
	m := map[string]any{}
	d.i++
	for d.space(); d.peek() != '}' || len(m) > 0; {
		if d.peek() != '"' {
			return nil, d.fail("no name")
		}
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		if d.space(); d.peek() != ':' {
			return nil, d.fail("no colon")
		}
		d.i++
		d.space()
		if m[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
		more, err := d.more('}')
		if err != nil {
			return nil, err
		}
		if !more {
			return m, nil
		}
	}
	d.i++
	return m, nil
}

func (d *decoder) list(depth int) (any, error) {
	list := []any{}
	d.i++
	for d.space(); d.peek() != ']' || len(list) > 0; {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		more, err := d.more(']')
		if err != nil {
			return nil, err
		}
		if !more {
			return list, nil
		}
	}
	d.i++
	return list, nil
}

// more reads what stands after an element: a comma, or the end.
func (d *decoder) more(end byte) (bool, error) {
	d.space()
	switch d.peek() {
	case ',':
		d.i++
		d.space()
		return true, nil
	case end:
		d.i++
		return false, nil
	}
	return false, d.fail("no comma")
}

func (d *decoder) text() (string, error) {
	d.i++
	start := d.i
	d.i += plainRun(d.raw[d.i:])
	if d.peek() == '"' && d.i < len(d.raw) {
		s := string(d.raw[start:d.i])
		d.i++
		return s, nil
	}
	out := make([]byte, 0, d.i-start+32)
	out = append(out, d.raw[start:d.i]...)
	for d.i < len(d.raw) {
		switch c := d.raw[d.i]; {
		case c == '"':
			d.i++
			return string(out), nil
		case c == '\\':
			var err error
			if out, err = d.escape(out); err != nil {
				return "", err
			}
		case c < ' ':
			return "", d.fail("a control character in a string")
		case c < utf8.RuneSelf:
			start := d.i
			d.i += plainRun(d.raw[d.i:])
			out = append(out, d.raw[start:d.i]...)
		default:
			r, size := utf8.DecodeRune(d.raw[d.i:])
			out = utf8.AppendRune(out, r) // invalid: U+FFFD
			d.i += size
		}
	}
	return "", d.fail("a string without end")
}

var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (d *decoder) escape(out []byte) ([]byte, error) {
	if d.i+1 >= len(d.raw) {
		return out, d.fail("a string without end")
	}
	if c := d.raw[d.i+1]; c != 'u' {
		if escapes[c] == 0 {
			return out, d.fail("an unknown escape")
		}
		d.i += 2
		return append(out, escapes[c]), nil
	}
	r, ok := d.hex(d.i + 2)
	if !ok {
		return out, d.fail("an unknown escape")
	}
	d.i += 6
	if !utf16.IsSurrogate(r) {
		return utf8.AppendRune(out, r), nil
	}
	if d.peek() == '\\' && d.i+1 < len(d.raw) && d.raw[d.i+1] == 'u' {
		if low, ok := d.hex(d.i + 2); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				d.i += 6
				return utf8.AppendRune(out, pair), nil
			}
		}
	}
	// A lone surrogate, in generalized UTF-8: appendQuoted writes it back as it was.
	return append(out, 0xED, 0x80|byte(r>>6&0x3F), 0x80|byte(r&0x3F)), nil
}

func (d *decoder) hex(at int) (rune, bool) {
	if at+4 > len(d.raw) {
		return 0, false
	}
	var r rune
	for _, c := range d.raw[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// digits steps over digits and answers how many there were.
func (d *decoder) digits() int {
	start := d.i
	for c := d.peek(); c >= '0' && c <= '9'; c = d.peek() {
		d.i++
	}
	return d.i - start
}

func (d *decoder) number() (any, error) {
	start, whole := d.i, true
	if d.peek() == '-' {
		d.i++
	}
	zero := d.peek() == '0'
	if n := d.digits(); n == 0 || zero && n > 1 {
		return nil, d.fail("not a number")
	}
	if d.peek() == '.' {
		d.i++
		whole = false
		if d.digits() == 0 {
			return nil, d.fail("not a number")
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.i++
		whole = false
		if c := d.peek(); c == '+' || c == '-' {
			d.i++
		}
		if d.digits() == 0 {
			return nil, d.fail("not a number")
		}
	}
	text := string(d.raw[start:d.i])
	if d.exact {
		if !numberFits(text) {
			return nil, fmt.Errorf("read JSON: the number at byte %d is out of range", start)
		}
		return json.Number(text), nil
	}
	return parseNumber(text, whole), nil
}

func parseNumber(text string, whole bool) any {
	if whole {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	}
	f, _ := strconv.ParseFloat(text, 64) //nolint:errcheck // out of range: an infinity, brought back below
	return max(min(f, math.MaxFloat64), -math.MaxFloat64)
}

// numberDigitsMax bounds the digits and the exponent of numbers that are compared exactly: 1e999999999 written out
// would not fit into memory.
const numberDigitsMax = 400

func numberFits(text string) bool {
	if len(text) > numberDigitsMax {
		return false
	}
	for i := 0; i < len(text); i++ {
		if text[i] == 'e' || text[i] == 'E' {
			exponent, err := strconv.Atoi(text[i+1:])
			return err == nil && exponent > -numberDigitsMax && exponent < numberDigitsMax
		}
	}
	return true
}
