package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fermata-run/fermata/internal/gateway/provider"
)

func (c *completion) passOver(e *entry, class provider.Class, why string) {
	c.note(failure{entry: e, err: &provider.Error{Class: class, Message: why}})
}

func (c *completion) note(f failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, f)
	if k := f.entry.route.known; f.asked && f.err.Class == provider.ClassContextLength && k != nil {
		c.tooLong = max(c.tooLong, k.contextTokens)
	}
	c.g.log.Debug("model did not answer", "model", f.entry.Model, "asked", f.asked, "class", f.err.Class, "message", f.err.Message)
}

// failed tells of all that failed by the failure that means most.
func (c *completion) failed(ctx context.Context) *FailedError {
	e := &FailedError{Calls: c.calls, Rule: c.rule}
	if c.best != nil {
		e.Best = &c.best.answer
	}
	if f := c.primary(); f != nil {
		e.Class, e.Message, e.RetryAfter = string(f.err.Class), c.describe(f), f.err.RetryAfter
		e.Budget = f.budget
		if soonest := c.soonest(); soonest > 0 {
			e.RetryAfter = soonest
		}
	}
	for i := range c.failures {
		f := &c.failures[i]
		e.Attempts = append(e.Attempts, Attempted{Model: f.entry.Model, Depth: f.entry.depth, Class: string(f.err.Class), Message: f.err.Message, Asked: f.asked})
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Class = string(provider.ClassTimeout)
	case ctx.Err() != nil:
		e.Class = string(provider.ClassCancelled)
	}
	if e.Message == "" {
		e.Message = "no request was made"
	}
	return e
}

// soonest is when any entry may be asked again, if none was; 0: not known.
func (c *completion) soonest() (wait time.Duration) {
	for i := range c.failures {
		f := &c.failures[i]
		if f.asked {
			return 0
		}
		if f.until.IsZero() {
			continue
		}
		if d := max(time.Until(f.until), time.Second); wait == 0 || d < wait {
			wait = d
		}
	}
	return wait
}

// primary is the failure to tell: the last one, unless it says something about the configuration only and another says
// more. A request that was made says more than one that was not, and a budget that refused says most.
func (c *completion) primary() *failure {
	weight := func(f *failure) int {
		minor := ruleOf(f.err.Class).minor
		switch {
		case f.handled:
			return 0
		case f.budget != nil:
			return 4
		case f.asked && !minor:
			return 3
		case f.asked || !minor:
			return 2
		}
		return 1
	}
	var found *failure
	for i := range c.failures {
		if f := &c.failures[i]; found == nil || weight(f) >= weight(found) {
			found = f
		}
	}
	return found
}

func (c *completion) describe(f *failure) string {
	name := f.entry.Model
	if to := f.entry.route.to; to != nil && to.Name() != name {
		name = fmt.Sprintf("%s at %s", f.entry.route.model, to.Name())
	}
	s := f.err.Message
	if f.entry.route.to != nil { // else the message says whom nobody serves
		s = name + ": " + s
	}
	if n := len(c.failures); n > 1 {
		s += fmt.Sprintf(" (the one that counts of %d failures)", n)
	}
	return s
}
