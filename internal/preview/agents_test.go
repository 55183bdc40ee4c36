package preview_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// crew are agents with everything an agent may have.
const crew = `
spec: workflow/v1
name: t
agents:
  author: {role: grinder, model: cheap, max_tokens: 100, output: {format: text}}
  brief: {model: cheap, max_tokens: 100, output: {format: text, summary: {max_tokens: 20, model: dear}}}
  judge: {role: validator, model: dear, max_tokens: 50, output: {format: text}}
  lead: {role: orchestrator, model: cheap, max_tokens: 100, output: {format: text}, delegates: [author, brief], max_turns: 3}
  first: {model: cheap, max_tokens: 10, output: {format: text}}
  second: {model: dear, max_tokens: 1000, output: {format: text}}
  sorter: {model: cheap, max_tokens: 10, output: {schema: {type: object, required: [who], properties: {who: {type: string, enum: [first, second]}}}}}
steps:
`

func TestWhoIsAsked(t *testing.T) {
	judged := "gate: {checks: [{assert: output != '', message: x}, {judge: judge, rubric: {fit: \"does it fit\"}, min_score: 6}], revise: 2}"
	for _, c := range []struct {
		name, steps, step string
		calls             preview.Span
		worst             int64
		output            preview.Span
	}{
		// Author and judge once; at most three rounds of both. At worst 24 calls of the author and 24 of the judge.
		{"a gate", "  - {id: a, agent: author, prompt: hi, " + judged + "}", "a", preview.Span{Low: 2, High: 6}, 48, preview.Span{Low: 2, High: 450}},
		// At worst each of 3 attempts is asked again twice; the summary is one more.
		{"a summary", "  - {id: a, agent: brief, prompt: hi}", "a", preview.Span{Low: 1, High: 2}, 10, preview.Span{Low: 1, High: 120}},
		// Four answers of its own, and in each of three turns a delegate that may have to be summed up.
		{"delegates", "  - {id: a, agent: lead, prompt: hi}", "a", preview.Span{Low: 1, High: 4 + 3*2}, 9 + 3*(3+3*8*4), preview.Span{Low: 1, High: 400 + 3*120}},
		{
			"one of several", "  - {id: s, agent: sorter, prompt: hi}\n  - {id: a, agent: \"${{ steps.s.output.who }}\", prompt: hi}", "a",
			preview.Span{Low: 1, High: 1},
			9,
			preview.Span{Low: 1, High: 1000},
		},
		{
			"who decides", "  - {id: a, agent: author, prompt: hi, on_error: [{classes: [any], do: escalate, to: lead}]}", "a",
			preview.Span{Low: 1, High: 1},
			9 + 3 + 3,
			preview.Span{Low: 1, High: 100},
		},
		{
			"who does it instead", "  - {id: a, agent: author, prompt: hi, on_error: [{classes: [any], do: fallback, agent: second}]}", "a",
			preview.Span{Low: 1, High: 1},
			9 + 3,
			preview.Span{Low: 1, High: 100},
		},
		{
			"a judge of several", "  - {id: x, agent: author, prompt: hi}\n  - {id: y, agent: brief, prompt: hi}\n" +
				"  - {id: a, merge: {of: [x, y], strategy: judge, agent: judge}}", "a", preview.Span{Low: 1, High: 1}, 9, preview.Span{Low: 1, High: 50},
		},
		{
			"a person", "  - {id: a, approval: {title: Go on}}", "a", preview.Span{}, 0, preview.Span{},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := step(t, preview.Estimate(compiled(t, crew+c.steps), roster, nil), c.step)
			if a.Calls != c.calls || a.CallsMax != c.worst || a.Output != c.output {
				t.Errorf("calls %+v, at worst %d, %+v tokens out; want %+v, %d, %+v", a.Calls, a.CallsMax, a.Output, c.calls, c.worst, c.output)
			}
		})
	}
}

// Delegates may have delegates, which many may share: every one is looked at once.
func TestLayersOfDelegates(t *testing.T) {
	var b strings.Builder
	b.WriteString("spec: workflow/v1\nname: t\nagents:\n")
	const layers, each = 12, 10
	for layer := range layers {
		for i := range each {
			fmt.Fprintf(&b, "  a%d_%d: {model: cheap, max_tokens: 10, output: {format: text}", layer, i)
			if layer+1 < layers {
				fmt.Fprintf(&b, ", max_turns: 1, delegates: [")
				for j := range each {
					fmt.Fprintf(&b, "a%d_%d, ", layer+1, j)
				}
				b.WriteString("]")
			}
			b.WriteString("}\n")
		}
	}
	b.WriteString("steps: [{id: a, agent: a0_0, prompt: hi}]")
	e := preview.Estimate(compiled(t, b.String()), roster, nil)
	// Two calls of each layer but the last.
	if want := (preview.Span{Low: 1, High: 2*(layers-1) + 1}); e.Calls != want || e.CallsMax != 9+3*(1+200) {
		t.Errorf("calls %+v, at worst %d; want %+v", e.Calls, e.CallsMax, want)
	}
}

// A summary stands in for its output: whoever reads it reads no more.
func TestSummaryIsRead(t *testing.T) {
	read := func(field string) int64 {
		e := preview.Estimate(compiled(t, crew+"  - {id: a, agent: brief, prompt: hi}\n  - {id: b, agent: author, prompt: \"${{ steps.a."+field+" }}\"}"), roster, nil)
		return step(t, e, "b").Input.High
	}
	if whole, short := read("output"), read("summary"); whole-short != 100-20 {
		t.Errorf("%d tokens with the output, %d with its summary", whole, short)
	}
}

// What comes after a failure, and what waits for people and time.
func TestBesidesTheWork(t *testing.T) {
	e := preview.Estimate(compiled(t, crew+`
  - {id: a, agent: author, prompt: hi}
  - {id: pause, wait: {for: 90s}}
  - {id: ok, approval: {title: Go on}, needs: [pause]}
on_failure:
  - {id: why, agent: judge, prompt: hi}
finally:
  - {id: tell, emit: {event: done}}
`), roster, nil)
	if why := step(t, e, "why"); why.Times != (preview.Span{Low: 0, High: 1}) || why.Cost.Low != 0 || e.Cost.High < why.Cost.High+step(t, e, "a").Cost.High {
		t.Errorf("on_failure: %+v, in all %+v", why, e.Amount)
	}
	if e.Path.Seconds.Low != 90 || !slices.Equal(e.Path.Names, []string{"pause", "ok", "why", "tell"}) {
		t.Errorf("%+v", e.Path)
	}
	if !slices.Contains(e.Assumptions, "ok: the time until a person answers is not counted") {
		t.Errorf("%q", e.Assumptions)
	}
}

// leafOf is a workflow of one step that is made by hand.
func leafOf(s *workflow.Step) *workflow.Workflow {
	w := &workflow.Workflow{Name: "t", Steps: []*workflow.Step{s}, Main: []*workflow.Step{s}, MaxParallel: 1}
	s.Body = &workflow.Body{Steps: w.Steps, Main: w.Main}
	w.Body = s.Body
	return w
}

func TestPlans(t *testing.T) {
	w := leafOf(&workflow.Step{ID: "p", Path: "p", Kind: workflow.KindPlan, Plan: &workflow.PlanStep{
		Planner: workflow.Agent{Name: "lead", MaxTokens: 100, Chain: workflow.Chain{Entries: []workflow.ChainEntry{{Model: "cheap"}}}},
		Allow:   workflow.Allow{MaxSteps: 10, MaxCost: 2 * usage.USD, Tools: []string{"mcp:a/b"}}, Replan: 1,
	}})
	e := preview.Estimate(w, roster, nil)
	p := step(t, e, "p")
	if p.Cost.High < 4*usage.USD || p.Cost.High > 4*usage.USD+usage.USD/1000 || p.Cost.Low <= 0 || p.Cost.Low > usage.USD/1000 {
		t.Errorf("two plans of at most $2 each cost %+v", p.Cost)
	}
	if want := (preview.Span{Low: 1, High: 2 + 20}); p.Calls != want || p.CallsMax != 2*(3+10*workflow.AttemptsMax) {
		t.Errorf("calls %+v, at worst %d", p.Calls, p.CallsMax)
	}
	if !slices.Equal(e.Tools, []string{"mcp:a/b"}) || len(e.Assumptions) != 1 || !strings.HasPrefix(e.Assumptions[0], "p: a plan costs at most") {
		t.Errorf("tools %v, assumed %q", e.Tools, e.Assumptions)
	}
}

// A workflow that is run costs what it would cost by itself, of several the cheapest to the dearest.
func TestChildren(t *testing.T) {
	short, long := compiled(t, crew+"  - {id: a, agent: first, prompt: hi}"), compiled(t, crew+"  - {id: a, agent: second, prompt: hi}")
	w := leafOf(&workflow.Step{
		ID: "c", Path: "c", Kind: workflow.KindWorkflow, Retry: workflow.Retry{MaxAttempts: 2}, Workflow: &workflow.WorkflowStep{Ref: "short@1"},
	})
	w.Children = map[string]*workflow.Workflow{"short@1": short, "long@2": long}
	alone := preview.Estimate(short, roster, nil)
	c := step(t, preview.Estimate(w, roster, nil), "c")
	if c.Cost != alone.Cost || c.CallsMax != 2*alone.CallsMax || c.Seconds != alone.Path.Seconds {
		t.Errorf("%+v, by itself %+v", c, alone.Amount)
	}
	by := compiled(t, crew+"  - {id: a, agent: author, prompt: hi}").Step("a").Agent.Prompt
	w.Steps[0].Workflow = &workflow.WorkflowStep{By: by, Refs: map[string]string{"x": "short@1", "y": "long@2"}}
	either := step(t, preview.Estimate(w, roster, nil), "c")
	if most := preview.Estimate(long, roster, nil); either.Cost.High != most.Cost.High || either.Cost.Low != alone.Cost.Low {
		t.Errorf("%+v, want from %+v to %+v", either.Cost, alone.Cost, most.Cost)
	}
}

// Workflows may run workflows that many run: every one is looked at once.
func TestLayersOfChildren(t *testing.T) {
	const layers, each = 12, 10
	below := compiled(t, crew+"  - {id: a, agent: first, prompt: hi}")
	once := preview.Estimate(below, roster, nil).Calls.High
	for range layers {
		w := &workflow.Workflow{Name: "t", MaxParallel: 1, Children: map[string]*workflow.Workflow{"below@1": below}}
		for i := range each {
			w.Steps = append(w.Steps, &workflow.Step{
				ID: fmt.Sprint("s", i), Path: fmt.Sprint("s", i), Index: i, Slot: i, Kind: workflow.KindWorkflow, Workflow: &workflow.WorkflowStep{Ref: "below@1"},
			})
		}
		w.Main = w.Steps
		w.Body = &workflow.Body{Steps: w.Steps, Main: w.Main}
		for _, s := range w.Steps {
			s.Body = w.Body
		}
		below, once = w, once*each
	}
	if e := preview.Estimate(below, roster, nil); e.Calls.High != once {
		t.Errorf("%d calls, want %d", e.Calls.High, once)
	}
}
