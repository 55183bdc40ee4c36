package workflow_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

var update = flag.Bool("update", false, "rewrite what the golden files say comes out")

// TestProblems compiles the wrong definitions of testdata/bad: each case is a definition, ----, and its problems;
// cases are parted by ====.
func TestProblems(t *testing.T) {
	for _, file := range golden(t, "testdata/bad/*.txt") {
		t.Run(name(file), func(t *testing.T) {
			script := read(t, file)
			var played []string
			for _, c := range strings.Split(script, "\n====\n") {
				definition, _, _ := strings.Cut(c, "\n----\n")
				definition = strings.TrimSuffix(definition, "\n----")
				_, err := workflow.Compile([]byte(definition))
				played = append(played, definition+"\n----\n"+strings.TrimRight(problems(err), "\n"))
			}
			compare(t, file, script, strings.Join(played, "\n====\n")+"\n")
		})
	}
}

// problems writes an error of Compile as the golden files have it.
func problems(err error) string {
	if err == nil {
		return "no problem\n"
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return "not a fault: " + err.Error() + "\n"
	}
	var b strings.Builder
	if f.Kind != fault.KindInvalid || f.Code != "workflow_invalid" {
		fmt.Fprintf(&b, "%s %s: %s\n", f.Kind, f.Code, f.Detail)
	}
	for _, i := range f.Issues {
		fmt.Fprintf(&b, "%d:%d %s %s: %s", i.Line, i.Col, i.Pointer, i.Code, i.Detail)
		if i.Suggest != "" {
			fmt.Fprintf(&b, " → %s", i.Suggest)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestGood compiles the definitions of testdata/good and dumps them: steps, edges, sections. The canonical JSON
// compiles to the same.
func TestGood(t *testing.T) {
	for _, file := range golden(t, "testdata/good/*.yaml") {
		t.Run(name(file), func(t *testing.T) {
			w, err := workflow.Compile([]byte(read(t, file)))
			if err != nil {
				t.Fatalf("compile: %s", problems(err))
			}
			again, err := workflow.Compile(w.Source)
			if err != nil {
				t.Fatalf("compile the canonical JSON: %s", problems(err))
			}
			if again.Hash != w.Hash || string(again.Source) != string(w.Source) {
				t.Errorf("the canonical JSON of the canonical JSON differs")
			}
			if diff := cmp.Diff(dump(w), dump(again)); diff != "" {
				t.Errorf("compiled from the canonical JSON it differs (-source +canonical):\n%s", diff)
			}
			loaded, err := workflow.Load(w.Source)
			if err != nil {
				t.Fatalf("load what was compiled: %s", problems(err))
			}
			if diff := cmp.Diff(dump(w), dump(loaded)); diff != "" || loaded.Hash != w.Hash {
				t.Errorf("loaded it differs (-compiled +loaded):\n%s", diff)
			}
			dumped := strings.TrimSuffix(file, ".yaml") + ".dump"
			want, _ := os.ReadFile(dumped) //nolint:errcheck // not there yet: everything differs
			compare(t, dumped, string(want), dump(w))
		})
	}
}

// dump writes a compiled workflow for reading.
func dump(w *workflow.Workflow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "workflow %s timeout=%s max_parallel=%d priority=%d baseline=%q labels=%v\n", w.Name, w.Timeout, w.MaxParallel, w.Priority, w.BaselineModel, w.Labels)
	if k := w.Budget; k != nil {
		fmt.Fprintf(&b, "budget %s %d tokens warn_at=%v on_exceeded=%s\n", k.Cost, k.Tokens, k.WarnAt, k.OnExceeded)
	}
	fmt.Fprintf(&b, "models %v\n", w.Models)
	for _, name := range slices.Sorted(maps.Keys(w.Chains)) {
		fmt.Fprintf(&b, "chain %s%s\n", name, describeChain(*w.Chains[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(w.Agents)) {
		fmt.Fprintf(&b, "agent %s\n", describe(w.Agents[name])+gate(w.Agents[name].Gate))
	}
	dumpLadder(&b, w)
	sections := []string{"main", "on_failure", "finally"}
	for _, s := range w.Steps {
		indent := "  "
		for p := around(s); p != nil; p = around(p) {
			indent += "  "
		}
		fmt.Fprintf(&b, "%s%d %s %s %s", indent, s.Index, sections[s.Section], s.Kind, s.Path)
		if s.Parent != nil && s.Parent.Switch != nil {
			fmt.Fprintf(&b, " case=%d", s.Case)
		}
		fmt.Fprintf(&b, " after=%s before=%s", edges(s), ids(s.Body, s.Dependants))
		if s.When != nil {
			fmt.Fprintf(&b, " when=%q", s.When.Source)
		}
		if s.Timeout > 0 {
			fmt.Fprintf(&b, " timeout=%s", s.Timeout)
		}
		if s.Volatile {
			b.WriteString(" volatile")
		}
		if s.Member {
			b.WriteString(" member")
		}
		b.WriteString("\n")
		if reads := reads(s); reads != "" {
			fmt.Fprintf(&b, "%s    reads %s\n", indent, reads)
		}
		detail(&b, indent+"    ", s)
		dumpCare(&b, indent+"    ", s)
	}
	return b.String()
}

func detail(b *strings.Builder, indent string, s *workflow.Step) {
	if r := s.Retry; r.MaxAttempts > 0 {
		fmt.Fprintf(b, "%sretry attempts=%d backoff=%s*%v≤%s jitter=%v feedback=%v %v\n", indent, r.MaxAttempts, r.Initial, r.Factor, r.Max, r.Jitter, r.Feedback, r.Classes)
	}
	template := func(what string, t *workflow.Template) {
		if t != nil {
			fmt.Fprintf(b, "%s%s %s\n", indent, what, t.Source)
		}
	}
	switch {
	case s.Agent != nil:
		fmt.Fprintf(b, "%sagent %s\n", indent, describe(&s.Agent.Agent))
		if s.Agent.DifferentFamily != nil {
			fmt.Fprintf(b, "%sdifferent_family %s\n", indent, ids(s.Body, s.Agent.DifferentFamily))
		}
		template("chosen by", s.Agent.By)
		for _, name := range slices.Sorted(maps.Keys(s.Agent.Choices)) {
			fmt.Fprintf(b, "%schoice %s%s\n", indent, describe(s.Agent.Choices[name]), gate(s.Agent.Choices[name].Gate))
		}
		template("prompt", s.Agent.Prompt)
		template("input", s.Agent.Input)
	case s.Tool != nil:
		fmt.Fprintf(b, "%stool %s side_effect=%s %s\n", indent, s.Tool.Ref, s.Tool.SideEffect, contract(s.Tool.Output))
		template("args", s.Tool.Args)
	case s.Set != nil:
		template("set", s.Set)
	case s.Group != nil:
		template("output", s.Group.Output)
	case s.Map != nil:
		m := s.Map
		fmt.Fprintf(b, "%smap as=%q max_items=%d concurrency=%d keep_errors=%v min_success=%d main=%s\n", indent, m.As, m.MaxItems, m.Concurrency, m.KeepErrors, m.MinSuccess, main(m.Body))
		template("items", m.Items)
		template("output", m.Output)
	case s.Loop != nil:
		l := s.Loop
		fmt.Fprintf(b, "%sloop max_iterations=%d until=%s best_by=%s stop_if_unchanged=%v main=%s\n", indent, l.MaxIterations, source(l.Until), source(l.BestBy), l.StopIfUnchanged, main(l.Body))
		template("output", l.Output)
	case s.Merge != nil:
		m := s.Merge
		fmt.Fprintf(b, "%smerge %s %s by=%s quorum=%d\n", indent, m.Strategy, ids(s.Body, m.Of), source(m.By), m.Quorum)
		if m.Agent != nil {
			fmt.Fprintf(b, "%sjudge %s\n", indent, describe(&m.Agent.Agent))
		}
	case s.Plan != nil, s.Workflow != nil, s.Approval != nil, s.Wait != nil, s.Emit != nil:
		dumpWaiting(b, indent, s)
	case s.Switch != nil:
		for i, k := range s.Switch.Cases {
			when := "else"
			if k.When != nil {
				when = k.When.Source
			}
			fmt.Fprintf(b, "%scase %d %s\n", indent, i, when)
			template("  output", k.Output)
		}
	}
}

func describe(a *workflow.Agent) string {
	text := fmt.Sprintf("%s role=%s chain=%s%s %s", a.Name, a.Role, a.Chain.Name, describeChain(a.Chain), contract(a.Output))
	if a.Route != "" {
		text = fmt.Sprintf("%s role=%s route=%s %s", a.Name, a.Role, a.Route, contract(a.Output))
	}
	if a.Overflow != "" {
		text += fmt.Sprintf(" context=%d overflow=%s", a.ContextTokens, a.Overflow)
	}
	if a.MaxTokens > 0 {
		text += fmt.Sprintf(" max_tokens=%d", a.MaxTokens)
	}
	if k := a.Summary; k != nil {
		text += fmt.Sprintf(" summary=%d by %q", k.MaxTokens, k.Model)
	}
	if a.MaxTurns > 0 {
		text += fmt.Sprintf(" max_turns=%d", a.MaxTurns)
	}
	for _, d := range a.Delegates {
		text += " delegate=" + d.Name
	}
	if a.Temperature != nil {
		text += fmt.Sprintf(" temperature=%v", *a.Temperature)
	}
	return text + fmt.Sprintf(" %q", a.Instructions)
}

func describeChain(k workflow.Chain) string {
	entries, err := json.Marshal(k.Entries)
	if err != nil {
		return err.Error()
	}
	text := string(entries)
	for i, e := range k.Entries {
		if e.Accept != nil {
			text += fmt.Sprintf(" accept[%d]=%q", i, e.Accept.Source)
		}
	}
	if k.Hedge {
		text += fmt.Sprintf(" hedge=%s", k.HedgeAfter)
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{{k.AcceptBest, "accept_best"}, {k.OnPolicy, "on_policy"}, {k.LongerOnce, "on_truncated"}} {
		if flag.set {
			text += " " + flag.name
		}
	}
	return text
}

func contract(c workflow.Contract) string {
	switch {
	case c.Name != "":
		return "contract=" + c.Name
	case c.Schema != nil:
		return "schema=" + string(c.Schema.Raw)
	case c.JSON:
		return "json"
	}
	return "text"
}

// around is the container around a step, at whatever depth of bodies.
func around(s *workflow.Step) *workflow.Step {
	if s.Parent != nil {
		return s.Parent
	}
	return s.Body.Owner
}

func source(e *workflow.Expr) string {
	if e == nil {
		return "-"
	}
	return fmt.Sprintf("%q", e.Source)
}

func main(b *workflow.Body) string {
	var slots []int
	for _, s := range b.Main {
		slots = append(slots, s.Slot)
	}
	return ids(b, slots)
}

// reads names what a step's expressions read: where, of which step, what, * for all of an output, and at which line.
func reads(s *workflow.Step) string {
	var list []string
	for _, r := range s.Reads {
		whole := ""
		if r.Whole {
			whole = "*"
		}
		list = append(list, fmt.Sprintf("%s:%s.%s%s", r.Place, r.Step.Path, r.Field, whole))
	}
	return strings.Join(list, " ")
}

// edges names what a step waits for, and why where it is not that it reads it.
func edges(s *workflow.Step) string {
	var names []string
	for _, e := range s.Edges {
		name := s.Body.Steps[e.Slot].ID
		if e.Why != workflow.EdgeReads {
			name += "(" + e.Why + ")"
		}
		names = append(names, name)
	}
	return "[" + strings.Join(names, " ") + "]"
}

func ids(b *workflow.Body, slots []int) string {
	var names []string
	for _, slot := range slots {
		names = append(names, b.Steps[slot].ID)
	}
	return "[" + strings.Join(names, " ") + "]"
}

func golden(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files %s: %v", pattern, err)
	}
	return files
}

func name(file string) string {
	return strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func compare(t *testing.T, file, want, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-file +now); -update rewrites it:\n%s", file, diff)
	}
}
