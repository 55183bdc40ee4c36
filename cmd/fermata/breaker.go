package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
)

type breakerCommand struct {
	Ls      breakerListCommand    `cmd:"" help:"List how the models fare that were called."`
	Reset   breakerResetCommand   `cmd:"" help:"Close a breaker and forget what it knew."`
	Hold    breakerHoldCommand    `cmd:"" help:"Open a breaker and keep it open."`
	Release breakerReleaseCommand `cmd:"" help:"Let a breaker that was held go by itself again."`
}

type breakerListCommand struct{ remoteFlags }

// Run lists breakers.
func (c *breakerListCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	breakers, err := remote.Breakers(ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(breakers)
	}
	if len(breakers) == 0 {
		s.say("no model was called from this node yet")
		return nil
	}
	return showBreakers(s, breakers)
}

func showBreakers(s *screen, list []client.Breaker) error {
	now := time.Now()
	rows := make([][]string, len(list))
	for i, b := range list {
		rows[i] = []string{cut(b.ID, 40), breakerState(b, now), fmt.Sprintf("%d/%d", b.Failures, b.Samples), squares(b.Recent), cut(oneLine(b.Reason), 40)}
	}
	return s.table([]string{"BREAKER", "STATE", "FAILED", "LAST", "WHY"}, rows)
}

// breakerState says what keeps a model from being asked, and for how long.
func breakerState(b client.Breaker, now time.Time) string {
	left := func(until time.Time) string { return " " + until.Sub(now).Round(time.Second).String() }
	switch {
	case b.Held:
		return "held open"
	case b.DisabledUntil.After(now):
		return "disabled" + left(b.DisabledUntil)
	case b.State == client.BreakerStateOpen && b.Until.After(now):
		return "open" + left(b.Until)
	case b.ThrottledUntil.After(now):
		return "throttled" + left(b.ThrottledUntil)
	}
	return string(b.State)
}

// squares shows outcomes as signs, the newest last.
func squares(recent []string) string {
	var b strings.Builder
	for _, outcome := range recent {
		switch outcome {
		case "ok":
			b.WriteRune('✓')
		case "server", "overloaded", "network", "timeout", "stream_interrupted", "unknown":
			b.WriteRune('✕')
		default: // says nothing of the provider
			b.WriteRune('·')
		}
	}
	return b.String()
}

// breakerArg names one breaker.
type breakerArg struct {
	remoteFlags
	ID string `arg:"" name:"breaker" help:"provider/model, as in the list."`
}

type breakerResetCommand struct{ breakerArg }

// Run closes a breaker.
func (c *breakerResetCommand) Run(ctx context.Context, s *screen) error {
	return c.do(s, func(r *remote) (*client.Breaker, error) { return r.ResetBreaker(ctx, c.ID) })
}

type breakerHoldCommand struct {
	breakerArg
	Reason string `placeholder:"TEXT" help:"Why; shown with the breaker."`
}

// Run holds a breaker open.
func (c *breakerHoldCommand) Run(ctx context.Context, s *screen) error {
	return c.do(s, func(r *remote) (*client.Breaker, error) { return r.HoldBreaker(ctx, c.ID, c.Reason) })
}

type breakerReleaseCommand struct{ breakerArg }

// Run releases a breaker.
func (c *breakerReleaseCommand) Run(ctx context.Context, s *screen) error {
	return c.do(s, func(r *remote) (*client.Breaker, error) { return r.ReleaseBreaker(ctx, c.ID) })
}

// do orders something of a breaker and shows how it stands then.
func (c *breakerArg) do(s *screen, order func(*remote) (*client.Breaker, error)) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	b, err := order(remote)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(b)
	}
	return showBreakers(s, []client.Breaker{*b})
}
