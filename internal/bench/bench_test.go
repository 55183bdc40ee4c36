package bench_test

import (
	"testing"

	"github.com/fermata-run/fermata/internal/bench"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/worker"
)

// Every workload is a definition that compiles and runs to its end, and every figure is measured.
func TestWorkloadsRun(t *testing.T) {
	db, err := store.Open(t.Context(), store.Config{URL: pgtest.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	for _, workload := range []string{"single", "chain10", "fanout100"} {
		var phases []string
		r, err := bench.Run(t.Context(), bench.Config{
			Store: db, Worker: worker.New(worker.Config{}), Workload: workload, Seconds: 1, InFlight: 4,
			Phase: func(name string) { phases = append(phases, name) },
		})
		if err != nil {
			t.Fatalf("%s: %v", workload, err)
		}
		if r.Runs == 0 || r.Steps < r.Runs || r.StepsPerSecond <= 0 || r.WALBytesPerStep <= 0 || r.SubmitP50 <= 0 ||
			r.RawAppendsPerSecond <= 0 || r.FullAppendsPerSecond <= 0 || r.RatioToRaw <= 0 {
			t.Errorf("%s: something was not measured: %+v", workload, r)
		}
		if len(phases) != 5 {
			t.Errorf("%s: phases %v", workload, phases)
		}
	}
	if _, err := bench.Run(t.Context(), bench.Config{Store: db, Workload: "nope"}); err == nil {
		t.Error("an unknown workload is taken")
	}
}
