package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Runs that start runs that start runs, more of them at once than one commit holds: what does not fit is taken up by claims,
// and all of it comes to its end.
func TestChildrenOfChildren(t *testing.T) {
	const deep, wide = 3, 18
	lib, top, step := workflow.Fetched{}, "", `tool: "builtin:noop", args: {n: 1}`
	for d := range deep {
		name := fmt.Sprintf("w%d", d)
		top = fmt.Sprintf(`
spec: workflow/v1
name: %s
steps:
  - id: m
    map: {items: "[%s]", max_items: 100, concurrency: 100, steps: [{id: go, %s}]}
output: "${{ steps.m.output.size() }}"
`, name, strings.TrimSuffix(strings.Repeat("1,", wide), ","), step)
		w, err := workflow.CompileWith([]byte(top), lib)
		if err != nil {
			t.Fatal(err)
		}
		lib[name] = workflow.Published{Ref: workflow.Versioned(name, 1), Source: w.Source}
		step = fmt.Sprintf("workflow: {name: %s}", name)
	}
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	id := n.submitWith(lib, top, `{}`)
	n.status(id, flow.RunStatusSucceeded)
	if got := n.output(id); got != fmt.Sprint(wide) {
		t.Errorf("got %s", got)
	}
	rows, err := n.db.Runs(t.Context(), store.TenantDefault, store.RunFilter{Status: []flow.RunStatus{flow.RunStatusSucceeded}, Limit: 1000})
	if want := 1 + wide + wide*wide; err != nil || len(rows) != want {
		t.Errorf("%d runs succeeded, of %d; %v", len(rows), want, err)
	}
}
