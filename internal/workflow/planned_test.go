package workflow_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// TestPlans compiles what planners answered, in testdata/plans: a workflow, ----, then for each answer its depth, the
// answer, and the definition or the problems that come out.
func TestPlans(t *testing.T) {
	for _, file := range golden(t, "testdata/plans/*.txt") {
		t.Run(name(file), func(t *testing.T) {
			script := read(t, file)
			definition, rest, _ := strings.Cut(script, "\n----\n")
			w, p := planning(t, definition)
			var played []string
			for _, c := range strings.Split(rest, "\n====\n") {
				asked, _, _ := strings.Cut(c, "\n----\n")
				asked = strings.TrimSuffix(asked, "\n----")
				depth, answer, _ := strings.Cut(asked, "\n")
				played = append(played, asked+"\n----\n"+strings.TrimRight(planned(t, w, p, depth, answer), "\n"))
			}
			compare(t, file, script, definition+"\n----\n"+strings.Join(played, "\n====\n")+"\n")
		})
	}
}

func planning(t testing.TB, definition string) (*workflow.Workflow, *workflow.PlanStep) {
	t.Helper()
	w, err := workflow.Compile([]byte(definition))
	if err != nil {
		t.Fatal(problems(err))
	}
	for _, s := range w.Steps {
		if s.Plan != nil {
			return w, s.Plan
		}
	}
	t.Fatal("the definition has no plan")
	return nil, nil
}

func planned(t *testing.T, w *workflow.Workflow, p *workflow.PlanStep, depth, answer string) string {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(depth, "depth "))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := workflow.CompilePlan(p, w, json.RawMessage(answer), n)
	if err != nil {
		return problems(err)
	}
	loaded, err := workflow.Load(plan.Source)
	if err != nil {
		t.Fatalf("load the plan: %s", problems(err))
	}
	if diff := cmp.Diff(dump(plan), dump(loaded)); diff != "" || loaded.Hash != plan.Hash {
		t.Errorf("loaded it differs (-planned +loaded):\n%s", diff)
	}
	return string(plan.Source)
}

const planningSource = `
spec: workflow/v1
name: n
contracts: {c: {type: object}}
agents:
  lead: {model: m}
  a: {model: m, output: {contract: c}}
steps:
  - {id: p, plan: {agent: lead, goal: x, allow: {kinds: [agent, tool, map, loop, group, switch, merge, plan, approval, wait, emit, set], agents: [a], tools: [builtin:noop], max_steps: 20, max_depth: 3, max_usd: 1}}}
`

// TestRandomPlans: whatever a planner answers, it is refused with a reason, or is a definition that spends what it may.
func TestRandomPlans(t *testing.T) {
	w, p := planning(t, planningSource)
	words := []string{
		`{"id":"x",`, `{"id":"y",`, `"steps":`, `[`, `]`, `{`, `}`, `,`, `"agent":"a"`, `"prompt":"${{ input.q }}"`, `"tool":"builtin:noop"`, `"set":{}`,
		`"map":{"items":[1],"max_items":1,`, `"loop":{"max_iterations":1,`, `"group":{`, `"switch":[{"else":true,`, `"output":"${{ steps.x.output }}"`,
		`"plan":{"agent":"lead","goal":"g","allow":{"kinds":["set"],"max_steps":1,"max_depth":1,"max_usd":1}}`, `"merge":{"of":["x"],"strategy":"first"}`,
		`"on_error":[{"classes":["any"],"do":"skip"}]`, `"gate":{"checks":[{"assert":"true"}]}`, `null`, `1`, `"a"`, `"needs":["x"]`, `"approval":{"title":"t"}`,
		`"wait":{"for":"1s"}`, `"emit":{"event":"e"}`, `"agent":{}`, `"allow":null`, `"agents":{}`, `"switch":{}`, `"on_error":{}`, `"gate":[]`,
	}
	step := rapid.SampledFrom([]string{
		`{"id":"%s","agent":"a","prompt":"x"}`, `{"id":"%s","set":{"v":"${{ input }}"}}`, `{"id":"%s","tool":"builtin:noop"}`,
		`{"id":"%s","map":{"items":[1],"max_items":1,"steps":[{"id":"in_%[1]s","set":{}}]}}`, `{"id":"%s","agent":"lead"}`, `{"id":"%s"}`,
	})
	made := 0
	rapid.Check(t, func(r *rapid.T) {
		answer := strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 12).Draw(r, "words"), "")
		if rapid.Bool().Draw(r, "steps") {
			var steps []string
			for i := range rapid.IntRange(0, 12).Draw(r, "number") {
				steps = append(steps, fmt.Sprintf(step.Draw(r, "step"), "s"+strconv.Itoa(i)))
			}
			answer = `{"steps":[` + strings.Join(steps, ",") + `]}`
		}
		plan, err := workflow.CompilePlan(p, w, json.RawMessage(answer), rapid.IntRange(1, 4).Draw(r, "depth"))
		var f *fault.Error
		switch {
		case err != nil && (!errors.As(err, &f) || len(f.Issues) == 0):
			r.Fatalf("%s: not a fault with issues: %v", answer, err)
		case err != nil:
		case plan.Budget.Cost != p.Allow.MaxCost || len(plan.Steps) > p.Allow.MaxSteps:
			r.Fatalf("%s: budget %s, %d steps", answer, plan.Budget.Cost, len(plan.Steps))
		default:
			made++
		}
	})
	t.Logf("%d were plans", made)
}

// FuzzPlan: no answer of a planner makes CompilePlan panic.
func FuzzPlan(f *testing.F) {
	for _, file := range golden(&testing.T{}, "testdata/plans/*.txt") {
		_, rest, _ := strings.Cut(read(&testing.T{}, file), "\n----\n")
		for _, c := range strings.Split(rest, "\n====\n") {
			_, answer, _ := strings.Cut(c, "\n")
			answer, _, _ = strings.Cut(answer, "\n----\n")
			f.Add([]byte(answer))
		}
	}
	w, p := planning(f, planningSource)
	f.Fuzz(func(t *testing.T, answer []byte) {
		var wrong *fault.Error
		if _, err := workflow.CompilePlan(p, w, answer, 1); err != nil && (!errors.As(err, &wrong) || len(wrong.Issues) == 0) {
			t.Fatalf("not a fault with issues: %v", err)
		}
	})
}
