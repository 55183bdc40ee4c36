package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/api"
	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/telemetry"
)

const (
	someApproval = "apr_0195f0a6b1c87d3e9a4f0c2b7d6e5f41"
	someRun      = "run_0195f0a6b1c87d3e9a4f0c2b7d6e5f41"
)

// said is what a service was sent.
type said struct{ method, path, body string }

// command runs a command line against a service that gives the answers by method and path, and tells what it was sent.
func command(t *testing.T, answers map[string]any, args ...string) (out, talk string, code int, sent []said) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		sent = append(sent, said{r.Method, r.URL.RequestURI(), string(body)})
		answer, ok := answers[r.Method+" "+r.URL.Path]
		w.Header().Set("Content-Type", "application/json")
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = client.Problem{Status: http.StatusNotFound, Code: "not_there", Detail: "there is no such thing"}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	t.Setenv("FERMATA_URL", server.URL)
	var o, e bytes.Buffer
	code = run(t.Context(), args, newScreen(strings.NewReader(""), &o, &e))
	return o.String(), strings.ReplaceAll(e.String(), " --url "+server.URL, ""), code, sent
}

func articleQuestion() client.Approval {
	return client.Approval{
		ID: someApproval, Status: client.ApprovalStatusOpen, Run: someRun, Workflow: "greet", Step: "publish_ok", About: "approval",
		Title: "Publish?", Choices: []string{"approve", "reject", "hold"}, AskedAt: morning,
		Form:    json.RawMessage(`{"type":"object","properties":{"headline":{"type":"string"},"words":{"type":"integer"}}}`),
		Initial: json.RawMessage(`{"headline":"Tides","words":120}`),
	}
}

func TestAnswering(t *testing.T) {
	answered := articleQuestion()
	answered.Status, answered.Answer = client.ApprovalStatusAnswered, client.ApprovalAnswer{Choice: "approve", By: "operator", At: morning}
	path := "/v1/approvals/" + someApproval
	answers := map[string]any{"GET " + path: articleQuestion(), "POST " + path: answered}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"approved":          {[]string{"approve", someApproval}, `{"choice":"approve"}`},
		"with a form":       {[]string{"approve", someApproval, "--form", "words=90", "--reason", "short"}, `{"choice":"approve","form":{"headline":"Tides","words":90},"reason":"short"}`},
		"rejected":          {[]string{"reject", someApproval, "--reason", "dull"}, `{"choice":"reject","reason":"dull"}`},
		"one of its choice": {[]string{"answer", someApproval, "hold"}, `{"choice":"hold"}`},
	} {
		t.Run(name, func(t *testing.T) {
			out, talk, code, sent := command(t, answers, c.args...)
			last := sent[len(sent)-1]
			if code != exitOK || last.method != "POST" || strings.TrimSpace(last.body) != c.want {
				t.Errorf("exit %d, sent %+v, want %s\n%s", code, last, c.want, talk)
			}
			if !strings.Contains(out, "answered approve by operator") || !strings.Contains(talk, "watch "+someRun) {
				t.Errorf("said %s%s", out, talk)
			}
		})
	}
	if _, talk, code, _ := command(t, answers, "reject", someApproval); code != exitUsage || !strings.Contains(talk, "--reason") {
		t.Errorf("exit %d: %s", code, talk)
	}
	if _, talk, code, _ := command(t, answers, "approve", someApproval, "--form", "words=many"); code != exitUsage || !strings.Contains(talk, "--form words") {
		t.Errorf("exit %d: %s", code, talk)
	}
	if _, talk, code, _ := command(t, answers, "approve", someApproval, "--form", "headlin=Tides"); code != exitOK || !strings.Contains(talk, `did you mean "headline"?`) {
		t.Errorf("exit %d: %s", code, talk)
	}
	if _, _, code, _ := command(t, nil, "approve", someApproval); code != exitNotFound {
		t.Errorf("exit %d", code)
	}
}

func TestApprovalsAreShown(t *testing.T) {
	answers := map[string]any{
		"GET /v1/approvals":                 client.ApprovalPage{Data: []client.Approval{articleQuestion()}},
		"GET /v1/approvals/" + someApproval: articleQuestion(),
	}
	for _, args := range [][]string{{"approvals"}, {"approvals", "ls", "--assignee", "editors"}} {
		out, talk, code, sent := command(t, answers, args...)
		if code != exitOK || !strings.Contains(out, "approve|reject|hold") || !strings.Contains(sent[0].path, "status=open") {
			t.Errorf("%v: exit %d, sent %+v\n%s%s", args, code, sent, out, talk)
		}
	}
	out, talk, code, _ := command(t, answers, "approvals", "show", someApproval)
	for _, want := range []string{"approve " + someApproval, "reject " + someApproval + " --reason TEXT", "answer " + someApproval + " hold"} {
		if !strings.Contains(talk, want) {
			t.Errorf("%q is not told:\n%s", want, talk)
		}
	}
	if code != exitOK || !strings.Contains(out, `"headline": "Tides"`) {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

func TestSignal(t *testing.T) {
	answers := map[string]any{
		"POST /v1/runs/" + someRun + "/signals/payment": client.RunAccepted{ID: someRun, Status: client.RunStatusWaiting},
		"POST /v1/signals/payment":                      client.SignalSent{ID: "x", Runs: 3},
	}
	out, talk, code, sent := command(t, answers, "signal", someRun, "payment", "--data", `{"amount":12}`, "--id", "o1")
	if code != exitOK || strings.TrimSpace(sent[0].body) != `{"data":{"amount":12},"id":"o1"}` {
		t.Errorf("exit %d, sent %+v\n%s%s", code, sent, out, talk)
	}
	if out, _, code, _ = command(t, answers, "signal", "all", "payment"); code != exitOK || out != "sent to 3 runs\n" {
		t.Errorf("exit %d: %s", code, out)
	}
	if _, talk, code, sent = command(t, answers, "signal", someRun, "payment", "--data", "twelve"); code != exitUsage || len(sent) != 0 || !strings.Contains(talk, "needs its quotes") {
		t.Errorf("exit %d: %s", code, talk)
	}
}

func TestTemplatesAreShown(t *testing.T) {
	const definition = "# hello\nspec: workflow/v1\n"
	answers := map[string]any{
		"GET /v1/templates":      client.TemplatePage{Data: []client.TemplateSummary{{Name: "loop", Title: "Says hello", For: []string{"M7"}}}},
		"GET /v1/templates/loop": client.Template{Name: "loop", Definition: definition, Parameters: json.RawMessage(`{"properties":{"n":{"type":"integer"}}}`)},
		"POST /v1/runs":          client.RunAccepted{ID: someRun, Status: client.RunStatusQueued},
	}
	if out, talk, code, _ := command(t, answers, "templates"); code != exitOK || !strings.Contains(out, "loop      M7   Says hello") {
		t.Errorf("exit %d:\n%s%s", code, out, talk)
	}
	if out, _, code, _ := command(t, answers, "templates", "show", "loop"); code != exitOK || out != definition {
		t.Errorf("exit %d:\n%s", code, out)
	}
	_, talk, code, sent := command(t, answers, "run", "--template", "loop", "-i", "n=3", "--detach")
	if code != exitOK || strings.TrimSpace(sent[len(sent)-1].body) != `{"input":{"n":3},"template":"loop"}` {
		t.Errorf("exit %d, sent %+v\n%s", code, sent, talk)
	}
	if _, talk, code, _ := command(t, answers, "run", "--template", "loop", "greet"); code != exitUsage || !strings.Contains(talk, "name either") {
		t.Errorf("exit %d: %s", code, talk)
	}
}

// The templates that come with the program compile: the API does not start otherwise.
func TestOwnTemplates(t *testing.T) {
	metrics := telemetry.New(prometheus.NewRegistry(), telemetry.Build{Version: "test"})
	if _, err := api.New(api.Config{Templates: templates(), Metrics: metrics}); err != nil {
		t.Fatal(err)
	}
}

// A run's steps inside maps are counted where the map is; what failed or waits stands below it with what can be done.
func TestRunWithMapsIsFolded(t *testing.T) {
	run := client.Run{
		ID: someRun, Workflow: "wide", Status: client.RunStatusWaiting, Progress: client.Progress{Settled: 99, Total: 259},
		Quality: client.Quality{Level: 1, Name: "core", Omitted: []string{"polish"}, Reasons: []string{"short of money"}},
		Steps: []client.Step{
			{Path: "build", Kind: "map", Status: client.StepStatusRunning, Inside: client.Inside{Total: 128, AtWork: 29, Succeeded: 97, Failed: 2}},
			{Path: "build.0.make", Kind: "agent", Status: client.StepStatusSucceeded},
			{Path: "build.3.make", Kind: "agent", Status: client.StepStatusFailed, Error: client.Failure{Class: "timeout", Message: "too slow"}},
			{Path: "build.4.ok", Kind: "approval", Status: client.StepStatusWaiting, Waiting: client.StepWaiting{For: "approval", Approval: someApproval, Title: "Good?", Choices: []string{"approve", "reject"}}},
			{Path: "after", Kind: "set", Status: client.StepStatusPending},
		},
	}
	out, talk, code, _ := command(t, map[string]any{"GET /v1/runs/" + someRun: run}, "show", someRun)
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, talk)
	}
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		someRun + " wide", "⏸ waiting 99/259 steps", "degraded to level 1, core · left out: polish · short of money", "",
		"STEP KIND STATUS TRIES TOOK TOKENS COST NOTE", "build map running ×128 ▸ 97✓ 2✕ 29 at work", "build.3.make agent failed timeout: too slow",
		`build.4.ok approval waiting asks "Good?": ` + someApproval + " (approve, reject)", "after set pending",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(talk, "approve "+someApproval) || !strings.Contains(talk, "reject "+someApproval) {
		t.Errorf("it does not say how to answer:\n%s", talk)
	}
}

// What a run waits for is told as it happens, with the command that answers.
func TestProgressOfWaiting(t *testing.T) {
	p := newProgress(someRun)
	var lines []string
	for _, e := range []client.Event{
		{Kind: "step_waiting", Step: "ok", Data: json.RawMessage(`{"for":"approval","asked":{"approval":"` + someApproval + `","title":"Publish?","choices":["approve","reject"]}}`)},
		{Kind: "approval_answered", Step: "ok", Data: json.RawMessage(`{"choice":"approve","by":"operator","reason":"good"}`)},
		{Kind: "step_waiting", Step: "sub", Data: json.RawMessage(`{"for":"child","child":{"run":"` + someRun + `"}}`)},
		{Kind: "item_ended", Step: "build", Data: json.RawMessage(`{"item":3,"failure":{"class":"timeout","message":"slow"}}`)},
		{Kind: "iteration_ended", Step: "improve", Data: json.RawMessage(`{"iteration":2,"met":true}`)},
		{Kind: "run_degraded", Data: json.RawMessage(`{"level":1,"name":"core","reason":"money"}`)},
		{Kind: "signal_received", Data: json.RawMessage(`{"name":"payment"}`)},
	} {
		_, line, _ := strings.Cut(p.apply(&e), "  ")
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		`ok waiting asks "Publish?": ` + someApproval + " (approve, reject) · to answer: " + program() + " approve " + someApproval,
		"ok answered approve by operator · good", "sub waiting waits for " + someRun, "build item 3 · timeout: slow",
		"improve iteration 2 · its condition holds", "run degraded to level 1, core · money", "run signalled payment",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

// Everything inside is shown if it is asked for; what is unresolved is cut short otherwise, and the run's error stands once.
func TestRunIsShownWhole(t *testing.T) {
	score := 8.5
	why := client.Failure{Class: "timeout", Message: "too slow"}
	run := client.Run{
		ID: someRun, Workflow: "wide", Status: client.RunStatusFailed, Error: client.Failure{Class: why.Class, Message: why.Message, Step: "last"},
		Steps: []client.Step{
			{Path: "build", Kind: "map", Status: client.StepStatusSucceeded, Inside: client.Inside{Total: 1, Succeeded: 1}},
			{Path: "build.0.make", Kind: "agent", Status: client.StepStatusSucceeded, Gate: client.GateResult{Score: &score, Rounds: 2}},
			{Path: "other", Kind: "tool", Status: client.StepStatusSucceeded, Instead: "fallback"},
			{Path: "last", Kind: "tool", Status: client.StepStatusFailed, Error: why},
		},
	}
	for range unresolvedShownMax + 2 {
		run.Unresolved = append(run.Unresolved, client.Unresolved{Step: "build.0.make", Text: "No source."})
	}
	answers := map[string]any{"GET /v1/runs/" + someRun: run}
	short, _, _, _ := command(t, answers, "get", someRun)
	whole, _, _, _ := command(t, answers, "get", "--all", someRun)
	for _, c := range []struct {
		text         string
		short, whole int
	}{
		{"build.0.make  ", 0, 1},
		{"scored 8.5 · 2 revisions", 0, 1},
		{"by its fallback", 1, 1},
		{"too slow", 1, 1},
		{"No source.", unresolvedShownMax, unresolvedShownMax + 2},
		{"… and 2 more unresolved", 1, 0},
	} {
		if a, b := strings.Count(short, c.text), strings.Count(whole, c.text); a != c.short || b != c.whole {
			t.Errorf("%q stands there %d and %d times, not %d and %d", c.text, a, b, c.short, c.whole)
		}
	}
}
