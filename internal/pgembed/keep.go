//go:build unix

package pgembed

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	keepDelayMin = 250 * time.Millisecond
	keepDelayMax = 30 * time.Second
	// keepLived is how long a server must have run for its end to count as the
	// first again.
	keepLived = time.Minute
	// keepPoll is how often a server started by another process is looked at:
	// only a parent is told of an exit.
	keepPoll = time.Second
)

// Restart brings the server back if it is not running. If it is, or another
// process was faster, Restart joins it. The URL stays the same.
func (c *Cluster) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	start, err := lockFile(ctx, c.path("start.lock"), syscall.LOCK_EX)
	if err != nil {
		return fmt.Errorf("restart embedded postgres: %w", err)
	}
	defer start.Close()
	if c.isClosed() { // asked under the lock: Close stops the server under it
		return fmt.Errorf("restart embedded postgres: %w", ErrClosed)
	}
	if err := c.bringUp(ctx); err != nil {
		return fmt.Errorf("restart embedded postgres in %s: %w", c.dir, err)
	}
	return nil
}

// Keep restarts the server whenever it exits, with growing pauses when it does
// not stay up, until ctx ends or the cluster is closed.
func (c *Cluster) Keep(ctx context.Context) {
	delay := keepDelayMin
	for {
		up := time.Now()
		if !c.awaitExit(ctx) {
			return
		}
		if time.Since(up) >= keepLived {
			delay = keepDelayMin
		}
		c.log.Warn("postgres: the server exited unexpectedly, restarting it", "dir", c.dir, "ran", time.Since(up))
		for {
			if !c.keepPause(ctx, delay) {
				return
			}
			delay = min(2*delay, keepDelayMax)
			err := c.Restart(ctx)
			if err == nil {
				break
			}
			if errors.Is(err, ErrClosed) || ctx.Err() != nil {
				return
			}
			c.log.Error("postgres: restart failed", "error", err, "next_try_in", delay)
		}
	}
}

// awaitExit returns true when the server has ended, false when Keep should.
func (c *Cluster) awaitExit(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-c.closed:
			return false
		case <-c.Done(): // asked anew each time: a Restart changes it
			return !c.isClosed()
		case <-time.After(keepPoll):
			if c.adopted() && c.postmaster() == 0 && c.ping(ctx, c.socketsInUse()) != nil {
				return ctx.Err() == nil && !c.isClosed()
			}
		}
	}
}

func (c *Cluster) keepPause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c.closed:
		return false
	case <-time.After(d):
		return true
	}
}

// adopted reports whether another process started the server.
func (c *Cluster) adopted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server == nil
}

func (c *Cluster) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}
