package provider

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// ScriptLine is one line of a simulation's script: which calls it answers, and how. Answers and tokens are exact, so
// that what they cost can be foretold; like everything of a simulation they count as simulated.
type ScriptLine struct {
	Contains string         // in what is answered: the last message of the user, or the results of tools behind it; empty: any
	Model    string         // empty: any
	Answer   string         // as it stands, without a mark
	Calls    []ScriptedCall // of tools, besides the answer
	Tokens   *usage.Tokens  // nil: estimated
	Class    string         // of a failure instead of an answer
	Latency  time.Duration  // besides the configured one
}

// ScriptedCall is a call of a tool in a scripted answer.
type ScriptedCall struct {
	Name      string
	Arguments string // JSON
}

// Scripted is one scripted answer.
type Scripted struct {
	Latency    time.Duration
	Text       string // the answer; with Class the message of the failure, empty: the class
	Calls      []ScriptedCall
	Tokens     *usage.Tokens // nil: estimated
	Class      Class         // of a failure instead of Text and Calls, as a server would report it
	Hangs      bool          // no answer comes until the caller gives up
	Improvised bool          // the simulation answers, after Latency
}

// scripted gives the answer that is laid down for a call; nil: none.
func (s *Simulated) scripted(ctx context.Context, c Call) *Scripted {
	if s.cfg.Respond != nil {
		if r := s.cfg.Respond(ctx, c); r != nil {
			return r
		}
	}
	if len(s.cfg.Script) == 0 {
		return nil
	}
	asked := Answered(c.Ask)
	for _, line := range s.cfg.Script {
		if line.Model != "" && line.Model != c.Model || !strings.Contains(asked, line.Contains) {
			continue
		}
		r := &Scripted{Latency: line.Latency, Text: line.Answer, Calls: line.Calls, Tokens: line.Tokens, Class: Class(line.Class)}
		if line.Class != "" {
			r.Text = ""
		}
		return r
	}
	return nil
}

// Answered is what an answer is to: what the user said last, or the results of the tools that were called since.
func Answered(a agent.Ask) string {
	var results []string
	for _, m := range slices.Backward(a.Messages) {
		switch {
		case m.Role == agent.RoleTool:
			results = append(results, m.Content)
		case len(results) > 0:
			slices.Reverse(results)
			return strings.Join(results, "\n")
		case m.Role == agent.RoleUser:
			return m.Content
		}
	}
	return ""
}
