package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/pgembed"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

// durable is a server of its own that waits for its disk with each commit, as a real one does.
func durable(b *testing.B) *house {
	b.Helper()
	h := houseAt(b, pgtest.Cluster(b, pgembed.Config{}).URL())
	if err := h.db.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	return h
}

// BenchmarkReserveSettle measures one node on one shared budget: each client reserves, and settles at once. An operation
// is a reservation or a settlement; the percentiles are of reservations.
func BenchmarkReserveSettle(b *testing.B) {
	for _, clients := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			h := durable(b)
			h.budget("shared", func(s *store.BudgetSpec) { s.Limit = 1_000_000 * usage.USD })
			n := h.open(nil)
			took := make([][]time.Duration, clients)
			b.ResetTimer()
			var group sync.WaitGroup
			for c := range clients {
				group.Go(func() {
					for i := c; i < b.N; i += clients {
						began := time.Now()
						hold, err := n.Reserve(b.Context(), charge(1_000))
						if err != nil {
							b.Error(err)
							return
						}
						took[c] = append(took[c], time.Since(began))
						n.Settle(settlement(charge(1_000), hold, 900))
					}
				})
			}
			group.Wait()
			n.stop() // writes what is left
			b.StopTimer()
			report(b, 2*b.N, took)
			if state := h.state("shared"); state.Spent != usage.Money(900*b.N) || state.Reserved != 0 {
				b.Errorf("spent %d, reserved %d", state.Spent, state.Reserved)
			}
		})
	}
}

// BenchmarkReservePaced measures what 500 calls a second wait for a shared budget.
func BenchmarkReservePaced(b *testing.B) {
	h := durable(b)
	h.budget("shared", func(s *store.BudgetSpec) { s.Limit = 1_000_000 * usage.USD })
	n := h.open(nil)
	took := make([]time.Duration, b.N)
	var group sync.WaitGroup
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	b.ResetTimer()
	for i := range b.N {
		<-tick.C
		group.Go(func() {
			began := time.Now()
			hold, err := n.Reserve(b.Context(), charge(1_000))
			took[i] = time.Since(began)
			var short *gateway.BudgetError
			if err != nil && !errors.As(err, &short) {
				b.Error(err)
				return
			}
			n.Settle(settlement(charge(1_000), hold, 900))
		})
	}
	group.Wait()
	n.stop()
	b.StopTimer()
	report(b, 2*b.N, [][]time.Duration{took})
}

func report(b *testing.B, ops int, took [][]time.Duration) {
	b.Helper()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(ops)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1e3, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1e3, "p99-ms")
}
