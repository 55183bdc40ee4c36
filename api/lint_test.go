package api

import (
	"net/http"
	"strings"
	"testing"
)

// careless spends without a limit: the lint has something to say of it.
const careless = `{"spec":"workflow/v1","name":"careless","agents":{"writer":{"model":"gpt-4o","instructions":"Write."}},"steps":[{"id":"write","agent":"writer","prompt":"Tides"}]}`

func codesOf(list []Issue) string {
	codes := make([]string, len(list))
	for i, issue := range list {
		codes[i] = issue.Code
	}
	return strings.Join(codes, " ")
}

func TestValidateWarnsAndEstimates(t *testing.T) {
	s := newService(t, withModels(t))
	var v Validation
	s.send(t, "POST", "/v1/workflows:validate?per_day=500", `{"definition":`+careless+`}`).want(http.StatusOK).json(&v)
	if !strings.Contains(codesOf(v.Warnings), "no_budget") {
		t.Errorf("got %+v", v.Warnings)
	}
	for _, w := range v.Warnings {
		if !strings.HasPrefix(w.Pointer, "/definition") || w.Line != 1 || w.Col < len(`{"definition":`) || w.Suggest == "" || w.Detail == "" {
			t.Errorf("got %+v", w)
		}
	}
	e := v.Estimate
	if e.Calls.Low != 1 || e.CallsMax < e.Calls.High || e.Cost.Low.NanoUSD <= 0 || e.Cost.High.NanoUSD < e.Cost.Low.NanoUSD ||
		len(e.Steps) != 1 || e.Steps[0].Path != "write" || e.CriticalPath.Steps.Low != 1 || len(e.Unpriced) != 0 {
		t.Errorf("got %+v", e)
	}
	if e.Month.PerDay != 500 || e.Month.Cost.High.NanoUSD != e.Cost.High.NanoUSD*500*30 {
		t.Errorf("got %+v", e.Month)
	}
	s.send(t, "POST", "/v1/workflows:validate", "spec: workflow/v1\nname: x\nsteps:\n  - {id: a, set: {x: 1}}\n", "Content-Type: application/yaml").want(http.StatusOK).json(&v)
	s.send(t, "POST", "/v1/workflows:validate?per_day=0", `{"definition":`+careless+`}`).wantProblem(http.StatusBadRequest, "invalid_parameter")
}

// With strict, what would have been a warning is a problem, and nothing is published.
func TestStrictLint(t *testing.T) {
	s := newService(t, nil)
	body := `{"definition":` + careless + `}`
	for _, r := range []struct{ method, path string }{{"POST", "/v1/workflows:validate"}, {"POST", "/v1/workflows"}, {"PUT", "/v1/workflows/careless"}} {
		p := s.send(t, r.method, r.path+"?strict=true", body).wantProblem(http.StatusUnprocessableEntity, "lint_warnings")
		if !strings.Contains(codesOf(p.Errors), "no_budget") || !strings.HasPrefix(p.Errors[0].Pointer, "/definition") {
			t.Errorf("%s: got %+v", r.path, p.Errors)
		}
	}
	s.send(t, "GET", "/v1/workflows/careless", nil).wantProblem(http.StatusNotFound, "workflow_not_found")
	var w Workflow
	s.send(t, "POST", "/v1/workflows", body).want(http.StatusCreated).json(&w)
	if !strings.Contains(codesOf(w.Warnings), "no_budget") {
		t.Errorf("got %+v", w.Warnings)
	}
	s.send(t, "PUT", "/v1/workflows/careless", body, "If-Match: *").want(http.StatusOK).json(&w)
	if len(w.Warnings) == 0 {
		t.Error("the second time says nothing")
	}
	if s.send(t, "GET", "/v1/workflows/careless", nil).want(http.StatusOK).json(&w); w.Definition == nil {
		t.Errorf("got %+v", w)
	}
	s.send(t, "POST", "/v1/workflows?strict=true", `{"definition":`+greeting+`}`).want(http.StatusCreated)
}

func TestDryRun(t *testing.T) {
	s := newService(t, func(c *Config) { withModels(t)(c); c.Templates = oneTemplate() })
	const filled = `{"spec":"workflow/v1","name":"filled","input":{"type":"object","properties":{"who":{"type":"string"},"n":{"type":"integer","default":3}}},"steps":[{"id":"hello","set":{"text":"${{ input.n }}"}}]}`
	var d DryRun
	a := s.send(t, "POST", "/v1/runs?dry_run=true&per_day=10", `{"definition":`+filled+`,"input":{"who":"x"}}`).want(http.StatusOK)
	a.json(&d)
	if string(d.Input) != `{"n":3,"who":"x"}` || d.Graph.Workflow != "filled" || len(d.Graph.Nodes) != 1 || d.Estimate.Month.PerDay != 10 || d.Warnings == nil {
		t.Errorf("got %+v", d)
	}
	if a.header.Get("Location") != "" || a.header.Get("ETag") != "" {
		t.Errorf("it says where a run is: %v", a.header)
	}
	s.send(t, "POST", "/v1/runs?dry_run=true", `{"template":"loop","input":{"who":"x"}}`).want(http.StatusOK)
	s.send(t, "POST", "/v1/runs?dry_run=true", `{"template":"loop","input":{}}`).want(http.StatusUnprocessableEntity)
	s.send(t, "POST", "/v1/runs?dry_run=true", `{"definition":{"spec":"workflow/v1"}}`).wantProblem(http.StatusUnprocessableEntity, "workflow_invalid")
	s.send(t, "POST", "/v1/runs?dry_run=true", `{"workflow":"nobody"}`).wantProblem(http.StatusNotFound, "workflow_not_found")
	if len(s.mem.runs) != 0 || len(s.mem.definitions) != 0 {
		t.Errorf("%d runs and %d definitions were stored", len(s.mem.runs), len(s.mem.definitions))
	}
	if s.send(t, "POST", "/v1/runs?dry_run=true", `{"definition":`+careless+`}`).want(http.StatusOK).json(&d); !strings.HasPrefix(d.Warnings[0].Pointer, "/definition") {
		t.Errorf("got %+v", d.Warnings)
	}
}
