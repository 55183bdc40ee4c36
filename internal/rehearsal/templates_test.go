package rehearsal

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/workflow"
)

const templatesDir = "../../examples/templates"

// templateRows are the rows of what there is to be shown, each by the templates that show it.
var templateRows = map[string]int{"M1": 1, "M2": 1, "M3": 1, "M4": 1, "M5": 1, "M6": 1, "M7": 1, "M8": 1, "M9": 1, "M10": 1, "M11": 1, "M12": 1, "M13": 4}

// Each template is what a first reader is told to write: nothing speaks against it, what it takes is described, and a run
// with its example input fits into its budget. Each has tests, and an example.
func TestTemplates(t *testing.T) {
	roster, err := gateway.New(gateway.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, name := range templateNames(t) {
		t.Run(name, func(t *testing.T) {
			source := readFile(t, name+".yaml")
			w, err := workflow.Compile(source)
			if err != nil {
				t.Fatalf("%v: %+v", err, fault.Of(err).Issues)
			}
			rows[w.Labels["template.for"]]++
			if w.Name != name || w.Description == "" || w.Labels["template.title"] == "" {
				t.Errorf("name %q, title %q, description %q", w.Name, w.Labels["template.title"], w.Description)
			}
			for _, warning := range preview.Lint(w, roster) {
				t.Errorf("%d:%d %s: %s", warning.Pos.Line, warning.Pos.Col, warning.Code, warning.Detail)
			}
			describes(t, w)
			input := readFile(t, name+".input.json")
			if issues := w.Input.Check(input); len(issues) > 0 {
				t.Errorf("its example input: %+v", issues)
			}
			e := preview.Estimate(w, roster, input)
			if w.Budget == nil || e.Cost.Low <= 0 || e.Cost.High > w.Budget.Cost || len(e.Unpriced) > 0 {
				t.Errorf("costs %s to %s, unpriced %v; its budget is %+v", e.Cost.Low, e.Cost.High, e.Unpriced, w.Budget)
			}
			readFile(t, name+".test.yaml")
		})
	}
	for row, want := range templateRows {
		if rows[row] != want {
			t.Errorf("%d templates for %s, want %d", rows[row], row, want)
		}
	}
}

// describes wants words for all that a caller may hand over, and a default for what need not be.
func describes(t *testing.T, w *workflow.Workflow) {
	t.Helper()
	var input struct {
		Required             []string
		AdditionalProperties *bool
		Properties           map[string]struct {
			Description string
			Default     json.RawMessage
		}
	}
	if err := json.Unmarshal(w.Input.Raw, &input); err != nil {
		t.Fatal(err)
	}
	if input.AdditionalProperties == nil || *input.AdditionalProperties {
		t.Error("its input takes names that nobody reads")
	}
	for name, p := range input.Properties {
		if p.Description == "" {
			t.Errorf("input %s has no description", name)
		}
		if p.Default == nil && !slices.Contains(input.Required, name) {
			t.Errorf("input %s is neither required nor has it a default", name)
		}
	}
}

func templateNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(templatesDir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".yaml"); !strings.HasSuffix(name, ".test") {
			names = append(names, name)
		}
	}
	return names
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(templatesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return source
}
