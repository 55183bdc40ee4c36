package workflow_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow"
)

// library has published workflows: versions by name, the first is 1.
type library map[string][][]byte

// Workflow implements workflow.Library.
func (l library) Workflow(name string, version int) (string, []byte, bool) {
	if version == 0 {
		version = len(l[name])
	}
	if version < 1 || version > len(l[name]) {
		return "", nil, false
	}
	return fmt.Sprintf("%s@%d", name, version), l[name][version-1], true
}

// publish compiles a definition and puts it into the library.
func (l library) publish(t *testing.T, source string) *workflow.Workflow {
	t.Helper()
	w, err := workflow.CompileWith([]byte(source), l)
	if err != nil {
		t.Fatal(problems(err))
	}
	l[w.Name] = append(l[w.Name], w.Source)
	return w
}

const greetSource = `
spec: workflow/v1
name: greet
input: {type: object, required: [who, tone], properties: {who: {type: string}, tone: {enum: [warm, cold], default: warm}, times: {type: integer}}, additionalProperties: false}
steps: [{id: a, set: {text: "Hello ${{ input.who }}"}}]
`

// TestChildren: a definition carries the workflows that it runs, and a stored one is compiled from what it carries alone.
func TestChildren(t *testing.T) {
	lib := library{}
	first := lib.publish(t, greetSource)
	second := lib.publish(t, strings.Replace(greetSource, "Hello", "Welcome", 1))
	lib.publish(t, `{spec: workflow/v1, name: twice, steps: [{id: a, workflow: {name: greet@1, input: {who: x}}}, {id: b, workflow: {name: greet, input: {who: x}}}]}`)
	source := `
spec: workflow/v1
name: top
input: {type: object, required: [kind], properties: {kind: {enum: [greet, twice]}, who: {type: string, default: you}}}
steps:
  - {id: one, workflow: {name: greet@1, input: {who: "${{ input.who }}"}}}
  - {id: two, workflow: {name: twice}, retry: {max_attempts: 2, classes: [child_failed]}}
  - {id: three, workflow: {name: "${{ input.kind }}", input: {who: "${{ input.who }}"}}}
  - {id: four, set: {x: "${{ steps.one.output.text }} ${{ steps.one.run }}"}}
`
	if got, want := workflow.NamesOf([]byte(source)), []string{"greet", "greet@1", "twice"}; !slices.Equal(got, want) {
		t.Errorf("it names %v, want %v", got, want)
	}
	w := lib.publish(t, source)
	if w.Step("one").Workflow.Ref != "greet@1" || w.Step("two").Workflow.Ref != "twice@1" {
		t.Errorf("it runs %s and %s", w.Step("one").Workflow.Ref, w.Step("two").Workflow.Ref)
	}
	if diff := cmp.Diff(map[string]string{"greet": "greet@2", "twice": "twice@1"}, w.Step("three").Workflow.Refs); diff != "" {
		t.Error(diff)
	}
	// A third version is published: what is stored means the second.
	lib.publish(t, strings.Replace(greetSource, "Hello", "Hi", 1))
	loaded, err := workflow.Load(w.Source)
	if err != nil {
		t.Fatal(problems(err))
	}
	if diff := cmp.Diff(dump(w), dump(loaded)); diff != "" || loaded.Hash != w.Hash {
		t.Errorf("loaded it differs (-compiled +loaded):\n%s", diff)
	}
	for _, all := range []*workflow.Workflow{w, loaded} {
		twice := all.Children["twice@1"]
		for ref, want := range map[string]*workflow.Workflow{"greet@1": first, "greet@2": second} {
			if all.Children[ref].Hash != want.Hash || twice.Children[ref].Hash != want.Hash {
				t.Errorf("%s is another workflow than was published", ref)
			}
		}
		if len(all.Children) != 3 || len(twice.Children) != 2 {
			t.Errorf("there are %d children, and %d of twice", len(all.Children), len(twice.Children))
		}
	}
	if again := lib.publish(t, source); again.Hash == w.Hash {
		t.Error("another version of what it runs has the same hash")
	}
	if _, err := workflow.Compile(w.Source); err == nil || !strings.Contains(problems(err), `no key "carried"`) {
		t.Errorf("a definition that says itself what it carries: %s", problems(err))
	}
}

// TestChildProblems: what is wrong with a step that runs another workflow.
func TestChildProblems(t *testing.T) {
	lib := library{}
	lib.publish(t, greetSource)
	lib["broken"] = [][]byte{[]byte(`{"spec":"workflow/v1"}`)}
	for _, c := range []struct{ step, want string }{
		{`{name: greet@2, input: {who: x}}`, "4:30 /steps/0/workflow/name unknown_workflow: there is no published workflow \"greet@2\"\n"},
		{`{name: greet}`, "4:23 /steps/0/workflow value: it does not meet its schema: \"who\" is missing\n"},
		{`{name: greet, input: {who: 5, tone: loud, x: 1}}`, "4:50 /steps/0/workflow/input/who value: it does not meet its schema: must be a string, not a number\n" +
			"4:59 /steps/0/workflow/input/tone value: it does not meet its schema: \"loud\" is none of \"warm\", \"cold\"\n" +
			"4:68 /steps/0/workflow/input/x value: it does not meet its schema: there is no property \"x\"\n"},
		{`{name: greet, input: {tone: "${{ input.t }}"}}`, "4:44 /steps/0/workflow/input required: the input of greet@1 needs \"who\"\n"},
		{`{name: greet, input: {who: "${{ input.t }}"}}`, "no problem\n"},
		{`{name: broken}`, "4:30 /steps/0/workflow/name unknown_workflow: the workflow broken@1 cannot be run by this version: workflow_invalid: the definition has 2 problems;  the definition needs \"name\";  the definition needs \"steps\"\n"},
		{`{name: top}`, "4:30 /steps/0/workflow/name cycle: a workflow cannot run itself: top → top\n"},
	} {
		_, err := workflow.CompileWith([]byte("spec: workflow/v1\nname: top\nsteps:\n  - {id: a, workflow: "+c.step+"}\n"), lib)
		if got := problems(err); got != c.want {
			t.Errorf("%s:\n%swant\n%s", c.step, got, c.want)
		}
	}
}

// TestChildrenDepth: workflows run each other to a depth, and what they carry is bounded.
func TestChildrenDepth(t *testing.T) {
	lib := library{}
	lib.publish(t, `{spec: workflow/v1, name: n0, steps: [{id: a, set: {v: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}}]}`)
	above := func(n int) string {
		return fmt.Sprintf(`{spec: workflow/v1, name: n%d, steps: [{id: a, workflow: {name: n%d}}]}`, n, n-1)
	}
	for n := 1; n <= workflow.ChildrenDepthMax; n++ {
		w := lib.publish(t, above(n))
		if _, err := workflow.Load(w.Source); err != nil {
			t.Fatalf("%d deep: %s", n, problems(err))
		}
	}
	_, err := workflow.CompileWith([]byte(above(workflow.ChildrenDepthMax+1)), lib)
	if !strings.Contains(problems(err), "more than 8 deep") {
		t.Errorf("too deep: %s", problems(err))
	}
	text, err := json.Marshal(strings.Repeat("x", workflow.DefinitionBytesMax-200))
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for i := range 10 {
		lib.publish(t, fmt.Sprintf(`{"spec": "workflow/v1", "name": "large%d", "steps": [{"id": "a", "set": {"v": %s}}]}`, i, text))
		steps = append(steps, fmt.Sprintf(`{id: a%d, workflow: {name: large%d}}`, i, i))
	}
	_, err = workflow.CompileWith([]byte("{spec: workflow/v1, name: top, steps: ["+strings.Join(steps, ",")+"]}"), lib)
	if !strings.Contains(problems(err), "more than 8388608 bytes together") {
		t.Errorf("too large: %s", problems(err))
	}
}
