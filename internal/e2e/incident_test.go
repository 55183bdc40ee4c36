package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/upstream"
)

// triage has two agents with the same contract; which of them works, its input says.
const triage = `
spec: workflow/v1
name: triage
input: {type: object, properties: {who: {type: string}}}
agents:
  writer: {model: team/writer, output: {schema: {type: object, required: [text], properties: {text: {type: string}}}}}
  reader: {model: team/reader, output: {schema: {type: object, required: [text], properties: {text: {type: string}}}}}
defaults: {retry: none}
steps:
  - {id: write, agent: writer, prompt: Write., when: input.who == "writer"}
  - {id: read, agent: reader, prompt: Read., when: input.who == "reader"}
`

// TestIncident: an agent whose model answers with prose where JSON is wanted fails three runs; the fourth fails no more
// but waits, and says for what. The other agent of the workflow works on. When the model is mended and somebody says so,
// the run that waited succeeds.
func TestIncident(t *testing.T) {
	m := startMoneyService(t, "team")
	server := m.servers["team"]
	server.Script("writer", upstream.Step{Body: "I would rather write prose."})
	server.Script("reader", upstream.Step{Body: `{"text":"read"}`})
	start := func(who string) string {
		t.Helper()
		status, _, answer := m.post(t, "/v1/runs", map[string]any{"workflow": "triage", "input": map[string]any{"who": who}})
		if status != http.StatusAccepted {
			t.Fatalf("%d %s", status, answer)
		}
		return decode[struct{ ID string }](t, string(answer)).ID
	}
	if status, _, answer := m.post(t, "/v1/workflows", map[string]any{"definition": triage}); status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}

	for range 3 {
		if run := m.awaitStatus(t, start("writer"), "failed"); run.Error.Class != "invalid_output" {
			t.Fatalf("%+v", run.Error)
		}
	}
	asked := server.Count("writer")
	held := start("writer")
	run := m.awaitStatus(t, held, "waiting")
	incidents := decode[[]struct {
		ID, State, Workflow, Agent, Class string
		Count                             int
		Samples                           []struct{ Run, Step, Message string }
	}](t, m.fermata(t, "incident", "ls", "-o", "json", "--state", "open").want(t, 0).out)
	if len(incidents) != 1 || incidents[0].Agent != "writer" || incidents[0].Workflow != "triage" || incidents[0].Class != "invalid_output" ||
		incidents[0].Count != 3 || len(incidents[0].Samples) != 3 || incidents[0].Samples[0].Step != "write" {
		t.Fatalf("%+v", incidents)
	}
	if run.Waiting.Kind != "incident" || run.Waiting.Step != "write" || !strings.Contains(run.Waiting.Sentence, incidents[0].ID) {
		t.Errorf("it waits for %+v", run.Waiting)
	}
	if shown := m.fermata(t, "get", held).want(t, 0).out; !strings.Contains(shown, "resolve the incident") {
		t.Errorf("%s", shown)
	}
	m.awaitStatus(t, start("reader"), "succeeded")
	if n := server.Count("writer"); n != asked {
		t.Errorf("the model was asked %d times while its agent is held", n-asked)
	}
	if _, metrics := m.get(t, "/metrics"); !strings.Contains(metrics, `fermata_incidents_total{class="invalid_output"} 1`) {
		t.Error("no metric counts the incident")
	}

	server.Script("writer", upstream.Step{Body: `{"text":"written"}`})
	shown := m.fermata(t, "incident", "resolve", incidents[0].ID, "--note", "the prompt asked for prose").want(t, 0).out
	if !strings.Contains(shown, "resolved by operator") {
		t.Errorf("%s", shown)
	}
	m.awaitStatus(t, held, "succeeded")
	m.awaitStatus(t, start("writer"), "succeeded")
	if r := m.fermata(t, "incident", "resolve", incidents[0].ID); r.code != 5 {
		t.Errorf("resolved twice: exit code %d\n%s", r.code, r.err)
	}
	m.fermata(t, "incident", "resolve", "inc_01950000000070008000000000000000").want(t, 3)
	if r := m.fermata(t, "incident", "ls").want(t, 0); !strings.Contains(r.out, "triage") {
		t.Errorf("%s", r.out)
	}
}
