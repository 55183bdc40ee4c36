package provider

import (
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// ScriptLine is one line of a simulation's script: which calls it answers, and how. Answers and tokens are exact, so
// that what they cost can be foretold; like everything of a simulation they count as simulated.
type ScriptLine struct {
	Contains string        // in the last message of the user; empty: any
	Model    string        // empty: any
	Answer   string        // as it stands, without a mark
	Tokens   *usage.Tokens // nil: estimated
	Class    string        // of a failure instead of an answer
	Latency  time.Duration // besides the configured one
}

// Scripted is one scripted answer.
type Scripted struct {
	Latency time.Duration
	Text    string
	Tokens  *usage.Tokens // nil: estimated
	Error   *Error        // instead of Text
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
	asked := lastRequest(c.Ask)
	for _, line := range s.cfg.Script {
		if line.Model != "" && line.Model != c.Model || !strings.Contains(asked, line.Contains) {
			continue
		}
		r := &Scripted{Latency: line.Latency, Text: line.Answer, Tokens: line.Tokens}
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

// lastRequest is what the user said last.
func lastRequest(a agent.Ask) string {
	for i := len(a.Messages) - 1; i >= 0; i-- {
		if a.Messages[i].Role == agent.RoleUser {
			return a.Messages[i].Content
		}
	}
	return ""
}
