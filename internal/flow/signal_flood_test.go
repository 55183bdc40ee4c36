package flow_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// However many signals come that are not the one a step waits for, it takes the one it waits for; and those that there is no
// room for leave one trace, not a log without end.
func TestSignalFlood(t *testing.T) {
	w, err := workflow.Compile([]byte(`
spec: workflow/v1
name: waits
steps:
  - {id: paid, wait: {signal: {name: paid, match: event.data.order == 7}}}
  - {id: more, needs: [paid], wait: {signal: {name: paid, match: event.data.order == 3}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	run, log := opened(t, w, `{}`)
	tell := func(i, order int) {
		t.Helper()
		body := fmt.Sprintf(`{"id":"s%d","name":"paid","data":{"order":%d,"long":%q}}`, i, order, strings.Repeat("x", 1_000))
		log = append(log, run.Decide(flow.Told{Kind: flow.ToldSignal, Body: json.RawMessage(body)}, playStart.Add(time.Duration(i)*time.Second))...)
	}
	for i := range 10_000 {
		tell(i, 1)
	}
	if kept := len(log) - 2; kept != workflow.SignalsKeptMax+1 {
		t.Errorf("%d signals are in the log", kept)
	}
	if last := log[len(log)-1]; !strings.Contains(string(last.Body), `"lost":true`) || strings.Contains(string(last.Body), "xxx") {
		t.Errorf("the last one is %s", last.Body)
	}
	tell(10_000, 7)
	tell(10_001, 1) // there is no more room than before: the one that was taken was never kept
	tell(10_002, 3)
	if run.Status() != flow.RunStatusSucceeded {
		t.Errorf("the run is %s after the signals it waited for", run.Status())
	}
	if again, err := flow.Fold(run.ID, run.Tenant, w, log); err != nil || again.Status() != run.Status() {
		t.Errorf("folded it is %v, %v", again.Status(), err)
	}
}

// A question of a model whose options nobody could name as a choice can be answered all the same.
func TestOddOptions(t *testing.T) {
	for _, options := range [][]string{{""}, {"yes", " "}, {strings.Repeat("o", 101), "no"}, {"a\x00"}} {
		w, err := workflow.Compile([]byte("spec: workflow/v1\nname: asks\nsteps:\n  - {id: a, agent: {model: m, role: grinder, instructions: i}, prompt: p}\n"))
		if err != nil {
			t.Fatal(err)
		}
		run, _ := opened(t, w, `{}`)
		for start := range run.Pending {
			a := run.Attempt(start)
			run.Decide(flow.Reported{Report: flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: &flow.Outcome{
				Held: flow.HeldDecision, Failure: &flow.Failure{Class: "needs_decision"}, Question: &flow.Question{Question: "?", Options: options},
			}}}, playStart)
			break
		}
		asked := run.TakeEffects().Asked
		if len(asked) != 1 || len(asked[0].Choices) != 1 || asked[0].Choices[0] != flow.ChoiceAnswer {
			t.Errorf("%.20q: asked %+v", options, asked)
		}
	}
}
