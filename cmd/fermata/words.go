package main

import (
	"fmt"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

// money never shows an unknown price as none.
func money(cost usage.Money, unpriced, calls int) string {
	switch {
	case unpriced > 0 && unpriced >= calls:
		return "unpriced"
	case unpriced > 0:
		return fmt.Sprintf("$%s + %d unpriced", cost, unpriced)
	}
	return "$" + cost.String()
}

// grouped writes a count with separators: 12,345.
func grouped(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// whySkipped says a skip's reason in words.
func whySkipped(reason string) string {
	switch reason {
	case "when":
		return "its condition did not hold"
	case "switch":
		return "another case was chosen"
	case flow.SkippedError:
		return "it failed, and may be missing"
	case flow.SkippedDegraded:
		return "left out by the ladder"
	case flow.SkippedMerge:
		return "another answer was taken"
	}
	return reason
}

// whyCancelled says in words why a step was cut off.
func whyCancelled(reason string) string {
	switch reason {
	case "run_ending", "run_ended":
		return "the run was ending"
	case "run_cancelled":
		return "the run was cancelled"
	case "run_timeout", "section_timeout":
		return "the run took too long"
	case "container_timeout":
		return "what it is inside of took too long"
	case "container_failed":
		return "what it is inside of failed"
	case "item_failed":
		return "another item failed"
	case flow.SkippedDegraded:
		return "left out by the ladder"
	case flow.SkippedMerge:
		return "a merge has its answer without it"
	}
	return reason
}

// insteadText says where an output comes from that is not of the step's own agent or tool; empty: it is.
func insteadText(instead string) string {
	switch instead {
	case flow.InsteadFallback:
		return "by its fallback"
	case flow.InsteadEscalation:
		return "as was decided on its failure"
	case flow.InsteadDegraded:
		return "as the ladder has it"
	}
	return instead
}

// failure says what went wrong, and where if that is not plain.
func failure(class, message, step string) string {
	if class == "" && message == "" {
		return ""
	}
	said := class
	if message != "" {
		said += ": " + message
	}
	if step != "" {
		said = "at " + step + ": " + said
	}
	return said
}

// took writes a duration as people do.
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
