package main

import (
	"runtime"
	"runtime/debug"

	"github.com/fermata-run/fermata/internal/telemetry"
)

// Set by the linker (see the Makefile); a plain go build or go install leaves them empty.
var version, revision string

// build tells which program this is.
func build() telemetry.Build {
	b := telemetry.Build{Version: version, Revision: revision, GoVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if ok && b.Version == "" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	if ok && b.Revision == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	if b.Version == "" {
		b.Version = "dev"
	}
	if b.Revision == "" {
		b.Revision = "unknown"
	}
	return b
}

type versionCommand struct{}

// Run prints the build.
func (versionCommand) Run(s *screen) error {
	b := build()
	if s.json {
		return s.showJSON(map[string]string{"version": b.Version, "revision": b.Revision, "go": b.GoVersion, "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	s.print("fermata %s (%s, %s, %s/%s)", b.Version, b.Revision, b.GoVersion, runtime.GOOS, runtime.GOARCH)
	return nil
}
