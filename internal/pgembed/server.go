//go:build unix

package pgembed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTries   = 10
	startPause   = 100 * time.Millisecond // times the number of the try
	readyPollMin = 10 * time.Millisecond
	readyPollMax = 200 * time.Millisecond
	stopPoll     = 10 * time.Millisecond

	stopFast      = 20 * time.Second
	stopImmediate = 5 * time.Second

	logBytesMax  = 16 << 20 // the log is set aside at a start when it is larger
	logTailBytes = 2000
)

// server is a postmaster that this process started. Nothing waits for it until
// somebody asks: a process that only uses the server owns no goroutine for it.
type server struct {
	pid   int
	watch sync.Once
	gone  chan struct{}
	mark  sync.Once
}

// exited reaps the postmaster if it has ended. It does not block.
func (s *server) exited() bool {
	select {
	case <-s.gone:
		return true
	default:
	}
	return s.wait(syscall.WNOHANG)
}

// done is closed when the postmaster has ended.
func (s *server) done() <-chan struct{} {
	s.watch.Do(func() { go s.wait(0) })
	return s.gone
}

func (s *server) wait(options int) bool {
	for {
		pid, err := syscall.Wait4(s.pid, nil, options, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err == nil && pid == 0:
			return false // still running
		}
		s.mark.Do(func() { close(s.gone) }) // ended, or reaped by the other waiter
		return true
	}
}

// start runs the server and returns when it accepts connections.
func (c *Cluster) start(ctx context.Context) error {
	c.mu.Lock()
	sockets, bin := c.sockets, c.bin
	c.mu.Unlock()
	if err := privateDir(sockets, c.account); err != nil {
		return err
	}
	if err := c.clearStaleLocks(ctx, sockets); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	args := c.serverArgs(ctx, bin, sockets)
	for try := 1; ; try++ {
		said, err := c.launch(ctx, bin, sockets, args)
		if err == nil {
			return nil
		}
		// Backends of a killed server hold its memory for a moment longer.
		if !strings.Contains(said, "shared memory block") || try == startTries || ctx.Err() != nil {
			return fmt.Errorf("start postgres: %w; its log %s says: %s", err, c.path("postgres.log"), said)
		}
		if err := pause(ctx, time.Duration(try)*startPause); err != nil {
			return fmt.Errorf("start postgres: %w", err)
		}
	}
}

// launch starts one postmaster; when that fails it returns what was logged.
func (c *Cluster) launch(ctx context.Context, bin installation, sockets string, args []string) (said string, err error) {
	began := time.Now()
	cmd, err := bin.command(c.account, "postgres", args...)
	if err != nil {
		return "", err
	}
	// A file and not a pipe: the server must outlive this process.
	log, err := c.openLog()
	if err != nil {
		return "", err
	}
	defer log.Close()
	from, err := log.Seek(0, 2)
	if err != nil {
		return "", err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	s := &server{pid: cmd.Process.Pid, gone: make(chan struct{})}
	_ = cmd.Process.Release() // server.wait reaps it
	if err := c.awaitReady(ctx, s, sockets); err != nil {
		return logTail(log, from), err
	}
	c.mu.Lock()
	c.server = s
	c.mu.Unlock()
	c.log.Info("postgres: server started", "dir", c.dir, "pid", s.pid, "major", bin.major, "took", time.Since(began))
	return "", nil
}

func (c *Cluster) awaitReady(ctx context.Context, s *server, sockets string) error {
	for poll := readyPollMin; ; poll = min(2*poll, readyPollMax) {
		err := c.ping(ctx, sockets)
		if err == nil {
			return nil
		}
		if s.exited() {
			return errors.New("the server exited while starting")
		}
		if cause := pause(ctx, poll); cause != nil {
			// Not left behind half started: nobody may come back for it.
			stopErr := signalUntilGone(context.WithoutCancel(ctx), s.pid, s.exited)
			return errors.Join(fmt.Errorf("the server is not ready (%w): %w", err, cause), stopErr)
		}
	}
}

// stop ends the server whoever started it. The caller holds both locks.
func (c *Cluster) stop(ctx context.Context) error {
	pid := c.postmaster()
	c.mu.Lock()
	s := c.server
	c.mu.Unlock()
	gone := func() bool { return !isPostmasterOf(pid, c.data) }
	if s != nil && (pid == 0 || pid == s.pid) {
		pid, gone = s.pid, s.exited
	}
	if pid == 0 || gone() {
		return nil
	}
	if err := signalUntilGone(ctx, pid, gone); err != nil {
		return err
	}
	c.log.Info("postgres: server stopped", "dir", c.dir, "pid", pid)
	if sockets := c.socketsInUse(); sockets != c.path("run") {
		_ = os.Remove(sockets) // the stand-in elsewhere; not empty if something else lies in it
	}
	return nil
}

// signalUntilGone asks a postmaster to end: without waiting for its clients,
// then at once. It is never killed, which could leave backends behind.
func signalUntilGone(ctx context.Context, pid int, gone func() bool) error {
	for _, step := range []struct {
		signal syscall.Signal
		limit  time.Duration
		ctx    context.Context
	}{
		{syscall.SIGINT, stopFast, ctx},
		{syscall.SIGQUIT, stopImmediate, context.WithoutCancel(ctx)},
	} {
		if err := syscall.Kill(pid, step.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop postgres (pid %d): %w", pid, err)
		}
		ctx, cancel := context.WithTimeout(step.ctx, step.limit)
		for !gone() {
			if pause(ctx, stopPoll) != nil {
				break
			}
		}
		cancel()
		if gone() {
			return nil
		}
	}
	return fmt.Errorf("postgres (pid %d) did not stop", pid)
}

// openLog opens the server's log for appending, and sets a large one aside.
func (c *Cluster) openLog() (*os.File, error) {
	path := c.path("postgres.log")
	if info, err := os.Stat(path); err == nil && info.Size() > logBytesMax {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
}

// logTail is the end of what was logged since an offset.
func logTail(log *os.File, from int64) string {
	if info, err := log.Stat(); err == nil {
		from = max(from, info.Size()-logTailBytes)
	}
	text := make([]byte, logTailBytes)
	n, _ := log.ReadAt(text, from) // short: that was all
	return strings.TrimSpace(string(text[:n]))
}
