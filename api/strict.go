package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fermata-run/fermata/internal/fault"
)

// depthMax bounds the nesting of a JSON body.
const depthMax = 64

// rawType marks the places of the spec where any JSON may stand: what is inside is somebody else's to check.
const rawType = "json.RawMessage"

// strict reads one JSON body against its schema, in one pass: what encoding/json would let through or change silently
// (duplicate, unknown and wrong-case keys, trailing text, broken Unicode, numbers no float can hold) is refused.
type strict struct {
	raw    []byte
	dec    *jsontext.Decoder
	nul    bool // somewhere in the body a NUL is spelled out
	issues []fault.Issue
}

// readStrict gives the body as plain values for the schema's validator; where the schema allows anything, an empty
// value of the same type stands for what was sent. Errors are *fault.Error of kind malformed.
func readStrict(raw []byte, schema *openapi3.Schema) (any, error) {
	if err := checkEncoding(raw); err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, fault.New(fault.KindMalformed, "body_required", "this operation needs a body")
	}
	s := &strict{raw: raw, dec: jsontext.NewDecoder(bytes.NewBuffer(raw)), nul: bytes.Contains(raw, []byte(`\u0000`))}
	if kind := s.dec.PeekKind(); kind != '{' && schema.Type.Is(openapi3.TypeObject) && kind != 0 && jsontext.Value(raw).IsValid() {
		return nil, s.at("json_type", "expected an object, got "+kindName(kind), "", 0)
	}
	value, err := s.value(schema)
	if err != nil {
		return nil, s.syntax(err)
	}
	end := s.dec.InputOffset()
	if _, err := s.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, s.at("json_trailing_data", "there is more after the end of the JSON value", "", end)
	}
	if len(s.issues) > 0 {
		e := fault.New(fault.KindMalformed, s.issues[0].Code, "%s", s.issues[0].Detail)
		e.Issues = s.issues
		return nil, e
	}
	return value, nil
}

// checkEncoding refuses what is not plain UTF-8.
func checkEncoding(raw []byte) error {
	bom := bytes.HasPrefix(raw, []byte{0xEF, 0xBB, 0xBF}) || bytes.HasPrefix(raw, []byte{0xFE, 0xFF}) || bytes.HasPrefix(raw, []byte{0xFF, 0xFE})
	if !bom && bytes.IndexByte(raw, 0) < 0 && utf8.Valid(raw) {
		return nil
	}
	return fault.New(fault.KindMalformed, "invalid_encoding", "the body must be UTF-8, without a byte order mark and without NUL")
}

// value reads the next value.
func (s *strict) value(schema *openapi3.Schema) (any, error) {
	if schema == nil || schema.Extensions["x-go-type"] == rawType {
		return s.anything()
	}
	tok, err := s.token()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case '{':
		return s.object(schema)
	case '[':
		return s.array(schema)
	case '"':
		return tok.String(), nil
	case '0':
		return tok.Float() // in range: token has looked
	case 't', 'f':
		return tok.Bool(), nil
	default:
		return nil, nil
	}
}

func (s *strict) object(schema *openapi3.Schema) (any, error) {
	members := map[string]any{}
	for s.dec.PeekKind() != '}' {
		start := s.dec.InputOffset()
		tok, err := s.token()
		if err != nil {
			return nil, err
		}
		name := tok.String()
		member, known := s.member(schema, name)
		if !known {
			s.unknown(schema, name, start)
		}
		value, err := s.value(member)
		if err != nil {
			return nil, err
		}
		if known {
			members[name] = value
		}
	}
	_, err := s.token()
	return members, err
}

func (s *strict) member(schema *openapi3.Schema, name string) (*openapi3.Schema, bool) {
	if ref := schema.Properties[name]; ref != nil {
		return ref.Value, true
	}
	if extra := schema.AdditionalProperties; extra.Schema != nil {
		return extra.Schema.Value, true
	}
	closed := schema.AdditionalProperties.Has
	return nil, closed == nil || *closed
}

func (s *strict) unknown(schema *openapi3.Schema, name string, before int64) {
	if len(s.issues) >= fault.IssuesMax {
		return
	}
	offset := before + int64(bytes.IndexByte(s.raw[before:], '"'))
	names := make([]string, 0, len(schema.Properties))
	for known := range schema.Properties {
		names = append(names, known)
	}
	issue := fault.Issue{
		Pointer: string(s.dec.StackPointer()), Code: "unknown_field",
		Detail: fmt.Sprintf("unknown field %q", clip(name)), Suggest: fault.Nearest(name, names),
	}
	issue.Line, issue.Col = position(s.raw, offset)
	s.issues = append(s.issues, issue)
}

func (s *strict) array(schema *openapi3.Schema) (any, error) {
	var element *openapi3.Schema
	if schema.Items != nil {
		element = schema.Items.Value
	}
	elements := []any{}
	for s.dec.PeekKind() != ']' {
		value, err := s.value(element)
		if err != nil {
			return nil, err
		}
		elements = append(elements, value)
	}
	_, err := s.token()
	return elements, err
}

// anything passes over the next value, checking only what holds everywhere.
func (s *strict) anything() (any, error) {
	tok, err := s.token()
	if err != nil {
		return nil, err
	}
	first, depth := tok.Kind(), 0
	for {
		switch tok.Kind() {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth == 0 {
			return empty(first), nil
		}
		if tok, err = s.token(); err != nil {
			return nil, err
		}
	}
}

// token reads one token and checks what jsontext does not.
func (s *strict) token() (jsontext.Token, error) {
	tok, err := s.dec.ReadToken()
	if err != nil {
		return tok, err
	}
	switch tok.Kind() {
	case '{', '[':
		if s.dec.StackDepth() > depthMax {
			return tok, s.here("json_too_deep", fmt.Sprintf("nested deeper than %d", depthMax))
		}
	case '0':
		if _, err := tok.Float(); err != nil {
			return tok, s.here("number_out_of_range", "the number is out of range")
		}
	case '"':
		if s.nul && strings.IndexByte(tok.String(), 0) >= 0 {
			return tok, s.here("nul_character", "strings must not hold NUL")
		}
	}
	return tok, nil
}

func empty(kind jsontext.Kind) any {
	switch kind {
	case '{':
		return map[string]any{}
	case '[':
		return []any{}
	case '"':
		return ""
	case '0':
		return 0.0
	case 't', 'f':
		return false
	default:
		return nil
	}
}

// here is an issue with the token just read.
func (s *strict) here(code, detail string) error {
	return s.at(code, detail, string(s.dec.StackPointer()), s.dec.InputOffset()-1)
}

func (s *strict) at(code, detail, pointer string, offset int64) error {
	e := fault.New(fault.KindMalformed, code, "%s", detail)
	issue := fault.Issue{Pointer: pointer, Code: code, Detail: fmt.Sprintf("%s (at byte %d)", detail, offset)}
	issue.Line, issue.Col = position(s.raw, offset)
	e.Issues = []fault.Issue{issue}
	return e
}

// syntax says in our words what jsontext found. Its own words would show what was sent.
func (s *strict) syntax(err error) error {
	if fault.Of(err) != nil {
		return err
	}
	var bad *jsontext.SyntacticError
	if !errors.As(err, &bad) {
		return s.at("json_syntax", "the JSON ends too early", "", int64(len(s.raw)))
	}
	rest := s.raw[min(int(bad.ByteOffset), len(s.raw)):]
	code, detail := "json_syntax", "this is not JSON"
	switch {
	case errors.Is(bad.Err, jsontext.ErrDuplicateName):
		code, detail = "duplicate_field", "the same key stands here twice"
	case errors.Is(bad.Err, io.ErrUnexpectedEOF):
		detail = "the JSON ends too early"
	case bytes.HasPrefix(rest, []byte("NaN")), bytes.HasPrefix(bytes.TrimPrefix(rest, []byte("-")), []byte("Inf")):
		code, detail = "number_out_of_range", "JSON has no NaN and no infinity"
	case strings.Contains(bad.Err.Error(), "UTF-8"), strings.Contains(bad.Err.Error(), "surrogate"):
		code, detail = "invalid_encoding", "a string is not valid Unicode"
	}
	return s.at(code, detail, string(bad.JSONPointer), bad.ByteOffset)
}

// position tells line and column, from 1, of a byte.
func position(raw []byte, offset int64) (line, col int) {
	before := raw[:max(0, min(int(offset), len(raw)))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return 1 + bytes.Count(before, []byte{'\n'}), 1 + utf8.RuneCount(before[start:])
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	default:
		return "null"
	}
}

// locate finds where in the body the value of a pointer starts, or -1. It reads the body again: only for errors.
func locate(raw []byte, pointer string) int64 {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw))
	for {
		before := dec.InputOffset()
		kind := dec.PeekKind()
		name := isName(dec)
		if _, err := dec.ReadToken(); err != nil {
			return -1
		}
		if name || string(dec.StackPointer()) != pointer || kind == '}' || kind == ']' {
			continue
		}
		skip := bytes.IndexFunc(raw[before:], func(r rune) bool { return !strings.ContainsRune(" \t\r\n:,", r) })
		return before + int64(max(skip, 0))
	}
}

// isName reports whether the next token is an object's key.
func isName(dec *jsontext.Decoder) bool {
	kind, length := dec.StackIndex(dec.StackDepth())
	return kind == '{' && length%2 == 0
}

// clip keeps a name that a caller made up from filling an error.
func clip(name string) string {
	const nameBytesMax = 64
	if len(name) <= nameBytesMax {
		return name
	}
	return strings.ToValidUTF8(name[:nameBytesMax], "") + "…"
}
