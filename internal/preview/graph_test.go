package preview_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/preview"
)

var update = flag.Bool("update", false, "rewrite what the golden files say comes out")

// Nodes with where they stand and their layer, edges with why they are there.
func TestGraph(t *testing.T) {
	g := preview.GraphOf(compiled(t, crew+`
  - {id: a, agent: author, prompt: hi}
  - {id: b, agent: brief, prompt: "${{ steps.a.output }} ${{ steps.a.status }}"}
  - {id: c, agent: judge, prompt: hi, different_family: [a]}
  - {id: d, needs: [a], merge: {of: [b, c], strategy: first}}
  - id: g
    group:
      sequential: true
      steps:
        - {id: inner, agent: author, prompt: "${{ steps.b.?summary }}"}
        - {id: after, tool: "builtin:noop", side_effect: unsafe}
  - id: m
    needs: [g]
    map:
      items: [1, 2]
      max_items: 2
      steps:
        - {id: one, agent: author, prompt: "${{ item }} ${{ steps.d.output }}", gate: {checks: [{assert: output != '', message: x}]}}
        - {id: two, set: {x: "${{ steps.one.output }}"}, when: item > 1}
  - id: s
    switch:
      - {when: steps.a.output == 'x', steps: [{id: x, approval: {title: Go on}}]}
      - {else: true, steps: [{id: y, wait: {signal: {name: go}}}, {id: z, emit: {event: went}, needs: [y]}]}
finally:
  - {id: end, tool: "builtin:noop"}
`))
	var b strings.Builder
	for _, n := range g.Nodes {
		fmt.Fprintf(&b, "%d %s %s %q", n.Level, n.Path, n.Kind, n.Label)
		if n.Container != "" {
			fmt.Fprintf(&b, " in %s", n.Container)
		}
		if n.Case != nil {
			fmt.Fprintf(&b, " case %d", *n.Case)
		}
		if n.Section != "main" {
			fmt.Fprintf(&b, " %s", n.Section)
		}
		if n.When != "" {
			fmt.Fprintf(&b, " when %s", n.When)
		}
		fmt.Fprintf(&b, " %s %v %v\n", n.Agent+n.Tool, n.Models, n.Flags)
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "%s → %s: %s %v\n", e.From, e.To, e.Why, e.Fields)
	}
	const file = "testdata/graph.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (-file +now); -update rewrites it:\n%s", file, diff)
	}
}
