package preview

import (
	"fmt"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// labelOf says in a few words what a step does.
func labelOf(s *workflow.Step) string {
	switch s.Kind {
	case workflow.KindAgent:
		return agentLabel(s.Agent)
	case workflow.KindTool:
		return s.Tool.Ref
	case workflow.KindMap:
		return fmt.Sprintf("each of at most %d", s.Map.MaxItems)
	case workflow.KindLoop:
		return fmt.Sprintf("at most %s", counted(s.Loop.MaxIterations, "time"))
	case workflow.KindGroup:
		return counted(len(s.Group.Steps), "step")
	case workflow.KindSwitch:
		return "one of " + counted(len(s.Switch.Cases), "case")
	case workflow.KindMerge:
		return fmt.Sprintf("%s of %d", s.Merge.Strategy, len(s.Merge.Of))
	case workflow.KindPlan:
		return fmt.Sprintf("by %s, at most %s", s.Plan.Planner.Name, counted(s.Plan.Allow.MaxSteps, "step"))
	case workflow.KindWorkflow:
		return strings.Join(childrenOf(s), " or ")
	case workflow.KindApproval:
		return "a person answers"
	case workflow.KindWait:
		return waitLabel(s.Wait)
	case workflow.KindEmit:
		return s.Emit.Event
	case workflow.KindSet:
		return strings.Join(setNames(s.Set), ", ")
	}
	return ""
}

func agentLabel(a *workflow.AgentStep) string {
	if a.By != nil {
		return "one of " + strings.Join(sortedKeys(a.Choices), ", ")
	}
	return a.Agent.Name
}

func waitLabel(wait *workflow.WaitStep) string {
	switch {
	case wait.Signal != nil:
		return "for the signal " + wait.Signal.Name
	case wait.At != nil:
		return "until " + wait.At.Source
	}
	return "for " + strings.Trim(string(wait.For.Source), `"`)
}

func setNames(t *workflow.Template) []string {
	var names []string
	for _, m := range t.Parts().Members {
		names = append(names, m.Name)
	}
	return names
}

func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// grouped writes a count with separators: 12,345.
func grouped(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
