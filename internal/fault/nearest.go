package fault

import "strings"

// Nearest finds the name most likely meant: at most a third of its letters differ, capitals and underscores aside.
// Empty: none is near.
func Nearest(name string, known []string) string {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "") }
	best, bestDistance := "", max(1, len(name)/3)+1
	for _, k := range known {
		if plain(k) == plain(name) {
			return k
		}
		if d := distance(strings.ToLower(name), strings.ToLower(k), bestDistance); d < bestDistance && d < max(len(name), len(k)) {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance (adjacent letters swapped count as one), or limit if it is not less. Of
// very long names none is near.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	var rows [3][48]int
	if len(b) >= len(rows[0]) {
		return limit
	}
	before, last, row := rows[0][:len(b)+1], rows[1][:len(b)+1], rows[2][:len(b)+1]
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
