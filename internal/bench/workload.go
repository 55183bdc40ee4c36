package bench

import (
	"fmt"
	"strings"
)

// workload is a definition and what is known of it.
type workload struct {
	definition string
	input      string
	steps      int // attempts of one run
	bytes      int // of a step's output, about
	inFlight   int
}

const outputBytes = 1_000 // of text; about 1 KB of output

// newWorkload names the three loads: ten steps that each read the one before and make 1 KB, a hundred at once and a
// join, and a single step.
func newWorkload(name string) (workload, error) {
	switch name {
	case "chain10":
		return chain(10), nil
	case "single":
		return chain(1), nil
	case "map10000":
		return mapped(10_000), nil
	case "fanout100":
		return fanout(100), nil
	}
	return workload{}, fmt.Errorf("unknown workload %q: chain10, fanout100, map10000 or single", name)
}

func chain(n int) workload {
	var d strings.Builder
	fmt.Fprintf(&d, "spec: workflow/v1\nname: bench-chain%d\nsteps:\n", n)
	fmt.Fprintf(&d, "  - {id: s1, tool: \"builtin:noop\", args: {text: %q}}\n", words(outputBytes))
	for i := 2; i <= n; i++ {
		fmt.Fprintf(&d, "  - {id: s%d, tool: \"builtin:noop\", args: {text: \"${{ steps.s%d.output.text }}\"}}\n", i, i-1)
	}
	return workload{definition: d.String(), input: "{}", steps: n, bytes: outputBytes, inFlight: 20_000 / (10 + n)}
}

func fanout(n int) workload {
	var d strings.Builder
	fmt.Fprintf(&d, "spec: workflow/v1\nname: bench-fanout%d\nmax_parallel: %d\nsteps:\n", n, n)
	ids := make([]string, n)
	for i := range n {
		ids[i] = fmt.Sprintf("p%d", i)
		fmt.Fprintf(&d, "  - {id: %s, tool: \"builtin:noop\", args: {n: %d}}\n", ids[i], i)
	}
	fmt.Fprintf(&d, "  - {id: join, needs: [%s], tool: \"builtin:noop\", args: {last: \"${{ steps.p%d.output.n }}\"}}\n", strings.Join(ids, ", "), n-1)
	return workload{definition: d.String(), input: "{}", steps: n + 1, bytes: 16, inFlight: 100}
}

// words is text of n bytes that does not compress to nothing.
func words(n int) string {
	var s strings.Builder
	for x := uint32(1); s.Len() < n; {
		x = x*1_664_525 + 1_013_904_223
		fmt.Fprintf(&s, "%x ", x>>8)
	}
	return s.String()[:n]
}

// mapped is one map over so many items: steps that are made while the run is at work.
func mapped(n int) workload {
	d := fmt.Sprintf(`spec: workflow/v1
name: bench-map
max_parallel: 100
steps:
  - id: each
    map:
      items: lists.range(%d)
      max_items: %d
      concurrency: 100
      steps:
        - {id: go, tool: "builtin:noop", args: {v: "${{ item }}"}}
`, n, n)
	return workload{definition: d, input: "{}", steps: n + 1, bytes: 16, inFlight: 8}
}
