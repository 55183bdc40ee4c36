package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

func TestSubmitAndGet(t *testing.T) {
	s := newService(t, nil)
	a := s.send(t, "POST", "/v1/runs", `{"definition":`+greeting+`,"labels":{"team":"a"},"priority":0,"stakes":"high","input":{"n":1}}`).want(202)
	var accepted RunAccepted
	a.json(&accepted)
	if got := a.header.Get("Location"); got != "/v1/runs/"+accepted.ID || accepted.Links.Self != got {
		t.Errorf("Location %q, links %+v", got, accepted.Links)
	}
	var run Run
	s.send(t, "GET", accepted.Links.Self+"?include=steps,provenance,input", nil).want(200).json(&run)
	if run.Status != RunStatusSucceeded || string(run.Output) != `{"text":"hello"}` || string(run.Input) != `{"n":1}` ||
		run.Labels["team"] != "a" || run.Priority != 0 || run.Stakes != StakesHigh || len(run.Steps) != 1 || run.LastSeq == 0 ||
		run.Progress != (Progress{Settled: 1, Total: 1}) || run.EndedAt.IsZero() || run.Links.Cancel != "" {
		t.Errorf("got %+v", run)
	}
	var short Run
	s.send(t, "GET", accepted.Links.Self, nil).want(200).json(&short)
	if short.Input != nil || short.Steps != nil || string(short.Output) != `{"text":"hello"}` {
		t.Errorf("got %+v", short)
	}
	run.Steps, run.Input, run.Provenance = nil, nil, nil
	if d := cmp.Diff(run, short); d != "" {
		t.Errorf("folded and by its last event a run looks differently:\n%s", d)
	}
}

func TestSubmitByName(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "POST", "/v1/workflows", greeting2("one"), "Content-Type: application/yaml").want(201)
	v1 := s.send(t, "GET", "/v1/workflows/greet", nil).want(200).header.Get("ETag")
	s.send(t, "PUT", "/v1/workflows/greet", greeting2("two"), "Content-Type: application/yaml", "If-Match: "+v1).want(200)
	for name, want := range map[string]string{"greet": "two", "greet@1": "one", "greet@2": "two"} {
		var run Run
		s.send(t, "POST", "/v1/runs", map[string]string{"workflow": name}, "Prefer: wait=5").want(200).json(&run)
		if string(run.Output) != fmt.Sprintf(`{"text":%q}`, want) || run.Version == 0 {
			t.Errorf("%s: got %s of version %d", name, run.Output, run.Version)
		}
	}
	s.send(t, "POST", "/v1/runs", `{"workflow":"greet@3"}`).wantProblem(404, "workflow_not_found")
	var page RunPage
	if s.send(t, "GET", "/v1/runs?workflow=greet&status=succeeded", nil).want(200).json(&page); len(page.Data) != 3 {
		t.Errorf("listed %d", len(page.Data))
	}
}

// greeting2 is a definition as YAML whose result is the word.
func greeting2(word string) string {
	return fmt.Sprintf("spec: workflow/v1\nname: greet\nsteps:\n  - id: hello\n    set: {text: %s}\n", word)
}

func TestWait(t *testing.T) {
	s := newService(t, nil)
	a := s.send(t, "POST", "/v1/runs", submitGreeting, "Prefer: respond-async, wait=100").want(200)
	if a.header.Get("Preference-Applied") != "wait=60" || a.header.Get("ETag") == "" || a.header.Get("Location") == "" {
		t.Errorf("got %v", a.header)
	}
	s.send(t, "POST", "/v1/runs", `{"definition":`+oneTool+`}`, "Prefer: wait=0").want(202)

	var group sync.WaitGroup
	var done *answered
	group.Go(func() { done = s.send(t, "POST", "/v1/runs", `{"definition":`+oneTool+`}`, "Prefer: wait=30") })
	id := s.awaited(t)
	s.mem.report(t, id, "work", flow.Outcome{Output: json.RawMessage(`{"y":2}`)})
	group.Wait()
	var run Run
	if done.want(200).json(&run); run.ID != id || run.Status != RunStatusSucceeded {
		t.Errorf("got %+v", run)
	}
}

// awaited is the run that a request waits for.
func (s *service) awaited(t testing.TB) RunID {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		s.mem.mu.Lock()
		for id := range s.mem.watchers {
			s.mem.mu.Unlock()
			return formatRunID(id)
		}
		s.mem.mu.Unlock()
	}
	t.Fatal("nobody waits")
	return ""
}

// A drain cuts waits short: the run is durable, and that is the answer.
func TestDrainCutsWaits(t *testing.T) {
	s := newService(t, nil)
	var group sync.WaitGroup
	var done *answered
	group.Go(func() { done = s.send(t, "POST", "/v1/runs", `{"definition":`+oneTool+`}`, "Prefer: wait=60") })
	s.awaited(t)
	s.Drain()
	group.Wait()
	done.want(http.StatusAccepted)
}

func TestNotModified(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	tag := s.send(t, "GET", "/v1/runs/"+run, nil).want(200).header.Get("ETag")
	if a := s.send(t, "GET", "/v1/runs/"+run, nil, "If-None-Match: W/"+tag).want(304); len(a.body) > 0 || a.header.Get("ETag") != tag {
		t.Errorf("got %s %v", a.body, a.header)
	}
	s.send(t, "GET", "/v1/runs/"+run+"?include=steps", nil, "If-None-Match: "+tag).want(200)
	s.mem.report(t, run, "work", flow.Outcome{Output: json.RawMessage(`{}`)})
	s.send(t, "GET", "/v1/runs/"+run, nil, "If-None-Match: "+tag).want(200)
}

func TestListPages(t *testing.T) {
	s := newService(t, nil)
	var want []RunID
	for range 7 {
		want = append([]RunID{s.submit(t, greeting).ID}, want...)
	}
	var got []RunID
	for path := "/v1/runs?limit=3"; path != ""; {
		var page RunPage
		s.send(t, "GET", path, nil).want(200).json(&page)
		for _, r := range page.Data {
			got = append(got, r.ID)
		}
		path = ""
		if page.NextCursor != "" {
			path = "/v1/runs?limit=3&cursor=" + page.NextCursor
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var none RunPage
	if s.send(t, "GET", "/v1/runs?status=failed", nil).want(200).json(&none); none.Data == nil || len(none.Data) != 0 {
		t.Errorf("got %+v", none)
	}
}

// Money, tokens and the mark of simulation are in every view of a run.
func TestMoneyAndSimulation(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	calls := []usage.Call{
		{Provider: "p", Model: "m", Try: 1, Class: "rate_limited", Unpriced: true, Simulated: true},
		{Provider: "p", Model: "m", Try: 2, Tokens: usage.Tokens{Input: 800, Output: 120}, Cost: 49_000_000, Simulated: true},
	}
	s.mem.report(t, run, "work", flow.Outcome{Output: json.RawMessage(`{}`), Calls: calls})
	cost := Cost{USD: "0.049", NanoUSD: 49_000_000, UnpricedCalls: 1}

	var shown Run
	s.send(t, "GET", "/v1/runs/"+run, nil).want(200).json(&shown)
	var step Step
	s.send(t, "GET", "/v1/runs/"+run+"/steps/work", nil).want(200).json(&step)
	var list RunPage
	s.send(t, "GET", "/v1/runs", nil).want(200).json(&list)
	var events EventPage
	s.send(t, "GET", "/v1/runs/"+run+"/events", nil).want(200).json(&events)
	for name, got := range map[string]struct {
		Cost      Cost
		Simulated bool
	}{
		"run": {shown.Cost, shown.Simulated}, "step": {step.Cost, step.Simulated}, "list": {list.Data[0].Cost, list.Data[0].Simulated},
	} {
		if got.Cost != cost || !got.Simulated {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	billed := 0
	for _, e := range events.Data {
		if e.Cost == cost && e.Simulated && e.Usage.Calls == 2 && e.Usage.Tokens.Input == 800 {
			billed++
		}
	}
	if billed != 1 || len(step.Calls) != 2 || step.Calls[0].Outcome != "rate_limited" || step.Calls[1].Outcome != "ok" || shown.Usage.SimulatedCalls != 2 {
		t.Errorf("%d events, calls %+v", billed, step.Calls)
	}
}

func TestSteps(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	var page StepPage
	s.send(t, "GET", "/v1/runs/"+run+"/steps", nil).want(200).json(&page)
	var got []string
	for _, step := range page.Data {
		got = append(got, step.Path+" "+string(step.Status))
	}
	if d := cmp.Diff([]string{"work running", "after pending"}, got); d != "" {
		t.Error(d)
	}
	p := s.send(t, "GET", "/v1/runs/"+run+"/steps/wrok", nil).wantProblem(404, "step_not_found")
	if len(p.Errors) != 1 || p.Errors[0].Suggest != "work" {
		t.Errorf("got %+v", p.Errors)
	}
	var live Run
	s.send(t, "GET", "/v1/runs/"+run+"?include=steps", nil).want(200).json(&live)
	if d := cmp.Diff([]string{"work"}, live.Stage); d != "" || live.Links.Cancel == "" || live.Progress.Total != 2 || live.Progress.Settled != 0 {
		t.Errorf("got %+v", live)
	}
}

// A run whose log is past its retention is still shown by its row.
func TestRunWithoutEvents(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, greeting).ID
	id, _ := parseRunID(run)
	s.mem.runs[id].log = nil
	var shown Run
	s.send(t, "GET", "/v1/runs/"+run, nil).want(200).json(&shown)
	if shown.Status != RunStatusSucceeded || shown.Output != nil {
		t.Errorf("got %+v", shown)
	}
	s.send(t, "GET", "/v1/runs/"+run+"/steps", nil).wantProblem(404, "events_not_found")
	s.send(t, "GET", "/v1/runs/"+run+"/events", nil).wantProblem(404, "events_not_found")
}
