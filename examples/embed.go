// Package examples carries the example workflows and what they are run on, so that the program can show them wherever
// it was installed.
package examples

import "embed"

// FS holds the workflows (*.yaml), briefs/, and templates/: each <name>.yaml with an input to try it with,
// <name>.input.json, and its tests, <name>.test.yaml.
//
//go:embed *.yaml briefs templates
var FS embed.FS
