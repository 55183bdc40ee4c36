package rehearsal

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fermata-run/fermata/internal/flow"
)

// refold folds the log of a run anew after every decision: it must give the run that decided.
func refold(t *testing.T) func(*actor) {
	return func(a *actor) {
		again, err := flow.Fold(a.run.ID, a.run.Tenant, a.run.Workflow(), a.log)
		if err != nil {
			t.Errorf("fold: %v", err)
			return
		}
		if diff := cmp.Diff(a.run.View(), again.View(), cmpopts.IgnoreFields(flow.StepView{}, "Input"), cmpopts.EquateEmpty(), compactJSON()); diff != "" {
			t.Errorf("the fold of the log differs from the run (-run +fold):\n%s", diff)
		}
	}
}

func compactJSON() cmp.Option {
	return cmp.FilterValues(func(a, b json.RawMessage) bool { return len(a) > 0 || len(b) > 0 }, cmp.Comparer(func(a, b json.RawMessage) bool {
		var x, y bytes.Buffer
		if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
			return bytes.Equal(a, b)
		}
		var left, right bytes.Buffer // as encoding/json spells < > & within what it writes
		json.HTMLEscape(&left, x.Bytes())
		json.HTMLEscape(&right, y.Bytes())
		return left.String() == right.String()
	}))
}

// play plays a case that must not break down, and folds its logs as it goes.
func play(t *testing.T, c *Case) played {
	t.Helper()
	p := c.play(t.Context(), refold(t))
	if p.err != nil {
		t.Fatalf("%v\n%s", p.err, strings.Join(p.story, "\n"))
	}
	return p
}

const fan = `
workflow:
  spec: workflow/v1
  name: fan
  agents:
    one: {role: grinder, chain: [{model: claude-sonnet-4-6, retries: 3, timeout: 20s}, {model: gpt-4o}], instructions: Write.}
  steps:
    - {id: a, agent: one, prompt: A}
    - {id: b, agent: one, prompt: B}
    - {id: c, agent: one, prompt: C}
    - {id: nap, tool: "builtin:sleep", args: {duration: 40s}}
    - {id: flaky, tool: "builtin:fail", side_effect: idempotent, args: {times: 2}, retry: {max_attempts: 4}}
    - {id: join, agent: one, prompt: "${{ steps.a.output }} ${{ steps.b.output }} ${{ steps.c.output }}", needs: [nap, flaky]}
cases:
  - name: as it is
    models:
      - {model: "claude-*", error: overloaded, times: 2}
      - {step: b, latency: 7s}
      - {step: c, latency: 7s}
    expect: {status: succeeded}
`

// everyCase calls do for every case there is.
func everyCase(t *testing.T, do func(t *testing.T, c *Case)) {
	sources := map[string]string{"fan": fan, "writer": writer + "cases: [{name: written, input: {topic: tea}, models: [{step: review, answer: {pass: true}}]}]"}
	for _, f := range slices.Concat(language, care) {
		sources[f.name] = f.source
	}
	for name, source := range sources {
		for _, c := range suite(t, source).Cases {
			t.Run(name+"/"+c.Name, func(t *testing.T) { do(t, c) })
		}
	}
}

// However often it is played, a case goes the same way, though its attempts are at work side by side.
func TestDeterministic(t *testing.T) {
	everyCase(t, func(t *testing.T, c *Case) {
		first := play(t, c)
		for range 5 {
			if diff := cmp.Diff(first.story, play(t, c).story); diff != "" {
				t.Fatalf("it went otherwise:\n%s", diff)
			}
		}
	})
}

// ends is what must not hang on whether nodes died: how the run and each of its steps ended, and with what.
func ends(p played) (list []string) {
	a := p.account
	list = append(list, a.Status+" "+string(a.Output))
	if a.Error != nil {
		list = append(list, a.Error.Step+" "+a.Error.Class)
	}
	for _, s := range a.Steps {
		list = append(list, s.Path+" "+s.Status+" "+string(s.Output))
	}
	return list
}

// A node that dies after every event changes nothing of what comes out, whatever the workflow does.
func TestCrashes(t *testing.T) {
	everyCase(t, func(t *testing.T, c *Case) {
		c.Crash = crash{}
		whole := play(t, c)
		c.Crash.Every = true
		died := play(t, c)
		if diff := cmp.Diff(ends(whole), ends(died)); diff != "" {
			t.Errorf("it came to another end (-whole +died):\n%s%s", diff, strings.Join(died.story, "\n"))
		}
	})
}

// A node may die after chosen steps only: what is at work then begins anew.
func TestCrashAfter(t *testing.T) {
	starts := func(p played) int {
		return len(slices.DeleteFunc(p.story, func(l string) bool { return !strings.Contains(l, "step_started") }))
	}
	c := suite(t, fan).Cases[0]
	whole := play(t, c)
	c.Crash.After = []string{"a", "nap"}
	died := play(t, c)
	if diff := cmp.Diff(ends(whole), ends(died)); diff != "" {
		t.Error(diff)
	}
	if slices.Equal(whole.story, died.story) || starts(whole) != starts(died) {
		t.Errorf("nobody died, or a step was started twice:\n%s", strings.Join(died.story, "\n"))
	}
}
