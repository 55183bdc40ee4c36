package api

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/fault"
)

const submitGreeting = `{"definition":` + greeting + `}`

func TestSameKeySameAnswer(t *testing.T) {
	s := newService(t, nil)
	first := s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202)
	again := s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202)
	if d := cmp.Diff(string(first.body), string(again.body)); d != "" {
		t.Errorf("the answers differ:\n%s", d)
	}
	if again.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" {
		t.Error("the replay is not marked, or the first answer is")
	}
	for _, name := range []string{"Location", "Content-Type"} {
		if first.header.Get(name) == "" || first.header.Get(name) != again.header.Get(name) {
			t.Errorf("%s: %q, then %q", name, first.header.Get(name), again.header.Get(name))
		}
	}
	if len(s.mem.runs) != 1 {
		t.Errorf("%d runs", len(s.mem.runs))
	}
}

func TestSameKeyOtherRequest(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202)
	s.send(t, "POST", "/v1/runs", `{"definition":`+oneTool+`}`, "Idempotency-Key: k1").wantProblem(422, "idempotency_key_reused")
	run := s.submit(t, oneTool).ID
	s.send(t, "POST", "/v1/runs/"+run+"/cancel", `{}`, "Idempotency-Key: k2").want(202)
	other := s.submit(t, oneTool).ID
	s.send(t, "POST", "/v1/runs/"+other+"/cancel", `{}`, "Idempotency-Key: k2").wantProblem(422, "idempotency_key_reused")
}

// Of many at once one makes the run; the others are given it as soon as it is durable, and then find the same answer.
func TestSameKeyAtOnce(t *testing.T) {
	s := newService(t, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	s.mem.beforeReply = func() {
		if !held.Swap(true) {
			close(reached)
			<-release
		}
	}
	var first *answered
	var group sync.WaitGroup
	group.Go(func() { first = s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1") })
	<-reached
	var early, made RunAccepted
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202).json(&early)
	close(release)
	group.Wait()
	if first.want(202).json(&made); made.ID != early.ID {
		t.Errorf("%s and %s", early.ID, made.ID)
	}
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202)
	if len(s.mem.runs) != 1 {
		t.Errorf("%d runs", len(s.mem.runs))
	}
}

// A refused request leaves its key free: it may be mended and sent again.
func TestRefusedRequestFreesItsKey(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "POST", "/v1/runs", `{"workflow":"greet"}`, "Idempotency-Key: k1").wantProblem(404, "workflow_not_found")
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202)

	s.mem.submitErr = fault.New(fault.KindUnavailable, "draining", "this node is shutting down")
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k2").wantProblem(503, "draining")
	s.mem.submitErr = nil
	if a := s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k2").want(202); a.header.Get("Idempotent-Replayed") != "" {
		t.Error("a refusal was kept")
	}
}

// The run is made but the answer to its commit is lost: who repeats the request is given that very run, at once.
func TestLostAnswerGivesOneRun(t *testing.T) {
	s := newService(t, nil)
	s.mem.submitLost = errors.New("the connection broke")
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").wantProblem(500, "outcome_unknown")
	s.mem.submitLost = nil
	var run RunAccepted
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202).json(&run)
	if len(s.mem.runs) != 1 {
		t.Fatalf("%d runs", len(s.mem.runs))
	}
	for id := range s.mem.runs {
		if formatRunID(id) != run.ID {
			t.Errorf("answered %s, made %s", run.ID, formatRunID(id))
		}
	}
}

// The run of a claim that came to nothing is made when its key is claimed again, under the id that was reserved.
func TestReservedRunIsMadeLater(t *testing.T) {
	s := newService(t, nil)
	s.mem.submitErr = errors.New("killed before the commit")
	s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").wantProblem(500, "outcome_unknown")
	s.mem.submitErr = nil
	if p := s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").wantProblem(409, "idempotency_in_progress"); !p.Retryable || p.RetryAfter != 1 {
		t.Errorf("got %+v", p)
	}
	var reserved string
	for _, e := range s.mem.keys {
		e.stale, reserved = true, formatRunID(e.claim.Run)
	}
	var run RunAccepted
	if s.send(t, "POST", "/v1/runs", submitGreeting, "Idempotency-Key: k1").want(202).json(&run); run.ID != reserved {
		t.Errorf("made %s, reserved was %s", run.ID, reserved)
	}
}

func TestKeysOnEveryPost(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "POST", "/v1/workflows", `{"definition":`+greeting+`}`, "Idempotency-Key: a").want(201)
	again := s.send(t, "POST", "/v1/workflows", `{"definition":`+greeting+`}`, "Idempotency-Key: a").want(201)
	if again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("ETag") == "" {
		t.Errorf("got %v", again.header)
	}
	for _, r := range routes {
		if keyed := s.operations[r.method+" "+r.path].keyed; keyed != (r.method == http.MethodPost && !speaksOpenAI(r.path)) {
			t.Errorf("%s %s: keyed is %v", r.method, r.path, keyed)
		}
	}
}
