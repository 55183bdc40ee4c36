package workflow_test

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// evaluated is an expression or a template of a compiled workflow.
type evaluated struct {
	where, source string
	eval          func(*workflow.Scope) error
}

// everyExpression finds the expressions and templates of a workflow, wherever they stand.
func everyExpression(w *workflow.Workflow) []evaluated {
	c := &collector{seen: map[any]bool{}}
	c.value("workflow", reflect.ValueOf(w))
	return c.found
}

type collector struct {
	seen  map[any]bool
	found []evaluated
}

func (c *collector) value(where string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || c.seen[v.Interface()] {
			return
		}
		c.seen[v.Interface()] = true
		switch x := v.Interface().(type) {
		case *workflow.Expr:
			c.found = append(c.found, evaluated{where, x.Source, func(s *workflow.Scope) error { _, err := x.Eval(s); return err }})
		case *workflow.Template:
			c.found = append(c.found, evaluated{where, string(x.Source), func(s *workflow.Scope) error { _, err := x.Render(s); return err }})
		case *workflow.Schema:
		default:
			c.value(where, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				c.value(where+"."+f.Name, v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			c.value(where, v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			c.value(where+"."+key.String(), v.MapIndex(key))
		}
	default:
	}
}

// bombs has a bomb at every place where an expression may stand: BOMB is true or false, if it ever ends.
const bombs = `
spec: workflow/v1
name: bombs
output: "${{ BOMB }}"
stakes: "${{ BOMB ? 'low' : 'high' }}"
mode: "${{ BOMB ? 'interactive' : 'batch' }}"
agents:
  w: {chain: [{model: m, accept: "BOMB"}], gate: {checks: [{assert: "BOMB"}]}}
  v: {chain: [{model: n, accept: "BOMB"}]}
defaults:
  gate: {checks: [{assert: "BOMB"}]}
  on_error: [{classes: [any], do: fallback, value: "${{ BOMB }}"}]
steps:
  - {id: a, agent: w, when: "BOMB", prompt: "${{ BOMB }}", input: {x: "${{ BOMB }}"}, gate: {checks: [{assert: "BOMB"}]}}
  - {id: b, agent: "${{ BOMB ? 'w' : 'v' }}", prompt: "a ${{ BOMB }} b"}
  - {id: c, tool: builtin:noop, args: {x: ["${{ BOMB }}"]}}
  - {id: d, map: {items: "BOMB ? [1] : [2]", max_items: 2, output: "${{ BOMB }}", steps: [{id: d1, set: {x: "${{ BOMB }}"}}]}}
  - {id: e, map: {items: ["${{ BOMB }}"], max_items: 2, steps: [{id: e1, set: {}}]}}
  - {id: f, loop: {max_iterations: 2, until: "BOMB", best_by: "BOMB ? 1 : 2", output: "${{ BOMB }}", steps: [{id: f1, set: {}}]}}
  - {id: g, group: {steps: [{id: g1, set: {}}], output: "${{ BOMB }}"}}
  - {id: h, switch: [{when: "BOMB", steps: [{id: h1, set: {}}], output: "${{ BOMB }}"}]}
  - {id: i, merge: {of: [c], strategy: majority, by: "BOMB"}}
  - {id: j, plan: {agent: v, goal: "${{ BOMB }}", input: {x: "${{ BOMB }}"}, output: "${{ BOMB }}", approval: {when: "BOMB"}, allow: {kinds: [set], max_steps: 1, max_depth: 1, max_usd: 1}}}
  - {id: k, workflow: {name: "${{ BOMB ? 'summarize' : 'summarize' }}", input: {text: "${{ BOMB }}"}}}
  - {id: l, approval: {title: "${{ BOMB }}", show: {x: "${{ BOMB }}"}, form: {schema: {}, initial: "${{ BOMB }}"}}}
  - {id: m, wait: {for: "${{ BOMB }}s"}}
  - {id: n, wait: {at: "BOMB ? run.now : run.now"}}
  - {id: o, wait: {signal: {name: x, match: "BOMB"}}}
  - {id: p, emit: {event: x, data: "${{ BOMB }}"}}
  - {id: q, set: {x: "${{ BOMB }}"}, on_error: [{classes: [any], do: fallback, value: "${{ BOMB }}"}]}
degrade:
  - {name: one, set: {c: {value: "${{ BOMB }}"}}}
finally:
  - {id: z, set: {x: "${{ BOMB }}"}}
`

// TestBombsEverywhere: wherever an expression may stand, one that does not end is stopped. How long the slowest took is
// logged: it is a matter of milliseconds.
func TestBombsEverywhere(t *testing.T) {
	lib := library{}
	lib.publish(t, read(t, "testdata/golden/3-child.yaml"))
	source, planted := bombs, 0
	for ; strings.Contains(source, "BOMB"); planted++ { // each has its number
		source = strings.Replace(source, "BOMB", fmt.Sprintf("lists.range(9000).all(x, lists.range(9000).all(y, x + y > -%d))", planted+1), 1)
	}
	w, err := workflow.CompileWith([]byte(source), lib)
	if err != nil {
		t.Fatal(problems(err))
	}
	scope := testScope(t)
	scope.Extra = map[string]any{"output": nil, "confidence": 100.0, "event": map[string]any{}, "estimate": map[string]any{}}
	stopped, slowest, slow := map[string]bool{}, time.Duration(0), ""
	for _, e := range everyExpression(w) {
		number := regexp.MustCompile(`> -\d+\)`).FindString(e.source)
		if number == "" {
			continue
		}
		start := time.Now()
		err := e.eval(scope)
		if took := time.Since(start); took > slowest {
			slowest, slow = took, e.where
		}
		if stopped[number] = true; err == nil || !strings.Contains(err.Error(), "costs more than") || len(err.Error()) > 500 {
			t.Errorf("%s: got %v", e.where, err)
		}
	}
	if len(stopped) != planted {
		t.Errorf("of %d bombs %d were met", planted, len(stopped))
	}
	t.Logf("%d were stopped, the slowest within %s (%s)", len(stopped), slowest, slow)
}
