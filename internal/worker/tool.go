package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/tool"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

const issuesMax = 10 // told of one output

// tool calls the step's tool and holds its output against the contract.
func (w *Worker) tool(outer context.Context, a flow.Attempt) *flow.Outcome {
	spec := a.Step.Tool
	ctx := outer
	if spec.Ref != tool.RefNoop { // it does not wait: there is nothing to be bounded
		var cancel context.CancelFunc
		ctx, cancel = w.limit(outer, a, a.Step.Timeout)
		defer cancel()
	}
	if failure := stopped(outer, ctx); failure != nil {
		return &flow.Outcome{Failure: failure, Unbegun: true}
	}
	began := time.Now()
	output, err := w.tools.Call(ctx, tool.Request{Ref: spec.Ref, Args: a.Input, Key: a.Key, Attempt: int(a.No)})
	if err != nil {
		return &flow.Outcome{Failure: w.toolFailure(outer, ctx, err)}
	}
	if message := broken(spec, output); message != "" {
		return fail(classInvalidOutput, message)
	}
	gate := gateOf(&a)
	if gate == nil {
		return &flow.Outcome{Output: output}
	}
	if wrong := asserts(gate, a.Scope, output, nil, usage.Tokens{}, 0, time.Since(began)); len(wrong) > 0 {
		o := fail(classGateFailed, gateFailure(wrong, 0))
		o.Refused = output
		return o
	}
	return &flow.Outcome{Output: output, Gate: &flow.GateResult{}}
}

func (w *Worker) toolFailure(outer, ctx context.Context, err error) *flow.Failure {
	if failure := stopped(outer, ctx); failure != nil {
		return failure
	}
	var failed *tool.Error
	if !errors.As(err, &failed) {
		return &flow.Failure{Class: classToolError, Message: err.Error()}
	}
	if failed.Class == classCancelled { // only who ends the context may say so: the engine would start the attempt again
		return &flow.Failure{Class: classToolError, Message: failed.Message}
	}
	return &flow.Failure{Class: failed.Class, Message: failed.Message}
}

// broken says what is wrong with an output, or nothing.
func broken(spec *workflow.ToolStep, output json.RawMessage) string {
	if len(output) > workflow.OutputBytesMax {
		return fmt.Sprintf("the tool's output has %d bytes; the limit is %d", len(output), workflow.OutputBytesMax)
	}
	if spec.Ref != tool.RefNoop && !json.Valid(output) { // noop gives back what was rendered here
		return "the tool's output is not JSON"
	}
	if deep := workflow.TooDeep(output); deep != "" {
		return "the tool's output cannot be read: " + deep
	}
	if spec.Output.Schema == nil {
		return ""
	}
	issues := spec.Output.Schema.Check(output)
	if len(issues) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString("the tool's output does not meet its contract")
	for i, issue := range issues {
		if i == issuesMax {
			fmt.Fprintf(&s, "; and %d more", len(issues)-i)
			break
		}
		fmt.Fprintf(&s, "; %s: %s", issue.Pointer, issue.Detail)
	}
	return s.String()
}
