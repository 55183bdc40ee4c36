package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
)

// liveStepsMax is how many steps are drawn; of more, the ones that say least are folded into a line.
const liveStepsMax = 24

// insideMovingMax is how many steps at work inside maps and loops are drawn when not all steps are.
const insideMovingMax = 6

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
		if s.way != "" {
			lines = append(lines, l.s.paint(colorViolet, cutTo("   → "+strings.TrimPrefix(s.way, toAnswer), width)))
		}
	}
	if folded != "" {
		lines = append(lines, l.s.paint(colorDim, "  … "+folded))
	}
	return append(lines, l.foot(p, width, now))
}

// cutTo shortens a line to a terminal's width; 0: it is none.
func cutTo(line string, width int) string {
	if width > 1 {
		return cut(line, width-1)
	}
	return line
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
	if inside := s.inside.String(); inside != "" {
		said = append(said, inside)
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

// foot is the bar: how far, how long, how much.
func (l *live) foot(p *progress, width int, now time.Time) string {
	cells := 20
	if width > 0 && width < 100 {
		cells = 10
	}
	done, total := p.settled(), max(1, len(p.steps))
	full := cells * done / total
	end := now
	if !p.ended.IsZero() {
		end = p.ended
	}
	parts := []string{fmt.Sprintf("%d/%d steps", done, len(p.steps))}
	if !p.began.IsZero() {
		parts = append(parts, took(max(0, end.Sub(p.began))))
	}
	if spent := p.spent.String(); spent != "" {
		parts = append(parts, spent)
	}
	line := fmt.Sprintf(" [%s%s] %s %s", strings.Repeat("█", full), strings.Repeat("░", cells-full), p.status, strings.Join(parts, " · "))
	return cutTo(line, width)
}

// fold chooses the steps to draw when there are many: what failed or waits, then what moves and what is to come, those
// of the run itself before those inside maps and loops; the rest is counted by status. Of steps inside that are over only
// those that failed are drawn: their map or loop counts them.
func fold(steps []*stepProgress) (shown []*stepProgress, folded string) {
	if len(steps) <= liveStepsMax {
		return steps, ""
	}
	keep := make([]bool, len(steps))
	room := liveStepsMax
	take := func(most int, wanted func(*stepProgress) bool) {
		for i, s := range steps {
			if !keep[i] && room > 0 && most > 0 && wanted(s) {
				keep[i] = true
				room--
				most--
			}
		}
	}
	inside := func(s *stepProgress) bool { return depth(s.path) > 0 }
	take(liveStepsMax, func(s *stepProgress) bool { return !inside(s) && (s.failed() || s.moving()) })
	take(insideShownMax, func(s *stepProgress) bool { return inside(s) && (s.failed() || s.waits()) })
	take(liveStepsMax, func(s *stepProgress) bool { return !inside(s) && !s.over() })
	take(insideMovingMax, func(s *stepProgress) bool { return inside(s) && s.moving() })
	take(liveStepsMax, func(s *stepProgress) bool { return !inside(s) })
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
		client.StepStatusRunning, client.StepStatusRetrying, client.StepStatusWaiting, client.StepStatusPending,
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
