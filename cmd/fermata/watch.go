package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/fermata-run/fermata/api/client"
)

type watchCommand struct {
	remoteFlags
	ID      string        `arg:"" name:"run" help:"The run: run_…"`
	Timeout time.Duration `placeholder:"DURATION" help:"Stop watching after this long, with exit code 124."`
}

// Run follows a run: as lines, as a drawing on a terminal, or with -o json as one event per line.
func (w *watchCommand) Run(ctx context.Context, s *screen) error {
	remote, err := w.remote(s)
	if err != nil {
		return err
	}
	return within(ctx, w.Timeout, func(ctx context.Context) error {
		if _, err := remote.Run(ctx, w.ID); err != nil { // at once, where the stream would try again for ever
			return err
		}
		how := followWatch
		if s.json {
			how = followEvents
		}
		return follow(ctx, s, remote, newProgress(w.ID), how)
	})
}

// followed is how a run is shown while it goes on.
type followed int

const (
	followWatch  followed = iota // changes, then the result
	followQuiet                  // the result
	followEvents                 // events as lines of JSON, and no result: it is in them
)

// follow shows a run until it has ended. A run that did not succeed is an error, so that the exit code tells.
func follow(ctx context.Context, s *screen, remote *remote, p *progress, how followed) error {
	if err := followEventsOf(ctx, s, remote, p, how); err != nil {
		if ctx.Err() != nil { // we broke it off ourselves
			s.say("the run goes on; follow it:  %s watch %s%s", program(), p.id, remote.flag())
		}
		return err
	}
	if how != followEvents {
		run, err := remote.whole(ctx, p.id)
		if err != nil {
			return err
		}
		if err := showRun(s, remote, run, false); err != nil {
			return err
		}
	}
	if p.status != string(client.RunStatusSucceeded) {
		return &runEnded{p.status}
	}
	return nil
}

func followEventsOf(ctx context.Context, s *screen, remote *remote, p *progress, how followed) error {
	switch {
	case how == followEvents:
		return eachEvent(ctx, remote, p, func(e *client.Event, _ string) error { return json.NewEncoder(s.out).Encode(e) })
	case how == followQuiet:
		return eachEvent(ctx, remote, p, func(*client.Event, string) error { return nil })
	case s.terminal && !s.json:
		return followLive(ctx, s, remote, p)
	}
	return eachEvent(ctx, remote, p, func(_ *client.Event, line string) error {
		switch {
		case line == "":
		case s.json: // out is for the result
			s.say("%s", line)
		default:
			s.print("%s", line)
		}
		return nil
	})
}

// eachEvent gives every event of a run, from the first to the last. What was known before is taken in silently.
func eachEvent(ctx context.Context, remote *remote, p *progress, do func(e *client.Event, line string) error) error {
	for e, err := range remote.events(ctx, p.id, p.known+1) {
		if err != nil {
			return err
		}
		line := p.apply(&e)
		if e.Seq <= p.known {
			continue
		}
		if err := do(&e, line); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// redrawEvery is how often the clocks of a drawing move.
const redrawEvery = 100 * time.Millisecond

// followLive draws the run in place.
func followLive(ctx context.Context, s *screen, remote *remote, p *progress) error {
	steps, err := remote.Steps(ctx, p.id)
	if err != nil {
		return err
	}
	p.plan(steps)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, ended := make(chan client.Event), make(chan error, 1)
	go func() { ended <- sendEvents(ctx, remote, p.id, p.known+1, events) }()
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	drawing := &live{s: s}
	for {
		select {
		case e := <-events:
			p.apply(&e)
		case <-tick.C:
			drawing.draw(p, time.Now())
		case err := <-ended:
			drawing.draw(p, time.Now())
			return err
		}
	}
}

// sendEvents hands on every event of a run until it has ended.
func sendEvents(ctx context.Context, remote *remote, id string, atLeast int32, events chan<- client.Event) error {
	for e, err := range remote.events(ctx, id, atLeast) {
		if err != nil {
			return err
		}
		select {
		case events <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}
