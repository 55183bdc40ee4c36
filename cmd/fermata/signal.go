package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/fermata-run/fermata/api/client"
)

type signalCommand struct {
	remoteFlags
	To   string `arg:"" name:"run" help:"The run: run_…; or all, for every run that waits for the name."`
	Name string `arg:"" help:"Of the signal."`
	Data string `placeholder:"JSON" help:"What comes with it, as JSON, or @file."`
	ID   string `name:"id" placeholder:"ID" help:"The same signal is taken once."`
}

// Run sends a signal to a run, or to all that wait for it.
func (c *signalCommand) Run(ctx context.Context, s *screen) error {
	data := c.Data
	if file, ok := strings.CutPrefix(data, "@"); ok {
		var err error
		if data, err = readText(s, file); err != nil {
			return err
		}
	}
	if data != "" && !json.Valid([]byte(data)) {
		return usageError("--data: %q is not JSON; a text needs its quotes: '\"…\"'", cut(oneLine(data), 40))
	}
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	signal := client.SignalRequest{ID: c.ID, Data: json.RawMessage(data)}
	if c.To == "all" {
		sent, err := remote.SignalAll(ctx, c.Name, signal)
		switch {
		case err != nil:
			return err
		case s.json:
			return s.showJSON(sent)
		}
		s.print("sent to %s", counted(sent.Runs, "run"))
		return nil
	}
	accepted, err := remote.Signal(ctx, c.To, c.Name, signal)
	if err != nil {
		return err
	}
	return showAccepted(s, remote, accepted)
}
