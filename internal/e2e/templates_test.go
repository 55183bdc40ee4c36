package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// templateOutputs is what the output of each template must look like: JSON Schemas.
var templateOutputs = map[string]string{
	"sequential-pipeline":            `{"required":["code","tests","readme","issues_found"],"properties":{"code":{"minLength":1},"tests":{"minLength":1},"issues_found":{"type":"integer"}}}`,
	"star":                           `{"required":["feature","interface","verdict"],"properties":{"feature":{"required":["code"]},"interface":{"properties":{"endpoints":{"minItems":1}}},"verdict":{"properties":{"pass":{"const":true}}}}}`,
	"swarm":                          `{"required":["report","findings"],"properties":{"report":{"required":["summary","priorities"]},"findings":{"minItems":10,"maxItems":10,"items":{"type":"object","required":["aspect","risk"]}}}}`,
	"waves":                          `{"required":["foundations","core","integration","polish"],"properties":{"polish":{"required":["tests","docs","speed"]}}}`,
	"specialist-routing":             `{"required":["answers","failed"],"properties":{"answers":{"minItems":3,"maxItems":3,"items":{"type":"object","required":["expert","answer","confidence"]}},"failed":{"maxItems":0}}}`,
	"five-step-qc":                   `{"required":["deliverable","confidence","unresolved","steps_completed"],"properties":{"confidence":{"minimum":60},"steps_completed":{"const":5}}}`,
	"feedback-loop":                  `{"required":["result","review","rounds","notes"],"properties":{"review":{"properties":{"pass":{"const":true}}},"rounds":{"minimum":1,"maximum":3}}}`,
	"conditional":                    `{"required":["team","complexity","plan"],"properties":{"team":{"enum":["experts","migration","standard"]},"plan":{"required":["steps"]}}}`,
	"plan-delegate-verify-integrate": `{"required":["result","check","rounds"],"properties":{"result":{"minLength":1},"check":{"properties":{"goal_met":{"const":true}}}}}`,
	"orchestrator-and-grinders":      `{"required":["deliverable","summary","references","sections"],"properties":{"sections":{"minItems":2,"items":{"required":["title","by","confidence"]}}}}`,
	"parallel-validation":            `{"required":["verdict","issues","agreement","dissent"],"properties":{"verdict":{"enum":["accurate","minor_issues","wrong"]}}}`,
	"delegation":                     `{"required":["result","done","open"],"properties":{"result":{"minLength":1},"open":{"maxItems":0}}}`,
	"market-report":                  `{"required":["report","executive_summary","metrics","score","sources"],"properties":{"metrics":{"minItems":1},"sources":{"minItems":3}}}`,
	"podcast-factory":                `{"required":["title","script","speaking_notes","sources","evaluation"],"properties":{"script":{"minLength":1000}}}`,
	"validation-pipeline":            `{"required":["score","reached","rounds","code","docs_check","tests"],"properties":{"score":{"minimum":50},"rounds":{"minimum":1,"maximum":3}}}`,
	"daily-rhythm":                   `{"required":["handoff","done","days"],"properties":{"done":{"minItems":2},"days":{"const":1}}}`,
}

// Mission row M13: each template that the service lists runs as it is, with its example input, on simulated models.
func TestTemplates(t *testing.T) {
	s := serviceFor(t)
	_, body := s.get(t, "/v1/templates")
	list := decode[struct {
		Data []struct {
			Name, Title string
			For         []string
		}
	}](t, body).Data
	if len(list) != len(templateOutputs) {
		t.Errorf("%d templates are listed, want %d: %s", len(list), len(templateOutputs), body)
	}
	rows := make([]string, len(list))
	t.Run("all", func(t *testing.T) {
		for i, template := range list {
			if template.Title == "" || len(template.For) == 0 {
				t.Errorf("%s has no title, or is for nothing: %+v", template.Name, template)
			}
			t.Run(template.Name, func(t *testing.T) {
				t.Parallel()
				rows[i] = runTemplate(t, s, template.Name)
			})
		}
	})
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TEMPLATE\tSTATUS\tSTEPS\tCALLS\tSIMULATED COST\tTOOK")
	fmt.Fprintln(w, strings.Join(rows, "\n"))
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	t.Logf("\n%s", table.String())
}

// templateRun is what is read of a run of a template.
type templateRun struct {
	shownRun
	LastSeq  int `json:"last_seq"`
	Progress struct{ Total int }
	Cost     struct {
		USD           string
		NanoUSD       int64 `json:"nano_usd"`
		UnpricedCalls int   `json:"unpriced_calls"`
	}
	CreatedAt time.Time `json:"created_at"`
	EndedAt   time.Time `json:"ended_at"`
}

// runTemplate runs one to its end, answers what people are asked, and gives its row of the table.
func runTemplate(t *testing.T, s *service, name string) string {
	t.Helper()
	_, body := s.get(t, "/v1/templates/"+name)
	shown := decode[struct {
		Definition        string
		Input, Parameters json.RawMessage
	}](t, body)
	if !strings.HasPrefix(shown.Definition, "# ") || len(shown.Input) == 0 || len(shown.Parameters) == 0 {
		t.Fatalf("got %s", body)
	}
	status, _, answer := s.post(t, "/v1/runs", map[string]any{"template": name, "input": shown.Input})
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	run := decode[templateRun](t, string(answer))
	approved := 0
	for deadline := time.Now().Add(commandLimit); !slices.Contains([]string{"succeeded", "failed", "cancelled"}, run.Status); {
		if time.Now().After(deadline) {
			t.Fatalf("it did not end: %s", body)
		}
		s.get(t, fmt.Sprintf("/v1/runs/%s/events?after=%d&wait=1", run.ID, run.LastSeq)) // until something happens
		approved += s.approve(t, run.ID)
		_, body = s.get(t, "/v1/runs/"+run.ID+"?include=provenance")
		run = decode[templateRun](t, body)
	}
	if run.Status != "succeeded" {
		t.Fatalf("it ended otherwise: %s", body)
	}
	checkOutput(t, name, run)
	if approved > 0 {
		run.Status += fmt.Sprintf(", %d approved", approved)
	}
	return fmt.Sprintf("%s\t%s\t%d\t%d\t$%s\t%s", name, run.Status, run.Progress.Total, run.Usage.Calls, run.Cost.USD, run.EndedAt.Sub(run.CreatedAt).Round(100*time.Millisecond))
}

func checkOutput(t *testing.T, name string, run templateRun) {
	t.Helper()
	schema, err := workflow.ParseSchema(json.RawMessage(templateOutputs[name]))
	if err != nil {
		t.Fatal(err)
	}
	for _, issue := range schema.Check(run.Output) {
		t.Errorf("output%s: %s\n%s", issue.Pointer, issue.Detail, run.Output)
	}
	if !run.Simulated || run.Cost.NanoUSD <= 0 || run.Cost.UnpricedCalls != 0 || len(run.Provenance) == 0 {
		t.Errorf("simulated %t, %d nano-USD, %d unpriced, provenance of %d", run.Simulated, run.Cost.NanoUSD, run.Cost.UnpricedCalls, len(run.Provenance))
	}
	if !strings.Contains(string(run.Output), "[simulated]") {
		t.Errorf("the output does not say that it is simulated: %s", run.Output)
	}
}

// approve says yes to what a run asks people, and tells how often it did.
func (s *service) approve(t *testing.T, run string) int {
	t.Helper()
	_, body := s.get(t, "/v1/approvals?status=open&run="+run)
	open := decode[struct {
		Data []struct {
			ID      string
			Choices []string
		}
	}](t, body).Data
	for _, a := range open {
		if status, _, answer := s.post(t, "/v1/approvals/"+a.ID, map[string]any{"choice": a.Choices[0]}); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	return len(open)
}
