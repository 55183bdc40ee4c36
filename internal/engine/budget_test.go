package engine_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/usage"
)

const budgeted = `
spec: workflow/v1
name: budgeted
budget: {usd: 0.01}
steps:
  - {id: a, agent: w, prompt: A, retry: none}
  - {id: b, agent: w, prompt: B, needs: [a], retry: none}
agents: {w: {model: gpt-4o}}
`

const cent = usage.USD / 100

// dear answers for one cent, while the run's budget has one left for it.
func dear(_ context.Context, a flow.Attempt) *flow.Outcome {
	if a.Budget.Spent.Cost+cent > a.Budget.Cost {
		return &flow.Outcome{Held: flow.HeldBudget, Failure: &flow.Failure{Class: "budget_exceeded", Message: "run: exhausted"}}
	}
	return &flow.Outcome{Output: json.RawMessage(`1`), Calls: []usage.Call{{
		Provider: "p", Model: "m", Try: 1, Cost: cent, Baseline: 3 * cent, CacheSaved: cent / 2, Tokens: usage.Tokens{CacheWrite1h: 7, Output: 2},
	}}}
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no gauge %s", name)
	return 0
}

// A run out of money is nobody's: no owner, no memory, a time within the minute to look again. More money, and it goes on,
// once; what it cost and saved stands in the table of what was spent.
func TestPausedOnItsBudget(t *testing.T) {
	url, registry := newDatabase(t), prometheus.NewRegistry()
	n := startNode(t, url, "n1", workerFunc(dear), func(c *engineConfig) { c.Metrics = telemetry.New(registry, telemetry.Build{}) })
	id := n.submit(budgeted, `{}`)
	row := n.status(id, flow.RunStatusWaiting)
	if row.WaitingFor != "budget" || row.WakeAt == nil || time.Until(*row.WakeAt) > time.Minute {
		t.Errorf("row of a run out of money: waiting for %q until %v", row.WaitingFor, row.WakeAt)
	}
	if owned := one[int](t, url, `select count(*) from run where owner is not null`); owned != 0 {
		t.Errorf("%d runs have an owner", owned)
	}
	n.until("nothing is in memory", func() bool { return gauge(t, registry, "fermata_runs_owned") == 0 })

	n.tell(id, flow.ToldBudget, `{"cost_nano":20000000,"actor":"me"}`)
	n.status(id, flow.RunStatusSucceeded)
	n.judge([]uuid.UUID{id}, 2)
	log := n.log(id)
	if raised, started := count(log, flow.KindRunBudgetRaised), count(log, flow.KindStepStarted); raised != 1 || started != 3 {
		t.Errorf("raised %d times, started %d attempts", raised, started)
	}
	type spent struct {
		Cost, Baseline, Saved, CacheWrite int64
	}
	got := spent{
		one[int64](t, url, `select sum(cost_nano)::bigint from spend`), one[int64](t, url, `select sum(baseline_nano)::bigint from spend`),
		one[int64](t, url, `select sum(cache_saved_nano)::bigint from spend`), one[int64](t, url, `select sum(tokens_cache_write)::bigint from spend`),
	}
	if diff := cmp.Diff(spent{2 * int64(cent), 6 * int64(cent), int64(cent), 14}, got); diff != "" {
		t.Error(diff)
	}
}

// The money comes while the first attempt is at work, while the run parks, or after: in any case it goes on once, and no
// attempt is counted for the waiting.
func TestMoneyComesAnyTime(t *testing.T) {
	url := newDatabase(t)
	n := startNode(t, url, "n1", workerFunc(dear), nil)
	runs := make([]uuid.UUID, 40)
	var group sync.WaitGroup
	for i := range runs {
		runs[i] = n.submit(budgeted, `{}`)
		group.Go(func() { n.tell(runs[i], flow.ToldBudget, `{"cost_nano":20000000}`) })
	}
	group.Wait()
	for _, id := range runs {
		n.status(id, flow.RunStatusSucceeded)
		for _, e := range n.log(id) {
			if e.Attempt > 1 {
				t.Errorf("run %s: an attempt was consumed: %s %s#%d", id, e.Kind, e.Step, e.Attempt)
			}
		}
		if raised := count(n.log(id), flow.KindRunBudgetRaised); raised != 1 {
			t.Errorf("run %s: raised %d times", id, raised)
		}
	}
	n.judge(runs, 2)
}

// The owner dies over an attempt, with the raise in the inbox; or while the run is parked and nobody is there. Whoever
// comes next goes on with the money, once.
func TestMoneyOutlivesTheOwner(t *testing.T) {
	url := newDatabase(t)
	way, started := newLink(t, url), make(chan struct{}, 100)
	first := startNode(t, way.url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		if a.Path == "b" && a.Workflow == "dying" {
			started <- struct{}{}
			<-ctx.Done()
			return failure("cancelled")
		}
		return dear(ctx, a)
	}), shortLease)
	parked := first.submit(budgeted, `{}`)
	first.status(parked, flow.RunStatusWaiting)
	dying := first.submit(strings.Replace(budgeted, "name: budgeted", "name: dying", 1), `{}`)
	<-started
	way.cut()
	exec(t, url, `insert into inbox (run_id, kind, data) select r, 'budget', '{"cost_nano":20000000}' from unnest($1::uuid[]) r`, []uuid.UUID{parked, dying})
	second := startNode(t, url, "n2", workerFunc(dear), shortLease)
	runs := []uuid.UUID{parked, dying}
	for _, id := range runs {
		second.status(id, flow.RunStatusSucceeded)
		if raised := count(second.log(id), flow.KindRunBudgetRaised); raised != 1 {
			t.Errorf("raised %d times", raised)
		}
	}
	second.judge(runs, 2)
	way.mend()
}

// A run's row has the version that its log needs: nodes of the release before go on with what holds nothing new, and
// leave the rest alone from the very commit that makes it new.
func TestFormatIsThatOfTheLog(t *testing.T) {
	url := newDatabase(t)
	held := newStuck("b")
	n := startNode(t, url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		if a.Path == "a" {
			return &flow.Outcome{Held: flow.HeldBudget, Failure: &flow.Failure{Class: "budget_exceeded", Message: "team"}}
		}
		return held.work(ctx, a)
	}), nil)
	format := func(id uuid.UUID) int { return one[int](t, url, `select format from run where id = $1`, id) }
	old := n.submit("spec: workflow/v1\nname: old\nsteps:\n  - {id: x, tool: \"builtin:noop\"}\n", `{}`)
	n.status(old, flow.RunStatusSucceeded)
	if got := format(old); got != 1 {
		t.Errorf("nothing new, and format %d", got)
	}
	both := n.submit("spec: workflow/v1\nname: two\nagents: {w: {model: gpt-4o}}\nsteps:\n  - {id: a, needs: [], agent: w, prompt: A}\n  - {id: b, needs: [], tool: \"builtin:noop\"}\n", `{}`)
	<-held.started
	n.until("the attempt is held", func() bool {
		log := n.log(both)
		last := log[len(log)-1]
		if last.V == 2 && format(both) != 2 {
			t.Fatalf("the log is of version %d, its row of %d", last.V, format(both))
		}
		return last.V == 2
	})
	if row, err := n.db.Run(t.Context(), store.TenantDefault, both); err != nil || row.Status != flow.RunStatusRunning {
		t.Errorf("it is at work: %s, %v", row.Status, err)
	}
	close(held.release)
	n.tell(both, flow.ToldCancel, `{}`)
	n.status(both, flow.RunStatusCancelled)
}

// A run that is being cancelled is told to be that, however long its cleaning up waits.
func TestCancellingIsNotWaiting(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		if a.Path == "tidy" {
			return failure("server")
		}
		<-ctx.Done()
		return failure("cancelled")
	}), nil)
	id := n.submit("spec: workflow/v1\nname: c\nsteps:\n  - {id: a, tool: \"builtin:noop\"}\nfinally:\n  - {id: tidy, tool: \"builtin:noop\", retry: {backoff: {initial: 2m, jitter: none}}}\n", `{}`)
	n.tell(id, flow.ToldCancel, `{}`)
	n.until("its cleaning up waits", func() bool { return count(n.log(id), flow.KindAttemptFailed) > 0 })
	if row, err := n.db.Run(t.Context(), store.TenantDefault, id); err != nil || row.Status != flow.RunStatusCancelling {
		t.Errorf("the row says %s: %v", row.Status, err)
	}
	n.tell(id, flow.ToldCancel, `{}`)
	n.status(id, flow.RunStatusCancelled)
}
