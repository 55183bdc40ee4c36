package workflow_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow"
)

func TestDecode(t *testing.T) {
	for raw, want := range map[string]any{
		`1`: int64(1), `-0`: int64(0), `9223372036854775807`: int64(math.MaxInt64), `9223372036854775808`: 9223372036854775808.0,
		`1.0`: 1.0, `1e2`: 100.0, `1e999`: math.MaxFloat64, `-1e999`: -math.MaxFloat64, `1e-999`: 0.0,
		`"a\u00e9\n\"\/"`: "aé\n\"/", `"\ud83d\ude00"`: "😀", `"\u0000"`: "\x00", ` null `: nil, `true`: true,
		`{"a":1,"a":[],"b":{}}`: map[string]any{"a": []any{}, "b": map[string]any{}},
		"[\t1 ,\n2 ]":           []any{int64(1), int64(2)}, "\"a\xffb\"": "a\uFFFDb",
	} {
		got, err := workflow.Decode(json.RawMessage(raw))
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
	for _, raw := range []string{
		``, ` `, `{`, `[1,]`, `{"a":1,}`, `{"a"}`, `01`, `1.`, `.5`, `+1`, `1e`, `nul`, `"a`, "\"a\nb\"", `"\x"`, `"\u12"`, `1 2`, `{a:1}`, `'a'`, `-`, `]`, `"\`,
		strings.Repeat("[", 2000),
	} {
		if v, err := workflow.Decode(json.RawMessage(raw)); err == nil {
			t.Errorf("%.40q was read as %v", raw, v)
		}
	}
}

// TestSurrogates: what models emit comes through a run unchanged, even where no text can hold it.
func TestSurrogates(t *testing.T) {
	out := `{"bad":"x\ud800y\udfff","nul":"a\u0000b","ok":"😀"}`
	scope := newScope(t, `{}`, map[string]string{"a": out})
	w, err := workflow.Compile([]byte(`{"spec":"workflow/v1","name":"t","steps":[{"id":"a","tool":"builtin:noop"},{"id":"b","set":{
		"whole":"${{ steps.a.output }}","part":"${{ steps.a.output.bad }}","text":"<${{ steps.a.output.bad }}>","json":"${{ json(steps.a.output.bad) }}"}}]}`))
	if err != nil {
		t.Fatal(problems(err))
	}
	got, err := w.Step("b").Set.Render(scope)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"json":"\"x\\ud800y\\udfff\"","part":"x\ud800y\udfff","text":"<x\ud800y\udfff>","whole":` + out + `}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzDecode compares with encoding/json: both read the same texts, and to the same values.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5,"x\u00e9",null,true]}`, `"\ud800"`, `-0.0e-5`, `[[[]]]`, `{"":{}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := workflow.Decode(raw)
		if valid := json.Valid(raw); valid != (err == nil) {
			t.Fatalf("%q: encoding/json says %v, Decode says %v", raw, valid, err)
		}
		if err != nil {
			return
		}
		var want any
		if json.Unmarshal(raw, &want) != nil { // a number beyond float64
			return
		}
		encoded, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var again any
		if err := json.Unmarshal(encoded, &again); err != nil {
			t.Fatal(err)
		}
		replace := cmp.Transformer("valid", func(s string) string { // both have U+FFFD for a lone surrogate, we three
			return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\uFFFD", "")
		})
		if diff := cmp.Diff(want, again, replace); diff != "" {
			t.Fatalf("%q (-encoding/json +Decode):\n%s", raw, diff)
		}
	})
}
