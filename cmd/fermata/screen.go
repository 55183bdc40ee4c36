package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
)

// screen is where a command speaks: results go to out, talk goes to err.
type screen struct {
	in       io.Reader
	out, err io.Writer
	json     bool // results as JSON
	terminal bool // out is one: lines may be redrawn and cut to its width
	color    bool // of out
	talkTTY  bool // err is a terminal
	width    func() int
}

func newScreen(in io.Reader, out, err io.Writer) *screen {
	s := &screen{in: in, out: out, err: err, terminal: isTerminal(out), talkTTY: isTerminal(err), width: func() int { return 0 }}
	_, plain := os.LookupEnv("NO_COLOR")
	dumb := os.Getenv("TERM") == "dumb"
	s.color = s.terminal && !plain && !dumb
	if f, ok := out.(*os.File); ok && s.terminal {
		s.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0
			}
			return w
		}
	}
	s.terminal = s.terminal && !dumb
	return s
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// say talks to the person: progress, warnings, hints.
func (s *screen) say(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) }

// print shows a line of the result.
func (s *screen) print(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// showJSON prints a result as indented JSON.
func (s *screen) showJSON(v any) error {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints rows under a head, in columns. Nothing is cut unless the rows go to a terminal that is too narrow.
func (s *screen) table(head []string, rows [][]string) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimRight(line, " \n")
		if width := s.width(); width > 1 {
			line = cut(line, width)
		}
		s.print("%s", line)
	}
	return nil
}

// paragraph prints a text in one line, or on a terminal in as many as it needs, each behind the indent.
func (s *screen) paragraph(indent, color, text string) {
	for i, line := range wrapped(oneLine(text), s.width()-len(indent)-2) {
		if i > 0 {
			line = "  " + line
		}
		s.print("%s", indent+s.paint(color, line))
	}
}

// narrow is the width below which a terminal has no room for whole dates.
const narrow = 120

// moment writes a time of the past: on a narrow terminal without the year, and today without the day.
func (s *screen) moment(t time.Time) string {
	t = t.Local()
	switch w := s.width(); {
	case w == 0 || w >= narrow:
		return t.Format(time.DateTime)
	case time.Since(t) < 20*time.Hour:
		return t.Format(time.TimeOnly)
	}
	return t.Format("01-02 15:04")
}

// cut shortens a text to n runes, the last of them an ellipsis if something is lost.
func cut(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}

// oneLine makes a text fit into a line: no breaks, no control characters that would move a terminal's cursor.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r < 0x20 || r == 0x7f || 0x80 <= r && r < 0xa0 }), " ")
}

// Colours by meaning; the word or the sign beside them says the same.
const (
	colorDim    = "2"
	colorBold   = "1"
	colorGreen  = "32"
	colorRed    = "31"
	colorYellow = "33"
	colorBlue   = "34"
	colorViolet = "35"
)

func (s *screen) paint(color, text string) string {
	if !s.color || text == "" || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// sayJSONLine prints a result as one line of JSON.
func (s *screen) sayJSONLine(v any) error { return json.NewEncoder(s.out).Encode(v) }
