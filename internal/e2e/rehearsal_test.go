package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Mission row M14: a workflow is tested with scripted models, faults and assertions, and without a service.
func TestWorkflowTests(t *testing.T) {
	r := fermata(t, "test", example("qc-deliverable.test.yaml"), example("switch.test.yaml")).want(t, 0)
	for _, want := range []string{"✓ high stakes take every step", "STEP", "claude-sonnet-4-6 → claude-haiku-4-5", " 0 failed in "} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is not in\n%s", want, r.out)
		}
	}
	if again := fermata(t, "test", "--schema").want(t, 0); !strings.Contains(again.out, `"$schema"`) {
		t.Errorf("no schema: %s", again.out)
	}
	fermata(t, "test").want(t, 2)
	fermata(t, "test", "-f", "no/such.test.yaml").want(t, 2)
	fermata(t, "test", example("switch.test.yaml"), "--run", "no such case").want(t, 2)
}

// What goes otherwise is told with its place, what was expected and what came; a golden file is written when asked.
func TestWorkflowTestsFail(t *testing.T) {
	dir := t.TempDir()
	file, report := filepath.Join(dir, "a.test.yaml"), filepath.Join(dir, "report.xml")
	source := `template: switch
cases:
  - name: wrong
    input: {ticket: x}
    models: [{step: classify, answer: {topic: billing, angry: false}}]
    expect:
      output: {topic: outage}
  - name: right
    input: {ticket: x}
    expect: {golden: right.json}
`
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	r := fermata(t, "test", file, "--junit", report).want(t, 1)
	for _, want := range []string{"✕ wrong", file + ":7:16: the output differs at /topic", `expected "outage"`, `got      "billing"`, "classify                 step_started", "2 cases: 0 passed, 2 failed"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is not in\n%s", want, r.out)
		}
	}
	if xml, err := os.ReadFile(report); err != nil || !strings.Contains(string(xml), `failures="2"`) {
		t.Errorf("%v\n%s", err, xml)
	}
	fermata(t, "test", file, "--run", "right", "--update").want(t, 0)
	fermata(t, "test", file, "--run", "right").want(t, 0)
	suites := decode[[]struct {
		Results []struct{ Failures []struct{ Pointer string } }
	}](t, fermata(t, "test", "-o", "json", file, "--run", "wrong").want(t, 1).out)
	if f := suites[0].Results[0].Failures; len(f) != 1 || f[0].Pointer != "/cases/0/expect/output/topic" {
		t.Errorf("got %+v", suites)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(source, "expect:", "expcet:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := fermata(t, "test", file).want(t, 1); !strings.Contains(r.err, file+":6:5: error[unknown_property]") || !strings.Contains(r.err, `did you mean "expect"?`) {
		t.Errorf("got %s", r.err)
	}
}

// Mission row M14: two runs are laid side by side.
func TestCompareRuns(t *testing.T) {
	a := runExample(t, 0, "qc-deliverable.yaml", brief, "stakes=low")
	b := runExample(t, 0, "qc-deliverable.yaml", brief, "stakes=high")
	out := serviceFor(t).fermata(t, "compare", a.ID, b.ID).want(t, 0).out
	for _, want := range []string{a.ID, b.ID, "skipped → succeeded", "the run", "output of the run:"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	both := decode[struct {
		Steps []struct {
			Path string
			A, B struct{ Status, Model string }
		}
	}](t, serviceFor(t).fermata(t, "compare", "-o", "json", a.ID, b.ID).want(t, 0).out)
	if len(both.Steps) != 6 || both.Steps[1].Path != "produce" || both.Steps[1].A.Model == "" || both.Steps[1].A != both.Steps[1].B {
		t.Errorf("got %+v", both)
	}
	serviceFor(t).fermata(t, "compare", a.ID, "run_00000000000070008000000000000000").want(t, 3)
}
