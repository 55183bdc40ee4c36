package api

import (
	"slices"
	"strings"
)

// nearest finds what may have been meant: the same name in another case, or the one with the fewest letters changed.
func nearest(name string, known []string) string {
	slices.Sort(known)
	best, distance := "", 1+min(3, len(name)/2)
	if len(name) > 64 {
		return ""
	}
	for _, k := range known {
		if strings.EqualFold(k, name) || strings.EqualFold(strings.ReplaceAll(k, "_", ""), name) {
			return k
		}
		if d := edits(strings.ToLower(name), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// edits counts the letters to insert, delete or change to get from one word to the other.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// clip keeps a name that a caller made up from filling an error.
func clip(name string) string {
	const nameBytesMax = 64
	if len(name) <= nameBytesMax {
		return name
	}
	return strings.ToValidUTF8(name[:nameBytesMax], "") + "…"
}
