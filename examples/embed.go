// Package examples carries the example workflows and what they are run on, so that the program can show them wherever
// it was installed.
package examples

import "embed"

// FS holds the workflows (*.yaml) and briefs/.
//
//go:embed *.yaml briefs
var FS embed.FS
