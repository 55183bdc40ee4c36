package main

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/flow"
)

type resumeCommand struct {
	remoteFlags
	ID      string        `arg:"" name:"run" help:"The run: run_…"`
	Set     []string      `sep:"none" placeholder:"steps.STEP.output=JSON" help:"Give a step its output by hand, as JSON or @file, instead of running it. Repeatable."`
	Budget  string        `placeholder:"USD" help:"What the run may spend in all from now on, in dollars: for one that waits for its budget, or failed over it."`
	Reason  string        `placeholder:"TEXT" help:"Why; kept in the run's log."`
	Detach  bool          `help:"Do not wait for the end of the run."`
	Timeout time.Duration `placeholder:"DURATION" help:"Stop waiting after this long, with exit code 124; the run goes on."`
}

// Run asks for the resume and follows the run.
func (r *resumeCommand) Run(ctx context.Context, s *screen) error {
	set, err := readSet(s, r.Set)
	if err != nil {
		return err
	}
	remote, err := r.remote(s)
	if err != nil {
		return err
	}
	return within(ctx, r.Timeout, func(ctx context.Context) error {
		before, err := remote.Run(ctx, r.ID)
		if err != nil {
			return err
		}
		if w := before.WaitingFor; w.Kind == flow.HeldBudget && r.Budget == "" && !r.Detach {
			return usageError("%s\nhelp: %s resume %s --budget USD, with what it may spend in all; or raise the budget that is named", w.Sentence, program(), r.ID)
		}
		accepted, err := remote.Resume(ctx, r.ID, client.ResumeRequest{Set: set, Budget: client.RunBudgetRequest{USD: r.Budget}, Reason: r.Reason})
		if err != nil {
			return err
		}
		if r.Detach {
			return showAccepted(s, remote, accepted)
		}
		p := newProgress(r.ID)
		p.known = before.LastSeq
		return follow(ctx, s, remote, p, followWatch)
	})
}

// readSet reads --set flags: steps.<path>.output=<JSON> or =@<file>.
func readSet(s *screen, flags []string) (map[string]json.RawMessage, error) {
	set := map[string]json.RawMessage{}
	for _, flag := range flags {
		name, text, ok := strings.Cut(flag, "=")
		if !ok || !strings.HasPrefix(name, "steps.") || !strings.HasSuffix(name, ".output") {
			return nil, usageError("--set %s: not steps.STEP.output=JSON", cut(flag, 60))
		}
		if file, ok := strings.CutPrefix(text, "@"); ok {
			var err error
			if text, err = readText(s, file); err != nil {
				return nil, err
			}
		}
		if !json.Valid([]byte(text)) {
			return nil, usageError("--set %s: %q is not JSON; a text needs its quotes: '\"…\"'", name, cut(oneLine(text), 40))
		}
		if _, twice := set[name]; twice {
			return nil, usageError("--set %s: given twice", name)
		}
		set[name] = json.RawMessage(text)
	}
	return set, nil
}

type cancelCommand struct {
	remoteFlags
	ID     string `arg:"" name:"run" help:"The run: run_…"`
	Reason string `placeholder:"TEXT" help:"Why; kept in the run's log."`
}

// Run asks for the end of a run. It comes a little later: what is at work is cut, then finally steps run.
func (c *cancelCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	accepted, err := remote.Cancel(ctx, c.ID, c.Reason)
	if err != nil {
		return err
	}
	return showAccepted(s, remote, accepted)
}
