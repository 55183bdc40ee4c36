package provider

import (
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
	Latency time.Duration
	Text    string
	Calls   []ScriptedCall
	Tokens  *usage.Tokens // nil: estimated
	Error   *Error        // instead of Text and Calls
}

// scripted gives the answer that is laid down for a call; nil: none.
func (s *Simulated) scripted(c Call) *Scripted {
	if s.cfg.Respond != nil {
		if r := s.cfg.Respond(c); r != nil {
			return r
		}
	}
	if len(s.cfg.Script) == 0 {
		return nil
	}
	asked := answered(c.Ask)
	for _, line := range s.cfg.Script {
		if line.Model != "" && line.Model != c.Model || !strings.Contains(asked, line.Contains) {
			continue
		}
		r := &Scripted{Latency: line.Latency, Text: line.Answer, Calls: line.Calls, Tokens: line.Tokens}
		if line.Class != "" {
			r.Error = failing(Class(line.Class), c)
			if line.Tokens != nil {
				r.Error.Tokens = *line.Tokens
			}
		}
		return r
	}
	return nil
}

// answered is what an answer is to: what the user said last, or the results of the tools that were called since.
func answered(a agent.Ask) string {
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
