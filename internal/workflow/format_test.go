package workflow_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
	formatschema "github.com/fermata-run/fermata/internal/workflow/schema"
)

// formatTree is the format's schema, decoded.
var formatTree = sync.OnceValue(func() map[string]any {
	tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(formatschema.JSON()))
	if err != nil {
		panic(err)
	}
	return tree.(map[string]any) //nolint:errcheck,forcetypeassert // it is one, or every test says so
})

// format is the format's schema, compiled; that holds it against the schema of schemas.
var format = sync.OnceValue(func() *jsonschema.Schema {
	c := jsonschema.NewCompiler()
	url := formatTree()["$id"].(string) //nolint:errcheck,forcetypeassert // likewise
	if err := c.AddResource(url, formatTree()); err != nil {
		panic(err)
	}
	return c.MustCompile(url)
})

// under follows a pointer.
func under(v any, pointer string) any {
	for _, name := range strings.Split(pointer, "/")[1:] {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}

// TestFormatKeys: of every object the schema and the compiler know the same keys, and which of them this version runs.
func TestFormatKeys(t *testing.T) {
	sets := workflow.KeySets()
	for name, set := range sets {
		pointer := ""
		if name != "" {
			pointer = "/$defs/" + name
		}
		object, ok := under(formatTree(), pointer).(map[string]any)
		if !ok || object["additionalProperties"] != false {
			t.Errorf("%s is not in the schema, or takes any key", name)
			continue
		}
		var known, later []string
		properties, _ := object["properties"].(map[string]any)
		for key, property := range properties {
			if described := annotation(property, "description"); described == nil {
				t.Errorf("%s/%s: nothing says what it is", name, key)
			}
			if under(property, "/deprecationMessage") != nil {
				later = append(later, key)
			} else {
				known = append(known, key)
			}
		}
		for what, lists := range map[string][2][]string{"runs": {set.Known, known}, "does not run": {set.Later, later}} {
			if diff := cmp.Diff(slices.Sorted(slices.Values(lists[0])), slices.Sorted(slices.Values(lists[1]))); diff != "" {
				t.Errorf("%q: keys that this version %s (-compiler +schema):\n%s", name, what, diff)
			}
		}
	}
	for at, known := range keySetsWritten(t) {
		if !slices.ContainsFunc(slices.Collect(maps.Values(sets)), func(s workflow.KeySet) bool { return slices.Equal(s.Known, known) }) {
			t.Errorf("%s: the keys %v are not held against the schema", at, known)
		}
	}
	for pointer, words := range workflow.Words() {
		var inSchema []string
		switch v := under(formatTree(), pointer).(type) {
		case string:
			inSchema = []string{v}
		case []any:
			for _, word := range v {
				inSchema = append(inSchema, fmt.Sprint(word))
			}
		}
		if diff := cmp.Diff(words, inSchema); diff != "" {
			t.Errorf("%s (-compiler +schema):\n%s", pointer, diff)
		}
	}
}

// annotation is what a property says of itself, or what it refers to says.
func annotation(property any, key string) any {
	for property != nil {
		if v := under(property, "/"+key); v != nil {
			return v
		}
		ref, ok := under(property, "/$ref").(string)
		if !ok {
			return nil
		}
		property = under(formatTree(), strings.TrimPrefix(ref, "#"))
	}
	return nil
}

// keySetsWritten are the keys of every keySet in the package, by where it is written.
func keySetsWritten(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found, set := map[string][]string{}, token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "planned.go" { // what a planner answers is no definition
			continue
		}
		parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if name, ok := literal.Type.(*ast.Ident); !ok || name.Name != "keySet" {
				return true
			}
			var known []string
			ast.Inspect(literal.Elts[0], func(n ast.Node) bool {
				if text, ok := n.(*ast.BasicLit); ok {
					known = append(known, strings.Trim(text.Value, `"`))
				}
				return true
			})
			found[set.Position(n.Pos()).String()] = known
			return true
		})
	}
	if len(found) < 20 {
		t.Fatalf("only %d found", len(found))
	}
	return found
}

// goodDefinitions are definitions that compile, as JSON, by file.
func goodDefinitions(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/golden/*.yaml", "../../examples/*.yaml", "../../examples/templates/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(source, []byte("spec: workflow/v1")) {
				all[file] = workflow.Canonical(source)
			}
		}
	}
	return all
}

// TestFormatAccepts: the schema refuses nothing that compiles, nor what is part of the format and not run by this version.
// Of such the compiler says that, and nothing else.
func TestFormatAccepts(t *testing.T) {
	for file, source := range goodDefinitions(t) {
		if err := format().Validate(decodedAny(t, source)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, file := range golden(t, "testdata/format/*.yaml") {
		source := []byte(read(t, file))
		if err := format().Validate(decodedAny(t, workflow.Canonical(source))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		_, err := workflow.Compile(source)
		for _, i := range issuesOf(t, err) {
			if i.Code != "not_supported" && i.Code != "unknown_tool" {
				t.Errorf("%s: %+v", file, i)
			}
		}
	}
}

func decodedAny(t fataler, source []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return v
}

func issuesOf(t fataler, err error) []fault.Issue {
	t.Helper()
	var f *fault.Error
	if err != nil && !errors.As(err, &f) {
		t.Fatalf("not a fault: %v", err)
	}
	if f == nil {
		return nil
	}
	return f.Issues
}

// refused are the pointers that the schema refuses something at; a key that is not known, or does not go with the others,
// counts by itself.
func refused(err error) map[string]bool {
	at := map[string]bool{}
	var visit func(e *jsonschema.ValidationError)
	visit = func(e *jsonschema.ValidationError) {
		for _, cause := range e.Causes {
			visit(cause)
		}
		if len(e.Causes) > 0 {
			return
		}
		pointer := ""
		for _, name := range e.InstanceLocation {
			pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		}
		at[pointer] = true
		switch k := e.ErrorKind.(type) {
		case *kind.AdditionalProperties:
			for _, name := range k.Properties {
				at[pointer+"/"+name] = true
			}
		case *kind.DependentRequired:
			at[pointer+"/"+k.Prop] = true
		}
	}
	var invalid *jsonschema.ValidationError
	if errors.As(err, &invalid) {
		visit(invalid)
	}
	return at
}

// structural are the codes of problems that a schema can see.
var structural = []string{"type", "required", "unknown_key", "value", "limit", "name", "conflict"}

// unseen are what it cannot see of these, all the same: what depends on names, on expressions, on sums, on other places.
var unseen = regexp.MustCompile(`^the agent|^an attempt ends after|^nothing says what the agent|^steps are nested more|^agents extend each other|` +
	`^\S+ must be from \S+ to \S+$|the backoff's max|finer than money|^1e999|items? listed, more than max_items|^min_success \(|^a quorum of|` +
	`^it does not meet its schema|no ladder to go down|^there is no level|level \d+ \(|no level of the ladder|is omitted on this level|is the name of another level|` +
	`is no step with an agent|cannot fall back to another|is never reached|^else must be the last|stands twice in the chain|call the item differently|` +
	`only a step that is an agent's|a name must be text`)

// TestFormatRefuses: what is wrong with the shape of a definition the schema refuses, too, at the same place.
func TestFormatRefuses(t *testing.T) {
	for _, file := range golden(t, "testdata/bad/*.txt") {
		for i, c := range strings.Split(read(t, file), "\n====\n") {
			definition, _, _ := strings.Cut(c, "\n----\n")
			source := workflow.Canonical([]byte(definition))
			if source == nil {
				continue
			}
			_, err := workflow.Compile([]byte(definition))
			tree := decodedAny(t, source)
			at := refused(format().Validate(tree))
			for _, issue := range issuesOf(t, err) {
				text, _ := under(tree, issue.Pointer).(string) //nolint:errcheck // what is no text holds no expression
				if !slices.Contains(structural, issue.Code) || unseen.MatchString(issue.Detail) || strings.Contains(text, "${{") || at[issue.Pointer] {
					continue
				}
				if around := issue.Pointer[:max(0, strings.LastIndex(issue.Pointer, "/"))]; issue.Code != "conflict" || !at[around] {
					t.Errorf("%s, case %d: the schema does not see %d:%d %s %s: %s", file, i+1, issue.Line, issue.Col, issue.Pointer, issue.Code, issue.Detail)
				}
			}
		}
	}
}

// mutations are what is put into a definition that compiles.
var mutations = []string{
	`null`, `true`, `false`, `0`, `-1`, `1.5`, `1000000`, `""`, `" "`, `"x"`, `"none"`, `"${{ input }}"`, `"a: b"`, `[]`, `["x"]`, `{}`, `{"x":1}`,
}

// TestFormatIsNoStricter: whatever is done to a definition, what the schema refuses does not compile.
func TestFormatIsNoStricter(t *testing.T) {
	all := goodDefinitions(t)
	files := slices.Sorted(maps.Keys(all))
	rapid.Check(t, func(r *rapid.T) {
		tree := decodedAny(r, all[rapid.SampledFrom(files).Draw(r, "file")])
		for range rapid.IntRange(1, 2).Draw(r, "times") {
			tree = mutate(r, tree)
		}
		source, err := json.Marshal(tree)
		if err != nil {
			r.Fatal(err)
		}
		invalid := format().Validate(tree)
		if _, err := workflow.Compile(source); err == nil && invalid != nil {
			r.Fatalf("it compiles, and the schema says %v:\n%s", invalid, source)
		}
	})
}

// mutate changes something somewhere in a value.
func mutate(r *rapid.T, v any) any {
	deeper := func() bool { return rapid.IntRange(0, 9).Draw(r, "depth") > 0 }
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			break
		}
		key := rapid.SampledFrom(slices.Sorted(maps.Keys(v))).Draw(r, "key")
		if deeper() {
			v[key] = mutate(r, v[key])
			return v
		}
		switch was := v[key]; rapid.SampledFrom([]string{"drop", "rename", "add"}).Draw(r, "how") {
		case "drop":
			delete(v, key)
		case "rename":
			delete(v, key)
			v[rapid.SampledFrom(formatWords()).Draw(r, "name")] = was
		case "add":
			v[rapid.SampledFrom(formatWords()).Draw(r, "name")] = mutated(r)
		}
		return v
	case []any:
		if len(v) == 0 {
			break
		}
		i := rapid.IntRange(0, len(v)-1).Draw(r, "entry")
		if deeper() {
			v[i] = mutate(r, v[i])
			return v
		}
		return slices.Delete(slices.Clone(v), i, i+1)
	}
	return mutated(r)
}

func mutated(r *rapid.T) any {
	return decodedAny(r, []byte(rapid.SampledFrom(mutations).Draw(r, "value")))
}

// formatWords are all keys of the format, and one that is none.
var formatWords = sync.OnceValue(func() []string {
	words := []string{"nothing"}
	for _, set := range workflow.KeySets() {
		words = append(words, set.Known...)
		words = append(words, set.Later...)
	}
	slices.Sort(words)
	return slices.Compact(words)
})

// TestFormatLimits: every number that the schema bounds is bounded alike by the compiler: the last value that fits is
// taken, the next one refused, at its place.
func TestFormatLimits(t *testing.T) {
	tried := map[string]bool{}
	for _, source := range goodDefinitions(t) {
		tree := decodedAny(t, source)
		var visit func(v, schema any, pointer string)
		try := func(schema any, bound, pointer string, step float64) {
			limit, ok := under(schema, "/"+bound).(json.Number)
			path := fmt.Sprintf("%s of %v", bound, annotation(schema, "description"))
			if !ok || tried[path] {
				return
			}
			tried[path] = true
			last, err := limit.Float64()
			if err != nil {
				t.Fatal(err)
			}
			for value, wrong := range map[float64]bool{last: false, last + step: true} {
				issues := issuesOf(t, compileWith(t, source, pointer, json.Number(strconv.FormatFloat(value, 'g', -1, 64))))
				at := slices.IndexFunc(issues, func(i fault.Issue) bool {
					return i.Pointer == pointer && i.Code == "value" && strings.Contains(i.Detail, "must be")
				})
				if wrong != (at >= 0) {
					t.Errorf("%s (%s): %v is refused: %v, want %v: %v", path, pointer, value, !wrong, wrong, issues)
				}
			}
		}
		visit = func(v, schema any, pointer string) {
			for _, schema := range alternatives(schema) {
				step := 1.0
				if under(schema, "/type") == "number" {
					step = 1e-6
				}
				if _, number := v.(json.Number); number {
					try(schema, "maximum", pointer, step)
					try(schema, "minimum", pointer, -step)
				}
				switch v := v.(type) {
				case map[string]any:
					for key, inner := range v {
						visit(inner, schemaInside(schema, key), pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
					}
				case []any:
					for i, inner := range v {
						visit(inner, under(schema, "/items"), pointer+"/"+strconv.Itoa(i))
					}
				}
			}
		}
		visit(tree, formatTree(), "")
	}
	if len(tried) < 30 {
		t.Errorf("only %d limits were tried: %v", len(tried), slices.Sorted(maps.Keys(tried)))
	}
}

// alternatives are the schemas that one stands for, references followed.
func alternatives(schema any) []any {
	if ref, ok := under(schema, "/$ref").(string); ok {
		schema = under(formatTree(), strings.TrimPrefix(ref, "#"))
	}
	all := []any{schema}
	for _, key := range []string{"anyOf", "allOf"} {
		list, _ := under(schema, "/"+key).([]any) //nolint:errcheck // none
		for _, inner := range list {
			all = append(all, alternatives(inner)...)
		}
	}
	return all
}

// compileWith compiles a definition with another value at a place.
func compileWith(t *testing.T, source []byte, pointer string, value any) error {
	t.Helper()
	tree := decodedAny(t, source)
	cut := strings.LastIndex(pointer, "/")
	around, ok := under(tree, pointer[:cut]).(map[string]any)
	if !ok {
		t.Fatalf("%s stands in no object", pointer)
	}
	around[pointer[cut+1:]] = value
	changed, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	_, err = workflow.Compile(changed)
	return err
}
