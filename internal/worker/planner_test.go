package worker

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

const planning = `
spec: workflow/v1
name: planning
contracts:
  found: {type: object, required: [facts], properties: {facts: {type: array, items: {type: string}}}}
agents:
  lead: {role: orchestrator, model: claude-opus-4-6, instructions: Plan it.}
  finder: {role: grinder, model: gpt-4o, instructions: "Find facts.\nBe quick.", output: {contract: found}, max_tokens: 500}
  writer: {role: grinder, model: claude-sonnet-4-6, instructions: Write., output: {format: text}, max_tokens: 500}
steps:
  - id: make
    plan:
      agent: lead
      goal: A report.
      input: {topic: tea}
      allow: {kinds: [agent, map, loop, group, switch, merge, plan, set, tool, approval, wait, emit], agents: [finder, writer], tools: ["builtin:noop"], max_steps: 6, max_depth: 2, max_usd: 0.5}
      replan: 1
`

// prices are what models cost in these tests: a dollar for a million tokens, read or written; opus two and ten.
type prices struct{}

func (prices) Model(name string) (workflow.ModelFacts, bool) {
	facts := workflow.ModelFacts{Family: "f", Tier: 3, Priced: true, Input: 1_000, Output: 1_000}
	if name == "claude-opus-4-6" {
		facts.Input, facts.Output = 2_000, 10_000
	}
	return facts, true
}

func planAttempt(t *testing.T) flow.Attempt {
	t.Helper()
	w, err := workflow.Compile([]byte(planning))
	if err != nil {
		t.Fatal(err)
	}
	s := w.Steps[0]
	return flow.Attempt{
		Run: attemptRun, Workflow: w.Name, Within: w, Path: s.Path, Gen: 1, No: 1, Start: 3, Step: s, Agent: &s.Plan.Planner, Depth: 1,
		Input: json.RawMessage(`{"prompt":"A report.","input":{"topic":"tea"}}`),
	}
}

const goodPlan = `{"steps":[{"id":"facts","agent":"finder","prompt":"About ${{ input.topic }}"},
	{"id":"report","agent":"writer","prompt":"From ${{ steps.facts.output.facts }}"}],"output":"${{ steps.report.output }}"}`

// What is wrong with a plan goes back to the planner, until it is right or it has been asked twice more.
func TestPlans(t *testing.T) {
	unknown := `{"steps":[{"id":"a","agent":"wirter","prompt":"x"}]}`
	dear := `{"steps":[{"id":"l","agent":"finder","prompt":"x"},{"id":"many","map":{"items":"steps.l.output.facts","max_items":9000,"steps":[{"id":"w","agent":"writer","prompt":"x","gate":{"checks":[{"assert":"1 == 1"}],"revise":3}}]}}]}`
	deep := `{"steps":[{"id":"p","plan":{"agent":"lead","goal":"x","allow":{"kinds":["agent"],"agents":["writer"],"max_steps":2,"max_depth":1,"max_usd":0.1}}}]}`
	for _, c := range []struct {
		name  string
		lines []string
		depth int
		class string
		told  string // the planner, last
	}{
		{"right at once", []string{goodPlan}, 1, "", ""},
		{"right in the end", []string{unknown, "Here:\n```json\n" + goodPlan + "\n```"}, 1, "", `/steps/0/agent: the agent "wirter" is not allowed in this plan; did you mean "writer"?`},
		{"too dear", []string{dear, goodPlan}, 1, "", "$0.50 are allowed (max_usd). The dearest step is many.w"},
		{"too deep", []string{deep, goodPlan}, 2, "", "plans may stand 2 deep in each other"},
		{"a plan within", []string{deep}, 1, "", ""},
		{"no plan", []string{"I would rather not.", `{"steps":[]}`, unknown}, 1, "invalid_output", ""},
		{"secrets are not to be had", []string{`{"steps":[{"id":"a","tool":"builtin:noop","args":{"x":"${{ secrets.x }}"}}]}`, goodPlan}, 1, "", "secrets"},
		{"who plans is away", []string{"!overloaded"}, 1, "overloaded", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &cast{lines: map[string][]string{"": c.lines}}
			a := planAttempt(t)
			a.Depth = c.depth
			_, o, said := do(t.Context(), New(Config{Gateway: m, Roster: prices{}}), a)
			if c.class != "" {
				if o.Failure == nil || o.Failure.Class != c.class || o.Planned != nil {
					t.Errorf("%q: %+v", said, o.Failure)
				}
				return
			}
			if o.Planned == nil {
				t.Fatalf("%q: %+v", said, o.Failure)
			}
			w, err := workflow.Load(o.Planned.Definition)
			if err != nil || w.Hash.String() != o.Planned.Hash || o.Planned.Estimate.Steps != len(w.Steps) || o.Planned.Estimate.CostMax <= 0 {
				t.Errorf("planned %s: %v", o.Planned.Definition, err)
			}
			if told := lastSaid(m.seen[""][len(m.seen[""])-1]); !strings.Contains(told, c.told) {
				t.Errorf("told %q", told)
			}
		})
	}
}

// A planner is told the goal, what it may use, how steps are written, and what became of the plan before.
func TestWhatAPlannerIsTold(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {goodPlan}}}
	a := planAttempt(t)
	a.Replan = &flow.Replan{
		Plan: json.RawMessage(`{"steps":[{"id":"old"}]}`), Failure: flow.Failure{Class: "gate_failed", Message: "too short"},
		Done: map[string]json.RawMessage{"facts": json.RawMessage(`{"facts":["tea is old"]}`)},
	}
	do(t.Context(), New(Config{Gateway: m, Roster: prices{}}), a)
	r := m.seen[""][0]
	for _, part := range []string{
		"GOAL\nA report.", `{"topic":"tea"}`, "- finder: grinder; Find facts. Its output: {", "- writer: grinder; Write. Its output: a text.", "builtin:noop", "At most 6 steps",
		"$0.50", "2 deep", `"merge": {`, "gate_failed: too short", `{"id":"old"}`, `facts: {"facts":["tea is old"]}`, "EXAMPLE",
	} {
		if !strings.Contains(lastSaid(r), part) {
			t.Errorf("told %q, without %q", lastSaid(r), part)
		}
	}
	if strings.Contains(lastSaid(r), "Be quick") || !strings.Contains(r.Ask.Messages[0].Content, "Plan it.") || len(r.Ask.Schema) == 0 {
		t.Errorf("told %+v", r.Ask.Messages)
	}
}

// What a planner is shown as a plan is one, and what it is told of each kind is how it is written.
func TestPlanSyntaxCompiles(t *testing.T) {
	a := planAttempt(t)
	allow := a.Step.Plan.Allow
	for most := 1; most <= 2; most++ {
		allow.MaxSteps = most
		checkPlan(t, &a, agent.PlanExample(allow))
	}
	for kind, step := range map[workflow.Kind]string{
		workflow.KindMap:      `"map": {"items": "${{ steps.list.output.facts }}", "as": "part", "max_items": 10, "steps": [{"id": "b", "agent": "writer", "prompt": "About ${{ part }}"}]}`,
		workflow.KindLoop:     `"loop": {"max_iterations": 3, "until": "output.facts.size() > 2", "steps": [{"id": "b", "agent": "finder", "prompt": "After ${{ iter.?last }}"}]}`,
		workflow.KindGroup:    `"group": {"steps": [{"id": "b", "agent": "writer", "prompt": "x"}]}`,
		workflow.KindSwitch:   `"switch": [{"when": "steps.list.output.facts.size() > 1", "steps": [{"id": "b", "agent": "writer", "prompt": "x"}]}, {"else": true, "steps": [{"id": "c", "agent": "writer", "prompt": "x"}]}]`,
		workflow.KindMerge:    `"merge": {"of": ["list", "list2"], "strategy": "judge", "agent": "writer"}`,
		workflow.KindPlan:     `"plan": {"agent": "lead", "goal": "x", "input": {"a": 1}, "allow": {"kinds": ["agent"], "agents": ["writer"], "tools": [], "max_steps": 5, "max_depth": 2, "max_usd": 0.1}}`,
		workflow.KindApproval: `"approval": {"title": "May I?"}`,
		workflow.KindWait:     `"wait": {"for": "5m"}`,
		workflow.KindEmit:     `"emit": {"event": "done", "data": {"a": 1}}`,
		workflow.KindSet:      `"set": {"name": "${{ steps.list.output }}"}`,
		workflow.KindTool:     `"tool": "builtin:noop", "args": {"a": 1}`,
	} {
		others := `{"id": "list", "agent": "finder", "prompt": "x"}, `
		if kind == workflow.KindMerge {
			others += `{"id": "list2", "agent": "finder", "prompt": "x"}, `
		}
		checkPlan(t, &a, `{"steps": [`+others+`{"id": "a", "when": "input.go == true", "needs": ["list"], `+step+`}], "output": "${{ steps.a.?output }}"}`)
	}
}

func checkPlan(t *testing.T, a *flow.Attempt, plan string) {
	t.Helper()
	if _, err := workflow.CompilePlan(a.Step.Plan, a.Within, json.RawMessage(plan), 1); err != nil {
		t.Errorf("%s: %v", plan, err)
	}
}

// A plan that was answered before a crash is not asked for again.
func TestPlanAfterACrash(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {`{"steps":[]}`, goodPlan}}}
	w := New(Config{Gateway: m, Roster: prices{}})
	a := planAttempt(t)
	turns, want, _ := do(t.Context(), w, a)
	if len(turns) != 1 {
		t.Fatalf("%d turns", len(turns))
	}
	m.lines = map[string][]string{"": {goodPlan}}
	a.Turns = turns
	_, got, _ := do(t.Context(), w, a)
	if diff := cmp.Diff(want, got); diff != "" || len(m.asked) != 3 {
		t.Errorf("%d requests: %s", len(m.asked), diff)
	}
}

// noPrices knows no model.
type noPrices struct{}

func (noPrices) Model(string) (workflow.ModelFacts, bool) { return workflow.ModelFacts{}, false }

// What a plan costs whose models have no price is bounded by what it may spend: its approval is asked for by that.
func TestPlanOfUnknownPrice(t *testing.T) {
	m := &cast{lines: map[string][]string{"": {goodPlan}}}
	_, o, _ := do(t.Context(), New(Config{Gateway: m, Roster: noPrices{}}), planAttempt(t))
	if o.Planned == nil || o.Planned.Estimate.CostMax != 500_000_000 {
		t.Errorf("%+v, %+v", o.Planned, o.Failure)
	}
}
