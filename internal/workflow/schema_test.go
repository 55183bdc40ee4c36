package workflow_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

func schema(t testing.TB, raw string) *workflow.Schema {
	t.Helper()
	s, err := workflow.ParseSchema(json.RawMessage(raw))
	if err != nil {
		t.Fatalf("parse schema: %s", problems(err))
	}
	return s
}

func TestCheck(t *testing.T) {
	const person = `{"type":"object","required":["name","age"],"additionalProperties":false,"properties":{
		"name":{"type":"string","minLength":2,"maxLength":4},"age":{"type":"integer","minimum":0,"maximum":150},"mail":{"type":"string","format":"email"},
		"kind":{"enum":["a","b"]},"tags":{"type":"array","items":{"type":"string"},"uniqueItems":true,"maxItems":2,"minItems":1},
		"boss":{"$ref":"#"},"one":{"const":1},"code":{"type":"string","pattern":"^[a-z]+$"},
		"any":{"anyOf":[{"type":"string"},{"type":"object","required":["x"]}]},"x":{"oneOf":[{"type":"number"},{"type":"integer"}]},
		"min":{"type":"number","exclusiveMinimum":1,"exclusiveMaximum":2,"multipleOf":0.25}}}`
	s := schema(t, person)
	for _, c := range []struct{ value, want string }{
		{`{"name":"Ann","age":3}`, ``},
		{`{"name":"Ann","age":3.0}`, ``},
		{`{}`, ` required "name" is missing;  required "age" is missing`},
		{`[]`, ` type must be an object, not a list`},
		{`{"name":"A","age":-1,"more":1}`, `/age minimum -1 is less than 0; /more unknown_property there is no property "more"; /name min_length has 1 character; at least 2 are needed`},
		{`{"name":"Annabel","age":1.5}`, `/age type must be an integer, not a number; /name max_length has 7 characters; at most 4 are allowed`},
		{`{"name":"Ann","age":1e3,"mail":"x","kind":"c"}`, `/age maximum 1000 is more than 150; /kind enum "c" is none of "a", "b"; /mail format "x" is not a email`},
		{`{"name":"Ann","age":1,"tags":["x","x",1]}`, `/tags max_items has 3 entries; at most 2 are allowed; /tags unique_items the entries 0 and 1 are equal; /tags/2 type must be a string, not a number`},
		{`{"name":"Ann","age":1,"tags":[],"one":2,"code":"A1"}`, `/code pattern "A1" does not match the pattern ^[a-z]+$; /one const must be 1, not 2; /tags min_items has 0 entries; at least 1 are needed`},
		{`{"name":"Ann","age":1,"boss":{"name":"Bo","boss":{"name":3}}}`, `/boss required "age" is missing; /boss/boss required "age" is missing; /boss/boss/name type must be a string, not a number`},
		{`{"name":"Ann","age":1,"any":{},"x":1}`, `/any any_of it meets none of the alternatives: must be a string, not an object; or "x" is missing; /x one_of it meets more than one of the alternatives`},
		{`{"name":"Ann","age":1,"min":2}`, `/min exclusive_maximum 2 must be less than 2`},
		{`{"name":"Ann","age":1,"min":1.3}`, `/min multiple_of multipleOf: got 1.3, want 0.25`},
		{`{"name":"Ann","age":1e999999999}`, ` json read JSON: the number at byte 20 is out of range`},
		{`{"name":`, ` json read JSON: no value at byte 8`},
	} {
		var got []string
		for _, i := range s.Check(json.RawMessage(c.value)) {
			got = append(got, i.Pointer+" "+i.Code+" "+i.Detail)
		}
		if diff := cmp.Diff(c.want, strings.Join(got, "; ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.value, diff)
		}
	}
}

// TestCheckStops: a schema that visits everything twice per level takes 2^depth steps; it is stopped.
func TestCheckStops(t *testing.T) {
	s := schema(t, `{"anyOf":[{"items":{"$ref":"#"},"minItems":5},{"items":{"$ref":"#"},"minItems":6}]}`)
	issues := s.Check([]byte(strings.Repeat("[", 60) + strings.Repeat("]", 60)))
	if len(issues) != 1 || issues[0].Code != "too_complex" {
		t.Errorf("got %v", issues)
	}
	if issues := s.Check([]byte(`[1,2,3,4,5]`)); issues != nil {
		t.Errorf("after it was stopped once: %v", issues)
	}
}

func TestFill(t *testing.T) {
	s := schema(t, `{"type":"object","properties":{
		"a":{"default":1},"n":{"type":"object","properties":{"x":{"default":[1,{"y":2}]}}},"d":{"$ref":"#/$defs/d"},
		"o":{"type":"object","default":{},"properties":{"in":{"default":"deep"}}},
		"list":{"type":"array","items":{"type":"object","properties":{"z":{"default":null}}}}},
		"allOf":[{"properties":{"all":{"default":true}}}],
		"$defs":{"d":{"default":1.50}}}`)
	for value, want := range map[string]string{
		`{}`: `{"a":1,"all":true,"d":1.50,"o":{"in":"deep"}}`,
		`{"a":2,"n":{},"o":{"in":1,"more":[ ]},"list":[{},{"z":3},4],"d":0,"all":false}`: `{"a":2,"all":false,"d":0,"list":[{"z":null},{"z":3},4],"n":{"x":[1,{"y":2}]},"o":{"in":1,"more":[]}}`,
		`7`: `7`,
		`{"a":1,"all":1,"d":1,"o":{"in":1},"big":12345678901234567890,  "bad":"\ud800"}`: `{"a":1,"all":1,"d":1,"o":{"in":1},"big":12345678901234567890,  "bad":"\ud800"}`,
		`{"big":12345678901234567890,"bad":"\ud800"}`:                                    `{"a":1,"all":true,"bad":"\ud800","big":12345678901234567890,"d":1.50,"o":{"in":"deep"}}`,
	} {
		got, err := s.Fill(json.RawMessage(value))
		if err != nil {
			t.Errorf("%s: %v", value, err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", value, diff)
		}
	}
	if _, err := s.Fill([]byte(`{`)); err == nil {
		t.Error("half a value was filled")
	}
	again, err := s.Fill([]byte(`{}`))
	if err != nil || !strings.Contains(string(again), `"in":"deep"`) {
		t.Errorf("filling changed the schema: %s, %v", again, err)
	}
}

// TestSchemaCircles: schemas that refer to themselves end, wherever they are followed.
func TestSchemaCircles(t *testing.T) {
	for _, raw := range []string{
		`{"type":"array","items":{"$ref":"#"}}`, `{"type":"object","properties":{"x":{"$ref":"#"}}}`, `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`,
		`{"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}],"$defs":{"a":{"properties":{"x":{"default":{}}},"allOf":[{"$ref":"#"},{"$ref":"#"}]}}}`,
	} {
		s := schema(t, raw)
		s.Check([]byte(`{"x":{"x":[]}}`))
		if _, err := s.Fill([]byte(`{"x":{"x":[]}}`)); err != nil && !strings.Contains(err.Error(), "steps") {
			t.Errorf("%s: %v", raw, err)
		}
		if _, err := workflow.Compile(fmt.Appendf(nil, `{"spec":"workflow/v1","name":"t","input":%s,"steps":[{"id":"a","set":{"v":"${{ input }}"}}]}`, raw)); err != nil {
			t.Errorf("%s: %s", raw, problems(err))
		}
	}
}

func TestParseSchemaProblems(t *testing.T) {
	_, err := workflow.ParseSchema(json.RawMessage(`{"type":"nonsense"}`))
	var f *fault.Error
	if !errors.As(err, &f) || len(f.Issues) != 1 || f.Issues[0].Pointer != "/type" {
		t.Errorf("got %v", err)
	}
}

// TestConcurrentUse: compiled definitions are shared by all runs (worth its time with -race).
func TestConcurrentUse(t *testing.T) {
	w, err := workflow.Compile([]byte(read(t, "testdata/good/everything.yaml")))
	if err != nil {
		t.Fatal(problems(err))
	}
	scope := newScope(t, `{"topic":"tides","count":3,"price":1.5,"tags":["a"],"owner":{"boss":{"name":"Ann"}}}`, map[string]string{
		"prepare": `{"half":1.5,"long":false}`, "draft": `{"text":"t"}`, "facts": "-", "style": `{}`, "report": `{}`,
	})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				if _, err := w.Step("prepare").Set.Render(scope); err != nil {
					t.Error(err)
				}
				if _, err := w.Output.Render(scope); err != nil {
					t.Error(err)
				}
				if _, err := w.Step("review").Group.Output.Render(scope); err != nil {
					t.Error(err)
				}
				if issues := w.Contracts["draft"].Check([]byte(fmt.Sprintf(`{"text":%d}`, 1))); len(issues) != 1 {
					t.Error(issues)
				}
			}
		})
	}
	group.Wait()
}
