package agent

import (
	"encoding/json"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// The roles of an agent that are asked to say how sure they are.
const (
	roleGrinder   = "grinder"
	roleValidator = "validator"
)

// Task is what an agent is asked to do.
type Task struct {
	Prompt   string
	Input    json.RawMessage // a JSON object shown after the prompt; empty: none
	Feedback string          // why the attempt before failed; empty: there was none, or it is not told
	// Staffed: somebody decides what a grinder cannot decide, and the agent's delegates are there to work.
	Staffed bool
	// Check says what is wrong with an output that meets the contract, or nothing; it must be pure. Nil: nothing is.
	Check func(output json.RawMessage) string
}

// Open starts a conversation: what an agent is sent first.
//
// What is the same for every run of the agent stands first, so that providers' caches hit.
func Open(a *workflow.Agent, task Task) (Talk, Ask) {
	contract := a.Output
	contract.JSON = contract.JSON || contract.Schema != nil
	t := Talk{contract: contract, declares: declarations(contract), check: task.Check}
	t.ask = Ask{JSON: contract.JSON, MaxTokens: a.MaxTokens, Temperature: a.Temperature}
	asked := t.asksFor(a.Role)
	if contract.Schema != nil {
		t.ask.Schema = extended(contract.Schema.Raw, asked)
	}
	if task.Staffed {
		t.mayAsk = a.Role == roleGrinder && !t.declares.decision
		t.staff(a)
	}
	if system := systemText(a.Instructions, t.ask, asked, t.mayAsk); system != "" {
		t.ask.Messages = append(t.ask.Messages, Message{Role: RoleSystem, Content: system, Stable: true})
	}
	t.ask.Messages = append(t.ask.Messages, Message{Role: RoleUser, Content: userText(task)})
	return t, t.ask
}

// wanted says what an answer is asked to carry besides what its contract declares.
type wanted struct{ confidence, unresolved bool }

func (w wanted) any() bool { return w.confidence || w.unresolved }

// asksFor: grinders and validators say how sure they are and what they could not settle, where the answer is an
// object that can carry it.
func (t Talk) asksFor(role string) wanted {
	if role != roleGrinder && role != roleValidator || !t.contract.JSON || t.declares.notObject {
		return wanted{}
	}
	return wanted{confidence: !t.declares.confidence, unresolved: !t.declares.unresolved}
}

func systemText(instructions string, ask Ask, asked wanted, mayAsk bool) string {
	var parts []string
	if s := strings.TrimSpace(cleanText(instructions)); s != "" {
		parts = append(parts, s)
	}
	switch {
	case ask.Schema != nil:
		parts = append(parts, "Answer with one JSON value and nothing else: no prose, no code fence. It must meet this JSON Schema:\n"+string(ask.Schema))
	case ask.JSON:
		parts = append(parts, "Answer with one JSON value and nothing else: no prose, no code fence.")
	}
	if asked.any() {
		var s strings.Builder
		s.WriteString("Besides the result itself, the JSON object carries:")
		if asked.confidence {
			s.WriteString("\n- \"confidence\": a number from 0 to 100, how sure you are of this answer;")
		}
		if asked.unresolved {
			s.WriteString("\n- \"unresolved\": an array of strings, what you could not settle or had to assume; [] if nothing.")
		}
		s.WriteString("\nFlag what is uncertain instead of guessing.")
		parts = append(parts, s.String())
	}
	if mayAsk {
		parts = append(parts, mayAskText)
	}
	return strings.Join(parts, "\n\n")
}

func userText(t Task) string {
	var parts []string
	if s := cleanText(t.Prompt); strings.TrimSpace(s) != "" {
		parts = append(parts, s)
	}
	if len(t.Input) > 0 && string(t.Input) != "null" && string(t.Input) != "{}" {
		parts = append(parts, "INPUT\n"+cleanText(string(t.Input)))
	}
	if len(parts) == 0 {
		parts = append(parts, "Do what your instructions say.")
	}
	if s := strings.TrimSpace(cleanText(t.Feedback)); s != "" {
		parts = append(parts, "An earlier attempt at this failed. Do not repeat it:\n"+clip(s, feedbackBytesMax))
	}
	return strings.Join(parts, "\n\n")
}
