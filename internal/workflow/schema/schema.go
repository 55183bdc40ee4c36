// Package schema says of every key of the workflow format what it is, what it does and what bounds it.
package schema

import (
	"bytes"
	_ "embed"
)

// source is written by hand; tests hold it and the compiler together.
//
//go:embed workflow.schema.json
var source []byte

// JSON is the JSON Schema (2020-12) of the format, for editors. What it refuses the compiler refuses, too; it knows nothing
// of names and expressions. It also has what is part of the format and not run by this version.
func JSON() []byte { return bytes.Clone(source) }
