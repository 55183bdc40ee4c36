package rehearsal

import "testing"

// The whole language is rehearsed: items, iterations, people, signals, runs in runs.
func TestLanguage(t *testing.T) {
	for _, f := range language {
		t.Run(f.name, func(t *testing.T) { passes(t, f.source) })
	}
}

var language = []struct{ name, source string }{
	{"map", `
workflow:
  spec: workflow/v1
  name: chapters
  agents: {writer: {role: grinder, model: gpt-4o, instructions: Write.}}
  steps:
    - id: build
      map:
        items: input.titles
        as: title
        max_items: 10
        concurrency: 2
        on_item_error: keep
        steps:
          - {id: make, agent: writer, prompt: "${{ title }}"}
          - {id: polish, agent: writer, prompt: "${{ steps.make.output }}"}
        output: ${{ steps.polish.output }}
cases:
  - name: three items
    input: {titles: [a, b, c]}
    models:
      - {step: build.1.make, error: refuse}
      - {step: "build.*.make", answer: made}
      - {step: "build.*.polish", answer: polished}
    expect:
      output: [polished, null, polished]
      steps:
        build: succeeded
        "build.*.make": {count: 3}
        "build.1.make": {status: failed, error: content_policy}
        "build.2.*": {count: 2, status: succeeded, output: "${{ value in ['made', 'polished'] }}"}
      order: [build.0.make, build.0.polish]
      calls: {"build.*": 5}
`},
	{"loop", `
workflow:
  spec: workflow/v1
  name: improve
  contracts: {score: {type: object, required: [score], properties: {score: {type: number}}}}
  agents: {critic: {role: validator, model: gpt-4o, instructions: Judge., output: {contract: score}}}
  steps:
    - id: improve
      loop:
        max_iterations: 5
        until: output.score >= 8
        steps: [{id: judge, agent: critic, prompt: "try ${{ iter.number }}"}]
cases:
  - name: better each time
    models:
      - {prompt: try 1, answer: {score: 3}}
      - {prompt: try 2, answer: {score: 9}}
    expect:
      output: {score: 9}
      steps: {"improve.*.judge": {count: 2}}
`},
	{"approval", `
workflow:
  spec: workflow/v1
  name: publish
  timeout: 7d
  steps:
    - id: go_on
      approval: {title: "Publish ${{ input.what }}?", form: {schema: {type: object, properties: {note: {type: string}}}}, expires: 3d}
    - {id: out, set: {note: "${{ steps.go_on.output.note }}", by: "${{ steps.go_on.by }}"}}
cases:
  - name: approved after two hours
    input: {what: tides}
    approvals: [{step: go_on, after: 2h, form: {note: fine}, by: jane}]
    expect:
      output: {note: fine, by: jane}
      assert: ["duration_s == 7200"]
  - name: rejected
    input: {what: tides}
    approvals: [{step: go_on, choice: reject, reason: not yet, by: jane}]
    expect: {error: {class: rejected, step: go_on, message: not yet}}
  - name: nobody answers
    input: {what: tides}
    expect:
      error: {class: expired}
      assert: ["duration_s > 3 * 86400 - 1"]
`},
	{"signals and times", `
workflow:
  spec: workflow/v1
  name: order
  timeout: 7d
  steps:
    - {id: paid, wait: {signal: {name: paid, match: "event.data.amount >= 10"}}}
    - {id: rest, needs: [paid], wait: {for: 1d}}
    - {id: out, needs: [rest], set: {amount: "${{ steps.paid.output.amount }}"}}
cases:
  - name: the second payment is enough
    signals: [{name: paid, data: {amount: 3}, after: 1h}, {name: paid, data: {amount: 12}, after: 2h}]
    expect:
      output: {amount: 12}
      assert: ["duration_s == 26.0 * 3600"]
  - name: nobody pays
    expect: {waiting: [paid]}
  - name: nobody pays, and the run's time is up
    wait_out: true
    expect: {error: {class: timeout}}
`},
	{"workflows in workflows", `
workflow:
  spec: workflow/v1
  name: order
  steps:
    - id: each
      map:
        items: "[1, 2]"
        max_items: 2
        steps: [{id: ship, workflow: {name: shipping, input: {what: "${{ string(item) }}"}}}]
    - {id: told, wait: {signal: {name: shipped, match: "event.data.what == '2'"}}}
    - {id: out, set: {both: "${{ steps.each.output }}", told: "${{ steps.told.output.what }}"}}
workflows:
  shipping:
    spec: workflow/v1
    name: shipping
    input: {type: object, required: [what], properties: {what: {type: string}}}
    agents: {packer: {role: grinder, model: gpt-4o, instructions: Pack.}}
    steps:
      - {id: pack, agent: packer, prompt: "${{ input.what }}"}
      - {id: say, needs: [pack], emit: {event: shipped, data: {what: "${{ input.what }}"}}}
    output: ${{ steps.pack.output }}
cases:
  - name: two are shipped
    models: [{step: "*/pack", prompt: "2", latency: 10s, answer: second}, {agent: packer, answer: first}]
    expect:
      output: {both: [first, second], told: "2"}
      steps: {each.0.ship: succeeded, "each.*.ship/pack": {count: 2, status: succeeded}}
      calls: {packer: 2}
      assert: ["duration_s == 10", "steps['each.1.ship/pack'].model == 'gpt-4o'"]
  - name: and the node dies all the while
    crash: every
    models: [{step: "*/pack", prompt: "2", latency: 10s, answer: second}, {agent: packer, answer: first}]
    expect: {output: {both: [first, second], told: "2"}}
  - name: one cannot be shipped
    models: [{step: each.1.ship/pack, error: refuse}]
    expect:
      error: {class: child_failed, step: each.1.ship}
      steps: {each.1.ship/pack: {status: failed, error: content_policy}}
`},
}

// What waits for ever is told, with what would help.
func TestWaitsInVain(t *testing.T) {
	s := suite(t, `
workflow:
  spec: workflow/v1
  name: publish
  steps: [{id: go_on, approval: {title: "Publish?"}}]
cases:
  - name: nobody
  - name: the wrong choice
    approvals: [{step: go_on, choice: perhaps}]
`)
	for i, want := range []string{
		"7:5 the run ended otherwise | succeeded | waiting\n7:5 step go_on waits for a person (approval: \"Publish?\", choices [approve reject]): answer with approvals: [{step: go_on, choice: …}]\n",
		"9:31 step go_on does not offer this choice | approve, reject | perhaps\n8:5 the run ended otherwise | succeeded | waiting\n8:5 step go_on waits for a person (approval: \"Publish?\", choices [approve reject]): answer with approvals: [{step: go_on, choice: …}]\n",
	} {
		r, err := s.Cases[i].Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := tell(r); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}
