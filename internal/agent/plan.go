package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Planning is what a planner is asked for.
type Planning struct {
	Task    Task              // the goal, and the input of the planned steps
	Allow   workflow.Allow    // what it may use
	Agents  []*workflow.Agent // those of them that there are, as they are defined
	Depth   int               // of this plan, counted from the run that nobody planned
	Failed  string            // class and message of what became of the plan before; empty: there was none
	Plan    json.RawMessage   // that plan
	Done    map[string]json.RawMessage
	Problem func(planned json.RawMessage) string // what is wrong with a plan, or nothing; it must be pure
}

var planContract = ours(`{"type":"object","required":["steps"],"properties":{
	"steps":{"type":"array","minItems":1,"items":{"type":"object"}},"output":{}},"additionalProperties":false}`)

// OpenPlan asks an agent for a plan. Its answer is {"steps": […], "output": template?}.
func OpenPlan(by *workflow.Agent, p Planning) (Talk, Ask) {
	parts := []string{
		"Plan the steps that reach the GOAL, and nothing more. Others do them: you only say who does what, in which order, and what they are told. " +
			"Who does a step knows nothing but its prompt and its input.",
		planSyntax, planKinds(p.Allow), planAgents(p.Allow, p.Agents),
	}
	if len(p.Allow.Tools) > 0 {
		parts = append(parts, "TOOLS\n- "+strings.Join(p.Allow.Tools, "\n- "))
	}
	limits := fmt.Sprintf("LIMITS\nAt most %d steps, those inside maps, loops and groups counted once. All of it may cost at most $%s in the worst case.", p.Allow.MaxSteps, p.Allow.MaxCost)
	if slices.Contains(p.Allow.Kinds, workflow.KindPlan) {
		limits += fmt.Sprintf(" Plans may stand %d deep in each other; this one is at %d.", p.Allow.MaxDepth, p.Depth)
	}
	if example := PlanExample(p.Allow); example != "" {
		limits += "\n\nEXAMPLE of an answer\n" + example
	}
	parts = append(parts, limits, p.before(), "GOAL\n"+cleanText(p.Task.Prompt))
	if len(p.Task.Input) > 0 {
		parts = append(parts, "INPUT of the plan, which expressions read as input\n"+clip(cleanText(string(p.Task.Input)), materialBytesMax))
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return Open(alone(by, planContract), Task{Prompt: strings.Join(parts, "\n\n"), Feedback: p.Task.Feedback, Check: p.Problem})
}

// before tells of the plan that failed.
func (p *Planning) before() string {
	if p.Failed == "" {
		return ""
	}
	s := "BEFORE\nThis plan was run and failed. Plan anew, with what there is: copy from what is done what you still need.\nIt failed with " +
		cleanText(p.Failed) + "\nTHE PLAN\n" + material(string(p.Plan))
	if len(p.Done) > 0 {
		var done strings.Builder
		names := make([]string, 0, len(p.Done))
		for name := range p.Done {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			done.WriteString("\n" + name + ": " + clip(Plain(p.Done[name]), doneBytesMax))
		}
		s += "\nDONE, by step\n" + material(done.String())
	}
	return s
}

// doneBytesMax bounds what a planner is shown of the output of one step that was done.
const doneBytesMax = 2_000

const planSyntax = `STEPS
Answer {"steps": [...], "output": ...}. Each step is an object with an "id" (lower-case letters, digits and _; no two alike) and exactly one kind from the list below.
A text may hold expressions: ${{ input.x }} reads the input of the plan, ${{ steps.a.output }} what the step a made, ${{ steps.a.output.field }} a field of it. A text that is one expression only keeps the type of the value.
A step that reads another waits for it; steps that do not read each other run at the same time. "needs": ["a"] waits without reading.
"when": "expression" (without ${{ }}) skips a step unless it holds; whoever reads a step that may be skipped writes steps.a.?output.
"output" is what the plan gives back: a text or JSON with expressions. Left out, it is the output of the last step.`

// kindForms are the kinds of step as a planner is told of them.
var kindForms = []struct {
	kind workflow.Kind
	form string
}{
	{workflow.KindAgent, `{"id": "a", "agent": "name", "prompt": "what to do, with all it must know", "input": {"more": "..."}}`},
	{workflow.KindTool, `{"id": "a", "tool": "ref", "args": {...}}`},
	{workflow.KindMap, `{"id": "a", "map": {"items": "${{ steps.list.output.parts }}", "as": "part", "max_items": 10, "steps": [...]}}: the steps once for each item, which they read as ${{ part }}; its output is the list of the outputs of the last step`},
	{workflow.KindLoop, `{"id": "a", "loop": {"max_iterations": 3, "until": "output.pass", "steps": [...]}}: the steps again and again until the expression over the output of the last one holds; ${{ iter.?last }} is that of the iteration before`},
	{workflow.KindGroup, `{"id": "a", "group": {"steps": [...]}}: steps under one name`},
	{workflow.KindSwitch, `{"id": "a", "switch": [{"when": "expression", "steps": [...]}, {"else": true, "steps": [...]}]}: the steps of the first case that holds`},
	{workflow.KindMerge, `{"id": "a", "merge": {"of": ["b", "c"], "strategy": "judge", "agent": "name"}}: one output of several; other strategies, without an agent: collect, first, majority, consensus`},
	{workflow.KindPlan, `{"id": "a", "plan": {"agent": "name", "goal": "...", "input": {...}, "allow": {"kinds": [...], "agents": [...], "tools": [...], "max_steps": 5, "max_depth": 2, "max_usd": 1}}}: for a part that is a project of its own; it may not allow more than this plan`},
	{workflow.KindApproval, `{"id": "a", "approval": {"title": "what a person is asked"}}`},
	{workflow.KindWait, `{"id": "a", "wait": {"for": "5m"}}`},
	{workflow.KindEmit, `{"id": "a", "emit": {"event": "name", "data": {...}}}`},
	{workflow.KindSet, `{"id": "a", "set": {"name": "${{ ... }}"}}: values worked out of others, without asking anybody`},
}

func planKinds(allow workflow.Allow) string {
	s := "KINDS of step"
	for _, k := range kindForms {
		if slices.Contains(allow.Kinds, k.kind) {
			s += "\n- " + k.form
		}
	}
	return s
}

// planAgents lists who may be asked, and what each gives back.
func planAgents(allow workflow.Allow, agents []*workflow.Agent) string {
	if len(allow.Agents) == 0 {
		return ""
	}
	s := "AGENTS"
	for _, name := range allow.Agents {
		s += "\n- " + name
		i := slices.IndexFunc(agents, func(a *workflow.Agent) bool { return a.Name == name })
		if i < 0 {
			continue
		}
		if about := AboutAgent(agents[i]); about != "" {
			s += ": " + about
		}
		switch out := agents[i].Output; {
		case out.Schema != nil:
			s += " Its output: " + clip(string(out.Schema.Raw), descriptionBytesMax*4)
		case out.JSON:
			s += " Its output: any JSON."
		default:
			s += " Its output: a text."
		}
	}
	return s
}

// PlanExample is a plan of what is allowed, or nothing where there is no short one.
func PlanExample(allow workflow.Allow) string {
	if !slices.Contains(allow.Kinds, workflow.KindAgent) || len(allow.Agents) == 0 {
		return ""
	}
	first, last := allow.Agents[0], allow.Agents[len(allow.Agents)-1]
	steps := []string{`{"id": "facts", "agent": ` + strconv.Quote(first) + `, "prompt": "Collect the facts about ..."}`}
	if allow.MaxSteps > 1 {
		steps = append(steps, `{"id": "result", "agent": `+strconv.Quote(last)+`, "prompt": "Write ... from these facts:\n${{ steps.facts.output }}"}`)
		return `{"steps": [` + strings.Join(steps, ", ") + `], "output": "${{ steps.result.output }}"}`
	}
	return `{"steps": [` + steps[0] + `], "output": "${{ steps.facts.output }}"}`
}
