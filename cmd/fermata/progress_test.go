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
run              failing    at publish: tool_error: no
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
 [████████████████████] running 3/3 steps · 1,234 tokens, …
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
	var steps []*stepProgress
	for i := range 200 {
		s := &stepProgress{path: fmt.Sprint("s", i), status: "succeeded"}
		switch {
		case i == 150:
			s.status = "failed"
		case i >= 190:
			s.status = "pending"
		}
		steps = append(steps, s)
	}
	shown, folded := fold(steps)
	if len(shown) != 11 || shown[0].path != "s150" || folded != "189 succeeded" {
		t.Errorf("%d shown, first %s, folded %q", len(shown), shown[0].path, folded)
	}
}
