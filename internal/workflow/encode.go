package workflow

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// RenderBytesMax bounds what one template may render to: what is in it may be multiplied by the number of expressions.
const RenderBytesMax = 4 * InputBytesMax

var (
	errRenderTooLarge = fmt.Errorf("it renders to more than %d bytes", RenderBytesMax)
	errRenderTooDeep  = fmt.Errorf("its values stand more than %d deep inside each other", decodeDepthMax)
	errNotFinite      = errors.New("JSON has no NaN and no infinity")
)

const hexDigits = "0123456789abcdef"

// plainByte marks the bytes that stand for themselves in a JSON string.
var plainByte = func() (t [256]bool) {
	for b := range t {
		t[b] = b >= ' ' && b != '"' && b != '\\' && b < utf8.RuneSelf
	}
	return t
}()

// plainRun counts the bytes at the start of s that stand for themselves in a JSON string, eight at a time.
func plainRun[T string | []byte](s T) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		quote, escape := w^'"'*ones, w^'\\'*ones
		if (w|(w-' '*ones)&^w|(quote-ones)&^quote|(escape-ones)&^escape)&tops != 0 {
			break
		}
	}
	for i < len(s) && plainByte[s[i]] {
		i++
	}
	return i
}

// appendQuoted writes a JSON string. HTML is not escaped. A lone surrogate, which Decode keeps in its own encoding, is
// written as the escape it came from; other invalid UTF-8 becomes U+FFFD.
func appendQuoted(out []byte, s string) []byte {
	return append(appendEscaped(append(out, '"'), s), '"')
}

// appendEscaped writes what stands between the quotes of a JSON string.
func appendEscaped(out []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		if i += plainRun(s[i:]); i == len(s) {
			break
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r >= utf8.RuneSelf && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		out = append(out, s[start:i]...)
		out, size = appendEscape(out, s[i:])
		i += size
		start = i
	}
	return append(out, s[start:]...)
}

// appendEscape writes what cannot stand for itself at the start of s, and answers how many bytes of s that was.
func appendEscape(out []byte, s string) ([]byte, int) {
	switch b := s[0]; {
	case b == '"' || b == '\\':
		return append(out, '\\', b), 1
	case b == '\n':
		return append(out, '\\', 'n'), 1
	case b == '\r':
		return append(out, '\\', 'r'), 1
	case b == '\t':
		return append(out, '\\', 't'), 1
	case b < ' ':
		return append(out, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15]), 1
	}
	if r, ok := loneSurrogate(s); ok {
		return append(out, '\\', 'u', 'd', hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15]), 3
	}
	return append(out, "\uFFFD"...), 1
}

// loneSurrogate reads the generalized UTF-8 (WTF-8) of a surrogate at the start of s.
func loneSurrogate(s string) (rune, bool) {
	if len(s) < 3 || s[0] != 0xED || s[1] < 0xA0 || s[1] > 0xBF || s[2]&0xC0 != 0x80 {
		return 0, false
	}
	return 0xD000 | rune(s[1]&0x3F)<<6 | rune(s[2]&0x3F), true
}

func appendFloat(out []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return out, errNotFinite
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(out, f, format, -1, 64), nil
}

// appendNative writes decoded JSON (see Scope) compactly, names sorted.
func appendNative(out []byte, v any, depth int) ([]byte, error) {
	if len(out) > RenderBytesMax {
		return out, errRenderTooLarge
	}
	if depth > decodeDepthMax {
		return out, errRenderTooDeep
	}
	switch v := v.(type) {
	case nil:
		return append(out, "null"...), nil
	case string:
		return appendQuoted(out, v), nil
	case bool:
		return strconv.AppendBool(out, v), nil
	case int64:
		return strconv.AppendInt(out, v, 10), nil
	case float64:
		return appendFloat(out, v)
	case map[string]any:
		return appendNativeMap(out, v, depth)
	case []any:
		out = append(out, '[')
		for i, item := range v {
			if i > 0 {
				out = append(out, ',')
			}
			var err error
			if out, err = appendNative(out, item, depth+1); err != nil {
				return out, err
			}
		}
		return append(out, ']'), nil
	}
	return appendOther(out, v, depth)
}

func appendNativeMap(out []byte, m map[string]any, depth int) ([]byte, error) {
	var few [16]string
	names := few[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	out = append(out, '{')
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendQuoted(out, name), ':')
		var err error
		if out, err = appendNative(out, m[name], depth+1); err != nil {
			return out, err
		}
	}
	return append(out, '}'), nil
}

// appendOther writes what is not decoded JSON but may be in a Scope.
func appendOther(out []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case int:
		return strconv.AppendInt(out, int64(v), 10), nil
	case int32:
		return strconv.AppendInt(out, int64(v), 10), nil
	case uint64:
		return strconv.AppendUint(out, v, 10), nil
	case json.Number:
		return append(out, v...), nil
	case []byte:
		return appendQuoted(out, base64.StdEncoding.EncodeToString(v)), nil
	case time.Time:
		return appendQuoted(out, v.UTC().Format(time.RFC3339Nano)), nil
	case time.Duration:
		return appendQuoted(out, strconv.FormatFloat(v.Seconds(), 'f', -1, 64)+"s"), nil
	case []string:
		list := make([]any, len(v))
		for i, s := range v {
			list[i] = s
		}
		return appendNative(out, list, depth)
	}
	return out, fmt.Errorf("a %s cannot be written as JSON", strings.TrimPrefix(fmt.Sprintf("%T", v), "*"))
}
