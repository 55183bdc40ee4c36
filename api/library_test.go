package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// outer runs the published workflow greet.
const outer = `{"spec":"workflow/v1","name":"outer","steps":[{"id":"inner","workflow":{"name":"%s"}}]}`

func (s *service) hashOf(t fataler, definition string) string {
	t.Helper()
	var v Validation
	s.send(t, "POST", "/v1/workflows:validate", `{"definition":`+definition+`}`).want(http.StatusOK).json(&v)
	return v.Hash
}

// A definition takes the workflows that it names as they are published at that time, and carries them.
func TestWorkflowsInWorkflows(t *testing.T) {
	s := newService(t, nil)
	newest, pinned := fmt.Sprintf(outer, "greet"), fmt.Sprintf(outer, "greet@1")
	p := s.send(t, "POST", "/v1/workflows:validate", `{"definition":`+newest+`}`).wantProblem(http.StatusUnprocessableEntity, "workflow_invalid")
	if i := p.Errors[0]; i.Pointer != "/definition/steps/0/workflow/name" || !strings.Contains(i.Detail, "greet") {
		t.Errorf("got %+v", i)
	}
	s.send(t, "POST", "/v1/workflows", `{"definition":`+greeting+`}`).want(http.StatusCreated)
	before := [2]string{s.hashOf(t, newest), s.hashOf(t, pinned)}
	if again := s.hashOf(t, newest); again != before[0] {
		t.Errorf("the same text is %s, then %s", before[0], again)
	}
	run := s.submit(t, newest).ID
	second := strings.Replace(greeting, "hello\"}", "good day\"}", 1)
	s.send(t, "PUT", "/v1/workflows/greet", `{"definition":`+second+`}`, "If-Match: *").want(http.StatusOK)
	after := [2]string{s.hashOf(t, newest), s.hashOf(t, pinned)}
	if after[0] == before[0] || after[1] != before[1] {
		t.Errorf("was %v, is %v", before, after)
	}
	var r Run
	if s.send(t, "GET", "/v1/runs/"+run+"?include=steps", nil).want(http.StatusOK).json(&r); r.Hash != before[0] {
		t.Errorf("the run moved from %s to %s", before[0], r.Hash)
	}
	if step := r.Steps[0]; step.Status != StepStatusWaiting || step.Child == "" || step.Waiting.Run != step.Child || r.WaitingFor.Run != step.Child || r.WaitingFor.Kind != "child" {
		t.Errorf("got %+v, %+v", step, r.WaitingFor)
	}
	s.send(t, "POST", "/v1/workflows", `{"definition":`+pinned+`}`).want(http.StatusCreated)
	s.send(t, "GET", "/v1/workflows/outer/graph", nil).want(http.StatusOK)
}

// What a definition runs is stored with it: a run of it is pinned to that.
func TestChildrenAreStored(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "POST", "/v1/workflows", `{"definition":`+greeting+`}`).want(http.StatusCreated)
	clear(s.mem.definitions)
	s.submit(t, fmt.Sprintf(outer, "greet"))
	if len(s.mem.definitions) != 2 {
		t.Errorf("%d definitions are stored", len(s.mem.definitions))
	}
}

func TestTooManyWorkflowsAreNamed(t *testing.T) {
	s := newService(t, nil)
	var steps []string
	for i := range namedWorkflowsMax + 1 {
		steps = append(steps, fmt.Sprintf(`{"id":"s%d","workflow":{"name":"w%d"}}`, i, i))
	}
	definition := `{"spec":"workflow/v1","name":"wide","steps":[` + strings.Join(steps, ",") + `]}`
	p := s.send(t, "POST", "/v1/workflows:validate", `{"definition":`+definition+`}`).wantProblem(http.StatusUnprocessableEntity, "limit")
	if !strings.Contains(p.Detail, "101 workflows; the limit is 100") {
		t.Errorf("got %s", p.Detail)
	}
}
