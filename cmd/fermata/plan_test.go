package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

var update = flag.Bool("update", false, "rewrite what the golden files say comes out")

// screenOf is a screen that a test reads.
func screenOf(width int) (*screen, *bytes.Buffer) {
	var out bytes.Buffer
	return &screen{in: strings.NewReader(""), out: &out, err: &out, width: func() int { return width }}, &out
}

// drawnOf is what plan shows of a definition on a screen of some width; 0: it goes to no terminal.
func drawnOf(t *testing.T, file string, width int, p planCommand) string {
	t.Helper()
	w := compileFile(t, file)
	priced := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) // prices hold on a day
	roster, err := knownModels(func() time.Time { return priced })
	if err != nil {
		t.Fatal(err)
	}
	s, out := screenOf(width)
	plan := planOf(w, roster, nil)
	plan.Warnings = nil // their words are the linter's, and no matter of the drawing
	if err := p.show(s, plan); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPlanIsDrawn(t *testing.T) {
	for _, file := range []string{"../../examples/qc-deliverable.yaml", "../../examples/switch.yaml", "testdata/plan/release.yaml"} {
		for _, width := range []int{80, 120} {
			name := strings.TrimSuffix(filepath.Base(file), ".yaml") + "." + strconv.Itoa(width)
			t.Run(name, func(t *testing.T) {
				got := drawnOf(t, file, width, planCommand{PerDay: 500})
				for line := range strings.Lines(got) {
					if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
						t.Errorf("%d runes on a screen of %d: %s", n, width, line)
					}
				}
				golden(t, filepath.Join("testdata", "plan", name+".txt"), got)
			})
		}
	}
	golden(t, filepath.Join("testdata", "plan", "release.edges.txt"), drawnOf(t, "testdata/plan/release.yaml", 0, planCommand{Edges: true}))
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-file +now); -update rewrites it:\n%s", file, diff)
	}
}

// The whole command, as scripts use it: JSON with amounts, graph and warnings; exit code 1 for a definition that is wrong.
func TestPlanForScripts(t *testing.T) {
	s, out := screenOf(0)
	if code := run(t.Context(), []string{"plan", "-f", "testdata/plan/release.yaml", "-i", "brief=short", "-i", "parts=[\"a\",\"b\"]", "--per-day", "10", "-o", "json"}, s); code != exitOK {
		t.Fatalf("exit %d: %s", code, out)
	}
	var got planned
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	byPath := map[string]preview.StepEstimate{}
	for _, e := range got.Estimate.Steps {
		byPath[e.Path] = e
	}
	if n := byPath["build.make"].Times; n != (preview.Span{Low: 2, High: 2}) {
		t.Errorf("two parts are given, build.make runs %+v times", n)
	}
	if got.Month == nil || got.Month.High != 300*got.Estimate.Cost.High || len(got.Graph.Nodes) != len(got.Estimate.Steps) || got.Hash == "" {
		t.Errorf("%s", out)
	}
	s, out = screenOf(0)
	if code := run(t.Context(), []string{"plan", "-f", "testdata/plan/release.yaml"}, s); code != exitOK || !strings.Contains(out.String(), "testdata/plan/release.yaml:48:5: warning[no_timeout]") {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, args := range [][]string{{"plan", "-f", "testdata/plan/none.yaml"}, {"plan", "-f", "testdata/plan/release.yaml", "--per-day", "-1"}} {
		s, _ := screenOf(0)
		if code := run(t.Context(), args, s); code != exitUsage {
			t.Errorf("%v: exit %d", args, code)
		}
	}
}

func TestValidateStrict(t *testing.T) {
	file := filepath.Join(t.TempDir(), "w.yaml")
	source := "spec: workflow/v1\nname: t\nagents: {a: {model: claude-haiku-4-5}}\nsteps: [{id: s, agent: a, prompt: hi}]\n"
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	s, out := screenOf(0)
	if code := run(t.Context(), []string{"validate", "-f", file}, s); code != exitOK || !strings.Contains(out.String(), "warning[no_budget]") || !strings.Contains(out.String(), "help: ") {
		t.Errorf("exit %d: %s", code, out)
	}
	s, out = screenOf(0)
	if code := run(t.Context(), []string{"validate", "-f", file, "--strict"}, s); code != exitError || !strings.Contains(out.String(), "--strict") || strings.Contains(out.String(), ": ok:") {
		t.Errorf("exit %d: %s", code, out)
	}
	s, out = screenOf(0)
	if code := run(t.Context(), []string{"validate", "-f", file, "--strict", "-o", "json"}, s); code != exitError {
		t.Errorf("exit %d", code)
	}
	var v validation
	if err := json.NewDecoder(out).Decode(&v); err != nil || v.Valid || len(v.Warnings) == 0 || v.Warnings[0].Suggest == "" {
		t.Errorf("%v: %+v", err, v)
	}
}

func TestAmountsAreShort(t *testing.T) {
	for m, want := range map[usage.Money]string{
		0: "0", 117_450: "0.00012", 74_478_000: "0.074", usage.USD / 2: "0.50", 3*usage.USD + usage.USD/3: "3.33", 4_725 * usage.USD: "4,725", 1: "0.000000001",
	} {
		if got := roughly(m); got != want {
			t.Errorf("%d: %s, want %s", int64(m), got, want)
		}
	}
	if got := priceRange(preview.Cost{Low: usage.USD, High: usage.USD}); got != "$1.00" {
		t.Error(got)
	}
}

func compileFile(t *testing.T, file string) *workflow.Workflow {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := workflow.Compile(source)
	if err != nil {
		t.Fatal(definitionError(file, err))
	}
	return w
}
