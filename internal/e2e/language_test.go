package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/upstream"
)

// languageService is a service whose models answer by script, under the name of each model.
type languageService struct{ moneyService }

// TestLanguage: what workflows can do besides agents one after the other, over HTTP.
func TestLanguage(t *testing.T) {
	l := languageService{startMoneyService(t, "team")}
	t.Run("a map that keeps its errors", l.mapKeepsErrors)
	t.Run("a map over no list", l.mapOverNoList)
	t.Run("a loop that never meets its until", l.loopExhausted)
	t.Run("a person lets a loop go on", l.loopGoesOn)
	t.Run("a majority with a member that fails", l.majority)
	t.Run("down the ladder", l.ladder)
	t.Run("an agent asks a person", l.needsDecision)
	t.Run("a plan is approved", l.planApproved)
	t.Run("a plan is rejected", l.planRejected)
	t.Run("plans beyond what is allowed", l.planBeyond)
	t.Run("expressions of a run that waits", l.evaluate)
}

// script lets a model answer with these texts, in turn; the last one stays.
func (l languageService) script(model string, texts ...string) {
	steps := make([]upstream.Step, len(texts))
	for i, text := range texts {
		steps[i] = upstream.Step{Body: text}
	}
	l.servers["team"].Script(model, steps...)
}

// start submits a definition.
func (l languageService) start(t *testing.T, definition string, input map[string]any) string {
	t.Helper()
	if input == nil {
		input = map[string]any{}
	}
	status, _, answer := l.post(t, "/v1/runs", map[string]any{"definition": "spec: workflow/v1\n" + definition, "input": input})
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	return decode[struct{ ID string }](t, string(answer)).ID
}

// finishedRun is what these tests read of a run.
type finishedRun struct {
	Status  string
	Output  json.RawMessage
	Error   struct{ Class, Message, Step string }
	Quality *struct {
		Level   int
		Name    string
		Omitted []string
		Reasons []string
	}
}

// ended waits for a run to be as it should.
func (l languageService) ended(t *testing.T, id, status string) finishedRun {
	t.Helper()
	l.awaitStatus(t, id, status)
	_, body := l.get(t, "/v1/runs/"+id)
	return decode[finishedRun](t, body)
}

// wantOutput waits for a run to succeed with an output.
func (l languageService) wantOutput(t *testing.T, id, want string) finishedRun {
	t.Helper()
	run := l.ended(t, id, "succeeded")
	if string(run.Output) != want {
		t.Errorf("the output is %s, not %s", run.Output, want)
	}
	return run
}

// wantError waits for a run to fail.
func (l languageService) wantError(t *testing.T, id, class string, parts ...string) {
	t.Helper()
	run := l.ended(t, id, "failed")
	if run.Error.Class != class {
		t.Errorf("it failed with %+v, not %s", run.Error, class)
	}
	for _, part := range parts {
		if !strings.Contains(run.Error.Message, part) {
			t.Errorf("no %q in %q", part, run.Error.Message)
		}
	}
}

// price gives a model a price: what works within a plan has a budget, which cannot be kept to without.
func (l languageService) price(t *testing.T, model string) {
	t.Helper()
	l.mustPut(t, "/v1/prices", map[string]any{
		"model": model, "rows": []any{map[string]any{"input": "1", "output": "1", "source": "of the test"}},
	})
}

// shownApproval is what these tests read of an approval.
type shownApproval struct {
	ID, Status, Step, About, Title string
	Show, Form                     json.RawMessage
	Choices                        []string
}

// asked waits until a run asks something.
func (l languageService) asked(t *testing.T, run string) shownApproval {
	t.Helper()
	l.awaitStatus(t, run, "waiting")
	_, body := l.get(t, "/v1/approvals?status=open&run="+run)
	page := decode[struct{ Data []shownApproval }](t, body)
	if len(page.Data) != 1 {
		t.Fatalf("%s", body)
	}
	return page.Data[0]
}

func (l languageService) answer(t *testing.T, approval string, body map[string]any) {
	t.Helper()
	if status, _, text := l.post(t, "/v1/approvals/"+approval, body); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if status, _, text := l.post(t, "/v1/approvals/"+approval, body); status != http.StatusConflict {
		t.Errorf("answered twice: %d %s", status, text)
	}
}

const trying = `
name: trying
steps:
  - id: each
    map:
      items: input.items
      max_items: 3
      on_item_error: keep
      min_success: 2
      steps:
        - {id: break, when: item.startsWith("bad"), tool: "builtin:fail", args: {message: "it is ${{ item }}"}, retry: none}
        - {id: done, needs: [break], set: {item: "${{ item }}"}}
      output: ${{ steps.done.output.item }}
output: {list: "${{ steps.each.output }}", errors: "${{ steps.each.errors }}"}
`

func (l languageService) mapKeepsErrors(t *testing.T) {
	id := l.start(t, trying, map[string]any{"items": []string{"good", "bad", "fine"}})
	l.wantOutput(t, id, `{"errors":[{"class":"tool_error","index":1,"message":"step each.1.break failed: it is bad"}],"list":["good",null,"fine"]}`)
	id = l.start(t, trying, map[string]any{"items": []string{"good", "bad", "bad as well"}})
	l.wantError(t, id, "too_few", "1 of 3 items succeeded", "min_success is 2")
}

func (l languageService) mapOverNoList(t *testing.T) {
	for items, wrong := range map[string]string{
		`{"a": 1}`: "a map goes over a list, not over an object", `"good"`: "not over text", `null`: "not over null", `7`: "not over a number",
		`[1, 2, 3, 4]`: "there are 4 items; max_items is 3",
	} {
		l.wantError(t, l.start(t, trying, map[string]any{"items": json.RawMessage(items)}), "expression", wrong)
	}
}

const counting = `
name: counting
steps:
  - id: count
    loop:
      max_iterations: 3
      until: output.number > 100
      %s
      steps:
        - {id: one, set: {number: "${{ iter.number * (4 - iter.number) }}"}}
      output: ${{ steps.one.output }}
`

func (l languageService) loopExhausted(t *testing.T) {
	l.wantError(t, l.start(t, fmt.Sprintf(counting, "stop_if_unchanged: true"), nil), "exhausted", "until does not hold after iteration 3")
	run := l.wantOutput(t, l.start(t, fmt.Sprintf(counting, "best_by: output.number"), nil), `{"number":4}`)
	if run.Quality == nil || len(run.Quality.Reasons) != 1 || !strings.Contains(run.Quality.Reasons[0], "the best one, 2, is taken") {
		t.Errorf("%+v", run.Quality)
	}
}

func (l languageService) loopGoesOn(t *testing.T) {
	l.script("drafts", "first", "second", "third", "fourth", "fifth")
	id := l.start(t, `
name: drafts
agents: {writer: {model: team/drafts, instructions: Write.}}
steps:
  - id: improve
    loop:
      max_iterations: 2
      until: output == "third"
      steps:
        - {id: write, agent: writer, prompt: "Draft ${{ iter.number }}"}
    on_error: [{classes: [exhausted], do: escalate, to: approval}]
`, nil)
	a := l.asked(t, id)
	if a.About != "escalation" || a.Step != "improve" || strings.Join(a.Choices, " ") != "accept replace redo fail" || !strings.Contains(string(a.Show), `"second"`) {
		t.Errorf("%+v %s", a, a.Show)
	}
	l.answer(t, a.ID, map[string]any{"choice": "redo", "form": map[string]any{"notes": "One more."}})
	l.wantOutput(t, id, `"third"`)
	if n := l.servers["team"].Count("drafts"); n != 3 {
		t.Errorf("the model was asked %d times", n)
	}
}

func (l languageService) majority(t *testing.T) {
	l.script("yes", `{"verdict":"yes","confidence":60}`)
	l.script("sure", `{"verdict":"yes","confidence":90}`)
	l.servers["team"].Script("away", upstream.Step{Status: http.StatusBadRequest, Body: "no"})
	id := l.start(t, `
name: votes
contracts:
  vote: {type: object, required: [verdict], properties: {verdict: {type: string}}}
agents:
  yes: {model: team/yes, instructions: Vote., output: {contract: vote}}
  sure: {extends: yes, model: team/sure}
  away: {extends: yes, model: team/away}
defaults: {retry: none}
steps:
  - {id: one, agent: yes, prompt: Vote.}
  - {id: two, agent: away, prompt: Vote.}
  - {id: three, agent: sure, prompt: Vote.}
  - {id: result, merge: {of: [one, two, three], strategy: majority, by: output.verdict, quorum: 2}}
output: {result: "${{ steps.result.output.verdict }}", agreement: "${{ steps.result.agreement }}", two: "${{ steps.two.status }}"}
`, nil)
	run := l.ended(t, id, "succeeded")
	got := decode[struct {
		Result, Two string
		Agreement   float64
	}](t, string(run.Output))
	if got.Result != "yes" || got.Agreement != 1 || got.Two != "failed" && got.Two != "cancelled" {
		t.Errorf("%s", run.Output)
	}
}

func (l languageService) ladder(t *testing.T) {
	id := l.start(t, `
name: ladder
steps:
  - {id: news, tool: "builtin:fail", args: {message: no news}, retry: none, on_error: [{classes: [any], do: degrade}]}
  - {id: charts, needs: [news], tool: "builtin:noop", args: {}}
  - {id: report, set: {text: "with ${{ steps.news.?output }}${{ steps.charts.?output }}"}}
output: {text: "${{ steps.report.output.text }}", level: "${{ run.quality.level }}"}
degrade:
  - {name: core, omit: [news, charts], note: Without news and charts}
`, nil)
	run := l.wantOutput(t, id, `{"level":1,"text":"with "}`)
	if q := run.Quality; q == nil || q.Level != 1 || q.Name != "core" || strings.Join(q.Omitted, " ") != "news charts" || len(q.Reasons) == 0 {
		t.Errorf("%+v", q)
	}
}

func (l languageService) needsDecision(t *testing.T) {
	l.script("painter", `{"needs_decision":{"question":"Red or blue?","options":["red","blue"],"recommendation":"red"}}`, "It is painted.")
	id := l.start(t, `
name: paint
agents: {painter: {role: grinder, model: team/painter, instructions: Paint.}}
steps:
  - {id: paint, agent: painter, prompt: Paint the wall.}
`, nil)
	a := l.asked(t, id)
	if a.About != "decision" || a.Title != "Red or blue?" || strings.Join(a.Choices, " ") != "red blue" {
		t.Errorf("%+v", a)
	}
	if status, _, text := l.post(t, "/v1/approvals/"+a.ID, map[string]any{"choice": "green"}); status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", status, text)
	}
	l.answer(t, a.ID, map[string]any{"choice": "blue", "reason": "It matches the sea."})
	l.wantOutput(t, id, `"It is painted."`)
	calls := l.servers["team"].Calls("painter")
	if last := string(calls[len(calls)-1].Body); len(calls) != 2 || !strings.Contains(last, "blue: It matches the sea.") || !strings.Contains(last, "Red or blue?") {
		t.Errorf("%d calls; the last: %s", len(calls), last)
	}
}

const delegating = `
name: delegating
agents:
  lead: {role: orchestrator, model: team/%[1]s, instructions: Plan.}
  worker: {model: team/%[1]s-worker, instructions: Work.}
steps:
  - id: delegate
    plan:
      agent: lead
      goal: Reach ${{ input.goal }}.
      input: {goal: "${{ input.goal }}"}
      allow: {kinds: [agent, plan], agents: [worker], max_steps: 2, max_depth: 2, max_usd: 1}
      %[2]s
`

// once, in the place of an approval, lets a plan be made once.
const once = "\n    retry: none"

func (l languageService) planApproved(t *testing.T) {
	l.script("approved", `{"steps":[{"id":"climb","agent":"worker","prompt":"Climb ${{ input.goal }}."}],"output":{"done":"${{ steps.climb.output }}"}}`)
	l.script("approved-worker", "It is climbed.")
	l.price(t, "approved-worker")
	id := l.start(t, fmt.Sprintf(delegating, "approved", "approval: {when: estimate.steps > 0}"), map[string]any{"goal": "the top"})
	a := l.asked(t, id)
	if a.About != "plan" || !strings.Contains(string(a.Show), "Climb ${{ input.goal }}.") || l.servers["team"].Count("approved-worker") != 0 {
		t.Errorf("%+v %s", a, a.Show)
	}
	l.answer(t, a.ID, map[string]any{"choice": "approve"})
	l.wantOutput(t, id, `{"done":"It is climbed."}`)
	if calls := l.servers["team"].Calls("approved-worker"); len(calls) != 1 || !strings.Contains(string(calls[0].Body), "Climb the top.") {
		t.Errorf("%+v", calls)
	}
	_, body := l.get(t, "/v1/runs?parent="+id)
	page := decode[struct {
		Data []struct{ Workflow, Status string }
	}](t, body)
	if len(page.Data) != 1 || page.Data[0].Workflow != "delegating.delegate" || page.Data[0].Status != "succeeded" {
		t.Errorf("%s", body)
	}
}

func (l languageService) planRejected(t *testing.T) {
	l.script("rejected", `{"steps":[{"id":"climb","agent":"worker","prompt":"Climb."}]}`)
	id := l.start(t, fmt.Sprintf(delegating, "rejected", `approval: {when: "true"}`), map[string]any{"goal": "the top"})
	l.answer(t, l.asked(t, id).ID, map[string]any{"choice": "reject", "reason": "too steep"})
	l.wantError(t, id, "rejected", "too steep")
	if n := l.servers["team"].Count("rejected-worker"); n != 0 {
		t.Errorf("the worker was asked %d times", n)
	}
}

// planBeyond: a planner whose plans are not allowed is told why, and after all its answers the step fails. One that plans
// to plan, again and again, comes to the depth that is allowed and no further.
func (l languageService) planBeyond(t *testing.T) {
	l.script("wide", `{"steps":[{"id":"a","agent":"worker","prompt":"A."},{"id":"b","agent":"worker","prompt":"B."},{"id":"c","agent":"worker","prompt":"C."}]}`)
	l.wantError(t, l.start(t, fmt.Sprintf(delegating, "wide", once), map[string]any{"goal": "much"}), "invalid_output", "it may have 2")
	if n := l.servers["team"].Count("wide"); n != 3 {
		t.Errorf("the planner was asked %d times, not once and twice again", n)
	}

	l.script("deep", `{"steps":[{"id":"deeper","plan":{"agent":"lead","goal":"Deeper.","allow":{"kinds":["agent","plan"],"agents":["worker"],"max_steps":2,"max_depth":2,"max_usd":0.5}}}]}`)
	l.price(t, "deep")
	id := l.start(t, fmt.Sprintf(delegating, "deep", once), map[string]any{"goal": "the ground"})
	l.wantError(t, id, "child_failed", "2 deep")
	_, body := l.get(t, "/v1/runs?parent="+id)
	if page := decode[struct{ Data []struct{ Status string } }](t, body); len(page.Data) != 1 || page.Data[0].Status != "failed" {
		t.Errorf("%s", body)
	}
}

func (l languageService) evaluate(t *testing.T) {
	id := l.start(t, `
name: asking-back
steps:
  - {id: sum, set: {of: "${{ input.a + input.b }}"}}
  - {id: ok, needs: [sum], approval: {title: "Is ${{ steps.sum.output.of }} right?"}}
  - {id: last, needs: [ok], set: {by: "${{ steps.ok.by }}"}}
`, map[string]any{"a": 3, "b": 4})
	a := l.asked(t, id)
	if a.Title != "Is 7 right?" {
		t.Errorf("%+v", a)
	}
	for expression, want := range map[string]string{
		"steps.sum.output.of * input.a": `{"type":"number","value":21}`,
		"steps.ok.status":               `{"type":"string","value":"waiting"}`,
		"has(steps.last.output)":        `{"type":"boolean","value":false}`,
	} {
		status, _, text := l.post(t, "/v1/expressions:evaluate", map[string]any{"run": id, "expression": expression})
		if got := strings.TrimSpace(string(text)); status != http.StatusOK || got != want {
			t.Errorf("%s: %d %s", expression, status, got)
		}
	}
	l.answer(t, a.ID, map[string]any{"choice": "approve"})
	l.wantOutput(t, id, `{"by":"operator"}`)
}
