//go:build unix

package pgtest

import "testing"

// What a test pays for its own database.
func BenchmarkDatabase(b *testing.B) {
	ctx := b.Context()
	var names []string
	New(b) // makes server and template
	b.Run("clone", func(b *testing.B) {
		for b.Loop() {
			name, _, err := shared.newDatabase(ctx)
			if err != nil {
				b.Fatal(err)
			}
			names = append(names, name)
		}
	})
	b.Run("drop", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			name, _, err := shared.newDatabase(ctx)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := shared.dropDatabase(ctx, name); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, name := range names {
		if err := shared.dropDatabase(ctx, name); err != nil {
			b.Fatal(err)
		}
	}
}
