package main

import (
	"io"
	"log/slog"
)

// newLog makes the program's log: JSON for machines, text for a person at a terminal.
func newLog(w io.Writer, terminal bool, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if terminal {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
