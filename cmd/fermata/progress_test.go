package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/api/client"
)

var morning = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)

// play makes the events of a small run: one step that is retried, one that is skipped, one that fails, and a resume.
func play() []client.Event {
	at := func(ms int, kind, step, data string) client.Event {
		return client.Event{At: morning.Add(time.Duration(ms) * time.Millisecond), Kind: kind, Step: step, Data: json.RawMessage(data), Attempt: 1}
	}
	paid := at(1200, "step_succeeded", "draft", `{"output":{},"confidence":82}`)
	paid.Usage = client.Usage{Calls: 1, Tokens: client.Tokens{Input: 1000, Output: 234}}
	paid.Cost, paid.Simulated = client.Cost{NanoUSD: 12_300_000}, true
	again := at(900, "step_started", "draft", "")
	again.Attempt = 2
	return []client.Event{
		at(0, "run_submitted", "", `{"workflow":"w"}`),
		at(1, "step_started", "draft", ""),
		at(400, "attempt_failed", "draft", `{"class":"rate_limited","message":"slow\ndown","retry_at":"2026-03-01T09:30:00.9Z"}`),
		again, paid,
		at(1201, "step_skipped", "review", `{"reason":"when"}`),
		at(1202, "step_started", "publish", ""),
		at(1300, "step_failed", "publish", `{"class":"tool_error","message":"no"}`),
		at(1301, "run_failing", "", `{"class":"tool_error","message":"no","step":"publish"}`),
		at(1302, "run_failed", "", `{"error":{"class":"tool_error","message":"no","step":"publish"}}`),
		at(61_000, "run_resumed", "", `{"set":{"publish":{}},"reason":"by hand"}`),
		at(61_500, "run_succeeded", "", `{"output":1}`),
	}
}

func TestProgressInLines(t *testing.T) {
	p := newProgress("run_1")
	var lines []string
	for i, e := range play() {
		e.Seq = int32(i + 1)
		if line := p.apply(&e); line != "" {
			_, line, _ = strings.Cut(line, "  ") // the local time
			lines = append(lines, line)
		}
	}
	want := `run              submitted  run_1
draft            started
draft            retrying   rate_limited: slow down · again in 500ms
draft            started    attempt 2
draft            succeeded  1.2s · 1,234 tokens, $0.0123, simulated · confidence 82
review           skipped    its condition did not hold
publish          started
publish          failed     98ms · tool_error: no
run              failing    at publish: tool_error
run              failed     in 1.3s · 1,234 tokens, $0.0123, simulated · at publish: tool_error: no
run              resumed    by hand
run              succeeded  in 1m01s · 1,234 tokens, $0.0123, simulated`
	if diff := cmp.Diff(want, strings.Join(lines, "\n")); diff != "" {
		t.Error(diff)
	}
	if p.settled() != 3 || p.status != "succeeded" {
		t.Errorf("%d settled, %s", p.settled(), p.status)
	}
}

// An event this version does not know must not stop a watcher.
func TestProgressOfUnknownEvents(t *testing.T) {
	p := newProgress("run_1")
	for _, e := range []client.Event{{Kind: "budget_raised"}, {Kind: "gate_passed", Step: "x"}, {Kind: "step_failed", Step: "x", Data: json.RawMessage(`[1]`)}} {
		p.apply(&e)
	}
}

func TestLiveDrawing(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(nil, &out, &bytes.Buffer{})
	s.width = func() int { return 60 }
	p := newProgress("run_1")
	p.plan([]client.Step{{Path: "draft"}, {Path: "review"}, {Path: "publish"}})
	l := &live{s: s}
	for i, e := range play() {
		if i == 8 {
			break
		}
		p.apply(&e)
		l.draw(p, morning.Add(1300*time.Millisecond))
	}
	screens := strings.Split(out.String(), "\x1b[J")
	got := strings.NewReplacer("\r\x1b[2K", "", "\x1b[4A", "<up 4>\n").Replace(screens[len(screens)-2])
	want := `<up 4>
 ✓ draft    succeeded  1.2s · attempt 2 · 1,234 tokens, $0…
 ◌ review   skipped    its condition did not hold
 ✕ publish  failed     98ms · tool_error: no
 [██████████] running 3/3 steps · 1.3s · 1,234 tokens, $0.…
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, line := range strings.Split(got, "\n") {
		if n := len([]rune(line)); n > 60 {
			t.Errorf("a line of %d on a terminal of 60: %s", n, line)
		}
	}
}

func TestManyStepsAreFolded(t *testing.T) {
	steps := []*stepProgress{{path: "each", status: "running"}, {path: "after", status: "pending"}, {path: "before", status: "succeeded"}}
	for i := range 200 {
		status := "succeeded"
		switch {
		case i == 150:
			status = "failed"
		case i == 151:
			status = "waiting"
		case i >= 180:
			status = "running"
		}
		steps = append(steps, &stepProgress{path: fmt.Sprintf("each.%d.work", i), status: status})
	}
	shown, folded := fold(steps)
	var paths []string
	for _, s := range shown {
		paths = append(paths, s.path)
	}
	want := []string{
		"each", "after", "before", "each.150.work", "each.151.work",
		"each.180.work", "each.181.work", "each.182.work", "each.183.work", "each.184.work", "each.185.work",
	}
	if diff := cmp.Diff(want, paths); diff != "" || folded != "178 succeeded, 14 running" {
		t.Errorf("folded %q\n%s", folded, diff)
	}
}

// A map counts its items and what they cost; steps of the cases that were not chosen are gone when it has ended.
func TestProgressInsideAMap(t *testing.T) {
	p := newProgress("run_1")
	p.plan([]client.Step{{Path: "each"}, {Path: "each.0.now"}, {Path: "each.0.later"}})
	at := func(kind, step, data string) client.Event {
		return client.Event{At: morning, Kind: kind, Step: step, Data: json.RawMessage(data), Attempt: 1}
	}
	paid := at("step_succeeded", "each.0.now", `{"output":1}`)
	paid.Usage, paid.Cost = client.Usage{Calls: 1, Tokens: client.Tokens{Input: 100}}, client.Cost{NanoUSD: 1_000_000}
	for _, e := range []client.Event{
		at("run_submitted", "", ""), at("step_started", "each", `{"items":[1,2],"count":2}`), at("step_started", "each.0.now", ""), paid,
		at("item_ended", "each", `{"item":0}`), at("item_ended", "each", `{"item":1,"failure":{"class":"timeout","message":"slow"}}`),
	} {
		p.apply(&e)
	}
	each := p.byPath["each"]
	if got := each.inside.String() + " · " + each.spent.String(); got != "2 of 2 items, 1 failed · 100 tokens, $0.001" {
		t.Errorf("got %q", got)
	}
	done := at("step_succeeded", "each", `{"output":null}`)
	p.apply(&done)
	if len(p.steps) != 2 || p.settled() != 2 {
		t.Errorf("%d steps, %d settled", len(p.steps), p.settled())
	}
}

// Who is asked something is told on a terminal what to type, in a line of its own.
func TestLiveApproval(t *testing.T) {
	s := newScreen(nil, &bytes.Buffer{}, &bytes.Buffer{})
	s.width = func() int { return 80 }
	p := newProgress(someRun)
	asked := client.Event{Kind: "step_waiting", Step: "ok", Data: json.RawMessage(`{"for":"approval","asked":{"approval":"` + someApproval + `","title":"A question that is so long that it fills the line of a terminal","choices":["approve","reject"]}}`)}
	p.apply(&asked)
	lines := (&live{s: s}).lines(p, morning)
	if len(lines) != 3 || !strings.Contains(lines[1], "approve apr_") {
		t.Errorf("got %q", lines)
	}
}

func TestCancelledInWords(t *testing.T) {
	for _, reason := range []string{
		"run_ending", "run_ended", "run_cancelled", "run_timeout", "section_timeout", "container_timeout", "container_failed", "item_failed", "degraded", "merge",
	} {
		if words := whyCancelled(reason); words == reason {
			t.Errorf("%s is shown as it is", reason)
		}
	}
}
