package flow_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// wideMap has two steps for each item, a hundred items at a time.
const wideMap = `
spec: workflow/v1
name: wide
max_parallel: 100
input: {type: object}
agents: {w: {model: gpt-4o, output: {format: json}}}
steps:
  - id: each
    map:
      items: input.list
      max_items: 10000
      concurrency: 100
      steps:
        - {id: make, agent: w, prompt: "${{ item }}"}
        - {id: check, agent: w, prompt: "${{ steps.make.output }}"}
`

func wideInput(items int) json.RawMessage {
	return json.RawMessage(`{"list":[` + strings.TrimSuffix(strings.Repeat(`"x",`, items), ",") + `]}`)
}

// drain ends what is at work, in order, until the run has ended, and says how long each decision took.
func drain(tb testing.TB, run *flow.Run) (took []time.Duration, events int) {
	o := &flow.Outcome{Output: json.RawMessage(`{"v":1}`), Calls: []usage.Call{{Provider: "p", Model: "m", Cost: 3, Tokens: usage.Tokens{Input: 2}}}}
	for !run.Status().Ended() {
		var next flow.Start
		for s := range run.Pending {
			next = s
			break
		}
		since := time.Now()
		a := run.Attempt(next)
		events += len(run.Decide(flow.Reported{Report: flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: o}}, playStart))
		run.TakeCharges()
		run.Summary()
		took = append(took, time.Since(since))
	}
	if run.Status() != flow.RunStatusSucceeded {
		tb.Fatalf("the run is %s", run.Status())
	}
	return took, events
}

// BenchmarkDecide10000 is what a decision costs in a map of ten thousand items: in the first and the last tenth, and the
// one that ends the run; and what the run takes in memory. All is asked for as the engine does: the attempt, the events,
// the row.
func BenchmarkDecide10000(b *testing.B) {
	benchmarkDecide(b, compile(b, wideMap), wideInput(10_000))
}

// BenchmarkDecideFlat is the same of a run whose definition has a thousand steps that do not wait for each other.
func BenchmarkDecideFlat(b *testing.B) {
	var text strings.Builder
	text.WriteString("spec: workflow/v1\nname: flat\nmax_parallel: 100\nagents: {w: {model: gpt-4o}}\nsteps:\n")
	for i := range workflow.StepsMax {
		fmt.Fprintf(&text, "  - {id: s%d, agent: w, prompt: p}\n", i)
	}
	benchmarkDecide(b, compile(b, text.String()), json.RawMessage(`{}`))
}

func benchmarkDecide(b *testing.B, w *workflow.Workflow, input json.RawMessage) {
	b.ReportAllocs()
	var took []time.Duration
	var held uint64
	var view flow.View
	events := 0
	for b.Loop() {
		before := heap()
		run, _, err := flow.Open(flow.Submission{ID: playRun, Workflow: w, Input: input, Priority: -1}, playStart)
		if err != nil {
			b.Fatal(err)
		}
		took, events = drain(b, run)
		held = heap() - before
		view = run.View()
	}
	result, err := json.Marshal(view.Result.Provenance)
	if err != nil {
		b.Fatal(err)
	}
	tenth := len(took) / 10
	b.ReportMetric(median(took[:tenth]), "ns/first")
	b.ReportMetric(median(took[len(took)-1-tenth:len(took)-1]), "ns/last")
	b.ReportMetric(float64(took[len(took)-1].Nanoseconds()), "ns/end")
	b.ReportMetric(median(took)*float64(len(took))/float64(events), "ns/event")
	b.ReportMetric(float64(held)/float64(view.Total), "B/step")
	b.ReportMetric(float64(len(result)), "B/provenance")
}

// median: the machine has other things to do besides.
func median(list []time.Duration) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return float64(sorted[len(sorted)/2].Nanoseconds())
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
