package gateway

import (
	"fmt"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/workflow"
)

// surest is the confidence of an answer that does not say how sure it is.
const surest = 100.0

// Accepts holds an answer in a conversation against the accept of its entry. An answer that breaks its contract is no
// matter of confidence: it is sent back.
func Accepts(t agent.Talk, j Judged) *Rejection {
	output, given, ok := agent.Peek(t, j.Reply.Text)
	if !ok || j.Entry.Accept == nil || len(j.Reply.ToolCalls) > 0 {
		return nil
	}
	confidence := surest
	if given != nil {
		confidence = *given
	}
	value, err := workflow.Decode(output)
	accepted := false
	if err == nil {
		accepted, err = j.Entry.Accept.Bool(workflow.AnswerScope(value, confidence, j.Reply.Tokens, j.Cost, j.Latency))
	}
	switch {
	case err != nil: // an answer that cannot be judged is not accepted
		return &Rejection{Reason: "accept: " + err.Error(), Confidence: confidence}
	case !accepted:
		return &Rejection{Reason: fmt.Sprintf("not accepted (%s), with confidence %g", j.Entry.Accept.Source, confidence), Confidence: confidence}
	}
	return nil
}
