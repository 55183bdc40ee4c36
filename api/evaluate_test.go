package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
)

// nested has a map in a loop, whose bodies have names of their own. Its first tool call stays open.
const nested = `{"spec":"workflow/v1","name":"nested","input":{"type":"object","properties":{"parts":{"type":"array","items":{"type":"string"}}}},"steps":[` +
	`{"id":"greet","set":{"text":"hello ${{ input.parts[0] }}"}},` +
	`{"id":"again","needs":["greet"],"loop":{"max_iterations":2,"until":"output[0] == null","steps":[` +
	`{"id":"each","map":{"items":"input.parts","as":"part","max_items":3,"steps":[{"id":"make","tool":"builtin:noop","retry":"none"}]}}]}}]}`

func (s *service) submitNested(t fataler) RunID {
	t.Helper()
	var run RunAccepted
	s.send(t, "POST", "/v1/runs", `{"definition":`+nested+`,"input":{"parts":["a","b"]}}`).want(http.StatusAccepted).json(&run)
	return run.ID
}

func TestEvaluateExpression(t *testing.T) {
	s := newService(t, nil)
	run := s.submitNested(t)
	for body, want := range map[string]string{
		`{"expression":"1 + 1"}`:                       `{"value":2,"type":"number"}`,
		`{"expression":"input.n > 2","input":{"n":3}}`: `{"value":true,"type":"boolean"}`,
		`{"template":{"a":"x ${{ steps.draft.output.text }}"},"steps":{"draft":{"output":{"text":"y"}}}}`: `{"value":{"a":"x y"},"type":"object"}`,
		`{"expression":"steps.draft.?output.?score.orValue(5)","steps":{"draft":{"status":"failed"}}}`:    `{"value":5,"type":"number"}`,
		`{"expression":"output.size()","with":{"output":["a","b"]}}`:                                      `{"value":2,"type":"number"}`,
		`{"expression":"null"}`: `{"value":null,"type":"null"}`,

		`{"run":"` + run + `","expression":"steps.greet.output.text"}`:                                                                                    `{"value":"hello a","type":"string"}`,
		`{"run":"` + run + `","expression":"run.workflow + ' ' + input.parts[1]"}`:                                                                        `{"value":"nested b","type":"string"}`,
		`{"run":"` + run + `","expression":"steps.greet.output","steps":{"greet":{"output":[1]}}}`:                                                        `{"value":[1],"type":"array"}`,
		`{"run":"` + run + `","expression":"input","input":7}`:                                                                                            `{"value":7,"type":"number"}`,
		`{"run":"` + run + `","at":"again.1.each.1.make","template":"${{ iter.number }} ${{ item }} ${{ index }} ${{ part }} ${{ steps.greet.status }}"}`: `{"value":"1 b 1 b succeeded","type":"string"}`,
	} {
		if got := strings.TrimSpace(string(s.send(t, "POST", "/v1/expressions:evaluate", body).want(http.StatusOK).body)); got != want && !sameJSON(t, got, want) {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
}

// What cannot be evaluated is told with a pointer into what was sent, a column in the expression, and what may be meant.
func TestEvaluateExpressionRefuses(t *testing.T) {
	s := newService(t, nil)
	run := s.submitNested(t)
	for body, want := range map[string]Issue{
		`{"expression":"steps.draf.output","steps":{"draft":{}}}`: {Pointer: "/expression", Code: "unknown_step", Col: 1, Suggest: "draft"},
		`{"expression":"item","run":"` + run + `"}`:               {Pointer: "/expression", Code: "unknown_name", Col: 1},
		`{"template":{"a":["${{ 1 + }}"]}}`:                       {Pointer: "/template/a/0", Code: "expression_syntax"},
		`{"expression":"input.x","input":{}}`:                     {Pointer: "/expression", Code: "evaluation_failed"},
		`{"expression":"1","template":1}`:                         {Pointer: "/expression", Code: "expression_or_template"},
		`{}`:                                                      {Pointer: "/expression", Code: "expression_or_template"},
		`{"expression":"1","with":{"input":1}}`:                   {Pointer: "/with/input", Code: "invalid_name"},
		`{"expression":"1","steps":{"a":7}}`:                      {Pointer: "/steps/a", Code: "wrong_type"},
	} {
		p := s.send(t, "POST", "/v1/expressions:evaluate", body).want(http.StatusUnprocessableEntity).problem()
		if len(p.Errors) != 1 {
			t.Fatalf("%s: got %+v", body, p)
		}
		got := p.Errors[0]
		if got.Pointer != want.Pointer || got.Code != want.Code || want.Col > 0 && got.Col != want.Col || want.Suggest != "" && got.Suggest != want.Suggest {
			t.Errorf("%s: got %+v", body, got)
		}
	}
	p := s.send(t, "POST", "/v1/expressions:evaluate", `{"run":"`+run+`","at":"again.1.each.7.make","expression":"item"}`).wantProblem(http.StatusNotFound, "step_not_found")
	if p.Errors[0].Pointer != "/at" || !strings.HasPrefix(p.Errors[0].Suggest, "again.1.each.") {
		t.Errorf("got %+v", p.Errors)
	}
	s.send(t, "POST", "/v1/expressions:evaluate", `{"at":"again","expression":"1"}`).wantProblem(http.StatusBadRequest, "run_missing")
}

// To try an expression changes nothing in the run.
func TestEvaluateChangesNothing(t *testing.T) {
	s := newService(t, nil)
	run := s.submitNested(t)
	before := s.send(t, "GET", "/v1/runs/"+run, nil).header.Get("ETag")
	s.send(t, "POST", "/v1/expressions:evaluate", `{"run":"`+run+`","expression":"run.cost_usd"}`).want(http.StatusOK)
	if after := s.send(t, "GET", "/v1/runs/"+run, nil).header.Get("ETag"); before != after {
		t.Errorf("was %s, is %s", before, after)
	}
	s.mem.report(t, run, "again.1.each.0.make", flow.Outcome{Output: []byte("null")})
}
