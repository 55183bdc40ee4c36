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
		return x.String() == y.String()
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

// However often it is played, a case goes the same way, though its attempts are at work side by side.
func TestDeterministic(t *testing.T) {
	c := suite(t, fan).Cases[0]
	first := play(t, c)
	for range 30 {
		if diff := cmp.Diff(first.story, play(t, c).story); diff != "" {
			t.Fatalf("it went otherwise:\n%s", diff)
		}
	}
	if len(first.story) < 10 || !strings.Contains(first.story[len(first.story)-1], "run_succeeded") {
		t.Errorf("it was no story:\n%s", strings.Join(first.story, "\n"))
	}
}

// A node that dies after every event changes nothing of what comes out.
func TestCrashes(t *testing.T) {
	whole := play(t, suite(t, fan).Cases[0])
	for name, where := range map[string]string{"every": "every", "after": "{after: [a, nap]}"} {
		t.Run(name, func(t *testing.T) {
			c := suite(t, fan+"    crash: "+where+"\n").Cases[0]
			p := play(t, c)
			if diff := cmp.Diff(string(whole.account.Output), string(p.account.Output)); diff != "" {
				t.Error(diff)
			}
			statuses := func(p played) (list []string) {
				for _, s := range p.account.Steps {
					list = append(list, s.Path+" "+s.Status)
				}
				return list
			}
			if diff := cmp.Diff(statuses(whole), statuses(p)); diff != "" {
				t.Error(diff)
			}
			if slices.Equal(whole.story, p.story) {
				t.Error("nobody died")
			}
		})
	}
}
