package agent

import (
	"encoding/json"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// What may be decided about a failure.
const (
	decisionAccept  = "accept"
	decisionReplace = "replace"
)

// Escalation is a failure that an agent has to decide about.
type Escalation struct {
	Step     string
	Failure  string   // class and message
	History  []string // of the attempts before
	Refused  json.RawMessage
	Task     Task // what was asked for
	Contract workflow.Contract
}

var escalationContract = ours(`{"type":"object","required":["decision"],"properties":{
	"decision":{"enum":["accept","replace","redo","fail"]},"output":{},"notes":{"type":"string"}}}`)

// Resolution is what is decided about a failure.
type Resolution struct {
	Decision string          `json:"decision"` // accept, replace, redo, fail
	Output   json.RawMessage `json:"output"`   // of replace
	Notes    string          `json:"notes"`
}

// OpenEscalation asks an agent what becomes of a failure. What it answers is read by ReadResolution.
func OpenEscalation(by *workflow.Agent, e Escalation) (Talk, Ask) {
	var s strings.Builder
	s.WriteString("The step " + e.Step + " of your workflow failed. Decide what becomes of it:\n")
	if len(e.Refused) > 0 {
		s.WriteString("- accept: the REFUSED OUTPUT is taken after all;\n")
	}
	s.WriteString("- replace: you give the output yourself, in \"output\"" + e.shape() + ";\n" +
		"- redo: it is done again from the beginning, and told your \"notes\";\n- fail: it stays failed.\n" +
		"Say why in \"notes\".\n\nFAILURE\n" + material(e.Failure))
	if len(e.History) > 0 {
		s.WriteString("\n\nATTEMPTS BEFORE\n" + material(Listed(e.History)))
	}
	if len(e.Refused) > 0 {
		s.WriteString("\n\nREFUSED OUTPUT\n" + material(Plain(e.Refused)))
	}
	s.WriteString("\n\nTASK\n" + material(userText(e.Task)))
	return Open(alone(by, escalationContract), Task{Prompt: s.String(), Check: e.check})
}

func (e *Escalation) shape() string {
	switch {
	case e.Contract.Schema != nil:
		return ", which must meet this JSON Schema: " + string(e.Contract.Schema.Raw)
	case e.Contract.JSON:
		return ", any JSON value"
	}
	return ", a text"
}

// check says what is wrong with a decision.
func (e *Escalation) check(output json.RawMessage) string {
	r, err := ReadResolution(output)
	switch {
	case err != nil:
		return err.Error()
	case r.Decision == decisionAccept && len(e.Refused) == 0:
		return "- /decision: there is no output to accept"
	case r.Decision != decisionReplace:
		return ""
	case len(r.Output) == 0:
		return "- /output: to replace, the output must be given"
	case e.Contract.Schema != nil:
		issues := e.Contract.Schema.Check(r.Output)
		for i := range issues {
			issues[i].Pointer = "/output" + issues[i].Pointer
		}
		if len(issues) > 0 {
			return told(issues)
		}
	case !e.Contract.JSON && r.Output[0] != '"':
		return "- /output: it must be a text"
	}
	return ""
}

// ReadResolution reads what was decided.
func ReadResolution(output json.RawMessage) (r Resolution, err error) {
	err = json.Unmarshal(output, &r)
	return r, err
}
