package rehearsal

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
)

// line tells an event in a line: when, which step, what.
func (s *stage) line(a *actor, e flow.Event) string {
	who := strings.TrimSuffix(a.prefix, "/")
	if e.Step != "" {
		who = a.prefix + e.Step
	}
	if who == "" {
		who = "run"
	}
	if e.Attempt > 1 || e.Gen > 1 {
		who += fmt.Sprintf(" #%d.%d", e.Gen, e.Attempt)
	}
	text := fmt.Sprintf("+%-10s %-24s %s", clock(e.At.Sub(s.c.at)), who, e.Kind)
	if note := noteOf(e); note != "" {
		text += "  " + note
	}
	return text
}

// clock shortens a time that has passed.
func clock(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(time.Millisecond)
	}
	return d.String()
}

// noteOf is what of an event's body says most.
func noteOf(e flow.Event) string {
	var b struct {
		Class, Message, Reason, Choice, For, Signal, Section, Name string
		RetryAt                                                    time.Time       `json:"retry_at"`
		Output                                                     json.RawMessage `json:"output"`
		Data                                                       json.RawMessage `json:"data"`
		Asked                                                      *flow.Asked     `json:"asked"`
		Error                                                      *flow.Failure   `json:"error"`
		Case                                                       *int            `json:"case"`
		Level                                                      *int            `json:"level"`
	}
	if len(e.Body) == 0 || json.Unmarshal(e.Body, &b) != nil {
		return ""
	}
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if b.Error != nil {
		b.Class, b.Message = b.Error.Class, b.Error.Message
	}
	if b.Class != "" {
		say("%s: %s", b.Class, b.Message)
	}
	if b.For != "" {
		say("for %s", b.For)
	}
	if b.Asked != nil {
		say("%q", b.Asked.Title)
	}
	if b.Case != nil {
		say("case %d", *b.Case)
	}
	if b.Level != nil {
		say("level %d", *b.Level)
	}
	for _, word := range []string{b.Signal, b.Name, b.Section, b.Choice, b.Reason, string(b.Output), string(b.Data)} {
		if word != "" && word != "null" {
			say("%s", word)
		}
	}
	return clip(strings.Join(parts, " "), noteMax)
}

// noteMax bounds what a line says of an event, in characters.
const noteMax = 160

// clip shortens a text to n characters, and makes one line of it.
func clip(text string, n int) string {
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:n-1]) + "…"
}
