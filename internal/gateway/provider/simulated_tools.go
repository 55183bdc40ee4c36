package provider

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/fermata-run/fermata/internal/agent"
)

// demanded is the tool that must be called; false if an answer in words will do.
func demanded(a agent.Ask) (agent.Tool, bool) {
	var word string
	var named struct {
		Name string `json:"name"`
	}
	switch {
	case len(a.Tools) == 0 || len(a.ToolChoice) == 0:
		return agent.Tool{}, false
	case json.Unmarshal(a.ToolChoice, &word) == nil:
		return a.Tools[0], word == "required"
	case json.Unmarshal(a.ToolChoice, &named) == nil:
		for _, t := range a.Tools {
			if t.Name == named.Name {
				return t, true
			}
		}
	}
	return agent.Tool{}, false
}

// calls are the scripted calls of tools, with names of their own.
func (s *Scripted) calls(dice *rand.Rand) []agent.ToolCall {
	var list []agent.ToolCall
	for _, call := range s.Calls {
		list = append(list, agent.ToolCall{ID: toolCallID(dice), Name: call.Name, Arguments: call.Arguments})
	}
	return list
}

func toolCallID(dice *rand.Rand) string { return fmt.Sprintf("call_%016x", dice.Uint64()) }

// handsOut are the tasks of an agent that may hand out tasks: one for each of its delegates, once.
func handsOut(c Call, dice *rand.Rand) []agent.ToolCall {
	i := slices.IndexFunc(c.Ask.Tools, func(t agent.Tool) bool { return t.Name == "delegate" })
	if i < 0 || slices.ContainsFunc(c.Ask.Messages, func(m agent.Message) bool { return m.Role == agent.RoleTool }) {
		return nil
	}
	var takes struct {
		Properties struct {
			Agent struct {
				Enum []string `json:"enum"`
			} `json:"agent"`
		} `json:"properties"`
	}
	if json.Unmarshal(c.Ask.Tools[i].Parameters, &takes) != nil {
		return nil
	}
	w := newWriter(c.Ask, dice)
	var calls []agent.ToolCall
	for _, name := range takes.Properties.Agent.Enum[:min(len(takes.Properties.Agent.Enum), agent.TasksMax)] {
		arguments, err := json.Marshal(map[string]string{"agent": name, "task": SimulatedMark + " Your part of " + w.topic() + ": " + w.sentence(statements)})
		if err != nil { // texts
			return nil
		}
		calls = append(calls, agent.ToolCall{ID: toolCallID(dice), Name: "delegate", Arguments: string(arguments)})
	}
	return calls
}

// callTool calls a tool with arguments that meet its schema.
func callTool(c Call, t agent.Tool, dice *rand.Rand) agent.ToolCall {
	schema := t.Parameters
	if len(schema) == 0 {
		schema = json.RawMessage(`{"type":"object","properties":{},"additionalProperties":false}`)
	}
	w := newWriter(c.Ask, dice)
	w.brief = true
	return agent.ToolCall{ID: toolCallID(dice), Name: t.Name, Arguments: filled(schema, w, dice.Uint64())}
}
