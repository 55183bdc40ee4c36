package main

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestExplain shows keys on a screen of 80 runes, and where there is none.
func TestExplain(t *testing.T) {
	for _, path := range []string{"", "steps", "steps.map", "steps.map.on_item_error", "chains", "steps.cache"} {
		name := "format"
		if path != "" {
			name = path
		}
		for _, width := range []int{80, 0} {
			s, out := screenOf(width)
			if err := (&explainCommand{path}).Run(s); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > explainWidth {
					t.Errorf("%d runes: %s", n, line)
				}
			}
			golden(t, filepath.Join("testdata", "explain", name+".txt"), out.String())
		}
	}
}
