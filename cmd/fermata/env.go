package main

import (
	"slices"
	"strings"
)

// envPrefix begins the name of each of our variables but the ones that are everybody's: DATABASE_URL, OPENAI_API_KEY …
const envPrefix = "FERMATA_"

// envKnown are the variables with our prefix that mean something, without it.
var envKnown = []string{
	"CONFIG", "DATA_DIR", "DRAIN_TIMEOUT", "LISTEN", "LOG_LEVEL", "NODE", "SHARDS", "URL", "WORKERS",
}

// warnUnknownEnv names the variables with our prefix that mean nothing: most likely somebody thinks they do.
func warnUnknownEnv(s *screen, environ []string) {
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || slices.Contains(envKnown, rest) {
			continue
		}
		if near := nearest(rest, envKnown); near != "" {
			s.say("warning: %s is not a variable of fermata; did you mean %s?", name, envPrefix+near)
			continue
		}
		s.say("warning: %s is not a variable of fermata", name)
	}
}

// nearest finds the known word that was most likely meant, or nothing.
func nearest(word string, known []string) string {
	best, least := "", 1+len(word)/4
	for _, k := range known {
		if d := distance(word, k); d <= least {
			best, least = k, d-1
		}
	}
	return best
}

// distance is Levenshtein's: the fewest letters to add, drop or change.
func distance(a, b string) int {
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
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
