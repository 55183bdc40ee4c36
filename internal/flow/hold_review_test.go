package flow_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
)

// A run that waits a day for money writes down little of it: each claim reads its whole log again.
func TestADayWithoutMoneyIsAShortLog(t *testing.T) {
	run, _, err := flow.Open(flow.Submission{ID: playRun, Workflow: compile(t, oneAgent+"timeout: 3d\n"), Input: json.RawMessage(`{}`), Priority: -1}, playStart)
	if err != nil {
		t.Fatal(err)
	}
	refused := &flow.Outcome{Held: flow.HeldBudget, Failure: &flow.Failure{Class: "budget_exceeded", Message: "m"}}
	now := playStart
	for now.Before(playStart.Add(24 * time.Hour)) {
		run.Decide(flow.Reported{Report: flow.Report{Path: "a", Gen: 1, No: 1, Outcome: refused}}, now)
		now = run.Due()
		run.Decide(flow.Fired{}, now)
	}
	if n := run.Seq(); n > 600 {
		t.Errorf("%d events, and nothing happened", n)
	}
}
