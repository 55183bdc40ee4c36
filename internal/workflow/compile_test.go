package workflow_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// TestSpellings: however a definition is spelled, what it says has one hash.
func TestSpellings(t *testing.T) {
	var hash workflow.Hash
	for i, source := range []string{
		`{"spec":"workflow/v1","name":"n","steps":[{"id":"a","set":{"x":1.50,"y":[true,null,"é"],"z":{"b":1,"a":-2e3}}}]}`,
		"spec: workflow/v1\nname: n\nsteps:\n- id: a\n  set:\n    y: [true, ~, é]\n    z: {a: -2e3, b: 1}\n    x: 1.50\n",
		"{ \"steps\" : [ {\"set\":{\"z\":{\"a\":-2e3,\"b\":1},\"y\":[true,null,\"\\u00e9\"],\"x\":1.50},\"id\":\"a\"} ],\n\"name\":\"n\", \"spec\":\"workflow/v1\" }",
		"{spec: workflow/v1, name: 'n', steps: [{id: \"a\", set: {x: 1.50, y: &y [True, null, \"\\xe9\"], z: {a: -2e3, b: 0x1}}}]}",
	} {
		w, err := workflow.Compile([]byte(source))
		if err != nil {
			t.Fatalf("%s: %s", source, problems(err))
		}
		if i == 0 {
			hash = w.Hash
			if want := `{"name":"n","spec":"workflow/v1","steps":[{"id":"a","set":{"x":1.50,"y":[true,null,"é"],"z":{"a":-2e3,"b":1}}}]}`; string(w.Source) != want {
				t.Errorf("canonical:\n%s, want\n%s", w.Source, want)
			}
		} else if w.Hash != hash {
			t.Errorf("another hash for %s:\n%s", source, w.Source)
		}
	}
}

// TestYAMLIsJSON: any JSON value written as YAML is the same definition.
func TestYAMLIsJSON(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		value := anyValue(3).Draw(r, "value")
		definition := map[string]any{"spec": "workflow/v1", "name": "n", "steps": []any{map[string]any{"id": "a", "set": map[string]any{"v": value}}}}
		asJSON, err := json.Marshal(definition)
		if err != nil {
			r.Fatal(err)
		}
		asYAML, err := yaml.Marshal(definition)
		if err != nil {
			r.Fatal(err)
		}
		one, err := workflow.Compile(asJSON)
		if err != nil {
			r.Fatalf("%s: %s", asJSON, problems(err))
		}
		other, err := workflow.Compile(asYAML)
		if err != nil {
			r.Fatalf("%s: %s", asYAML, problems(err))
		}
		if one.Hash != other.Hash {
			r.Fatalf("JSON\n%s\nYAML\n%s", one.Source, other.Source)
		}
		// A template of constants renders to itself.
		rendered, err := one.Step("a").Set.Render(nil)
		if err != nil {
			r.Fatal(err)
		}
		var want, got any
		if json.Unmarshal(asJSON, &want) != nil || json.Unmarshal(rendered, &got) != nil {
			r.Fatalf("not JSON: %s", rendered)
		}
		if diff := cmp.Diff(map[string]any{"v": value}, got, cmp.Comparer(func(a, b float64) bool { return a == b })); diff != "" {
			r.Fatalf("rendered otherwise:\n%s", diff)
		}
	})
}

func anyValue(depth int) *rapid.Generator[any] {
	// One line each: the YAML library writes some texts of several lines in a way it cannot read back.
	text := rapid.StringMatching(`[ -~äöü€😀]{0,12}`).Filter(func(s string) bool { return !strings.Contains(s, "${{") })
	leaves := []*rapid.Generator[any]{
		text.AsAny(), rapid.Bool().AsAny(), rapid.Just(any(nil)),
		rapid.Map(rapid.IntRange(-1000, 1000), func(i int) any { return float64(i) }),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	inner := anyValue(depth - 1)
	return rapid.OneOf(append(leaves,
		rapid.Map(rapid.SliceOfN(inner, 0, 4), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(rapid.StringMatching(`[ -~äöü€]{0,8}`).Filter(func(s string) bool { return !strings.Contains(s, "${{") }), inner, 0, 4), func(m map[string]any) any { return m }))...)
}

// TestTemplateRoundTrip: text around expressions, whatever it is, comes out as it went in, and values that look like
// expressions stay text.
func TestTemplateRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var template, want strings.Builder
		value := rapid.SampledFrom([]string{"v", "${{ input.s }}", "}}", "$${{", "\"'\\", "😀", ""}).Draw(r, "value")
		for range rapid.IntRange(1, 6).Draw(r, "pieces") {
			text := rapid.StringMatching(`[a-z {}$"'\\\n]{0,8}`).Draw(r, "text")
			if strings.Contains(text, "{{") || strings.HasSuffix(text, "$") || strings.HasSuffix(text, "{") {
				continue
			}
			template.WriteString(text + ".")
			want.WriteString(text + ".")
			switch rapid.IntRange(0, 3).Draw(r, "kind") {
			case 0:
				template.WriteString("${{ input.s }}")
				want.WriteString(value)
			case 1:
				template.WriteString("$${{")
				want.WriteString("${{")
			case 2:
				template.WriteString(`${{ {'}}': "}}"}["}}"] + r'\' + input.s }}`)
				want.WriteString("}}\\" + value)
			}
		}
		scope := testScope(t)
		scope.Input = map[string]any{"s": value}
		got, err := compileSet(t, " "+template.String()).Render(scope)
		if err != nil {
			r.Fatal(err)
		}
		decoded := decoded(t, string(got))
		if diff := cmp.Diff(map[string]any{"v": " " + want.String()}, decoded); diff != "" {
			r.Fatalf("%s:\n%s", template.String(), diff)
		}
	})
}

// TestRandomExpressions: whatever words an expression is made of, it is refused, fails or renders to JSON.
func TestRandomExpressions(t *testing.T) {
	words := []string{
		"input", ".n", ".x", ".s", ".ok", ".list", ".people", ".obj", ".?gone", ".?obj", "steps.a", "steps.b", ".output", ".?output", ".status", ".text", ".inner",
		"run", ".now", ".labels", ".id", "[0]", "[?0]", "['k']", "(", ")", "[", "]", "{", "}", "'a':", ",", "1", "2.5", "-3", "'t'", "null", "true", "b'x'", "1u",
		" + ", " - ", " * ", " / ", " % ", " == ", " != ", " < ", " >= ", " && ", " || ", "!", " ? ", " : ", " in ", ".map(v, v)", ".filter(v, ", ".exists(v, v == ",
		".orValue(", ".or(", "has(", "json(", "num(", "tokens(", "truncate(", "size(", "dyn(", "string(", "int(", "double(", "type(", ".matches(", ".replace(", ".split(",
		".join(", ".format(", ".distinct()", ".sort()", ".sortBy(v, v)", "lists.range(", "math.greatest(", "math.ceil(", "sets.contains(", "optional.of(", "optional.none()",
		".getHours(", "duration('1s')", "timestamp('2026-01-01T00:00:00Z')", "v", ".optMap(v, ", ".first()", ".flatten()", ".slice(0, 1)", ".reverse()",
	}
	compiled := 0
	rapid.Check(t, func(r *rapid.T) {
		expression := strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 1, 9).Draw(r, "words"), "")
		for _, open := range []string{"()", "[]", "{}"} {
			if n := strings.Count(expression, open[:1]) - strings.Count(expression, open[1:]); n > 0 {
				expression += strings.Repeat(open[1:], n)
			}
		}
		w, err := workflow.Compile(fmt.Appendf(nil, `{"spec":"workflow/v1","name":"t","input":%s,"steps":[{"id":"a","tool":"builtin:noop"},
			{"id":"b","tool":"builtin:noop","when":"true"},{"id":"t","set":{"v":%q,"w":%q}}]}`, testSchema, "${{ "+expression+" }}", "${{ "+expression+" }}."))
		if err != nil {
			return
		}
		compiled++
		got, err := w.Step("t").Set.Render(testScope(r))
		if err == nil && !json.Valid(got) {
			r.Fatalf("%s gives %s", expression, got)
		}
		if err != nil && strings.Contains(err.Error(), "internal error") {
			r.Fatalf("%s: %v", expression, err)
		}
	})
	t.Logf("%d compiled", compiled)
}

// TestSize: what is over a limit of the whole is refused by name.
func TestSize(t *testing.T) {
	steps := func(n int) string {
		var b strings.Builder
		b.WriteString("spec: workflow/v1\nname: big\nsteps:\n")
		for i := range n {
			fmt.Fprintf(&b, "- {id: s%d, set: {}}\n", i)
		}
		return b.String()
	}
	for _, c := range []struct{ name, source, want string }{
		{"bytes", "spec: workflow/v1\n#" + strings.Repeat("x", workflow.DefinitionBytesMax), "the limit is 1048576"},
		{"steps", steps(workflow.StepsMax + 1), "more than 1000 steps"},
		{"expression", `{"spec":"workflow/v1","name":"a","steps":[{"id":"a","set":{"x":"${{ ` + strings.Repeat(" ", 10) + strings.Repeat("1+", 8200) + `1 }}"}}]}`, "the limit is 16384"},
		{"alias bytes", "a: &a " + strings.Repeat("x", 10_000) + "\nb: [" + strings.Repeat("*a,", 900) + "]", "expand to more than"},
		{"byte order mark", "\xef\xbb\xbfspec: workflow/v1", "byte order mark"},
		{"UTF-8", "spec: workflow/v1\nname: \xff", "not valid UTF-8"},
		{"NUL", "spec: workflow/v1\nname: a\x00b", "NUL"},
		{"UTF-16", "\xff\xfes\x00", "byte order mark"},
	} {
		if _, err := workflow.Compile([]byte(c.source)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := workflow.Compile([]byte(steps(workflow.StepsMax))); err != nil {
		t.Errorf("as many steps as are allowed: %v", err)
	}
}

// TestIssuesMax: of very many problems the first in the document are shown, and the number of all.
func TestIssuesMax(t *testing.T) {
	var b strings.Builder
	b.WriteString("spec: workflow/v1\nname: many\n")
	for i := range 200 {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	_, err := workflow.Compile([]byte(b.String()))
	var f *fault.Error
	if !errors.As(err, &f) || len(f.Issues) != fault.IssuesMax || !strings.Contains(f.Detail, "201 problems; the first 50 are listed") {
		t.Fatalf("got %v", f.Detail)
	}
	if f.Issues[49].Line != 51 {
		t.Errorf("the last one shown is at line %d", f.Issues[49].Line)
	}
}

// FuzzCompile: no source makes Compile panic, take long, or accept what it does not accept in canonical form.
func FuzzCompile(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.txt", "testdata/golden/*.yaml", "testdata/golden/*.json", "testdata/format/*.yaml"} {
		for _, file := range golden(&testing.T{}, pattern) {
			for _, c := range strings.Split(read(&testing.T{}, file), "\n====\n") {
				definition, _, _ := strings.Cut(c, "\n----\n")
				f.Add([]byte(definition))
			}
		}
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		start := time.Now()
		w, err := workflow.Compile(source)
		if took := time.Since(start); took > 10*time.Second && len(source) < 64<<10 {
			t.Errorf("%d bytes took %s", len(source), took)
		}
		var f *fault.Error
		if err != nil {
			if !errors.As(err, &f) || len(f.Issues) == 0 {
				t.Fatalf("not a fault with issues: %v", err)
			}
			return
		}
		again, err := workflow.Compile(w.Source)
		if err != nil || again.Hash != w.Hash || !bytes.Equal(again.Source, w.Source) {
			t.Fatalf("the canonical form of %q is not stable: %v", source, err)
		}
		scope := newScope(t, `{}`, nil)
		for _, e := range everyExpression(w) {
			e.eval(scope) //nolint:errcheck,gosec // it may fail, it must not panic
		}
	})
}
