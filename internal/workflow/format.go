package workflow

import (
	"bytes"
	_ "embed"
)

// formatSchema says of each key what it is, what it does and what bounds it. Tests hold it and the compiler together.
//
//go:embed schema/workflow.schema.json
var formatSchema []byte

// FormatSchema is the JSON Schema (2020-12) of the format, for editors and people. What it refuses Compile refuses, too; it
// knows nothing of names and expressions. It also has what is part of the format and not run by this version.
func FormatSchema() []byte { return bytes.Clone(formatSchema) }
