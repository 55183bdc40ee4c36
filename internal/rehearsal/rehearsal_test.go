package rehearsal

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/fault"
)

// files is a library of what a test brings along.
type files map[string]string

func (f files) File(path string) ([]byte, error) {
	if text, ok := f[path]; ok {
		return []byte(text), nil
	}
	return nil, fmt.Errorf("open %s: %w", path, os.ErrNotExist)
}

func (f files) Template(name string) ([]byte, error) { return f.File(name) }

// suite reads a test file that must be right.
func suite(t *testing.T, source string) *Suite {
	t.Helper()
	s, err := Read("a.test.yaml", []byte(source), files{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// told is what a case says of itself, in short: a line a failure.
func tell(r *Result) string {
	var b strings.Builder
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "%d:%d %s", f.Line, f.Col, f.What)
		if f.Expected != "" || f.Got != "" {
			fmt.Fprintf(&b, " | %s | %s", f.Expected, f.Got)
		}
		b.WriteString("\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

// passes runs every case of a file; each must pass without a note.
func passes(t *testing.T, source string) {
	t.Helper()
	for _, c := range suite(t, source).Cases {
		t.Run(c.Name, func(t *testing.T) {
			r, err := c.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if said := tell(r); said != "" {
				t.Errorf("%s%s", said, strings.Join(r.Story, "\n"))
			}
		})
	}
}

const writer = `
workflow:
  spec: workflow/v1
  name: letters
  input: {type: object, required: [topic], properties: {topic: {type: string}}}
  contracts:
    review: {type: object, required: [pass], properties: {pass: {type: boolean}}}
  agents:
    author: {role: grinder, chain: [{model: claude-sonnet-4-6, retries: 2, timeout: 30s}, {model: gpt-4o}], instructions: Write.}
    critic: {role: validator, model: gpt-4o, instructions: Review., output: {contract: review}}
  timeout: 3h
  steps:
    - {id: write, agent: author, prompt: "${{ input.topic }}", timeout: 10m, retry: {max_attempts: 3}}
    - {id: review, agent: critic, prompt: "${{ steps.write.output }}"}
    - {id: keep, tool: "builtin:noop", when: steps.review.output.pass, args: {text: "${{ steps.write.output }}"}}
  output: {text: "${{ steps.write.output }}", pass: "${{ steps.review.output.pass }}"}
`

func TestCases(t *testing.T) {
	passes(t, writer+`
cases:
  - name: as it should be
    input: {topic: tea}
    models:
      - {step: write, answer: Tea is warm.}
      - {step: review, answer: {pass: true, confidence: 90}}
    expect:
      output: {text: Tea is warm., pass: "${{ value }}"}
      steps: {write: succeeded, review: {status: succeeded, attempts: 1, model: "gpt-*", agent: critic, output: {pass: true}}, "*": {count: 3, status: succeeded}}
      order: [write, review, keep]
      calls: {write: 1, critic: 1}
      assert: ["output.pass", "calls == 2", "cost_usd > 0 && cost_usd < 0.01", "steps.review.confidence == 90", "duration_s == 0", "quality.level == 0"]
  - name: the first model is throttled, and asked again
    input: {topic: tea}
    models:
      - {model: "claude-*", error: rate_limited, times: 2}
      - {step: write, answer: Tea.}
      - {step: review, answer: {pass: false}}
    expect:
      steps: {write: {status: succeeded, model: "claude-*"}, keep: skipped}
      calls: {write: 3}
      assert: ["duration_s >= 2"]
  - name: silence falls through to the second model
    input: {topic: tea}
    models: [{model: "claude-*", error: timeout}, {step: review, latency: 5s}]
    expect:
      steps: {write: {model: gpt-4o}}
      assert: ["steps.write.duration_s == 30", "steps.review.duration_s == 5"]
  - name: everything is slow, and the step gives up three times
    input: {topic: tea}
    models: [{step: write, error: timeout}]
    expect:
      error: {class: timeout, step: write, message: its timeout of 10m}
      steps: {write: {attempts: 3, error: timeout}, review: pending}
      assert: ["duration_s > 1800 && duration_s < 1900"]
  - name: garbage is asked about again
    input: {topic: tea}
    models:
      - {step: review, error: garbage, turn: 1}
      - {step: review, answer: {pass: true}, turn: 2}
    expect:
      calls: {review: 2}
  - name: a policy stops the chain
    input: {topic: tea}
    models: [{step: write, error: refuse}]
    expect: {error: {class: content_policy}, calls: {write: 1}}
  - name: an input that is refused
    input: {topic: 3}
    expect: {error: {class: input_invalid}}
  - name: by another model
    input: {topic: tea}
    models_replace: {author: [gpt-4o-mini, grok-3]}
    models: [{model: gpt-4o-mini, error: server, message: down for today}]
    expect:
      steps: {write: {model: grok-3}}
  - name: cancelled meanwhile
    input: {topic: tea}
    models: [{step: write, latency: 20s, answer: never}]
    steer: [{do: cancel, after: 10s, reason: enough}]
    expect:
      status: cancelled
      assert: ["duration_s == 10"]
  - name: resumed by hand
    input: {topic: tea}
    models: [{step: write, error: refuse}, {step: review, answer: {pass: true}}]
    steer: [{do: resume, after: 1h, set: {write: by hand}}]
    expect:
      output: {text: by hand}
      assert: ["duration_s >= 3600"]
  - name: out of money
    input: {topic: tea}
    budget: {usd: 0.000001}
    expect: {status: waiting, waiting: [write]}
`)
}

func TestFailures(t *testing.T) {
	for _, c := range []struct{ name, expect, want string }{
		{"a step that is not there", `{steps: {revew: succeeded}}`, `there is no such step; did you mean "review"? | revew | write, review, keep`},
		{"an output", `{output: {text: x}}`, `the output differs at /text | "x" | "Tea."`},
		{"an output that is missing", `{output: {nothing: 1}}`, `the output differs at /nothing | 1 | nothing`},
		{"a condition", `{assert: ["calls > 7"]}`, `the condition does not hold | calls > 7 | calls = 2`},
		{"a condition over a value", `{output: {text: "${{ value == 'x' }}"}}`, `the condition does not hold | value == 'x' | value = "Tea."`},
		{"a status", `{status: failed}`, "the run ended otherwise | failed | succeeded"},
		{"the order", `{order: [review, write]}`, "the order is another | review is settled before write starts | write starts before review is settled"},
		{"calls", `{calls: {critic: 5}}`, "agent critic made another number of requests to models | 5 | 1"},
		{"an error", `{status: succeeded, error: {class: timeout}}`, "the run has no error | timeout | "},
		{"attempts", `{steps: {write: {attempts: 2}}}`, "step write took another number of attempts | 2 | 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := suite(t, writer+`
models: [{step: write, answer: Tea.}, {step: review, answer: {pass: true}}]
cases:
  - name: one
    input: {topic: tea}
    expect: `+c.expect+`
`)
			r, err := s.Cases[0].Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := tell(r); !strings.Contains(got, c.want) || !strings.HasPrefix(got, "22:") {
				t.Errorf("got %s\nwant 22:… %s", got, c.want)
			}
		})
	}
}

func TestRefusedFiles(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"no cases", "workflow: a.yaml\n", `1:1 required "cases" is missing`},
		{"a key", "workflow: a.yaml\ncases:\n  - name: x\n    expct: {}\n", `4:5 unknown_property there is no property "expct" (expect)`},
		{"a key of a line", "workflow: a.yaml\ncases:\n  - name: x\n    models: [{stp: a, answer: b}]\n", `4:15 unknown_property there is no property "stp" (step)`},
		{"an expression", "workflow: a.yaml\ncases:\n  - name: x\n    expect: {assert: ['call > 1']}\n", `4:23 unknown_name there is no "call" here; did you mean "calls"? (calls)`},
		{"a line that says nothing", "workflow: a.yaml\ncases:\n  - name: x\n    models: [{step: a}]\n", `the line says nothing`},
		{"twice", "workflow: a.yaml\ncases:\n  - name: x\n  - name: x\n", `two cases are named "x"`},
		{"no workflow", "cases:\n  - name: x\n", `neither the case nor the file`},
		{"a duration", "workflow: a.yaml\ncases:\n  - name: x\n    signals: [{name: a, after: soon}]\n", `does not match the pattern`},
		{"a workflow within", "workflow:\n  spec: workflow/v1\n  name: a\n  steps:\n    - {id: a, agnt: x}\ncases:\n  - name: x\n", `5:7 required`},
		{"no file", "workflow: b.yaml\ncases:\n  - name: x\n", `open b.yaml`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read("a.test.yaml", []byte(c.source), files{"a.yaml": "spec: workflow/v1\nname: a\nsteps: [{id: a, set: {x: 1}}]\n"})
			if err == nil {
				t.Fatal("it is taken")
			}
			said := err.Error()
			if f := fault.Of(err); f != nil && len(f.Issues) > 0 {
				i := f.Issues[0]
				said = fmt.Sprintf("%d:%d %s %s (%s)", i.Line, i.Col, i.Code, i.Detail, i.Suggest)
			}
			if !strings.Contains(said, c.want) {
				t.Errorf("got %s, want %s", said, c.want)
			}
		})
	}
}

// Whatever a test file holds, it is read or refused.
func FuzzRead(f *testing.F) {
	f.Add([]byte(writer + "cases: [{name: x, input: {topic: tea}, crash: every, expect: {steps: {write: succeeded}}}]\n"))
	f.Add([]byte(fan))
	f.Add([]byte("workflows: {a: b, b: a}\ncases: [{name: x, workflow: a}]\n"))
	f.Add([]byte("cases: [{name: x, workflow: {}, models: [{answer: 1e3, times: 1e3}]}]\n"))
	f.Add([]byte("workflow: x\ncases: [{name: x, expect: {output: {a: ['${{ value']}, steps: {'a~/b': {output: '${{ 1 }}'}}}}]\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		s, err := Read("a.test.yaml", source, files{})
		if (s == nil) == (err == nil) {
			t.Errorf("neither read nor refused: %v", err)
		}
		if e := fault.Of(err); e != nil && e.Kind == fault.KindInternal {
			t.Errorf("refused as if it were a defect: %v", err)
		}
	})
}
