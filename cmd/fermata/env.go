package main

import (
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
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
		if near := fault.Nearest(rest, envKnown); near != "" {
			s.say("warning: %s is not a variable of fermata; did you mean %s?", name, envPrefix+near)
			continue
		}
		s.say("warning: %s is not a variable of fermata", name)
	}
}
