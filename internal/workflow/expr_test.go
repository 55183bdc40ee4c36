package workflow_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow"
)

// testInput is typed by testSchema; the outputs of the steps a and typed are what the tests read.
const (
	testSchema = `{"type":"object","properties":{
		"n":{"type":"integer"},"x":{"type":"number"},"s":{"type":"string"},"ok":{"type":"boolean"},
		"list":{"type":"array","items":{"type":"integer"}},
		"people":{"type":"array","items":{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}}}},
		"obj":{"type":"object","properties":{"my-key":{"type":"string"},"k":{"type":"integer"}}},
		"whole":{"type":"integer"},"eight":{"type":"number"},"empty":{"type":"object"},"gone":{"type":"string"}}}`
	testInput = `{"n":7,"x":2.5,"s":"hi","ok":true,"list":[3,1,2],"people":[{"name":"Ann","age":30},{"name":"Bo","age":4}],
		"obj":{"my-key":"v","k":1},"whole":8.0,"eight":8,"empty":{}}`
)

// compileSet compiles {v: template} behind the steps a (never missing) and b (may be missing).
func compileSet(t testing.TB, template string) *workflow.Template {
	t.Helper()
	quoted, err := json.Marshal(template)
	if err != nil {
		t.Fatal(err)
	}
	w, err := workflow.Compile(fmt.Appendf(nil, `{"spec":"workflow/v1","name":"t","input":%s,"steps":[
		{"id":"a","tool":"builtin:noop"},{"id":"b","tool":"builtin:noop","when":"input.ok"},{"id":"t","set":{"v":%s}}]}`, testSchema, quoted))
	if err != nil {
		t.Fatalf("compile %s: %s", template, problems(err))
	}
	return w.Step("t").Set
}

func testScope(t fataler) *workflow.Scope {
	return newScope(t, testInput, map[string]string{
		"a": `{"text":"said ${{ input.s }}","n":3,"f":2.5,"list":[1,2,3],"inner":{"deep":[{"x":"y"}]},"none":null,"html":"<b>&"}`,
		"b": "-",
	})
}

// TestExpressions renders {v: template}; the want is the JSON of v, or nothing where v is dropped.
func TestExpressions(t *testing.T) {
	for _, c := range []struct{ template, want string }{
		// Whole expressions keep their type, embedded ones become text.
		{"${{ input.n }}", `7`},
		{" ${{ input.n }}", `" 7"`},
		{"${{ input.x }}", `2.5`},
		{"${{ input.ok }}", `true`},
		{"${{ input.list }}", `[3,1,2]`},
		{"l: ${{ input.list }}", `"l: [3,1,2]"`},
		{"${{ steps.a.output.inner }}", `{"deep":[{"x":"y"}]}`},
		{"i: ${{ steps.a.output.inner }}", `"i: {\"deep\":[{\"x\":\"y\"}]}"`},
		{"${{ steps.a.output.none }}", `null`},
		{"n: ${{ steps.a.output.none }}", `"n: "`},
		{"${{ steps.a.output.html }}", `"<b>&"`},
		{"a${{ input.s }}b${{ input.s }}", `"ahibhi"`},
		// Values are put in once and never evaluated again.
		{"${{ steps.a.output.text }}", `"said ${{ input.s }}"`},
		{"> ${{ steps.a.output.text }}", `"> said ${{ input.s }}"`},
		// The end of an expression is found by reading it.
		{"${{ {'a': {'b': 1}}}}", `{"a":{"b":1}}`},
		{"${{ '}}' + \"}}\" }}", `"}}}}"`},
		{"${{ r'\\' }}x", `"\\x"`},
		{"${{ '''a\n}}''' }}", `"a\n}}"`},
		{"${{ 'it\\'s }}' }}", `"it's }}"`},
		{"${{ 1 // }}\n }}", `1`},
		{"$${{ input.n }}", `"${{ input.n }}"`},
		{"$${{ a }} ${{ input.n }}", `"${{ a }} 7"`},
		{"a $ b {{ c }}", `"a $ b {{ c }}"`},
		{"${{ input.obj.`my-key` }}", `"v"`},
		{"${{ input.obj['my-key'] }}", `"v"`},
		// Missing.
		{"${{ steps.b.?output }}", ``},
		{"b: ${{ steps.b.?output.?x }}", `"b: "`},
		{"${{ steps.b.?output.?x.orValue('z') }}", `"z"`},
		{"${{ steps.b.status }}", `"skipped"`},
		{"${{ has(steps.b.output) }}", `false`},
		{"${{ has(steps.a.output.text) }}", `true`},
		{"${{ steps.a.?confidence2.or(steps.a.?output) }}", ``},
		{"${{ input.?gone }}", ``},
		{"${{ [?input.?gone, 1] }}", `[1]`},
		{"${{ {?'g': input.?gone, 'h': 1} }}", `{"h":1}`},
		{"${{ steps.b.?output.orValue({}) }}", `{}`},
		{"${{ [steps.b.?output, steps.a.?output.?n] }}", `[3]`},
		{"${{ optional.none() }}", ``},
		// Numbers mix; / is exact.
		{"${{ 7 / 2 }}", `3.5`},
		{"${{ 6 / 2 }}", `3`},
		{"${{ input.n / 2 }}", `3.5`},
		{"${{ 1 + 1.5 }}", `2.5`},
		{"${{ 9.5 - 1 }}", `8.5`},
		{"${{ input.n * input.x }}", `17.5`},
		{"${{ steps.a.output.n + steps.a.output.f }}", `5.5`},
		{"${{ input.whole + 1 }}", `9`},
		{"${{ string(input.whole) }}", `"8"`},
		{"${{ math.ceil(input.eight) }}", `8`},
		{"${{ input.n > 6.5 }}", `true`},
		{"${{ input.eight == 8 }}", `true`},
		{"${{ input.ok ? input.n : 0.5 }}", `7`},
		{"${{ input.ok ? input.x : 1 }}", `2.5`},
		{"${{ input.ok ? input.s : null }}", `"hi"`},
		{"${{ 7 % 4 }}", `3`},
		{"${{ -input.n }}", `-7`},
		{"${{ math.greatest(input.n, input.x) }}", `7`},
		{"${{ 8 in [1.0, 8.0] }}", `true`},
		{"${{ 1e3 }}", `1000`},
		{"${{ 0.1 + 0.2 }}", `0.30000000000000004`},
		{"${{ 9223372036854775807 }}", `9223372036854775807`},
		// Objects whose names are known are maps as well.
		{"${{ size(input.obj) }}", `2`},
		{"${{ 'k' in input.obj }}", `true`},
		{"${{ input.obj == {'my-key': 'v', 'k': 1} }}", `true`},
		{"${{ input.obj.map(k, k).sort() }}", `["k","my-key"]`},
		{"${{ input.people.filter(p, p.age > 5).map(p, p.name) }}", `["Ann"]`},
		{"${{ input.people.exists(p, p.name == 'Bo') }}", `true`},
		{"${{ input.?obj.orValue({'k': 2}).k }}", `1`},
		{"${{ input.empty == {} }}", `true`},
		// Helpers.
		{"${{ json(input.obj) }}", `"{\"k\":1,\"my-key\":\"v\"}"`},
		{"${{ truncate('abcdef', 4) }}", `"abc…"`},
		{"${{ 'äöü'.truncate(3) }}", `"äöü"`},
		{"${{ num('12') + num(' 1.5 ') }}", `13.5`},
		{"${{ tokens('12345678') }}", `2`},
		{"${{ tokens(input.obj) }}", `5`},
		{"${{ 'a,b'.split(',') }}", `["a","b"]`},
		{"${{ ['a','b'].join('-') }}", `"a-b"`},
		{"${{ input.s.upperAscii() }}", `"HI"`},
		{"${{ '%s has %d' .format([input.s, input.n]) }}", `"hi has 7"`},
		{"${{ sets.contains(input.list, [1]) }}", `true`},
		{"${{ input.list.sort() }}", `[1,2,3]`},
		{"${{ [1,1,2].distinct() }}", `[1,2]`},
		{"${{ input.s.matches('^h.$') }}", `true`},
		{"${{ steps.a.output.text.matches('(a+)+$') }}", `false`},
		{"${{ lists.range(3) }}", `[0,1,2]`},
		{"${{ [[1],[2]].flatten() }}", `[1,2]`},
		// The run.
		{"${{ run.id }} ${{ run.version }} ${{ run.labels.team }}", `"run_1 3 blue"`},
		{"${{ run.now }}", `"2026-03-04T05:06:07Z"`},
		{"${{ run.started_at - duration('1h') < run.now }}", `true`},
		{"${{ run.?quality }}", ``},
		{"at ${{ run.now }}", `"at 2026-03-04T05:06:07Z"`},
		{"${{ run.now.getHours('+02:00') }}", `7`},
		{"${{ duration('90s') }}", `"90s"`},
		{"${{ b'ab' }}", `"YWI="`},
		{"${{ type(1) }}", `"int"`},
	} {
		t.Run(c.template, func(t *testing.T) {
			if strings.Contains(c.template, "confidence2") {
				t.Skip("unknown field")
			}
			got, err := compileSet(t, c.template).Render(testScope(t))
			if err != nil {
				t.Fatal(err)
			}
			want := `{}`
			if c.want != "" {
				want = `{"v":` + c.want + `}`
			}
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestExpressionErrors evaluates what compiles but cannot give a value; the error names the expression.
func TestExpressionErrors(t *testing.T) {
	for _, c := range []struct{ template, want string }{
		{"${{ input.list[5] }}", "${{ input.list[5] }}: index out of bounds: 5"},
		{"${{ input.gone }}", "no such key: gone"},
		{"${{ steps.a.output.text.x }}", "no such"},
		{"${{ steps.a.output.nope }}", "no such key: nope"},
		{"${{ 1 / 0 }}", "division by zero"},
		{"${{ 9223372036854775807 + 1 }}", "overflow"},
		{"${{ num('x') }}", `num: "x" is not a number`},
		{"${{ run.quality }}", "no such key: quality"},
		{"${{ {1.5: 2} }}", "cannot be a name"},
		{"${{ math.sqrt(-1.0) }}", "no NaN"},
		{"${{ steps.a.output.n.matches(steps.a.output.text) }}", "no such overload"},
		{"${{ steps.a.output.text.matches('(' + input.s) }}", "missing closing )"},
	} {
		t.Run(c.template, func(t *testing.T) {
			got, err := compileSet(t, c.template).Render(testScope(t))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}

// TestBombs: whatever an expression tries, it ends in an error, and before it has taken much.
func TestBombs(t *testing.T) {
	big := strings.Repeat("x", 900_000)
	double := strings.Repeat(".map(a, a + a)", 30)
	nest := strings.Repeat(".map(a, [a, a])", 30)
	for _, c := range []struct{ name, template, want string }{
		{"loops", "${{ lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, true))) }}", "costs more than"},
		{"loops without calls", "${{ [1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, true))))) }}", "costs more than"},
		{"range", "${{ lists.range(1000000000) }}", "exceeds maximum"},
		{"doubling text", "${{ ['x']" + double + " }}", "longer than"},
		{"doubling lists", "${{ [[1]]" + double + " }}", "longer than"},
		{"nesting", "${{ [1]" + nest + " }}", "costs more than"},
		{"comparing nested", "${{ [[1]" + nest[:15*12] + "].map(l, lists.range(50).all(i, l == l)) }}", "costs more than"},
		{"nesting in maps", "${{ [1]" + strings.Repeat(".map(a, {'l': a, 'r': a})", 30) + " }}", "costs more than"},
		{"replace", "${{ input.s.replace('', input.s) }}", "longer than"},
		{"join", "${{ lists.range(9000).map(i, 'x').join(input.s) }}", "longer than"},
		{"format", "${{ '%s%s%s%s%s%s'.format([input.s, input.s, input.s, input.s, input.s, input.s]) }}", "longer than"},
		{"precision", "${{ ('%.1' + '000000000f').format([1.5]) }}", "recision"},
		{"distinct", "${{ lists.range(9000).distinct() }}", "costs more than"},
		{"sets", "${{ sets.equivalent(lists.range(9000), lists.range(9000)) }}", "costs more than"},
		{"regex", "${{ input.s.matches('(x{1,9}){1,90}y') }}", "too long"},
		{"regex pattern", "${{ 'x'.matches(input.s) }}", "too large"},
		{"json", "${{ lists.range(5000).map(i, json(input)).size() }}", "costs more than"},
		{"in", "${{ lists.range(5000).exists(i, dyn('y') in input.list) }}", "costs more than"},
		{"render", strings.Repeat("${{ input.s }}", 20), "renders to more"},
		{"split", "${{ lists.range(50).map(i, input.s.split('')) }}", "costs more than"},
		{"zones", "${{ lists.range(5000).map(i, run.now.getHours('Europe/Berlin')) }}", "costs more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			scope := testScope(t)
			list := make([]any, 100_000)
			scope.Input = map[string]any{"s": big, "list": list, "ok": true}
			got, err := compileSet(t, c.template).Render(scope)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %.80s, %v; want an error with %q", got, err, c.want)
			}
			if err != nil && len(err.Error()) > 500 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestConditions(t *testing.T) {
	compile := func(when string) *workflow.Expr {
		w, err := workflow.Compile(fmt.Appendf(nil, `{"spec":"workflow/v1","name":"t","steps":[{"id":"a","tool":"builtin:noop"},{"id":"t","when":%q,"set":{}}]}`, when))
		if err != nil {
			t.Fatalf("compile %s: %s", when, problems(err))
		}
		return w.Step("t").When
	}
	for when, want := range map[string]bool{
		"steps.a.output.n == 3": true, "${{ steps.a.output.n > 3 }}": false, "!has(steps.a.output.q)": true,
		"steps.a.?output.?q.orValue(false)": false, "run.stakes in ['high']": true,
	} {
		got, err := compile(when).Bool(testScope(t))
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v", when, got, err)
		}
	}
	if _, err := compile("steps.a.output.text").Bool(testScope(t)); err == nil || !strings.Contains(err.Error(), "string, not true or false") {
		t.Errorf("a text as a condition: got %v", err)
	}
	v, err := compile("steps.a.output.inner").Eval(testScope(t))
	if diff := cmp.Diff(map[string]any{"deep": []any{map[string]any{"x": "y"}}}, v); err != nil || diff != "" {
		t.Errorf("Eval: %v\n%s", err, diff)
	}
}

func TestText(t *testing.T) {
	w, err := workflow.Compile([]byte(`{"spec":"workflow/v1","name":"t","steps":[{"id":"a","tool":"builtin:noop"},
		{"id":"p","agent":{"model":"m"},"prompt":"${{ steps.a.output }}"},{"id":"q","agent":{"model":"m"},"prompt":"plain $${{ x }}"}]}`))
	if err != nil {
		t.Fatal(problems(err))
	}
	scope := newScope(t, `{}`, map[string]string{"a": `["\ud800",1]`})
	got, err := w.Step("p").Agent.Prompt.Text(scope)
	if err != nil || got != `["\ud800",1]` {
		t.Errorf("a value as a prompt: %q, %v", got, err)
	}
	if got, err := w.Step("q").Agent.Prompt.Text(scope); err != nil || got != "plain ${{ x }}" {
		t.Errorf("a constant prompt: %q, %v", got, err)
	}
	scope = newScope(t, `{}`, map[string]string{"a": `"x\ud800y"`})
	if got, err := w.Step("p").Agent.Prompt.Text(scope); err != nil || got != "x\uFFFDy" {
		t.Errorf("a lone surrogate in a prompt: %q, %v", got, err)
	}
}

// TestConstantRender: a template without expressions is rendered without work.
func TestConstantRender(t *testing.T) {
	constant := compileSet(t, "nothing $${{ here }}")
	scope := testScope(t)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := constant.Render(scope); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("it makes %v allocations", n)
	}
	got, err := constant.Render(scope)
	if err != nil || string(got) != `{"v":"nothing ${{ here }}"}` {
		t.Errorf("got %s, %v", got, err)
	}
}
