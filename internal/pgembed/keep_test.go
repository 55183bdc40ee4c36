//go:build unix

package pgembed

import (
	"context"
	"syscall"
	"testing"
)

// keep runs Keep and returns what ends it and waits for its return.
func keep(t *testing.T, c *Cluster) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		c.Keep(ctx)
	}()
	stop = func() {
		cancel()
		select {
		case <-returned:
		case <-testContext(t).Done():
			t.Error("Keep did not return")
		}
	}
	t.Cleanup(stop)
	return stop
}

// awaitServer waits for a server other than the old one and returns its pid.
func awaitServer(t *testing.T, c *Cluster, old int) int {
	t.Helper()
	ctx := testContext(t)
	for {
		pid := c.postmaster()
		err := c.ping(ctx, c.socketsInUse())
		if pid != 0 && pid != old && err == nil {
			return pid
		}
		if pause(ctx, stopPoll) != nil {
			t.Fatalf("the server did not come back: pid %d, %v", pid, err)
		}
	}
}

func TestKeepBringsKilledServerBack(t *testing.T) {
	t.Parallel()
	c := openTest(t, reachableDir(t))
	insert(t, c)
	keep(t, c)
	url, pid := c.URL(), c.postmaster()
	for want := range 2 {
		done := c.Done()
		kill(t, pid, syscall.SIGKILL)
		<-done
		pid = awaitServer(t, c, pid)
		if rows := query(t, c, "select count(*)::text from kept"); rows != "1" {
			t.Errorf("%s rows after kill %d, want 1", rows, want+1)
		}
	}
	if c.URL() != url {
		t.Errorf("URL changed: %s, then %s", url, c.URL())
	}
}

// A server whose starter has left is nobody's child: it must be looked at.
func TestKeepOfAdoptedServer(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	p := startChild(t, dir)
	pid, _ := p.opened()
	c := openTest(t, dir)
	p.leave()
	insert(t, c)
	keep(t, c)
	kill(t, pid, syscall.SIGKILL)
	awaitServer(t, c, pid)
	if rows := query(t, c, "select count(*)::text from kept"); rows != "1" {
		t.Errorf("%s rows, want 1", rows)
	}
}

func TestTwoKeepersOneServer(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	one, two := openTest(t, dir), openTest(t, dir)
	keep(t, one)
	keep(t, two)
	pid := one.postmaster()
	kill(t, pid, syscall.SIGKILL)
	if a, b := awaitServer(t, one, pid), awaitServer(t, two, pid); a != b {
		t.Errorf("servers %d and %d", a, b)
	}
	query(t, two, "select version()")
}

func TestKeepEndsWithClose(t *testing.T) {
	t.Parallel()
	c := openTest(t, reachableDir(t))
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		c.Keep(context.Background())
	}()
	pid := c.postmaster()
	if err := c.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-returned:
	case <-testContext(t).Done():
		t.Fatal("Keep did not return")
	}
	if now := c.postmaster(); now != 0 {
		t.Errorf("server %d runs after Close (it was %d)", now, pid)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	c := openTest(t, reachableDir(t))
	insert(t, c)
	pid := c.postmaster()
	if err := c.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if c.postmaster() != pid || c.adopted() {
		t.Error("Restart replaced a running server")
	}
	kill(t, pid, syscall.SIGKILL) // not waited for: Restart finds a zombie
	if err := c.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if c.postmaster() == pid {
		t.Error("the same pid after a kill")
	}
	if rows := query(t, c, "select count(*)::text from kept"); rows != "1" {
		t.Errorf("%s rows, want 1", rows)
	}
}
