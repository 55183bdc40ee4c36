package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/flow"
)

// insideShownMax is how many steps of items and iterations are shown of those that somebody has to look at; the others
// are counted at their map or loop.
const insideShownMax = 10

// foldedSteps leaves out the steps inside maps and loops, but for the first that failed or wait for somebody.
func foldedSteps(steps []client.Step) []client.Step {
	var shown []client.Step
	inside := 0
	for _, step := range steps {
		if depth(step.Path) > 0 {
			telling := step.Status == client.StepStatusFailed || step.Status == client.StepStatusWaiting
			if !telling || inside == insideShownMax {
				continue
			}
			inside++
		}
		shown = append(shown, step)
	}
	return shown
}

// depth is how many items and iterations a step is inside of: the numbers in its path.
func depth(path string) int {
	n := 0
	for part := range strings.SplitSeq(path, ".") {
		if part != "" && part[0] >= '0' && part[0] <= '9' {
			n++
		}
	}
	return n
}

// indented shows by its place that a step is inside of another.
func indented(path string) string { return strings.Repeat("  ", depth(path)) + path }

// insideText counts what is inside a map or loop: ×128 ▸ 97✓ 2✕ 10 at work.
func insideText(in client.Inside) string {
	if in == (client.Inside{}) {
		return ""
	}
	text := fmt.Sprintf("×%d ▸ %d✓", in.Total, in.Succeeded)
	if in.Failed > 0 {
		text += fmt.Sprintf(" %d✕", in.Failed)
	}
	if in.AtWork > 0 {
		text += fmt.Sprintf(" %d at work", in.AtWork)
	}
	if in.Exhausted {
		text += " exhausted"
	}
	return text
}

// waitingText says what a step waits for.
func waitingText(w client.StepWaiting) string {
	text := ""
	switch w.For {
	case flow.WaitingApproval:
		text = fmt.Sprintf("asks %q: %s (%s)", w.Title, w.Approval, strings.Join(w.Choices, ", "))
	case flow.WaitingSignal:
		text = "waits for the signal " + w.Signal
	case flow.WaitingChild:
		text = "waits for " + w.Run
	default:
		text = "waits"
	}
	if !w.Until.IsZero() {
		text += " until " + w.Until.Local().Format(time.DateTime)
	}
	return text
}

// qualityText says what of the definition a run did not do as written.
func qualityText(q client.Quality) string {
	var parts []string
	if q.Level > 0 {
		parts = append(parts, fmt.Sprintf("degraded to level %d, %s", q.Level, q.Name))
	}
	if len(q.Omitted) > 0 {
		parts = append(parts, "left out: "+strings.Join(q.Omitted, ", "))
	}
	return oneLine(joined(append(parts, q.Reasons...)...))
}
