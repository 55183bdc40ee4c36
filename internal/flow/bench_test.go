package flow_test

import (
	"encoding/json"
	"fmt"
	"runtime"
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

// drain ends what is at work, in order, until the run has ended; lap is told how long each thousand of decisions took.
func drain(tb testing.TB, run *flow.Run, lap func(decisions int, took time.Duration)) int {
	o := &flow.Outcome{Output: json.RawMessage(`{"v":1}`), Calls: []usage.Call{{Provider: "p", Model: "m", Cost: 3, Tokens: usage.Tokens{Input: 2}}}}
	events, decisions, since := 0, 0, time.Now()
	for !run.Status().Ended() {
		var next flow.Start
		for s := range run.Pending {
			next = s
			break
		}
		a := run.Attempt(next)
		events += len(run.Decide(flow.Reported{Report: flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: o}}, playStart))
		run.TakeCharges()
		run.Summary()
		if decisions++; decisions%1000 == 0 {
			lap(decisions, time.Since(since))
			since = time.Now()
		}
	}
	if run.Status() != flow.RunStatusSucceeded {
		tb.Fatalf("the run is %s", run.Status())
	}
	return events
}

// BenchmarkDecide10000 is what a decision costs in a map of ten thousand items, at its beginning and at its end, and what
// the run takes in memory. Each decision is asked for as the engine does: the attempt, the events, the row.
func BenchmarkDecide10000(b *testing.B) {
	benchmarkDecide(b, compile(b, wideMap), wideInput(10_000))
}

// BenchmarkDecide10000Flat is the same of a run whose definition has a thousand steps that do not wait for each other.
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
	var first, last time.Duration
	events, steps, size := 0, 0, 0
	var held uint64
	for b.Loop() {
		before := heap()
		run, _, err := flow.Open(flow.Submission{ID: playRun, Workflow: w, Input: input, Priority: -1}, playStart)
		if err != nil {
			b.Fatal(err)
		}
		events = drain(b, run, func(decisions int, took time.Duration) {
			if decisions == 1000 {
				first = took
			}
			last = took
		})
		held = heap() - before
		view := run.View()
		steps = view.Total
		raw, err := json.Marshal(view.Result)
		if err != nil {
			b.Fatal(err)
		}
		size = len(raw)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(events), "ns/event")
	b.ReportMetric(float64(first.Nanoseconds())/1000, "ns/first")
	b.ReportMetric(float64(last.Nanoseconds())/1000, "ns/last")
	b.ReportMetric(float64(held)/float64(steps), "B/step")
	b.ReportMetric(float64(size), "B/result")
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
