package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// waiting waits for a signal and gives its data back.
const waiting = `{"spec":"workflow/v1","name":"waiting","steps":[{"id":"paid","wait":{"signal":{"name":"payment"}}},{"id":"after","set":{"amount":"${{ steps.paid.output.amount }}"}}]}`

func TestSignalRun(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, waiting).ID
	var r Run
	s.send(t, "GET", "/v1/runs/"+run, nil).want(http.StatusOK).json(&r)
	if w := r.WaitingFor; r.Status != RunStatusWaiting || w.Kind != flow.WaitingSignal || w.Step != "paid" || w.Signal != "payment" || !strings.Contains(w.Sentence, "payment") {
		t.Errorf("got %s %+v", r.Status, w)
	}
	var step Step
	s.send(t, "GET", "/v1/runs/"+run+"/steps/paid", nil).want(http.StatusOK).json(&step)
	if step.Status != StepStatusWaiting || step.Waiting.For != flow.WaitingSignal || step.Waiting.Signal != "payment" {
		t.Errorf("got %+v", step)
	}
	var accepted RunAccepted
	s.send(t, "POST", "/v1/runs/"+run+"/signals/payment", `{"id":"order-1","data":{"amount":12}}`).want(http.StatusAccepted).json(&accepted)
	if accepted.ID != run {
		t.Errorf("got %+v", accepted)
	}
	s.send(t, "GET", "/v1/runs/"+run, nil).want(http.StatusOK).json(&r)
	if string(r.Output) != `{"amount":12}` {
		t.Errorf("got %s %s", r.Status, r.Output)
	}
	p := s.send(t, "POST", "/v1/runs/"+run+"/signals/payment", nil).wantProblem(http.StatusConflict, "run_terminal")
	if p.State != "succeeded" {
		t.Errorf("got %+v", p)
	}
}

func TestSignalIsChecked(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, waiting).ID
	large := `{"data":"` + strings.Repeat("x", workflow.OutputBytesMax) + `"}`
	for _, path := range []string{"/v1/runs/" + run + "/signals/", "/v1/signals/"} {
		p := s.send(t, "POST", path+"payment", large).wantProblem(http.StatusUnprocessableEntity, "signal_too_large")
		if p.Errors[0].Pointer != "/data" || !strings.Contains(p.Detail, "65536") {
			t.Errorf("got %+v", p)
		}
		s.send(t, "POST", path+"payment", `{"dta":1}`).wantProblem(http.StatusBadRequest, "unknown_field")
		s.send(t, "POST", path+"-payment", `{}`).wantProblem(http.StatusBadRequest, "invalid_parameter")
	}
}

func TestSignalAll(t *testing.T) {
	s := newService(t, nil)
	s.submit(t, waiting)
	s.submit(t, waiting)
	s.submit(t, oneTool)
	send := func(path, body string) SignalSent {
		t.Helper()
		var sent SignalSent
		s.send(t, "POST", path, body).want(http.StatusAccepted).json(&sent)
		return sent
	}
	if sent := send("/v1/signals/payment", `{"id":"o1","data":1}`); sent.Runs != 2 || sent.ID != "o1" {
		t.Errorf("got %+v", sent)
	}
	if sent := send("/v1/signals/refund", `{}`); sent.Runs != 0 || sent.ID == "" {
		t.Errorf("got %+v", sent)
	}
	if n := s.mem.looked(); n != 2 {
		t.Errorf("the node was told %d times to look for messages", n)
	}
}
