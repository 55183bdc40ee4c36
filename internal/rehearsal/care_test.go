package rehearsal

import "testing"

// What is done about work that fails or is not good enough: gates with judges, escalations, questions, plans.
func TestCare(t *testing.T) {
	for _, f := range care {
		t.Run(f.name, func(t *testing.T) { passes(t, f.source) })
	}
}

var care = []struct{ name, source string }{
	{"gate", `
workflow:
  spec: workflow/v1
  name: gated
  agents:
    author: {role: grinder, model: claude-sonnet-4-6, instructions: Write.}
    judge: {role: validator, model: gpt-4o, instructions: Judge.}
  steps:
    - id: write
      agent: author
      prompt: Write.
      retry: none
      gate: {checks: [{judge: judge, rubric: {truth: is it true}, min_score: 7}], revise: 2}
      on_error: [{classes: [gate_failed], do: escalate, to: approval}]
cases:
  - name: better the second time
    models:
      - {agent: author, times: 1, answer: Bad.}
      - {agent: judge, times: 1, answer: {score: 3, pass: false, issues: [it is bad]}}
      - {agent: author, prompt: it is bad, answer: Good.}
      - {agent: judge, answer: {score: 9, pass: true, issues: []}}
    expect:
      output: Good.
      calls: {author: 2, judge: 2}
      steps: {write: {status: succeeded, attempts: 1}}
      assert: ["steps.write.score == 9"]
  - name: never good enough, and a person takes it
    models:
      - {agent: author, answer: Bad.}
      - {agent: judge, answer: {score: 3, pass: false, issues: [it is bad]}}
    approvals: [{step: write, about: escalation, choice: accept, after: 1h, by: jane}]
    expect:
      output: Bad.
      calls: {judge: 3}
      assert: ["duration_s == 3600"]
  - name: the node dies all the while
    crash: every
    models:
      - {agent: author, times: 1, answer: Bad.}
      - {agent: judge, times: 1, answer: {score: 3, pass: false, issues: [it is bad]}}
      - {agent: author, prompt: it is bad, answer: Good.}
      - {agent: judge, answer: {score: 9, pass: true, issues: []}}
    expect: {output: Good., calls: {author: 2, judge: 2}}
`},
	{"questions", `
workflow:
  spec: workflow/v1
  name: asked
  agents:
    author: {role: grinder, model: claude-sonnet-4-6, instructions: Write.}
  steps: [{id: write, agent: author, prompt: Write.}]
cases:
  - name: a person answers
    models:
      - {agent: author, turn: 1, answer: {needs_decision: {question: "Red or blue?", options: [red, blue], recommendation: red}}}
      - {agent: author, prompt: blue, answer: It is blue.}
    approvals: [{step: write, about: decision, choice: blue, after: 5m}]
    expect:
      output: It is blue.
`},
	{"plan", `
workflow:
  spec: workflow/v1
  name: planned
  agents:
    planner: {role: orchestrator, model: claude-opus-4-6, instructions: Plan.}
    worker: {role: grinder, model: gpt-4o-mini, instructions: Work.}
  steps:
    - id: work
      plan: {agent: planner, goal: Do it., allow: {kinds: [agent], agents: [worker], tools: [], max_steps: 5, max_depth: 1, max_usd: 1}, approval: {when: estimate.steps > 1}}
cases:
  - name: two steps, approved
    models:
      - {agent: planner, answer: {steps: [{id: one, agent: worker, prompt: one}, {id: two, agent: worker, prompt: "two ${{ steps.one.output }}"}]}}
      - {step: work/two, prompt: two ONE, answer: TWO}
      - {agent: worker, answer: ONE}
    approvals: [{step: work, about: plan, by: jane}]
    expect:
      output: TWO
      steps: {work/one: succeeded, work/two: succeeded}
      calls: {planner: 1, worker: 2}
`},
	{"delegates", `
workflow:
  spec: workflow/v1
  name: delegated
  agents:
    lead: {role: orchestrator, model: claude-opus-4-6, instructions: Lead., delegates: [scout], max_turns: 5}
    scout: {role: grinder, model: gpt-4o-mini, instructions: Look.}
  steps: [{id: lead, agent: lead, prompt: Find it.}]
cases:
  - name: one is asked
    models:
      - {agent: lead, turn: 1, calls: [{name: delegate, arguments: {agent: scout, task: look in the attic}}]}
      - {agent: scout, answer: There is a trunk.}
      - {agent: lead, prompt: There is a trunk., answer: In the trunk.}
    expect:
      output: In the trunk.
      calls: {scout: 1}
`},
	{"the ladder", `
workflow:
  spec: workflow/v1
  name: degraded
  agents:
    author: {role: grinder, model: claude-sonnet-4-6, instructions: Write.}
    critic: {role: validator, model: gpt-4o, instructions: Review.}
  degrade: [{name: unreviewed, omit: [review]}]
  steps:
    - {id: write, agent: author, prompt: Write.}
    - id: review
      agent: critic
      prompt: ${{ steps.write.output }}
      retry: none
      on_error: [{classes: [any], do: degrade}]
    - {id: out, set: {text: "${{ steps.write.output }}", review: "${{ steps.review.?output }}"}}
cases:
  - name: without the critic
    models: [{agent: critic, error: overloaded}, {agent: author, answer: Tea.}]
    expect:
      output: {text: Tea.}
      steps: {review: skipped}
      assert: ["quality.level == 1", "quality.name == 'unreviewed'", "quality.omitted == ['review']"]
`},
}
