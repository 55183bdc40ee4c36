package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/examples"
)

// What the demo runs.
const (
	demoWorkflow = "qc-deliverable.yaml"
	demoBrief    = "briefs/cold-chain.txt"

	// Slow enough to be watched.
	demoLatency = 400 * time.Millisecond
	demoJitter  = 800 * time.Millisecond
)

type demoCommand struct {
	devFlags
	Listen   string        `env:"FERMATA_LISTEN" placeholder:"HOST:PORT" help:"Where to listen; 127.0.0.1:8080 if it is free, else any free port."`
	Config   string        `env:"FERMATA_CONFIG" placeholder:"FILE" help:"Providers to ask, with --real."`
	Real     bool          `help:"Ask the configured models and pay for it; without it, models are simulated."`
	Timeout  time.Duration `default:"10m" placeholder:"DURATION" help:"How long the run may take."`
	LogLevel slog.Level    `env:"FERMATA_LOG_LEVEL" default:"warn" placeholder:"debug|info|warn|error" help:"The least important lines that are logged."`
}

// Run starts the service in this process, runs the example over HTTP like any other client, and shows what came of it.
// On a terminal the service stays up until Ctrl-C.
func (d *demoCommand) Run(ctx context.Context, s *screen) error {
	cfg, err := d.main(s)
	if err != nil {
		return err
	}
	m := NewMain(cfg)
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(serving) }()
	s.say("starting Fermata …")
	select {
	case <-m.Ready():
	case err := <-ended:
		return err
	}
	err = within(ctx, d.Timeout, func(ctx context.Context) error { return d.show(ctx, s, m) })
	if err == nil && s.terminal && !s.json {
		s.print("\n%s", s.paint(colorBold, "The service stays up. Ctrl-C stops it."))
		<-ctx.Done()
	}
	stop()
	if failed := <-ended; failed != nil {
		return errors.Join(err, failed)
	}
	return err
}

func (d *demoCommand) main(s *screen) (MainConfig, error) {
	flags := serverFlags{Listen: d.Listen, Config: d.Config, LogLevel: d.LogLevel, DrainTimeout: 10 * time.Second}
	if flags.Listen == "" {
		flags.Listen = freeAddress(defaultListen)
	}
	cfg, err := flags.main(s)
	if err != nil {
		return cfg, err
	}
	if !d.Real {
		cfg.Models.Providers = []providerConfig{simulatedProvider(demoLatency, demoJitter)}
	}
	embedded := d.postgres(cfg.Log)
	cfg.Embedded = &embedded
	return cfg, nil
}

const defaultListen = "127.0.0.1:8080"

// freeAddress is the wished one, or one with any free port if that is taken.
func freeAddress(wish string) string {
	l, err := net.Listen("tcp", wish)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close()
	return wish
}

// show submits the example and follows it.
func (d *demoCommand) show(ctx context.Context, s *screen, m *Main) error {
	remote, err := remoteFlags{URL: m.URL()}.remote(s)
	if err != nil {
		return err
	}
	request, err := demoRequest()
	if err != nil {
		return err
	}
	accepted, _, err := remote.Submit(ctx, request, client.SubmitOptions{Key: uuid.NewString()})
	if err != nil {
		return err
	}
	if !s.json {
		d.introduce(s, m, accepted.ID)
	}
	p := newProgress(accepted.ID)
	if err := followEventsOf(ctx, s, remote, p, followWatch); err != nil {
		return err
	}
	run, err := remote.whole(ctx, accepted.ID)
	if err != nil {
		return err
	}
	if p.status != string(client.RunStatusSucceeded) || s.json {
		if err := showRun(s, remote, run, false); err != nil || p.status == string(client.RunStatusSucceeded) {
			return err
		}
		return &runEnded{p.status}
	}
	if err := showDelivery(s, run); err != nil {
		return err
	}
	lookAt(s, remote, run)
	return nil
}

func (d *demoCommand) introduce(s *screen, m *Main, id string) {
	s.print("workflow  examples/%s: produce, self-review, cross-check, incorporate, deliver", demoWorkflow)
	s.print("input     examples/%s, stakes high: no step is skipped", demoBrief)
	s.print("database  %s", m.Database())
	if m.Simulated() {
		s.print("models    %s", s.paint(colorYellow, "simulated: no key is needed, nothing is charged, and the text below was written by no model"))
	} else {
		s.print("models    %s", m.Models())
	}
	s.print("run       %s/v1/runs/%s\n", m.URL(), id)
}

// demoRequest is the example as a client would submit it.
func demoRequest() (client.RunRequest, error) {
	var r client.RunRequest
	source, err := examples.FS.ReadFile(demoWorkflow)
	if err != nil {
		return r, fmt.Errorf("read the example: %w", err)
	}
	brief, err := examples.FS.ReadFile(demoBrief)
	if err != nil {
		return r, fmt.Errorf("read the brief: %w", err)
	}
	if r.Definition, err = json.Marshal(string(source)); err != nil {
		return r, err
	}
	r.Input, err = json.Marshal(map[string]string{"task": string(brief), "stakes": "high"})
	r.Labels = client.Labels{"made_by": "demo"}
	return r, err
}

// lookAt names what can be looked at, ready to be copied.
func lookAt(s *screen, remote *remote, run *client.Run) {
	s.print("\n%s", s.paint(colorBold, "LOOK AT"))
	for _, line := range []struct{ what, command string }{
		{"the run", "curl -s '" + remote.link(run.Links.Self) + "?include=steps,provenance'"},
		{"one step, with its model calls", "curl -s " + remote.link(run.Links.Steps) + "/cross_check"},
		{"its log, as it happened", "curl -sN -H 'Accept: text/event-stream' " + remote.link(run.Links.Events)},
		{"tokens and money", "curl -s " + remote.link("/metrics") + " | grep '^fermata_llm'"},
		{"the contract", "curl -s " + remote.link("/openapi.yaml")},
		{"a run that fails and is resumed", program() + " run -f examples/resume.yaml -i topic=Tides" + remote.flag()},
	} {
		s.print("  %-32s %s", line.what, line.command)
	}
}
