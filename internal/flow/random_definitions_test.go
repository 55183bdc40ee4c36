package flow_test

// The definitions of the random runs. Together they say all that the language has. Their expressions are marked, so that
// the same structure with other rules can be made of each: see changes.

// Steps of every plain kind, in containers and out of them.
const randomPlain = `
spec: workflow/v1
name: random
max_parallel: 3
timeout: 1h
budget: {usd: 0.00000002, tokens: 40}
input: {type: object, properties: {a: {type: boolean, default: true}, k: {type: integer, default: 1}}}
agents:
  w: {model: gpt-4o}
steps:
  - {id: one, tool: "builtin:noop", args: {k: "${{ input.k }}"}}
  - {id: two, agent: w, prompt: "two", retry: {max_attempts: 3, backoff: {initial: 20s, max: 2m}, classes: [any]}}
  - id: grp
    when: input.a
    timeout: 20m
    group:
      steps:
        - {id: g1, tool: "builtin:noop", retry: {max_attempts: 2, backoff: {initial: 1s}, classes: [any]}}
        - {id: g2, needs: [g1], set: {x: 1}}
        - id: deep
          needs: [one]
          group:
            steps:
              - {id: d1, tool: "builtin:noop", side_effect: unsafe, retry: none}
              - {id: d2, needs: [d1], agent: w, prompt: "d2"}
  - id: sw
    needs: [two]
    switch:
      - when: input.k == 1
        steps:
          - {id: s1, tool: "builtin:noop", retry: none}
          - {id: s2, needs: [s1], set: {y: 2}}
      - else: true
        steps:
          - {id: s3, tool: "builtin:noop"}
  - {id: last, needs: [grp, sw], tool: "builtin:noop"}
on_failure:
  - {id: tell, tool: "builtin:noop"}
  - {id: told, needs: [tell], set: {ok: true}}
finally:
  - {id: tidy, tool: "builtin:noop", retry: {max_attempts: 2, backoff: {initial: 5s}, classes: [any]}}
`

// Maps in loops and loops in maps, with failures that are handled at every height.
const randomMany = `
spec: workflow/v1
name: many
max_parallel: 4
timeout: 3h
budget: {usd: 0.0000002, tokens: 4000, warn_at: 0.8, on_exceeded: pause}
input: {type: object, properties: {a: {type: boolean, default: true}, k: {type: integer, default: 1}, list: {type: array, default: [1, 2, 3]}}}
agents:
  w: {model: gpt-4o, output: {schema: {type: object, required: [v, ok], properties: {v: {type: integer}, ok: {type: boolean}}}}}
  u: {model: claude-haiku-4-5}
defaults: {retry: none}
steps:
  - id: each
    on_error: [{classes: [too_few], do: escalate, to: approval}, {classes: [any], do: fallback, value: [1]}]
    budget: {share: 0.5}
    timeout: 30m
    map:
      items: input.list
      as: it
      max_items: 5
      concurrency: 2
      on_item_error: keep
      min_success: 2
      steps:
        - {id: make, agent: w, prompt: "${{ it }}", on_error: [{classes: [server], do: fallback, agent: u}, {classes: [tool_error], do: escalate, to: u}]}
        - {id: mind, wait: {for: 40s}}
        - id: better
          needs: [make]
          on_error: [{classes: [exhausted], do: escalate, to: approval}]
          loop:
            max_iterations: 2
            until: output.ok
            steps:
              - {id: try, agent: w, prompt: "${{ iter.number }} ${{ iter.?last }}", retry: {max_attempts: 2, backoff: {initial: 10s}, classes: [server]}}
              - {id: look, tool: "builtin:noop", side_effect: unsafe}
            output: {ok: "${{ steps.try.output.ok }}"}
      output: {n: "${{ index }}", v: "${{ steps.make.output.v }}"}
  - id: rounds
    loop:
      max_iterations: 3
      until: output.n > 100
      best_by: output.n
      steps:
        - id: parts
          map:
            items: input.list
            max_items: 5
            concurrency: 3
            steps:
              - {id: part, agent: w, prompt: p}
              - {id: ask, needs: [part], when: "steps.part.output.ok", approval: {title: "Good?", expires: 10m}}
        - {id: sum, set: {n: "${{ steps.parts.output.size() }}"}}
      output: {n: "${{ steps.sum.output.n + iter.number }}"}
  - id: grp
    on_error: [{classes: [tool_error], do: skip}, {classes: [server], do: escalate, to: u}]
    group:
      steps:
        - {id: x, tool: "builtin:noop", side_effect: unsafe}
        - {id: y, tool: "builtin:noop"}
        - id: inner
          map:
            items: [1, 2]
            max_items: 2
            steps:
              - {id: z, tool: "builtin:noop"}
              - {id: say, needs: [z], emit: {event: said, data: "${{ item }}"}}
  - {id: last, needs: [grp], when: input.a, set: {e: "${{ steps.each.?errors }}", r: "${{ steps.rounds.exhausted }}"}}
on_failure:
  - id: tell
    map:
      items: [1, 2]
      max_items: 2
      steps:
        - {id: told, tool: "builtin:noop"}
finally:
  - {id: pause, wait: {for: 20s}}
  - {id: tidy, needs: [pause], tool: "builtin:noop"}
`

// Who and what a run waits for: people, times, signals, runs of its own, plans.
const randomWaiting = `
spec: workflow/v1
name: waiting
max_parallel: 4
timeout: 3h
budget: {usd: 0.0000002, tokens: 4000}
input: {type: object, properties: {a: {type: boolean, default: true}, k: {type: integer, default: 1}, list: {type: array, default: [1, 2]}}}
agents:
  w: {role: grinder, model: gpt-4o}
  o: {role: orchestrator, model: gpt-4o}
orchestrator: o
steps:
  - {id: ask, approval: {title: "Go on?", expires: 5m}, on_error: [{classes: [expired], do: skip}]}
  - {id: which, approval: {title: "Which?", choices: [left, right], expires: 5m}}
  - {id: soon, wait: {for: 90s}}
  - {id: heard, wait: {signal: {name: go, match: "event.data.?v.orValue(1) == 1", timeout: 20m}}}
  - {id: again, needs: [heard], wait: {signal: {name: go, timeout: 20m}}, on_error: [{classes: [timeout], do: skip}]}
  - {id: other, wait: {signal: {name: other, timeout: 30m}}, on_error: [{classes: [timeout], do: fallback, value: {none: true}}]}
  - {id: sub, workflow: {name: child, input: {n: 1}}, timeout: 30m, retry: {max_attempts: 2, backoff: {initial: 10s}, classes: [any]}}
  - {id: subs, map: {items: input.list, max_items: 4, concurrency: 2, on_item_error: keep, steps: [{id: one, workflow: {name: child}, budget: {usd: 1}}]}}
  - {id: do, plan: {agent: o, goal: "do it", allow: {kinds: [agent], agents: [w], max_steps: 3, max_depth: 1, max_usd: 1}, approval: {when: "estimate.steps > 0"}, replan: 1}, on_error: [{classes: [rejected], do: skip}]}
  - {id: work, agent: w, prompt: p, retry: {max_attempts: 2, backoff: {initial: 1s}, classes: [any]}, on_error: [{classes: [any], do: escalate}]}
  - {id: done, needs: [ask, which], emit: {event: done, data: {by: "${{ steps.which.choice }}"}}}
  - {id: last, needs: [work, soon], when: input.a, set: {a: 1}}
on_failure:
  - {id: tell, approval: {title: "It failed"}}
  - {id: told, wait: {signal: {name: other, timeout: 1m}}, on_error: [{classes: [any], do: skip}]}
finally:
  - {id: tidy, tool: "builtin:noop"}
  - {id: bye, workflow: {name: child}}
`

// Merges of all strategies, and a ladder.
const randomMerging = `
spec: workflow/v1
name: merging
max_parallel: 5
timeout: 2h
budget: {usd: 0.00000002, tokens: 4000, on_exceeded: degrade}
input: {type: object, properties: {a: {type: boolean, default: true}, k: {type: integer, default: 1}, list: {type: array, default: [1, 2]}}}
agents:
  w: {model: gpt-4o, output: {format: json}}
  quick: {model: claude-haiku-4-5}
defaults: {retry: none}
steps:
  - {id: a, agent: w, prompt: a}
  - {id: b, agent: w, prompt: b, retry: {max_attempts: 2, backoff: {initial: 30s}, classes: [any]}}
  - {id: c, tool: "builtin:noop", side_effect: unsafe}
  - {id: late, needs: [a], when: input.a, approval: {title: "Late?"}}
  - {id: sub, group: {steps: [{id: in1, tool: "builtin:noop"}, {id: in2, wait: {for: 1m}}]}}
  - {id: fast, when: input.k > 0, merge: {of: [a, late, sub], strategy: first}}
  - {id: most, merge: {of: [a, b, c], strategy: majority, by: output.v}, on_error: [{classes: [no_quorum], do: escalate, to: w}]}
  - {id: all, merge: {of: [a, b], strategy: consensus, by: output.v}, on_error: [{classes: [any], do: skip}]}
  - {id: list, merge: {of: [a, b, c], strategy: collect, quorum: 2}, on_error: [{classes: [any], do: fallback, value: []}]}
  - {id: wise, merge: {of: [a, b], strategy: judge, agent: w}, on_error: [{classes: [no_quorum], do: degrade}, {classes: [any], do: skip}]}
  - id: votes
    map:
      items: input.list
      max_items: 3
      on_item_error: keep
      steps:
        - {id: p, agent: w, prompt: p}
        - {id: q, tool: "builtin:noop", side_effect: unsafe}
        - {id: m, merge: {of: [p, q], strategy: first}}
  - {id: filings, tool: "builtin:noop", on_error: [{classes: [any], do: degrade, level: 3}]}
  - {id: news, group: {steps: [{id: n1, tool: "builtin:noop", on_error: [{classes: [any], do: degrade, level: 1}]}, {id: n2, approval: {title: "News?"}}]}}
  - {id: report, agent: w, prompt: "${{ steps.filings.?output }} ${{ steps.news.?output }}", on_error: [{classes: [any], do: degrade}]}
degrade:
  - {name: core, omit: [news], set: {wise: {value: {v: 0}}}}
  - {name: basic, omit: [news], set: {report: {agent: quick}, wise: {value: {v: 0}}}}
  - {name: documented, omit: [filings, news, votes], set: {report: {value: "No: ${{ run.quality.level }}"}, wise: {value: {v: 0}}}}
finally:
  - {id: tidy, tool: "builtin:noop"}
`

// changes are the marked expressions, and what stands in their place in the same structure with other rules.
var changes = []string{
	"when: input.a", "when: \"!input.a\"", "input.k == 1", "input.k != 1", "{x: 1}", "{x: 3}", "args: {k:", "args: {other:",
	"until: output.ok", "until: \"!output.ok\"", "until: output.n > 100", "until: output.n < 100", "best_by: output.n", "best_by: 0 - output.n",
	"items: input.list", "items: [7, 8, 9]", "items: [1, 2]", "items: [3]", "{n: 1}", "{n: 2}", "by: output.v", "by: output", "input.k > 0", "input.k < 0",
	"for: 90s", "for: 9s", "when: \"steps.part.output.ok\"", "when: \"!steps.part.output.ok\"", "estimate.steps > 0", "estimate.steps < 0",
	"orValue(1) == 1", "orValue(1) == 2", "value: {v: 0}", "value: {v: 9}", "value: [1]", "value: [2]", "{n: \"${{ index", "{m: \"${{ index",
}
