package preview_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/workflow"
)

// models is a roster.
type models map[string]workflow.ModelFacts

// Model implements workflow.Roster.
func (m models) Model(name string) (workflow.ModelFacts, bool) {
	f, ok := m[name]
	return f, ok
}

// six models, as the service knows them.
var six = models{
	"claude-opus-4-6":   {Family: "claude", Tier: 5, ContextTokens: 1_000_000},
	"claude-sonnet-4-6": {Family: "claude", Tier: 3, ContextTokens: 1_000_000},
	"claude-haiku-4-5":  {Family: "claude", Tier: 1, ContextTokens: 200_000},
	"gpt-4o":            {Family: "gpt", Tier: 4, ContextTokens: 128_000},
	"grok-3":            {Family: "grok", Tier: 2, ContextTokens: 131_072},
	"gemini-2.5-pro":    {Family: "gemini", Tier: 3, ContextTokens: 1_000_000},
}

func compile(t testing.TB, file string) *workflow.Workflow {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := workflow.Compile(source)
	var f *fault.Error
	if errors.As(err, &f) {
		t.Fatalf("%s: %v", file, f.Issues)
	}
	return w
}

// told writes warnings as the golden files have them.
func told(list []preview.Warning) string {
	var b strings.Builder
	for _, w := range list {
		fmt.Fprintf(&b, "%d:%d %s %s: %s\n", w.Pos.Line, w.Pos.Col, w.Pos.Pointer, w.Code, w.Detail)
		for line := range strings.Lines(w.Suggest) {
			fmt.Fprintf(&b, "  → %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	return b.String()
}

// Each code has a definition that gives exactly that warning, as its golden file says, and a mended one that gives none.
func TestLint(t *testing.T) {
	for _, code := range preview.LintCodes() {
		t.Run(code, func(t *testing.T) {
			file := filepath.Join("testdata", "lint", code)
			found := preview.Lint(compile(t, file+".yaml"), six)
			if len(found) == 0 {
				t.Error("it gives no warning")
			}
			for _, w := range found {
				if w.Code != code || w.Suggest == "" || w.Pos.Line == 0 {
					t.Errorf("it gives %+v", w)
				}
			}
			golden(t, file+".golden", told(found))
			if mended := preview.Lint(compile(t, file+".mended.yaml"), six); len(mended) > 0 {
				t.Errorf("mended it still gives\n%s", told(mended))
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// The workflows that the mission is made of give no warning: whoever wrote them meant what stands there.
func TestNoFalseAlarm(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "clean", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no definitions", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if found := preview.Lint(compile(t, file), six); len(found) > 0 {
				t.Errorf("it gives\n%s", told(found))
			}
		})
	}
}

// chained is a definition of n steps, each of which reads the one before.
func chained(n int, labels string) string {
	var b strings.Builder
	b.WriteString("spec: workflow/v1\nname: chained\nlabels: {" + labels + "}\ninput: {type: object, properties: {task: {type: string}}}\n" +
		"agents:\n  writer: {role: grinder, model: claude-sonnet-4-6, instructions: Go on with the text that you are handed.}\nsteps:\n" +
		"  - {id: s0, agent: writer, prompt: \"${{ input.task }}\"}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "  - id: s%d\n    agent: writer\n    needs: [s0]\n    prompt: \"TASK ${{ input.task }} DRAFT ${{ steps.s%d.output }}\"\n", i, i-1)
	}
	return b.String()
}

func TestLintIgnore(t *testing.T) {
	codes := func(definition string) string {
		w, err := workflow.Compile([]byte(definition))
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, found := range preview.Lint(w, six) {
			list = append(list, found.Code+found.Pos.Pointer)
		}
		return strings.Join(list, " ")
	}
	one := strings.Replace(chained(3, ""), "  - id: s1\n", "  - id: s1\n    labels: {lint.ignore: unverified_output}\n", 1)
	for _, c := range []struct{ name, definition, want string }{
		{"nothing", chained(3, ""), "no_budget no_timeout unverified_output/steps/0 unverified_output/steps/1"},
		{"some of the definition", chained(3, "lint.ignore: 'no_budget, unverified_output'"), "no_timeout"},
		{"one of a step", one, "no_budget no_timeout unverified_output/steps/0"},
		{"nothing that there is", chained(1, "lint.ignore: no_such_code"), "no_budget no_timeout"},
	} {
		if diff := cmp.Diff(c.want, codes(c.definition)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// A container's label silences what is inside it.
func TestLintIgnoreInside(t *testing.T) {
	file := filepath.Join("testdata", "lint", "duplicate_read.yaml")
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := workflow.Compile([]byte(strings.Replace(string(source), "  - id: parts\n", "  - id: parts\n    labels: {lint.ignore: duplicate_read}\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if found := preview.Lint(w, six); len(found) != 1 || found[0].Pos.Pointer != "/steps/1" {
		t.Errorf("it gives\n%s", told(found))
	}
}

// Of one code the first twenty are shown, and how many more there are.
func TestManyWarnings(t *testing.T) {
	w, err := workflow.Compile([]byte(chained(50, "lint.ignore: 'no_budget, no_timeout'")))
	if err != nil {
		t.Fatal(err)
	}
	found := preview.Lint(w, six)
	if len(found) != 20 || !strings.HasSuffix(found[19].Detail, "(29 more like it)") {
		t.Errorf("it gives\n%s", told(found))
	}
}

// Without a roster nothing is known of any model, and nothing is said of them.
func TestLintKnowsNoModels(t *testing.T) {
	for _, code := range []string{"same_family_review", "expensive_for_trivial"} {
		if found := preview.Lint(compile(t, filepath.Join("testdata", "lint", code+".yaml")), nil); len(found) > 0 {
			t.Errorf("%s gives\n%s", code, told(found))
		}
	}
}

func BenchmarkLint200(b *testing.B) {
	w, err := workflow.Compile([]byte(chained(200, "")))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		preview.Lint(w, six)
	}
}

// BenchmarkPreview200 is all that is done before a definition of 200 steps is taken.
func BenchmarkPreview200(b *testing.B) {
	source := []byte(chained(200, ""))
	b.ReportAllocs()
	for b.Loop() {
		w, err := workflow.Compile(source)
		if err != nil {
			b.Fatal(err)
		}
		preview.Lint(w, six)
		preview.Estimate(w, six, nil)
	}
}

// Whatever compiles can be linted, with and without a roster: each warning has a known code, an edit and a place, and
// they stand in the order of the document.
func TestLintAnything(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "workflow", "testdata", "good", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no definitions", err)
	}
	for _, file := range files {
		w := compile(t, file)
		for _, r := range []workflow.Roster{six, nil} {
			line := 0
			for _, found := range preview.Lint(w, r) {
				if !slices.Contains(preview.LintCodes(), found.Code) || found.Detail == "" || found.Suggest == "" || found.Pos.Line < max(line, 1) {
					t.Errorf("%s gives %+v after line %d", file, found, line)
				}
				line = found.Pos.Line
			}
		}
	}
}
