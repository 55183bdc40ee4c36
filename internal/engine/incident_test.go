package engine_test

import (
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/incident"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/worker"
)

const breaking = `
spec: workflow/v1
name: breaking
input: {type: object, properties: {breaks: {type: boolean}}}
steps:
  - id: which
    switch:
      - when: input.breaks
        steps: [{id: bad, tool: builtin:fail, args: {message: it breaks}, retry: none}]
      - else: true
        steps: [{id: good, tool: builtin:noop, args: {}}]
`

// Three runs fail at the same tool: the fourth fails no more but waits, as nobody's, under the number of its attempt.
// What of the workflow is not like it goes on. Resolved, the run goes on at once.
func TestRunWaitsForAnIncident(t *testing.T) {
	url := newDatabase(t)
	db := openStore(t, url)
	board := incident.New(incident.Config{Store: db, Node: "n1"})
	n := startNode(t, url, "n1", worker.New(worker.Config{Incidents: board}), nil)
	for range 3 {
		n.status(n.submit(breaking, `{"breaks":true}`), flow.RunStatusFailed)
	}
	held := n.submit(breaking, `{"breaks":true}`)
	row := n.status(held, flow.RunStatusWaiting)
	if row.WaitingFor != flow.HeldIncident || row.WakeAt == nil {
		t.Errorf("row of a held run: waiting for %q until %v", row.WaitingFor, row.WakeAt)
	}
	if owned := one[int](t, url, `select count(*) from run where owner is not null`); owned != 0 {
		t.Errorf("%d runs have an owner", owned)
	}
	n.status(n.submit(breaking, `{"breaks":false}`), flow.RunStatusSucceeded)
	log := n.log(held)
	last := log[len(log)-1]
	if !last.Held() || last.Attempt != 1 || !strings.Contains(string(last.Body), "tool builtin:fail failed 3 times alike in workflow breaking") {
		t.Errorf("the last event of a held run: %+v %s", last, last.Body)
	}
	open, err := db.OpenIncidents(t.Context())
	if err != nil || len(open) != 1 {
		t.Fatalf("%d incidents: %v", len(open), err)
	}
	if _, err := db.ResolveIncident(t.Context(), store.TenantDefault, open[0].ID, store.ResolvedByOperator, "mended"); err != nil {
		t.Fatal(err)
	}
	n.status(held, flow.RunStatusFailed) // it still breaks, now for itself
	log = n.log(held)
	if failed := log[len(log)-4]; failed.Kind != flow.KindStepFailed || failed.Attempt != 1 {
		t.Errorf("%s of attempt %d; being held is no attempt", failed.Kind, failed.Attempt)
	}
}
