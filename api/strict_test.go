package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/fault"
)

func schemaNamed(t testing.TB, name string) *openapi3.Schema {
	t.Helper()
	doc, err := loadSpec()
	if err != nil {
		t.Fatal(err)
	}
	return doc.Components.Schemas[name].Value
}

func TestStrictRefuses(t *testing.T) {
	schema := schemaNamed(t, "RunRequest")
	deep := strings.Repeat(`[`, 64) + strings.Repeat(`]`, 64) // with the object around it, 65
	cases := []struct {
		name, body, code, pointer string
		line, col                 int
	}{
		{"empty", ``, "body_required", "", 0, 0},
		{"blank", " \n ", "body_required", "", 0, 0},
		{"cut off", `{"input":`, "json_syntax", "/input", 1, 10},
		{"syntax", "{\n  \"input\": tru\n}", "json_syntax", "/input", 2, 15},
		{"no JSON", `not json`, "json_syntax", "", 1, 2},
		{"trailing value", `{}{}`, "json_trailing_data", "", 1, 3},
		{"trailing garbage", `{} x`, "json_trailing_data", "", 1, 3},
		{"array", `[]`, "json_type", "", 1, 1},
		{"string", `"x"`, "json_type", "", 1, 1},
		{"null", `null`, "json_type", "", 1, 1},
		{"number", `7`, "json_type", "", 1, 1},
		{"duplicate", `{"input":1,"input":2}`, "duplicate_field", "/input", 1, 12},
		{"duplicate inside", `{"input":{"a":1,"a":2}}`, "duplicate_field", "/input/a", 1, 17},
		{"unknown", "{\n \"inputs\": {}}", "unknown_field", "/inputs", 2, 2},
		{"wrong case", `{"Input":{}}`, "unknown_field", "/Input", 1, 2},
		{"too deep", `{"input":` + deep + `}`, "json_too_deep", "/input" + strings.Repeat("/0", 63), 1, 73},
		{"number too large", `{"input":{"a":[1e400000]}}`, "number_out_of_range", "/input/a/0", 1, 23},
		{"NaN", `{"input":NaN}`, "number_out_of_range", "/input", 1, 10},
		{"-Infinity", `{"input":-Infinity}`, "number_out_of_range", "/input", 1, 11},
		{"BOM", "\xef\xbb\xbf{}", "invalid_encoding", "", 0, 0},
		{"UTF-16", "\xff\xfe{\x00}\x00", "invalid_encoding", "", 0, 0},
		{"UTF-16 without BOM", "{\x00}\x00", "invalid_encoding", "", 0, 0},
		{"invalid UTF-8", "{\"input\":\"\xff\"}", "invalid_encoding", "", 0, 0},
		{"lone surrogate", `{"input":"\ud800"}`, "invalid_encoding", "/input", 1, 11},
		{"NUL", `{"input":{"a":"x\u0000"}}`, "nul_character", "/input/a", 1, 23},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := readStrict([]byte(c.body), schema)
			f := fault.Of(err)
			if f == nil {
				t.Fatalf("%s: got %v, want %s", c.body, err, c.code)
			}
			if f.Kind != fault.KindMalformed || f.Code != c.code {
				t.Fatalf("%s: got %s %s, want %s", c.body, f.Kind, f.Code, c.code)
			}
			if c.line == 0 {
				return
			}
			if got := f.Issues[0]; got.Pointer != c.pointer || got.Line != c.line || got.Col != c.col {
				t.Fatalf("%s: got %s at %d:%d, want %s at %d:%d", c.body, got.Pointer, got.Line, got.Col, c.pointer, c.line, c.col)
			}
		})
	}
}

func TestStrictSuggests(t *testing.T) {
	schema := schemaNamed(t, "RunRequest")
	for name, want := range map[string]string{"Input": "input", "inptu": "input", "work_flow": "workflow", "zzz": "", "prio": ""} {
		_, err := readStrict(fmt.Appendf(nil, `{%q: 1}`, name), schema)
		if got := fault.Of(err).Issues[0].Suggest; got != want {
			t.Errorf("%s: suggests %q, want %q", name, got, want)
		}
	}
}

func TestStrictListsAllUnknownFields(t *testing.T) {
	_, err := readStrict([]byte(`{"a":1,"input":{"free":[1,2]},"b":{"c":[]}}`), schemaNamed(t, "RunRequest"))
	if f := fault.Of(err); f == nil || len(f.Issues) != 2 {
		t.Fatalf("got %v", err)
	}
}

// What is strict and accepted is also what encoding/json reads, and the other way round but for what is listed above.
func TestStrictAgreesWithJSON(t *testing.T) {
	schema := schemaNamed(t, "RunRequest")
	rapid.Check(t, func(t *rapid.T) {
		var body []byte
		if rapid.Bool().Draw(t, "broken") {
			body = []byte(rapid.StringMatching(`[{}\[\]",:0-9eE.+\-a-f\\un ]{0,40}`).Draw(t, "text"))
		} else {
			raw, err := json.Marshal(map[string]any{"input": drawJSON(t, 0), "labels": map[string]string{"a": "b"}})
			if err != nil {
				t.Fatal(err)
			}
			body = raw
		}
		_, err := readStrict(body, schema)
		if err == nil && !json.Valid(body) {
			t.Fatalf("accepted %q", body)
		}
		if err != nil && fault.Of(err) == nil {
			t.Fatalf("%q: an error without a kind: %v", body, err)
		}
		if f := fault.Of(err); f != nil && f.Code == "json_syntax" && json.Valid(body) {
			t.Fatalf("%q is JSON, but: %v", body, err)
		}
	})
}

func drawJSON(t *rapid.T, depth int) any {
	kinds := 6
	if depth > 4 {
		kinds = 4
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return rapid.Float64Range(-1e300, 1e300).Draw(t, "number")
	case 3:
		return rapid.StringN(0, 20, -1).Draw(t, "string")
	case 4:
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "len") {
			list = append(list, drawJSON(t, depth+1))
		}
		return list
	default:
		object := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "len") {
			object[rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "key")] = drawJSON(t, depth+1)
		}
		return object
	}
}

func TestLocate(t *testing.T) {
	body := []byte("{\n  \"a/b\": [1, {\"c\":  true}],\n  \"labels\": {\"x\": 1}\n}")
	for pointer, want := range map[string]string{"": "{", "/a~1b": "[", "/a~1b/1": `{"c"`, "/a~1b/1/c": "true", "/labels/x": "1}", "/labels": `{"x"`} {
		at := locate(body, pointer)
		if at < 0 || !strings.HasPrefix(string(body[at:]), want) {
			t.Errorf("%q: found at %d, want %q there", pointer, at, want)
		}
	}
	if at := locate(body, "/none"); at != -1 {
		t.Errorf("found what is not there, at %d", at)
	}
}
