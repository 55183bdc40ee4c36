package rehearsal

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// Time in a bubble stands still while anything is at work, and jumps when everything waits; what breaks in it does not break
// the program.
func TestBubble(t *testing.T) {
	began := time.Now()
	err := inBubble(func(ctx context.Context) {
		at := time.Now()
		done := make(chan time.Duration)
		go func() {
			time.Sleep(365 * 24 * time.Hour)
			done <- time.Since(at)
		}()
		if d := <-done; d != 365*24*time.Hour {
			t.Errorf("a year took %s", d)
		}
		late, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		if <-late.Done(); !errors.Is(late.Err(), context.DeadlineExceeded) {
			t.Error(late.Err())
		}
	})
	if err != nil || time.Since(began) > time.Minute {
		t.Errorf("%v, after %s", err, time.Since(began))
	}
	if err := inBubble(func(context.Context) { panic("oh no") }); err == nil || !strings.Contains(err.Error(), "oh no") {
		t.Errorf("got %v", err)
	}
	if err := inBubble(func(context.Context) { select {} }); err == nil || !strings.Contains(err.Error(), "deadlock") {
		t.Errorf("got %v", err)
	}
}

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"", "x", true},
		{"review", "review", true},
		{"review", "reviews", false},
		{"build.*.make", "build.3.make", true},
		{"build.*", "build.3.make", true},
		{"*", "", true},
		{"claude-*", "claude-opus-4-6", true},
		{"a.b", "axb", false},
		{"*/pack", "a.1/pack", true},
	} {
		if got := matches(c.glob, c.name); got != c.want {
			t.Errorf("%q and %q: %t", c.glob, c.name, got)
		}
	}
}
