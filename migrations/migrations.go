// Package migrations holds the schema of Fermata's database as goose migrations: numbered, forward only, and each one
// readable by the binary before it, so that nodes of two versions can work side by side.
package migrations

import "embed"

// FS holds the migrations.
//
//go:embed *.sql
var FS embed.FS
