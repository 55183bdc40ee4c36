package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Limits of delegation.
const (
	// TurnsDefault is how many answers of an agent may hand out tasks, where it does not say.
	TurnsDefault = 10
	// TasksMax bounds the tasks that one answer may hand out; they are done at the same time.
	TasksMax = 8

	descriptionBytesMax = 300
)

// ClassExhausted is the error class of an agent that goes on handing out tasks though it must come to an end.
const ClassExhausted = "exhausted"

const toolDelegate = "delegate"

// Delegation is a task that an agent hands to one of its delegates.
type Delegation struct {
	To      *workflow.Agent
	Task    string
	Context string
}

// staff gives an agent the tool by which it hands out tasks.
func (t *Talk) staff(a *workflow.Agent) {
	if len(a.Delegates) == 0 {
		return
	}
	if t.turnsMax = a.MaxTurns; t.turnsMax <= 0 {
		t.turnsMax = TurnsDefault
	}
	var about strings.Builder
	fmt.Fprintf(&about, "Hands one scoped task to another agent, which knows nothing but what you tell it, and gives back a short form of its result. At most %d tasks at a time, which are done at the same time. The agents:", TasksMax)
	var names []string
	for _, d := range a.Delegates {
		names = append(names, d.Name)
		about.WriteString("\n- " + d.Name + ": " + AboutAgent(d))
	}
	t.ask.Tools = []Tool{{Name: toolDelegate, Description: about.String(), Parameters: Object([]Member{
		{"type", json.RawMessage(`"object"`)},
		{"required", json.RawMessage(`["agent","task"]`)},
		{"properties", Object([]Member{
			{"agent", Object([]Member{{"type", json.RawMessage(`"string"`)}, {"enum", texts(names)}})},
			{"task", json.RawMessage(`{"type":"string","description":"what to do, and what to give back"}`)},
			{"context", json.RawMessage(`{"type":"string","description":"what it must know for it"}`)},
		})},
		{"additionalProperties", json.RawMessage(`false`)},
	})}}
}

// AboutAgent says in a line what an agent is for.
func AboutAgent(a *workflow.Agent) string {
	line, _, _ := strings.Cut(strings.TrimSpace(cleanText(a.Instructions)), "\n")
	line = clip(line, descriptionBytesMax)
	switch {
	case a.Role == "":
		return line
	case line == "":
		return a.Role
	}
	return a.Role + "; " + line
}

func texts(list []string) json.RawMessage {
	out := []byte{'['}
	for i, s := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendQuoted(out, cleanText(s))
	}
	return append(out, ']')
}

// Delegates reports whether the agent may hand out tasks in this conversation.
func (t Talk) Delegates() bool { return len(t.ask.Tools) > 0 }

// ReadDelegation reads a task that an agent hands out. Wrong says why it cannot be; empty: it can.
func ReadDelegation(a *workflow.Agent, call ToolCall) (d Delegation, wrong string) {
	var said struct{ Agent, Task, Context string }
	if call.Name != toolDelegate {
		return d, fmt.Sprintf("There is no tool %q; there is %s.", clip(call.Name, 100), toolDelegate)
	}
	raw := []byte(call.Arguments)
	if found, broken := candidates(cleanText(call.Arguments)); len(found) == 1 && broken == "" {
		raw = found[0]
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return d, "The arguments cannot be read: " + clip(err.Error(), 200)
	}
	var names []string
	for _, by := range a.Delegates {
		names = append(names, by.Name)
		if by.Name == said.Agent {
			d.To = by
		}
	}
	switch {
	case d.To == nil:
		wrong = fmt.Sprintf("There is no agent %q; there are %s.", clip(said.Agent, 100), strings.Join(names, ", "))
		if near := fault.Nearest(said.Agent, names); near != "" {
			wrong += " Did you mean " + near + "?"
		}
		return d, wrong
	case strings.TrimSpace(said.Task) == "":
		return d, "The task is empty."
	}
	d.Task, d.Context = said.Task, said.Context
	return d, ""
}

// OpenDelegate begins the conversation of a delegate.
func OpenDelegate(d Delegation) (Talk, Ask) {
	prompt := d.Task
	if strings.TrimSpace(d.Context) != "" {
		prompt += "\n\nCONTEXT\n" + d.Context
	}
	return Open(d.To, Task{Prompt: prompt, Staffed: true})
}

// Result is what an agent is told of a task that was done: the summary, and what is still open.
func Result(summary string, unresolved []string) string {
	if len(unresolved) == 0 {
		return summary
	}
	return summary + "\n\nUNRESOLVED\n" + Listed(unresolved)
}

// Exhausted says that an agent hands out tasks though it had to come to an end.
func (t Talk) Exhausted() (Failed, bool) {
	return Failed{Class: ClassExhausted, Message: fmt.Sprintf("it hands out tasks in more than %d answers (max_turns)", t.turnsMax)}, t.turns >= t.turnsMax
}

// Called goes on with the results of the tasks that a reply handed out, in the same order. After the last turn that may
// do so the agent must come to an end.
func Called(t Talk, reply string, calls []ToolCall, results []string) (Talk, Ask) {
	messages := []Message{{Role: RoleAssistant, Content: cleanText(reply), ToolCalls: slices.Clone(calls)}}
	for i, call := range calls {
		text := cleanText(results[i])
		if strings.TrimSpace(text) == "" {
			text = "(nothing)"
		}
		messages = append(messages, Message{Role: RoleTool, ToolCallID: call.ID, Content: text})
	}
	if t.turns++; t.turns == t.turnsMax {
		t.ask.ToolChoice = json.RawMessage(`"none"`)
		messages[len(messages)-1].Content += "\n\n(No more tasks can be handed out. Answer now.)"
	}
	t.again = 0
	t = t.with(messages...)
	return t, t.ask
}
