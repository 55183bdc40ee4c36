package workflow

import (
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
)

// candidatesMax bounds the names listed when none is near.
const candidatesMax = 12

// didYouMean is the end of a sentence about an unknown name, and the name to use instead, if one is near.
func didYouMean(name string, known []string) (tail, edit string) {
	known = slices.Sorted(slices.Values(known)) // of two that are as near, always the same
	if edit = fault.Nearest(name, known); edit != "" {
		return `; did you mean "` + edit + `"?`, edit
	}
	switch {
	case len(known) == 0:
		return "", ""
	case len(known) > candidatesMax:
		return "; known: " + strings.Join(known[:candidatesMax], ", ") + " and others", ""
	}
	return "; known: " + strings.Join(known, ", "), ""
}
