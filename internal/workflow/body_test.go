package workflow_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// insideSource has a map around a loop; %s is the set of a step inside both, whose input is typed by testSchema.
const insideSource = `{"spec":"workflow/v1","name":"t","input":%s,
	"contracts":{"note":{"type":"object","required":["text"]}},
	"steps":[{"id":"a","tool":"builtin:noop"},
		{"id":"m","map":{"items":"input.people","as":"person","max_items":9,"steps":[
			{"id":"l","loop":{"max_iterations":9,"until":"output.n == 1","best_by":"output.n / 2",
				"output":{"v":"${{ steps.t.output.v }}","n":"${{ index }}"},"steps":[
				{"id":"t","set":{"v":%s}}]}}]}}]}`

func compileInside(t testing.TB, template string) *workflow.Workflow {
	t.Helper()
	w, err := workflow.Compile(fmt.Appendf(nil, insideSource, testSchema, fmt.Sprintf("%q", template)))
	if err != nil {
		t.Fatalf("compile %s: %s", template, problems(err))
	}
	return w
}

// insideScope is the scope of item 1, iteration 2.
func insideScope(t testing.TB, w *workflow.Workflow, item any) *workflow.Scope {
	scope := testScope(t)
	scope.Local = func(name string) (any, bool) {
		v, ok := map[string]any{
			"contracts": w.ContractValues, "item": item, "person": item, "index": int64(1),
			"iter": map[string]any{"number": int64(2), "last": decoded(t, `{"v":"before"}`)},
		}[name]
		return v, ok
	}
	return scope
}

// TestRootsInside renders what only stands inside maps and loops.
func TestRootsInside(t *testing.T) {
	for _, c := range []struct{ template, want string }{
		{"${{ item.name }} ${{ person.age }} ${{ index + 1 }}", `"Ann 30 2"`},
		{"${{ item }}", `{"age":30,"name":"Ann"}`},
		{"${{ iter.number }}", `2`},
		{"${{ iter.?last.?v }}", `"before"`},
		{"${{ has(iter.last) ? 'again' : 'first' }}", `"again"`},
		{"${{ iter }}", `{"last":{"v":"before"},"number":2}`},
		{"${{ contracts.note.required[0] }} ${{ contracts.note }}", `"text {\"required\":[\"text\"],\"type\":\"object\"}"`},
		{"${{ steps.a.output.n + item.age }} ${{ run.id }} ${{ input.s }}", `"33 run_1 hi"`},
		{"${{ input.people.map(item, item.age) }}", `[30,4]`},
	} {
		w := compileInside(t, c.template)
		got, err := w.Step("m.l.t").Set.Render(insideScope(t, w, decoded(t, `{"name":"Ann","age":30}`)))
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if diff := cmp.Diff(`{"v":`+c.want+`}`, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.template, diff)
		}
	}
}

// TestOutputJudged evaluates until, best_by and merge.by over an output.
func TestOutputJudged(t *testing.T) {
	w := compileInside(t, "1")
	loop := w.Step("m.l").Loop
	scope := insideScope(t, w, nil)
	scope.Extra = map[string]any{"output": decoded(t, `{"v":"x","n":1}`)}
	if done, err := loop.Until.Bool(scope); err != nil || !done {
		t.Errorf("until: %v, %v", done, err)
	}
	if best, err := loop.BestBy.Eval(scope); err != nil || best != 0.5 {
		t.Errorf("best_by: %v, %v", best, err)
	}
	items, err := w.Step("m").Map.Items.Render(testScope(t))
	if err != nil || string(items) != `[{"age":30,"name":"Ann"},{"age":4,"name":"Bo"}]` {
		t.Errorf("items: %s, %v", items, err)
	}
}

// TestBombsInside: what maps and loops give is bounded as the input is.
func TestBombsInside(t *testing.T) {
	for _, c := range []struct{ name, template, want string }{
		{"items", "${{ item.list.all(a, item.list.all(b, person.list.all(c, true))) }}", "costs more than"},
		{"text", "${{ item.s.replace('', person.s) }}", "longer than"},
		{"in", "${{ lists.range(5000).exists(i, dyn('y') in item.list) }}", "costs more than"},
		{"json", "${{ lists.range(5000).map(i, json(item)).size() }}", "costs more than"},
		{"last", "${{ lists.range(9000).map(i, lists.range(9000).map(j, iter.?last)) }}", "costs more than"},
		{"index", "${{ lists.range(9000).all(a, lists.range(9000).all(b, a + b + index + iter.number >= 0)) }}", "costs more than"},
		{"contracts", "${{ lists.range(9000).map(i, json(contracts.note)).join(json(contracts)) }}", "than"},
		{"render", strings.Repeat("${{ item.s }}", 20), "renders to more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := strings.Replace(fmt.Sprintf(insideSource, testSchema, fmt.Sprintf("%q", c.template)), `"input.people"`, `"[steps.a.output]"`, 1)
			w, err := workflow.Compile([]byte(source))
			if err != nil {
				t.Fatal(problems(err))
			}
			big := map[string]any{"s": strings.Repeat("x", 900_000), "list": make([]any, 100_000)}
			got, err := w.Step("m.l.t").Set.Render(insideScope(t, w, big))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %.80s, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}

// TestWhere: what lint and graph show is where it stands in the definition.
func TestWhere(t *testing.T) {
	source := read(t, "testdata/good/bodies.yaml")
	w, err := workflow.Compile([]byte(source))
	if err != nil {
		t.Fatal(problems(err))
	}
	lines := strings.Split(source, "\n")
	at := func(p workflow.Position) string {
		return string([]rune(lines[p.Line-1])[p.Col-1:])
	}
	for _, s := range w.Steps {
		if text := at(s.Pos); s.Pos.Pointer == "" || !strings.HasPrefix(text, "{id: "+s.ID) && !strings.HasPrefix(text, "id: "+s.ID) && s.Group == nil {
			t.Errorf("step %s is said to stand at %+v: %s", s.Path, s.Pos, text)
		}
		for _, r := range s.Reads {
			if text := at(r.Pos); !strings.HasPrefix(text, "steps."+r.Step.ID) {
				t.Errorf("%s is said to read %s at %+v: %s", s.Path, r.Step.Path, r.Pos, text)
			}
		}
	}
	if p := w.Step("style").Agent.Agent.Pos; p.Pointer != "/agents/writer" || !strings.HasPrefix(at(p), "{model: claude") {
		t.Errorf("the agent writer is said to stand at %+v", p)
	}
	if got := w.Step("chapters.sections.write").Pos.Pointer; got != "/steps/2/map/steps/1/map/steps/0" {
		t.Errorf("the inner step is said to stand at %s", got)
	}
}

// TestBodies: in any definition that compiles, slots, edges, paths and containers fit together.
func TestBodies(t *testing.T) {
	for _, file := range golden(t, "testdata/good/*.yaml") {
		w, err := workflow.Compile([]byte(read(t, file)))
		if err != nil {
			t.Fatal(problems(err))
		}
		checkBodies(t, w)
	}
	rapid.Check(t, func(r *rapid.T) {
		g := &bodyMaker{r: r}
		source := "spec: workflow/v1\nname: t\nsteps:\n" + g.steps("  ", nil, 0)
		w, err := workflow.Compile([]byte(source))
		if err != nil {
			r.Fatalf("%s\n%s", source, problems(err))
		}
		checkBodies(r, w)
	})
}

func checkBodies(t fataler, w *workflow.Workflow) {
	t.Helper()
	bodies := map[*workflow.Body]bool{w.Body: true}
	for i, s := range w.Steps {
		switch {
		case s.Index != i || w.Step(s.Path) != s:
			t.Fatalf("%s: index %d at %d", s.Path, s.Index, i)
		case s.Body.Steps[s.Slot] != s || s.Body.Step(s.ID) != s:
			t.Fatalf("%s: slot %d of its body is another", s.Path, s.Slot)
		case s.Parent != nil && (s.Parent.Body != s.Body || s.Parent.Slot >= s.Slot || s.Parent.Group == nil && s.Parent.Switch == nil):
			t.Fatalf("%s: stands in %s", s.Path, s.Parent.Path)
		case s.Body.Owner != nil && s.Path != s.Body.Owner.Path+"."+s.ID, s.Body.Owner == nil && s.Path != s.ID:
			t.Fatalf("%s is the path of %s", s.Path, s.ID)
		}
		for _, e := range s.Edges {
			if !slices.Contains(s.Body.Steps[e.Slot].Dependants, s.Slot) {
				t.Fatalf("%s: nobody knows that it waits for %s", s.Path, s.Body.Steps[e.Slot].Path)
			}
		}
		if s.Parent == nil && s.Section == workflow.SectionMain && !slices.Contains(s.Body.Main, s) {
			t.Fatalf("%s is not in the list of its body", s.Path)
		}
		for _, b := range []*workflow.Body{bodyOf(s)} {
			if b != nil && (b.Owner != s || bodies[b]) {
				t.Fatalf("%s: the body inside belongs to another", s.Path)
			}
			bodies[b] = true
		}
		if !bodies[s.Body] {
			t.Fatalf("%s stands before what it stands in", s.Path)
		}
	}
}

func bodyOf(s *workflow.Step) *workflow.Body {
	switch {
	case s.Map != nil:
		return s.Map.Body
	case s.Loop != nil:
		return s.Loop.Body
	}
	return nil
}

// bodyMaker writes lists of steps, each of which may read any step before it that it sees.
type bodyMaker struct {
	r *rapid.T
	n int
}

func (g *bodyMaker) steps(indent string, seen []string, depth int) string {
	var b strings.Builder
	for range rapid.IntRange(1, 3).Draw(g.r, "steps") {
		g.n++
		id := fmt.Sprintf("s%d", g.n)
		kind := "set"
		if depth < 4 {
			kind = rapid.SampledFrom([]string{"set", "map", "loop", "group"}).Draw(g.r, "kind")
		}
		fmt.Fprintf(&b, "%s- id: %s\n", indent, id)
		inner := func() string { return g.steps(indent+"      ", slices.Clone(seen), depth+1) }
		switch kind {
		case "set":
			value := "1"
			if len(seen) > 0 {
				value = `"${{ steps.` + rapid.SampledFrom(seen).Draw(g.r, "read") + `.output }}"`
			}
			fmt.Fprintf(&b, "%s  set: {v: %s}\n", indent, value)
		case "map":
			fmt.Fprintf(&b, "%s  map:\n%s    items: [1, 2]\n%s    max_items: 2\n%s    steps:\n%s", indent, indent, indent, indent, inner())
		case "loop":
			fmt.Fprintf(&b, "%s  loop:\n%s    until: iter.number > 1\n%s    max_iterations: 2\n%s    steps:\n%s", indent, indent, indent, indent, inner())
		case "group":
			fmt.Fprintf(&b, "%s  group:\n%s    steps:\n%s", indent, indent, inner())
		}
		seen = append(seen, id)
	}
	return b.String()
}

// TestBodiesLimit: the steps inside count.
func TestBodiesLimit(t *testing.T) {
	source := manyBodies(workflow.StepsMax/10, 9)
	if _, err := workflow.Compile(source); err != nil {
		t.Errorf("as many steps as are allowed: %s", problems(err))
	}
	_, err := workflow.Compile(manyBodies(workflow.StepsMax/10, 10))
	var f *fault.Error
	if !errors.As(err, &f) || !strings.Contains(problems(err), "more than 1000 steps") {
		t.Errorf("more steps than are allowed: %v", err)
	}
}

// manyBodies is a definition of maps, each with steps that read each other, their item and the map before.
func manyBodies(maps, steps int) []byte {
	var b strings.Builder
	b.WriteString("spec: workflow/v1\nname: many\ninput: {type: object, properties: {l: {type: array, items: {type: object, properties: {t: {type: string}}}}}}\nagents: {w: {model: m}}\nsteps:\n")
	for m := range maps {
		fmt.Fprintf(&b, "  - id: m%d\n    map:\n      items: input.l\n      as: part%d\n      max_items: 3\n      steps:\n", m, m)
		fmt.Fprintf(&b, "        - {id: s0, agent: w, prompt: \"${{ part%d.t }} ${{ item.t }}\"}\n", m)
		for s := 1; s < steps; s++ {
			before := ""
			if m > 0 {
				before = fmt.Sprintf("${{ steps.m%d.output.size() }}", m-1)
			}
			fmt.Fprintf(&b, "        - {id: s%d, agent: w, prompt: \"${{ steps.s%d.?output }} ${{ index }} %s\", when: \"index > %d\"}\n", s, s-1, before, s)
		}
	}
	return []byte(b.String())
}

// TestLongNames: what is kept of each of thousands of expressions does not grow with the names around them.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("é", 250_000)
	for name, value := range map[string]string{"reads": `"${{ steps.a.output }}"`, "objects": `{"x":"${{ 1 }}"}`} {
		var inside []string
		for i := range 9_000 {
			inside = append(inside, fmt.Sprintf("%q:%s", fmt.Sprint("k", i), value))
		}
		values := "{" + strings.Join(inside, ",") + "}"
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		source := `{"spec":"workflow/v1","name":"t","steps":[{"id":"a","tool":"builtin:noop"},{"id":"b","set":{"` + long + `":` + values + `}}]}`
		w, err := workflow.Compile([]byte(source))
		if err != nil {
			t.Fatal(problems(err))
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 400<<20 {
			t.Errorf("%s: it took %d MB", name, got>>20)
		}
		line := []rune(source)
		for _, r := range w.Step("b").Reads {
			if at := string(line[r.Pos.Col-1:][:7]); r.Pos.Pointer != "/steps/1/set" || at != "steps.a" {
				t.Fatalf("a read is said to stand at %.100s: %s", r.Pos.Pointer, at)
			}
		}
	}
}

func BenchmarkCompileBodies(b *testing.B) {
	for name, source := range map[string][]byte{
		"1000 steps in 100 maps": manyBodies(100, 9),
		"nested":                 mustRead(b, "testdata/good/bodies.yaml"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := workflow.Compile(source); err != nil {
					b.Fatal(problems(err))
				}
			}
		})
	}
}

func mustRead(b *testing.B, file string) []byte {
	source, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	return source
}
