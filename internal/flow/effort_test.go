package flow_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// nested compiles workflows that start each other, depth deep, each with a map.
func nested(t *testing.T, depth int, items string) *workflow.Workflow {
	t.Helper()
	lib, step := workflow.Fetched{}, `tool: "builtin:noop"`
	for d := range depth {
		source := fmt.Sprintf("spec: workflow/v1\nname: w%d\nsteps:\n  - id: m\n    map:\n      items: %q\n      max_items: 10000\n"+
			"      concurrency: 1000\n      steps: [{id: go, %s}]\n", d, items, step)
		w, err := workflow.CompileWith([]byte(source), lib)
		if err != nil {
			t.Fatal(err)
		}
		lib[w.Name] = workflow.Published{Ref: workflow.Versioned(w.Name, 1), Source: w.Source}
		if step = fmt.Sprintf("workflow: {name: w%d}", d); d == depth-1 {
			return w
		}
	}
	return nil
}

func opened(t *testing.T, w *workflow.Workflow, input string) (*flow.Run, []flow.Event) {
	t.Helper()
	run, events, err := flow.Open(flow.Submission{ID: uuid.Must(uuid.NewV7()), Workflow: w, Input: json.RawMessage(input), Priority: -1}, playStart)
	if err != nil {
		t.Fatal(err)
	}
	return run, events
}

// To start a run is not to play it through: ten runs in each of ten, eight deep, would be a hundred million.
func TestChildrenAreNotPlayedThrough(t *testing.T) {
	run, _ := opened(t, nested(t, 8, "[0,1,2,3,4,5,6,7,8,9]"), `{}`)
	if n := len(run.TakeEffects().Children); n != 10 {
		t.Errorf("%d runs begin, of 10", n)
	}
}

// A decision does so much and no more; the rest is due at once, and comes to the same end whether or not the node dies
// between.
func TestWorkIsDoneInParts(t *testing.T) {
	w, err := workflow.Compile([]byte(strings.ReplaceAll(`
spec: workflow/v1
name: wide
steps:
  - id: m
    map:
      items: input.items
      max_items: 10000
      steps: [{id: s, set: {n: "${{ item * 2 }}"}}]
  - {id: sum, set: {n: "${{ steps.m.output.size() }}"}}
output: ${{ steps.sum.output.n }}
`, "\t", "")))
	if err != nil {
		t.Fatal(err)
	}
	items := strings.TrimSuffix(strings.Repeat("1,", 10_000), ",")
	for _, dies := range []bool{false, true} {
		run, log := opened(t, w, `{"items": [`+items+`]}`)
		parts, now := 1, playStart
		for ; !run.Status().Ended(); parts++ {
			if wake, rests := run.Rest(now); rests {
				t.Fatalf("after %d parts it rests until %s", parts, wake)
			}
			if due := run.Due(); due.After(now.Add(time.Millisecond)) {
				t.Fatalf("after %d parts it is due at %s, not now", parts, due)
			}
			now = now.Add(20 * time.Millisecond)
			if dies {
				if run, err = flow.Fold(run.ID, run.Tenant, w, log); err != nil {
					t.Fatal(err)
				}
				log = append(log, run.Decide(flow.Claimed{}, now)...)
				continue
			}
			more := run.Decide(flow.Fired{}, now)
			if len(more) > 15_000 {
				t.Fatalf("one decision has %d events", len(more))
			}
			log = append(log, more...)
		}
		if parts < 5 {
			t.Errorf("done in %d parts", parts)
		}
		if got := string(run.View().Result.Output); got != "10000" {
			t.Errorf("the output is %s", got)
		}
	}
}

// However many runs a map starts at once, a decision starts some, and those are committed together.
func TestChildrenBeginInParts(t *testing.T) {
	items, err := json.Marshal(make([]int, 1_000))
	if err != nil {
		t.Fatal(err)
	}
	run, _ := opened(t, nested(t, 2, string(items)), `{}`)
	started, now := len(run.TakeEffects().Children), playStart
	for part := started; part > 0; started += part {
		if part > 100 {
			t.Fatalf("%d runs begin at once", part)
		}
		now = now.Add(20 * time.Millisecond)
		run.Decide(flow.Fired{}, now)
		part = len(run.TakeEffects().Children)
	}
	if started != 1_000 {
		t.Errorf("%d runs began, of 1000", started)
	}
	if due := run.Due(); !due.After(now) {
		t.Errorf("all wait, and it is due at %s", due)
	}
}

// The expressions of a template are bounded together, so that no step takes the time of all others.
func TestTemplatesAreBounded(t *testing.T) {
	var source strings.Builder
	source.WriteString("spec: workflow/v1\nname: bomb\nsteps:\n  - id: a\n    set:\n")
	for i := range 1_000 {
		fmt.Fprintf(&source, "      k%d: ${{ input.l.map(x, x + %d).size() }}\n", i, i)
	}
	w, err := workflow.Compile([]byte(source.String()))
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(make([]int, 9_000))
	if err != nil {
		t.Fatal(err)
	}
	run, _ := opened(t, w, `{"l": `+string(list)+`}`)
	if v := run.View(); v.Error == nil || v.Error.Class != "expression" || !strings.Contains(v.Error.Message, "cost more than 2000000 together") {
		t.Errorf("it ends with %+v", v.Error)
	}
}
