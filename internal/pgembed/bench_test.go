//go:build unix

package pgembed

import (
	"context"
	"os"
	"testing"
)

// What a user waits for: a first start, a later one, joining, stopping.
func BenchmarkOpen(b *testing.B) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "pgembed-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	must := func(c *Cluster, err error) *Cluster {
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	stop := func(c *Cluster) {
		if err := c.Close(ctx); err != nil {
			b.Fatal(err)
		}
	}
	config := Config{Dir: dir, Offline: true}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			c := must(Open(ctx, config))
			b.StopTimer()
			stop(c)
			if err := os.RemoveAll(c.data); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	stop(must(Open(ctx, config)))
	b.Run("later", func(b *testing.B) {
		for b.Loop() {
			c := must(Open(ctx, config))
			b.StopTimer()
			stop(c)
			b.StartTimer()
		}
	})
	b.Run("stop", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			c := must(Open(ctx, config))
			b.StartTimer()
			stop(c)
		}
	})
	first := must(Open(ctx, config))
	defer stop(first)
	b.Run("join", func(b *testing.B) {
		for b.Loop() {
			stop(must(Open(ctx, config)))
		}
	})
}
