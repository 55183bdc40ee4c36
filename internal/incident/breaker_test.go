package incident

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/store"
)

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func newBreaker() *breaker { return &breaker{lines: map[store.IncidentOf]*line{}} }

func of(agent string) store.IncidentOf { return store.IncidentOf{Workflow: "w", Agent: agent} }

// runNo names a run.
func runNo(n int) uuid.UUID { return uuid.UUID{15: byte(n)} }

func failed(run int, step, class, message string, at time.Time) failure {
	return failure{class: class, fingerprint: fingerprintOf(message), sample: store.IncidentSample{Run: runNo(run), Step: step, Message: message, At: at}}
}

// What opens an incident: the last failure of each list, or nothing.
func TestWhatOpens(t *testing.T) {
	type event struct {
		after          time.Duration
		run            int
		agent, step    string
		class, message string // no class: a success
	}
	bad := func(run int) event {
		return event{time.Second, run, "a", "s", "invalid_output", fmt.Sprintf("field %d is missing", run)}
	}
	in := func(e event, edit func(*event)) event {
		edit(&e)
		return e
	}
	fine := event{time.Second, 9, "a", "s", "", ""}
	for name, c := range map[string]struct {
		events []event
		open   bool
	}{
		"two":                     {[]event{bad(1), bad(2)}, false},
		"three":                   {[]event{bad(1), bad(2), bad(3)}, true},
		"three steps of a run":    {[]event{bad(1), in(bad(1), func(e *event) { e.step = "t" }), in(bad(1), func(e *event) { e.step = "u" })}, true},
		"one step, resumed twice": {[]event{bad(1), bad(1), bad(1)}, false},
		"a success between":       {[]event{bad(1), bad(2), fine, bad(3)}, false},
		"a success before":        {[]event{fine, bad(1), bad(2), bad(3)}, true},
		"another's success":       {[]event{bad(1), bad(2), in(fine, func(e *event) { e.agent = "b" }), bad(3)}, true},
		"of three agents":         {[]event{bad(1), in(bad(2), func(e *event) { e.agent = "b" }), in(bad(3), func(e *event) { e.agent = "c" })}, false},
		"another class between":   {[]event{bad(1), in(bad(4), func(e *event) { e.class = "timeout" }), bad(2), bad(3)}, true},
		"of three classes":        {[]event{bad(1), in(bad(2), func(e *event) { e.class = "timeout" }), in(bad(3), func(e *event) { e.class = "internal" })}, false},
		"in other words":          {[]event{bad(1), bad(2), in(bad(3), func(e *event) { e.message = "too long" })}, false},
		"over ten minutes":        {[]event{bad(1), bad(2), in(bad(3), func(e *event) { e.after = window })}, false},
		"within ten minutes":      {[]event{bad(1), bad(2), in(bad(3), func(e *event) { e.after = window - 2*time.Second })}, true},
	} {
		b, now, opened := newBreaker(), start, false
		for _, e := range c.events {
			now = now.Add(e.after)
			if e.class == "" {
				b.succeeded(of(e.agent), "fine")
				continue
			}
			opened = b.failed(of(e.agent), failed(e.run, e.step, e.class, e.message, now), now)
		}
		if opened != c.open || b.isOpen(of("a")) != c.open {
			t.Errorf("%s: opened %t, is open %t; want %t", name, opened, b.isOpen(of("a")), c.open)
		}
	}
}

// Whatever happens, an incident is open only after as many failures alike since the last success; it keeps few samples,
// counts all, and nothing is remembered for ever.
func TestBreakerKeepsItsWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now := newBreaker(), start
		since := map[store.IncidentOf]int{} // failures since the last success
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 60, 700}).Draw(t, "seconds")) * time.Second)
			who := of(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "agent"))
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				b.succeeded(who, "fine")
				since[who] = 0
				if b.isOpen(who) {
					t.Fatal("it is open after a success")
				}
			default:
				class := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "class")
				was := b.isOpen(who)
				opened := b.failed(who, failed(rapid.IntRange(1, 9).Draw(t, "run"), "s", class, "m", now), now)
				since[who]++
				if opened && (was || since[who] < failuresToOpen) {
					t.Fatalf("opened after %d failures, open before: %t", since[who], was)
				}
			}
			if l := b.lines[who]; l != nil && (len(l.recent) > recentMax || l.open != nil && (len(l.open.samples) > store.IncidentSamplesMax || l.open.unwritten > l.open.count)) {
				t.Fatalf("%+v", l)
			}
		}
		b.sweep(now.Add(window))
		for who, l := range b.lines {
			if l.open == nil {
				t.Fatalf("%+v is remembered", who)
			}
		}
	})
}

func TestOldestLineMakesRoom(t *testing.T) {
	b := newBreaker()
	for n := range linesMax + 3 {
		b.failed(of(fmt.Sprint(n)), failed(1, "s", "c", "m", start), start.Add(time.Duration(n)*time.Millisecond))
	}
	if _, there := b.lines[of("2")]; there || len(b.lines) != linesMax {
		t.Errorf("%d lines, the third one among them: %t", len(b.lines), there)
	}
}

// What is read holds against what is known, but for what has moved since it was asked for.
func TestHeard(t *testing.T) {
	row := func(agent string, id int) store.IncidentRow {
		return store.IncidentRow{ID: runNo(id), IncidentOf: of(agent), Class: "c", Fingerprint: "m", Count: 3}
	}
	b := newBreaker()
	b.heard([]store.IncidentRow{row("a", 1), row("b", 2)}, b.moved)
	if !b.isOpen(of("a")) || !b.isOpen(of("b")) {
		t.Fatal("what others opened is not open here")
	}
	b.heard([]store.IncidentRow{row("a", 3)}, b.moved)
	if b.isOpen(of("b")) || b.lines[of("a")].open.id != runNo(3) {
		t.Error("what others resolved and opened again is not so here")
	}
	before := b.moved
	b.succeeded(of("a"), "fine")
	b.heard([]store.IncidentRow{row("a", 3)}, before)
	if b.isOpen(of("a")) {
		t.Error("a success that is not written yet is forgotten")
	}
	b.close(of("a"))
	b.heard([]store.IncidentRow{row("a", 3)}, before)
	if b.isOpen(of("a")) {
		t.Error("what ended while the table was read is open again")
	}
	before = b.moved
	for run := range failuresToOpen {
		b.failed(of("n"), failed(run, "s", "c", "m", start), start)
	}
	b.heard(nil, before)
	b.heard(nil, b.moved)
	if !b.isOpen(of("n")) {
		t.Error("what nobody was told of yet is closed")
	}
}
