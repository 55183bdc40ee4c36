package preview

import (
	"encoding/json"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/fermata-run/fermata/internal/workflow"
)

// How many bytes of text a token has: words of English have more, JSON and other scripts less.
const (
	tokenBytesHigh = 5.0
	tokenBytesLow  = 2.5
)

// outputTokensMax is what an output has at most: a larger one becomes an artifact.
const outputTokensMax = workflow.OutputBytesMax * 10 / int64(tokenBytesLow*10)

// textTokens are the tokens of so many bytes of text.
func textTokens(bytes Span) Span {
	return Span{int64(float64(bytes.Low) / tokenBytesHigh), int64(math.Ceil(float64(bytes.High) / tokenBytesLow))}
}

func exactly(n int) Span { return Span{int64(n), int64(n)} }

// shape is how many tokens a value may have, and those of what is in it, as far as it is known.
type shape struct {
	tokens Span
	fields map[string]*shape // of an object
	entry  *shape            // of a list
	count  Span              // of its entries; without an entry: nothing is known of it
}

var (
	smallShape   = &shape{tokens: Span{1, 10}}  // numbers, truth values, words
	phraseShape  = &shape{tokens: Span{1, 400}} // messages, short lists of texts
	unknownShape = &shape{tokens: Span{0, outputTokensMax}}
)

// at is the shape of what is found by these names. What is not known is within the whole.
func (s *shape) at(names []string) *shape {
	found, ok := s.find(names)
	if !ok {
		return &shape{tokens: found.tokens.maybe()}
	}
	return found
}

// find goes along names as far as they are known.
func (s *shape) find(names []string) (*shape, bool) {
	for _, name := range names {
		inner := s.fields[name]
		if name == workflow.RefEntry {
			inner = s.entry
		}
		if inner == nil {
			return s, false
		}
		s = inner
	}
	return s, true
}

func (s *shape) maybe() *shape {
	m := *s
	m.tokens = m.tokens.maybe()
	return &m
}

// atMost bounds a shape, and all in it.
func (s *shape) atMost(n int64) *shape {
	if s.tokens.High <= n {
		return s
	}
	m := &shape{tokens: s.tokens.atMost(n), count: s.count}
	if s.entry != nil {
		m.entry = s.entry.atMost(n)
	}
	if s.fields != nil {
		m.fields = make(map[string]*shape, len(s.fields))
		for name, inner := range s.fields {
			m.fields[name] = inner.atMost(n)
		}
	}
	return m
}

// either is the shape of one of two values. A name that only one of them has may be missing.
func (s *shape) either(t *shape) *shape {
	m := &shape{tokens: s.tokens.either(t.tokens)}
	for name, inner := range s.fields {
		if other := t.fields[name]; other != nil {
			m.field(name, inner.either(other))
		} else {
			m.field(name, inner.maybe())
		}
	}
	for name, inner := range t.fields {
		if s.fields[name] == nil {
			m.field(name, inner.maybe())
		}
	}
	if s.entry != nil && t.entry != nil {
		m.entry, m.count = s.entry.either(t.entry), s.count.either(t.count)
	}
	return m
}

func (s *shape) field(name string, inner *shape) {
	if s.fields == nil {
		s.fields = map[string]*shape{}
	}
	s.fields[name] = inner
}

// listOf is a list of so many entries.
func listOf(entry *shape, count Span) *shape {
	one := entry.tokens.plus(Span{0, 1}) // with the comma
	return &shape{tokens: Span{1, 2}.plus(one.times(count)), entry: entry, count: count}
}

// valueShape is the shape of a value that is known.
func valueShape(v any) *shape {
	switch v := v.(type) {
	case string:
		return &shape{tokens: textTokens(exactly(len(v)))}
	case map[string]any:
		s := &shape{tokens: Span{0, 1}}
		for name, inner := range v {
			s.member(name, valueShape(inner), true)
		}
		return s
	case []any:
		s := &shape{tokens: Span{0, 1}, count: exactly(len(v))}
		for _, inner := range v {
			entry := valueShape(inner)
			s.tokens = s.tokens.plus(entry.tokens.plus(Span{0, 1}))
			if s.entry == nil {
				s.entry = entry
			} else {
				s.entry = s.entry.either(entry)
			}
		}
		return s
	}
	return &shape{tokens: textTokens(exactly(len(fmt.Sprint(v))))}
}

// member puts a name into an object.
func (s *shape) member(name string, inner *shape, always bool) {
	if !always {
		inner = inner.maybe()
	}
	s.field(name, inner)
	around := textTokens(exactly(len(name) + len(`"":,`)))
	if !always {
		around = around.maybe()
	}
	s.tokens = s.tokens.plus(around).plus(inner.tokens)
}

// schemaReader makes shapes of JSON Schemas.
type schemaReader struct {
	text    Span                 // tokens of a text without a maxLength
	entries int64                // of a list without maxItems
	unbound func(at, why string) // is told of each of them; nil: nobody wants to know
}

const schemaDepthMax = workflow.SchemaDepthMax

// of is the shape of a value that meets the schema; at says where it stands.
func (r schemaReader) of(schema any, at string, depth int) *shape {
	s, ok := schema.(map[string]any)
	if !ok || depth > schemaDepthMax {
		return r.unlimited(at, "nothing is known of its size")
	}
	if v, ok := s["const"]; ok {
		return valueShape(v)
	}
	for _, key := range []string{"enum", "anyOf", "oneOf"} {
		if list, ok := s[key].([]any); ok && len(list) > 0 {
			return r.oneOf(list, key == "enum", at, depth)
		}
	}
	switch s["type"] {
	case "string":
		return r.string(s, at)
	case "integer", "number", "boolean", "null":
		return smallShape
	case "array":
		return r.list(s, at, depth)
	case "object":
		return r.object(s, at, depth)
	}
	if list, ok := s["type"].([]any); ok && len(list) > 0 {
		return r.anyType(s, list, at, depth)
	}
	if s["properties"] != nil {
		return r.object(s, at, depth).maybe()
	}
	return r.unlimited(at, "nothing is known of its size")
}

func (r schemaReader) unlimited(at, why string) *shape {
	if r.unbound != nil {
		r.unbound(at, why)
	}
	return &shape{tokens: r.text}
}

func (r schemaReader) oneOf(list []any, values bool, at string, depth int) *shape {
	var s *shape
	for _, one := range list {
		var t *shape
		if values {
			t = valueShape(one)
		} else {
			t = r.of(one, at, depth+1)
		}
		if s == nil {
			s = t
		} else {
			s = s.either(t)
		}
	}
	return s
}

// anyType is a value of one of several types.
func (r schemaReader) anyType(s map[string]any, list []any, at string, depth int) *shape {
	var all []any
	for _, t := range list {
		one := map[string]any{}
		for key, v := range s {
			one[key] = v
		}
		one["type"] = t
		all = append(all, one)
	}
	return r.oneOf(all, false, at, depth)
}

func (r schemaReader) string(s map[string]any, at string) *shape {
	least := whole(s["minLength"], 0)
	most := whole(s["maxLength"], -1)
	low := textTokens(exactly(int(least))).Low
	if most < 0 {
		u := r.unlimited(at, "no maxLength")
		return &shape{tokens: Span{min(low, u.tokens.High), u.tokens.High}}
	}
	const letterBytes = 2 // between plain letters and those of other scripts
	return &shape{tokens: Span{low, max(low, textTokens(Span{0, most * letterBytes}).High)}}
}

func (r schemaReader) list(s map[string]any, at string, depth int) *shape {
	count := Span{whole(s["minItems"], 0), whole(s["maxItems"], -1)}
	if count.High < 0 {
		count.High = max(count.Low, r.entries)
		if r.unbound != nil {
			r.unbound(at, "no maxItems")
		}
	}
	return listOf(r.of(s["items"], at+"[]", depth+1), Span{min(count.Low, count.High), count.High})
}

// object has no other names than the schema does.
func (r schemaReader) object(s map[string]any, at string, depth int) *shape {
	properties, ok := s["properties"].(map[string]any)
	if !ok || len(properties) == 0 {
		return r.unlimited(at, "its names are not listed")
	}
	required := map[string]bool{}
	if list, ok := s["required"].([]any); ok {
		for _, name := range list {
			if name, ok := name.(string); ok {
				required[name] = true
			}
		}
	}
	o := &shape{tokens: Span{0, 1}}
	for _, name := range sortedKeys(properties) {
		o.member(name, r.of(properties[name], at+"."+name, depth+1), required[name])
	}
	return o
}

// whole reads a whole number of a schema.
func whole(v any, otherwise int64) int64 {
	switch v := v.(type) {
	case int64:
		return max(min(v, math.MaxInt32), 0)
	case float64:
		return int64(max(min(v, math.MaxInt32), 0))
	}
	return otherwise
}

// constShape is the shape of JSON text.
func constShape(raw json.RawMessage) *shape {
	if v, err := workflow.Decode(raw); err == nil {
		return valueShape(v)
	}
	return &shape{tokens: textTokens(exactly(utf8.RuneCount(raw)))}
}
