package preview_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// prices is a roster of three models; what is not in it has no price.
type prices map[string]workflow.ModelFacts

func (p prices) Model(name string) (workflow.ModelFacts, bool) {
	f, ok := p[name]
	return f, ok
}

var roster = prices{
	"cheap": {Family: "a", Tier: 1, ContextTokens: 100_000, Input: 1, Output: 10, Priced: true, TokensPerS: 100, AnswerTokens: 1_000},
	"dear":  {Family: "b", Tier: 5, ContextTokens: 100_000, Input: 100, Output: 1_000, Priced: true, TokensPerS: 10, AnswerTokens: 1_000},
	"small": {Family: "c", Tier: 1, ContextTokens: 2_000, Input: 1, Output: 1, Priced: true, AnswerTokens: 500},
}

func compiled(t testing.TB, source string) *workflow.Workflow {
	t.Helper()
	w, err := workflow.Compile([]byte(source))
	if err != nil {
		t.Fatalf("compile: %v\n%s", err, source)
	}
	return w
}

// estimated estimates a workflow of these steps.
func estimated(t *testing.T, steps, input string) preview.Estimated {
	t.Helper()
	w := compiled(t, head+"steps:\n"+steps)
	return preview.Estimate(w, roster, json.RawMessage(input))
}

const head = `
spec: workflow/v1
name: t
input: {type: object, properties: {n: {type: integer}, list: {type: array, items: {type: string, maxLength: 10}}, text: {type: string, maxLength: 100}}}
chains:
  both: [{model: cheap, retries: 2}, {model: dear}]
agents:
  one: {model: cheap, max_tokens: 100, output: {format: text}}
  two: {chain: both, max_tokens: 100, output: {format: text}}
  lost: {model: unknown, max_tokens: 100, output: {format: text}}
  tight: {model: small, max_tokens: 100, output: {format: text}}
`

func step(t *testing.T, e preview.Estimated, path string) preview.StepEstimate {
	t.Helper()
	i := slices.IndexFunc(e.Steps, func(s preview.StepEstimate) bool { return s.Path == path })
	if i < 0 {
		t.Fatalf("no step %q", path)
	}
	return e.Steps[i]
}

// What is counted where: how often steps run, how often models are called at most and at worst.
func TestHowOften(t *testing.T) {
	const a, b, c = "{id: a, agent: one, prompt: hi}", "{id: b, agent: one, prompt: hi}", "{id: c, agent: one, prompt: hi}"
	const cases = "  - {id: s, switch: [{when: input.n > 1, steps: [" + a + ", " + b + "]}, {else: true, steps: [" + c + "]}]}"
	const items = "  - {id: m, map: {items: input.list, max_items: 5, steps: [" + a + "]}}"
	for _, c := range []struct {
		name, steps, input string
		calls              preview.Span
		worst              int64
	}{
		{"one step", "  - " + a, "", preview.Span{Low: 1, High: 1}, 9}, // 3 attempts, each asked again twice
		{"a chain", "  - {id: a, agent: two, prompt: hi}", "", preview.Span{Low: 1, High: 1}, 24},
		{"no retry", "  - {id: a, agent: one, prompt: hi, retry: none}", "", preview.Span{Low: 1, High: 1}, 3},
		{"a condition", "  - {id: a, agent: one, prompt: hi, when: input.n > 1}", "", preview.Span{Low: 0, High: 1}, 9},
		{"it holds", "  - {id: a, agent: one, prompt: hi, when: input.n > 1}", `{"n": 2}`, preview.Span{Low: 1, High: 1}, 9},
		{"it does not", "  - {id: a, agent: one, prompt: hi, when: input.n > 1}", `{"n": 1}`, preview.Span{}, 0},
		{
			"what is set is known", "  - {id: s, set: {go: \"${{ input.n > 1 }}\"}}\n  - {id: a, agent: one, prompt: hi, when: steps.s.output.go}",
			`{"n": 1}`,
			preview.Span{},
			0,
		},
		{"a group", "  - {id: g, group: {steps: [" + a + ", " + b + "]}}", "", preview.Span{Low: 2, High: 2}, 18},
		{"a switch", cases, "", preview.Span{Low: 1, High: 2}, 18},
		{"its case is known", cases, `{"n": 3}`, preview.Span{Low: 2, High: 2}, 18},
		{"no case may hold", "  - {id: s, switch: [{when: input.n > 1, steps: [" + a + "]}]}", "", preview.Span{Low: 0, High: 1}, 9},
		{"a list written out", "  - {id: m, map: {items: [1, 2, 3], max_items: 5, steps: [" + a + "]}}", "", preview.Span{Low: 3, High: 3}, 27},
		{"a list of the input", items, "", preview.Span{Low: 0, High: 5}, 45},
		{"that is given", items, `{"list": ["x", "y"]}`, preview.Span{Low: 2, High: 2}, 18},
		{"a loop", "  - {id: l, loop: {max_iterations: 4, until: output == 'x', steps: [" + a + "]}}", "", preview.Span{Low: 1, High: 4}, 36},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := estimated(t, c.steps, c.input)
			if e.Calls != c.calls || e.CallsMax != c.worst {
				t.Errorf("calls %+v, at worst %d; want %+v, %d", e.Calls, e.CallsMax, c.calls, c.worst)
			}
		})
	}
}

// The low end is the first model of a chain, briefly; the high end the dearest, at length.
func TestWhatItCosts(t *testing.T) {
	a := step(t, estimated(t, "  - {id: a, agent: two, prompt: a123456789}", ""), "a")
	// 10 bytes are 2 to 4 tokens, a call has 11 besides.
	want := preview.Amount{
		Input: preview.Span{Low: 13, High: 15}, Output: preview.Span{Low: 1, High: 100}, Cost: preview.Cost{Low: 13 + 10, High: 1_500 + 100_000},
		Calls: preview.Span{Low: 1, High: 1}, CallsMax: 24,
	}
	if diff := cmp.Diff(want, a.Amount); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if want := (preview.Seconds{Low: 0.3 + 0.01, High: 5 + 10}); a.Seconds != want {
		t.Errorf("%+v, want %+v", a.Seconds, want)
	}
}

// A prompt is as large as what it reads: constant text, the input or its schema, the outputs of others.
func TestWhatIsRead(t *testing.T) {
	read := func(prompt, input string) preview.Span {
		e := estimated(t, "  - {id: a, agent: one, prompt: hi}\n  - {id: b, agent: one, prompt: \""+prompt+"\"}", input)
		in := step(t, e, "b").Input
		return preview.Span{Low: in.Low - 11, High: in.High - 11}
	}
	for _, c := range []struct {
		prompt, input string
		want          preview.Span
	}{
		{"hi", "", preview.Span{Low: 0, High: 1}},
		{"${{ steps.a.output }}", "", preview.Span{Low: 1, High: 100}},
		{"${{ steps.a.output }}${{ steps.a.output }}", "", preview.Span{Low: 2, High: 200}},
		{"${{ steps.a.output.size() }}", "", preview.Span{Low: 1, High: 10}},
		{"${{ input.text }}", "", preview.Span{Low: 0, High: 80}},
		{"${{ input.text }}", `{"text": "0123456789012345678901234567890123456789"}`, preview.Span{Low: 8, High: 16}},
		{"${{ input.n * 2 }}", `{"n": 21}`, preview.Span{Low: 0, High: 1}},
	} {
		if got := read(c.prompt, c.input); got != c.want {
			t.Errorf("%s with %s: %+v, want %+v", c.prompt, c.input, got, c.want)
		}
	}
}

// What has no price is named, and never counted as free; a prompt is never longer than the window.
func TestLimitsOfKnowledge(t *testing.T) {
	e := estimated(t, "  - {id: a, agent: lost, prompt: hi}\n  - {id: b, agent: tight, prompt: \"${{ steps.a.output }}\"}\n", "")
	if !slices.Equal(e.Unpriced, []string{"unknown"}) || !slices.Equal(step(t, e, "a").Unpriced, []string{"unknown"}) || e.Steps[1].Unpriced != nil {
		t.Errorf("unpriced %v, of the steps %v and %v", e.Unpriced, e.Steps[0].Unpriced, e.Steps[1].Unpriced)
	}
	w := compiled(t, head+"steps: [{id: a, agent: tight, prompt: \""+strings.Repeat("0123456789", 2_000)+"\"}]")
	if in := preview.Estimate(w, roster, nil).Input; in.High != 2_000 || in.Low > in.High {
		t.Errorf("%+v tokens into a window of 2,000", in)
	}
	routed := preview.Estimate(compiled(t, head+"steps: [{id: a, agent: {route: research}, prompt: hi}]"), roster, nil)
	if !slices.Equal(routed.Unpriced, []string{"route research"}) || routed.Calls.High != 1 || len(routed.Assumptions) == 0 {
		t.Errorf("a routed agent: %+v", routed)
	}
	if none := preview.Estimate(w, nil, nil); !slices.Equal(none.Unpriced, []string{"small"}) {
		t.Errorf("without a roster: unpriced %v", none.Unpriced)
	}
}

func TestAMonth(t *testing.T) {
	e := preview.Estimated{Amount: preview.Amount{Cost: preview.Cost{Low: usage.USD / 100, High: usage.USD}}}
	if got, want := e.PerMonth(10), (preview.Cost{Low: 3 * usage.USD, High: 300 * usage.USD}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := e.PerMonth(1 << 60); got.High < got.Low || got.Low <= 0 {
		t.Errorf("so many runs: %+v", got)
	}
}

// The longest way is that of the steps that wait for each other; what runs beside them takes no time of its own.
func TestLongestWay(t *testing.T) {
	e := estimated(t, `
  - {id: a, agent: one, prompt: hi}
  - {id: b, agent: two, prompt: hi}
  - {id: c, agent: one, prompt: hi, needs: [a, b], when: input.n > 1}
  - {id: d, agent: one, prompt: hi, needs: [c]}
`, "")
	if want := []string{"b", "c", "d"}; !slices.Equal(e.Path.Names, want) {
		t.Errorf("%v, want %v", e.Path.Names, want)
	}
	if want := (preview.Span{Low: 2, High: 3}); e.Path.Steps != want {
		t.Errorf("%+v steps, want %+v", e.Path.Steps, want)
	}
	if want := 15.0 + 6 + 6; e.Path.Seconds.High != want {
		t.Errorf("%v s, want %v", e.Path.Seconds.High, want)
	}
	// Items run beside each other as far as they may, iterations one after another.
	e = estimated(t, `
  - id: m
    map: {items: [1, 2, 3], max_items: 3, concurrency: 2, steps: [{id: a, agent: one, prompt: hi}]}
  - id: l
    needs: [m]
    loop: {max_iterations: 3, until: output == 'x', steps: [{id: b, agent: one, prompt: hi}]}
`, "")
	if want := (preview.Span{Low: 3, High: 5}); e.Path.Steps != want {
		t.Errorf("%+v steps, want %+v", e.Path.Steps, want)
	}
	if want := 2*6.0 + 3*6; e.Path.Seconds.High != want || step(t, e, "m").Seconds.High != 12 {
		t.Errorf("%v s, want %v; the map %v", e.Path.Seconds.High, want, step(t, e, "m").Seconds)
	}
}

func TestAssumptionsAreTold(t *testing.T) {
	e := estimated(t, `
  - id: charts
    map: {items: input.list, max_items: 10000, steps: [{id: a, agent: one, prompt: "${{ item }}"}]}
`, "")
	if want := "charts: at most 10,000 items; the range assumes 0 to 100"; !slices.Contains(e.Assumptions, want) {
		t.Errorf("%q is not among %q", want, e.Assumptions)
	}
}

// sketch draws steps of a random workflow.
type sketch struct {
	t    *rapid.T
	next int
}

func (k *sketch) steps(depth int) []any {
	var list, ids []any
	for range rapid.IntRange(1, 4).Draw(k.t, "steps") {
		s := k.step(depth)
		if len(ids) > 0 && rapid.Bool().Draw(k.t, "waits") {
			s["needs"] = []any{rapid.SampledFrom(ids).Draw(k.t, "for")}
		}
		list, ids = append(list, s), append(ids, s["id"])
	}
	return list
}

func (k *sketch) step(depth int) map[string]any {
	k.next++
	s := map[string]any{"id": fmt.Sprintf("s%d", k.next)}
	if rapid.IntRange(0, 3).Draw(k.t, "when") == 0 {
		s["when"] = rapid.SampledFrom([]string{"input.n > 1", "true", "false"}).Draw(k.t, "condition")
	}
	kinds := []string{"agent", "agent", "tool", "set"}
	if depth < 3 {
		kinds = append(kinds, "group", "switch", "map", "loop")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(k.t, "kind"); kind {
	case "agent":
		s["agent"] = rapid.SampledFrom([]string{"one", "two", "tight"}).Draw(k.t, "agent")
		s["prompt"] = rapid.SampledFrom([]string{"hi", "${{ input.text }}", "${{ input.list }} and more"}).Draw(k.t, "prompt")
	case "tool":
		s["tool"] = "builtin:sleep"
	case "set":
		s["set"] = map[string]any{"x": "${{ input.n }}"}
	case "group":
		s["group"] = map[string]any{"steps": k.steps(depth + 1)}
	case "switch":
		cases := []any{map[string]any{"when": "input.n > 2", "steps": k.steps(depth + 1)}}
		if rapid.Bool().Draw(k.t, "else") {
			cases = append(cases, map[string]any{"else": true, "steps": k.steps(depth + 1)})
		}
		s["switch"] = cases
	case "map":
		s["map"] = map[string]any{
			"items": rapid.SampledFrom([]any{"input.list", []any{1, 2, 3}}).Draw(k.t, "items"), "max_items": rapid.IntRange(3, 10_000).Draw(k.t, "max"),
			"steps": k.steps(depth + 1),
		}
	case "loop":
		s["loop"] = map[string]any{"max_iterations": rapid.IntRange(1, 100).Draw(k.t, "max"), "until": "iter.number > 2", "steps": k.steps(depth + 1)}
	}
	return s
}

func (k *sketch) compiled(steps []any) *workflow.Workflow {
	source, err := json.Marshal(steps)
	if err != nil {
		k.t.Fatal(err)
	}
	w, err := workflow.Compile([]byte(head + "steps: " + string(source)))
	if err != nil {
		k.t.Fatalf("%v\n%s", err, source)
	}
	return w
}

func TestEstimatesHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &sketch{t: t}
		steps := k.steps(0)
		w := k.compiled(steps)
		input := rapid.SampledFrom([]string{"", `{"n": 2, "text": "abc", "list": ["a", "b"]}`}).Draw(t, "input")
		e := preview.Estimate(w, roster, json.RawMessage(input))
		ordered(t, "the run", e.Amount, e.Path.Seconds)
		for _, s := range e.Steps {
			ordered(t, s.Path, s.Amount, s.Seconds)
		}
		sumsUp(t, w, e)
		more := preview.Estimate(k.compiled(append(steps, k.step(2))), roster, json.RawMessage(input))
		if more.Cost.High < e.Cost.High || more.Input.High < e.Input.High || more.CallsMax < e.CallsMax || more.Path.Seconds.High < e.Path.Seconds.High {
			t.Fatalf("one more step is less: %+v, before %+v", more.Amount, e.Amount)
		}
	})
}

func ordered(t *rapid.T, what string, a preview.Amount, s preview.Seconds) {
	if a.Input.Low > a.Input.High || a.Output.Low > a.Output.High || a.Cost.Low > a.Cost.High || a.Calls.Low > a.Calls.High || s.Low > s.High ||
		a.Input.Low < 0 || a.Calls.High > a.CallsMax {
		t.Fatalf("%s: %+v %+v", what, a, s)
	}
}

// sumsUp: a container is what is in it; a switch is the dearest of its cases.
func sumsUp(t *rapid.T, w *workflow.Workflow, e preview.Estimated) {
	sum := func(steps []*workflow.Step) (a preview.Amount) {
		for _, s := range steps {
			a = add(a, e.Steps[s.Index].Amount)
		}
		return a
	}
	if got := sum(w.Main); got != e.Amount {
		t.Fatalf("the run is %+v, its steps %+v", e.Amount, got)
	}
	for _, s := range w.Steps {
		got := e.Steps[s.Index].Amount
		switch {
		case s.Group != nil && sum(s.Group.Steps) != got, s.Map != nil && sum(s.Map.Body.Main) != got, s.Loop != nil && sum(s.Loop.Body.Main) != got:
			t.Fatalf("%s is %+v, and not what is in it", s.Path, got)
		case s.Switch != nil:
			dearest := usage.Money(0)
			for _, k := range s.Switch.Cases {
				dearest = max(dearest, sum(k.Steps).Cost.High)
			}
			if dearest != got.Cost.High {
				t.Fatalf("%s costs up to %s, its dearest case %s", s.Path, got.Cost.High, dearest)
			}
		}
	}
}

func add(a, b preview.Amount) preview.Amount {
	return preview.Amount{
		Input:  preview.Span{Low: a.Input.Low + b.Input.Low, High: a.Input.High + b.Input.High},
		Output: preview.Span{Low: a.Output.Low + b.Output.Low, High: a.Output.High + b.Output.High},
		Cost:   preview.Cost{Low: a.Cost.Low + b.Cost.Low, High: a.Cost.High + b.Cost.High},
		Calls:  preview.Span{Low: a.Calls.Low + b.Calls.Low, High: a.Calls.High + b.Calls.High}, CallsMax: a.CallsMax + b.CallsMax,
	}
}

// wide is a workflow of so many agents, each of which reads the one before.
func wide(n int) string {
	var b strings.Builder
	b.WriteString(head + "steps:\n  - {id: s0, agent: one, prompt: \"${{ input.text }}\"}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "  - {id: s%d, agent: two, prompt: \"Read ${{ input.text }} and ${{ steps.s%d.output }}, then ${{ steps.s0.output.size() }}\"}\n", i, i-1)
	}
	return b.String()
}

func BenchmarkEstimate(b *testing.B) {
	w := compiled(b, wide(200))
	for b.Loop() {
		preview.Estimate(w, roster, nil)
	}
}

func BenchmarkGraph(b *testing.B) {
	w := compiled(b, wide(200))
	for b.Loop() {
		preview.GraphOf(w)
	}
}
