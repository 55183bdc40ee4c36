package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// runCommand starts a run of a file or of a published workflow.
type runCommand struct {
	remoteFlags
	Workflow string `arg:"" optional:"" help:"A published workflow: name or name@version. Or -f."`
	File     string `short:"f" placeholder:"FILE" help:"A workflow definition to run as it is; - is standard input."`
	Template string `placeholder:"NAME" help:"A workflow that comes with the service: fermata templates."`

	Input    []string          `short:"i" sep:"none" placeholder:"NAME=VALUE" help:"Input: name=text, name=@file, name:=json, or @file for all of it. Repeatable."`
	Label    map[string]string `short:"l" mapsep:"none" placeholder:"NAME=VALUE" help:"Labels of the run. Repeatable."`
	Stakes   string            `enum:",low,normal,high" default:"" placeholder:"low|normal|high" help:"How much depends on the result."`
	Mode     string            `enum:",interactive,batch" default:"" placeholder:"interactive|batch" help:"Whether somebody waits for it."`
	Budget   string            `placeholder:"USD" help:"What the run may spend, in dollars: a limit where the workflow has none, or a lower one."`
	Priority *int              `placeholder:"0-9" help:"9 goes first."`

	IdempotencyKey string `placeholder:"KEY" help:"Makes it harmless to start the same run again."`

	Watch   bool          `xor:"how" help:"Show every change until the run has ended (the default)."`
	Wait    bool          `xor:"how" help:"Say nothing until the run has ended."`
	Detach  bool          `xor:"how" help:"Do not wait: print the run and go."`
	Timeout time.Duration `placeholder:"DURATION" help:"Stop waiting after this long, with exit code 124; the run goes on."`
}

// Run submits the run, and follows it as the flags say.
func (r *runCommand) Run(ctx context.Context, s *screen) error {
	remote, err := r.remote(s)
	if err != nil {
		return err
	}
	request, key, err := r.request(ctx, s, remote)
	if err != nil {
		return err
	}
	return within(ctx, r.Timeout, func(ctx context.Context) error {
		accepted, _, err := remote.Submit(ctx, request, client.SubmitOptions{Key: key})
		if err != nil {
			return err
		}
		if r.Detach {
			return showAccepted(s, remote, accepted)
		}
		s.say("%s", strings.Join(wrapped(accepted.ID+" "+remote.link(accepted.Links.Self), s.width()), "\n"))
		how := followWatch
		if r.Wait {
			how = followQuiet
		}
		return follow(ctx, s, remote, newProgress(accepted.ID), how)
	})
}

// request reads everything the flags name, and compiles the definition here: what is wrong with it is told with the
// file's name, before anything is sent.
func (r *runCommand) request(ctx context.Context, s *screen, remote *remote) (client.RunRequest, string, error) {
	request := client.RunRequest{
		Workflow: r.Workflow, Template: r.Template, Labels: r.Label, Stakes: client.Stakes(r.Stakes), Mode: client.Mode(r.Mode),
		Priority: r.Priority, Budget: client.RunBudgetRequest{USD: r.Budget},
	}
	key := r.IdempotencyKey
	if key == "" {
		key = uuid.NewString() // a repetition by this program itself is harmless, too
	}
	var types map[string]string
	switch {
	case r.File != "" && r.Workflow == "" && r.Template == "":
		source, err := definitionFlag{File: r.File}.read(s)
		if err != nil {
			return request, key, err
		}
		w, err := compile(ctx, s, r.remoteFlags, source)
		if err != nil {
			return request, key, definitionError(r.File, err)
		}
		types = inputTypes(schemaOf(w))
		// As text, not as the JSON it was compiled to: the service's answers name lines of this file.
		if request.Definition, err = json.Marshal(string(source)); err != nil {
			return request, key, err
		}
	case r.Template != "" && r.Workflow == "" && r.File == "":
		t, err := remote.Template(ctx, r.Template)
		if err != nil {
			return request, key, err
		}
		types = inputTypes(t.Parameters)
	case r.Workflow == "" || r.File != "" || r.Template != "":
		return request, key, usageError("name either a published workflow, a definition or a template: fermata run -f FILE")
	}
	var err error
	request.Input, err = readInput(s, "-i", r.Input, types)
	return request, key, err
}

// compile compiles a definition. Only where it names published workflows the service is asked, for these.
func compile(ctx context.Context, s *screen, flags remoteFlags, source []byte) (*workflow.Workflow, error) {
	names := workflow.NamesOf(source)
	if len(names) == 0 {
		return workflow.Compile(source)
	}
	remote, err := flags.remote(s)
	if err != nil {
		return nil, err
	}
	lib, err := remote.fetched(ctx, names)
	if err != nil {
		return nil, err
	}
	return workflow.CompileWith(source, lib)
}

// schemaOf is the schema of a workflow's input, or nothing.
func schemaOf(w *workflow.Workflow) json.RawMessage {
	if w.Input == nil {
		return nil
	}
	return w.Input.Raw
}

// definitionError shows all that is wrong with a definition as one error.
func definitionError(file string, err error) error {
	f := fault.Of(err)
	if f == nil || len(f.Issues) == 0 {
		return err
	}
	lines := make([]string, len(f.Issues))
	for i, issue := range f.Issues {
		lines[i] = formatIssue(file, issue)
	}
	return &exitErr{exitError, errors.New(strings.Join(lines, "\n"))}
}

// within does something that may take d; 0: as long as it takes. Running out is errTimeout, whatever it broke off.
func within(ctx context.Context, d time.Duration, do func(context.Context) error) error {
	if d <= 0 {
		return do(ctx)
	}
	ctx, stop := context.WithTimeoutCause(ctx, d, errTimeout)
	defer stop()
	err := do(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return errTimeout
	}
	return err
}

func showAccepted(s *screen, remote *remote, accepted *client.RunAccepted) error {
	if s.json {
		return s.showJSON(accepted)
	}
	s.print("%s  %s", accepted.ID, accepted.Status)
	s.say("follow it:  %s watch %s%s", program(), accepted.ID, remote.flag())
	return nil
}
