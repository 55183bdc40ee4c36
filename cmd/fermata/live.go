package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
)

// liveStepsMax is how many steps are drawn; of more, the ones that say least are folded into a line.
const liveStepsMax = 24

// live draws a run in place on a terminal: a line per step, redrawn as it changes.
type live struct {
	s     *screen
	drawn int // lines on the terminal that belong to the last drawing
}

// draw replaces the last drawing.
func (l *live) draw(p *progress, now time.Time) {
	lines := l.lines(p, now)
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.drawn)
	}
	for _, line := range lines {
		b.WriteString("\r\x1b[2K" + line + "\n")
	}
	b.WriteString("\x1b[J")
	fmt.Fprint(l.s.out, b.String())
	l.drawn = len(lines)
}

func (l *live) lines(p *progress, now time.Time) []string {
	width := l.s.width()
	shown, folded := fold(p.steps)
	name := 8
	for _, s := range shown {
		name = max(name, len(s.path))
	}
	lines := make([]string, 0, len(shown)+2)
	for _, s := range shown {
		lines = append(lines, l.step(s, name, width, now))
	}
	if folded != "" {
		lines = append(lines, l.s.paint(colorDim, "  … "+folded))
	}
	return append(lines, l.foot(p, width, now))
}

func (l *live) step(s *stepProgress, name, width int, now time.Time) string {
	sign, color := signOf(s.status)
	var said []string
	switch {
	case s.over() && !s.began.IsZero() && s.status != string(client.StepStatusSkipped):
		said = append(said, took(s.ended.Sub(s.began)))
	case s.status == string(client.StepStatusRunning):
		said = append(said, took(max(0, now.Sub(s.began))))
	}
	if s.attempt > 1 {
		said = append(said, fmt.Sprintf("attempt %d", s.attempt))
	}
	if spent := s.spent.String(); spent != "" {
		said = append(said, spent)
	}
	if s.note != "" {
		said = append(said, oneLine(s.note))
	}
	head := fmt.Sprintf("%s %-*s %-10s", sign, name, s.path, s.status)
	rest := strings.Join(said, " · ")
	if width > 0 {
		rest = cut(rest, max(2, width-len([]rune(head))-3))
	}
	return " " + l.s.paint(color, head) + " " + rest
}

// foot is the bar: how far, how much, how long.
func (l *live) foot(p *progress, width int, now time.Time) string {
	const cells = 20
	done, total := p.settled(), max(1, len(p.steps))
	full := cells * done / total
	end := now
	if !p.ended.IsZero() {
		end = p.ended
	}
	parts := []string{fmt.Sprintf("%d/%d steps", done, len(p.steps))}
	if spent := p.spent.String(); spent != "" {
		parts = append(parts, spent)
	}
	if !p.began.IsZero() {
		parts = append(parts, took(max(0, end.Sub(p.began))))
	}
	line := fmt.Sprintf(" [%s%s] %s %s", strings.Repeat("█", full), strings.Repeat("░", cells-full), p.status, strings.Join(parts, " · "))
	if width > 1 {
		line = cut(line, width-1)
	}
	return line
}

// fold chooses the steps to draw when there are many: the failed and the moving first, then the latest; the rest is
// counted by status.
func fold(steps []*stepProgress) (shown []*stepProgress, folded string) {
	if len(steps) <= liveStepsMax {
		return steps, ""
	}
	telling := map[string]bool{
		string(client.StepStatusFailed): true, string(client.StepStatusRunning): true, string(client.StepStatusRetrying): true,
	}
	room := liveStepsMax
	keep := make([]bool, len(steps))
	for i, s := range steps {
		if telling[s.status] && room > 0 {
			keep[i] = true
			room--
		}
	}
	for i := range steps {
		if !keep[i] && room > 0 && !steps[i].over() {
			keep[i] = true
			room--
		}
	}
	counts := map[string]int{}
	for i, s := range steps {
		if keep[i] {
			shown = append(shown, s)
			continue
		}
		counts[s.status]++
	}
	var parts []string
	for _, status := range []client.StepStatus{
		client.StepStatusSucceeded, client.StepStatusSkipped, client.StepStatusFailed, client.StepStatusCancelled,
		client.StepStatusRunning, client.StepStatusRetrying, client.StepStatusPending,
	} {
		if n := counts[string(status)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	return shown, strings.Join(parts, ", ")
}

// signOf is the sign and the colour of a status, of runs and of steps.
func signOf(status string) (sign, color string) {
	switch status {
	case "running":
		return "◐", colorBlue
	case "retrying", "cancelling":
		return "↻", colorYellow
	case "waiting":
		return "⏸", colorViolet
	case "succeeded":
		return "✓", colorGreen
	case "failed", "quarantined":
		return "✕", colorRed
	case "cancelled":
		return "⊘", colorDim
	case "skipped":
		return "◌", colorDim
	}
	return "○", ""
}
