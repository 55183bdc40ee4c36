package api

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
)

// contracted fails at its first step, whose output has a contract, and goes on with what that gives.
const contracted = `{"spec":"workflow/v1","name":"contracted","contracts":{"verdict":{"type":"object","required":["pass"],"properties":{"pass":{"type":"boolean"}}}},` +
	`"steps":[{"id":"first","set":{"x":1}},{"id":"work","needs":["first"],"tool":"builtin:noop","retry":"none","output":{"contract":"verdict"}},{"id":"after","needs":["work"],"set":{"pass":"${{ steps.work.output.pass }}"}}]}`

func (s *service) status(t fataler, run RunID) RunStatus {
	t.Helper()
	var r Run
	s.send(t, "GET", "/v1/runs/"+run, nil).want(200).json(&r)
	return r.Status
}

func failed(class string) flow.Outcome {
	return flow.Outcome{Failure: &flow.Failure{Class: class, Message: "it broke"}}
}

func TestCancel(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	var accepted RunAccepted
	s.send(t, "POST", "/v1/runs/"+run+"/cancel", `{"reason":"wrong input"}`).want(202).json(&accepted)
	if accepted.Status != RunStatusCancelling || s.status(t, run) != RunStatusCancelling {
		t.Errorf("got %+v", accepted)
	}
	s.send(t, "POST", "/v1/runs/"+run+"/cancel", nil).want(202) // again, and without a body
	s.mem.report(t, run, "work", failed("cancelled"))
	if got := s.status(t, run); got != RunStatusCancelled {
		t.Fatalf("it is %s", got)
	}
	p := s.send(t, "POST", "/v1/runs/"+run+"/cancel", `{}`).wantProblem(409, "run_terminal")
	if p.State != "cancelled" || len(p.Actions) != 0 {
		t.Errorf("got %+v", p)
	}
}

func TestResume(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, contracted).ID
	p := s.send(t, "POST", "/v1/runs/"+run+"/resume", `{}`).wantProblem(409, "run_not_failed")
	if d := cmp.Diff([]string{"cancel"}, p.Actions); d != "" || p.State != "running" {
		t.Errorf("got %+v", p)
	}
	s.mem.report(t, run, "work", failed("server"))
	if got := s.status(t, run); got != RunStatusFailed {
		t.Fatalf("it is %s", got)
	}
	p = s.send(t, "POST", "/v1/runs/"+run+"/cancel", nil).wantProblem(409, "run_terminal")
	if d := cmp.Diff([]string{"resume"}, p.Actions); d != "" || p.State != "failed" {
		t.Errorf("got %+v", p)
	}
	s.send(t, "POST", "/v1/runs/"+run+"/resume", nil).want(202)
	s.mem.report(t, run, "work", flow.Outcome{Output: json.RawMessage(`{"pass":true}`)})
	var r Run
	s.send(t, "GET", "/v1/runs/"+run+"?include=steps", nil).want(200).json(&r)
	if r.Status != RunStatusSucceeded || string(r.Output) != `{"pass":true}` || r.Steps[1].Gen != r.Steps[0].Gen+1 {
		t.Errorf("got %s %s %+v", r.Status, r.Output, r.Steps)
	}
	s.send(t, "POST", "/v1/runs/"+run+"/resume", nil).wantProblem(409, "run_not_failed")
}

func TestResumeWithOutputs(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, contracted).ID
	s.mem.report(t, run, "work", failed("server"))
	path := "/v1/runs/" + run + "/resume"
	for set, pointer := range map[string]string{
		`{"steps.work.output":{"pass":"yes"}}`: "/set/steps.work.output/pass",
		`{"steps.work.output":{}}`:             "/set/steps.work.output",
		`{"steps.none.output":{}}`:             "/set/steps.none.output",
		`{"steps.first.output":{"x":2}}`:       "/set/steps.first.output",
		`{"work":{}}`:                          "/set/work",
		`{"steps.work":{}}`:                    "/set/steps.work",
	} {
		p := s.send(t, "POST", path, `{"set":`+set+`}`).wantProblem(422, "resume_invalid")
		if len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: got %+v, want %s", set, p.Errors, pointer)
		}
	}
	if got := s.status(t, run); got != RunStatusFailed {
		t.Fatalf("a refused resume moved it: %s", got)
	}
	s.send(t, "POST", path, `{"set":{"steps.work.output":{"pass":true}},"reason":"by hand"}`).want(202)
	var r Run
	s.send(t, "GET", "/v1/runs/"+run+"?include=steps", nil).want(200).json(&r)
	if r.Status != RunStatusSucceeded || string(r.Output) != `{"pass":true}` || !r.Steps[1].ByHand {
		t.Errorf("got %+v", r)
	}
}

// A run that was set aside is given back by a resume; nothing of it can be cancelled or set before.
func TestQuarantined(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	id, _ := parseRunID(run)
	s.mem.runs[id].row.Status = flow.RunStatusQuarantined
	if got := s.status(t, run); got != RunStatusQuarantined {
		t.Errorf("shown as %s", got)
	}
	p := s.send(t, "POST", "/v1/runs/"+run+"/cancel", nil).wantProblem(409, "run_quarantined")
	if d := cmp.Diff([]string{"resume"}, p.Actions); d != "" || p.State != "quarantined" {
		t.Errorf("got %+v", p)
	}
	s.send(t, "POST", "/v1/runs/"+run+"/resume", `{"set":{"steps.work.output":{}}}`).wantProblem(409, "run_quarantined")
	s.send(t, "POST", "/v1/runs/"+run+"/resume", `{"reason":"mended"}`).want(202)
	if got := s.status(t, run); got != RunStatusQueued {
		t.Errorf("it is %s", got)
	}
}
