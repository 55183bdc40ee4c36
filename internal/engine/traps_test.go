package engine_test

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/workflow"
)

const parks = "spec: workflow/v1\nname: parks\nsteps:\n  - {id: a, tool: \"builtin:noop\", retry: {backoff: {initial: 10m, max: 10m, jitter: none}}}\n"

// A message that is read again while it is being applied is applied once: a second cancel would cut the cleaning up.
func TestMessageIsAppliedOnce(t *testing.T) {
	url := newDatabase(t)
	release := make(chan struct{})
	n := startNode(t, url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		if a.Path == "tidy" {
			select {
			case <-release:
				return echo(ctx, a)
			case <-ctx.Done():
				return failure("cancelled")
			}
		}
		<-ctx.Done()
		return failure("cancelled")
	}), nil)
	def := "spec: workflow/v1\nname: m\nsteps:\n  - {id: a, tool: \"builtin:noop\"}\nfinally:\n  - {id: tidy, tool: \"builtin:noop\"}\n"
	runs := make([]uuid.UUID, 300)
	for i := range runs {
		runs[i] = n.submit(def, `{}`)
	}
	var group sync.WaitGroup
	for i := range 10 { // each message makes all be read again
		group.Go(func() {
			for _, id := range runs[i*30 : i*30+30] {
				n.tell(id, flow.ToldCancel, `{}`)
			}
		})
	}
	group.Wait()
	n.until("the messages are eaten", func() bool {
		left, err := n.db.RunInbox(t.Context(), runs)
		return err == nil && len(left) == 0
	})
	close(release)
	for _, id := range runs {
		n.status(id, flow.RunStatusCancelled)
		if log := n.log(id); count(log, flow.KindRunCancelling) != 1 || count(log, flow.KindStepSucceeded) != 1 {
			t.Fatalf("cancelled %d times; the cleaning up succeeded %d times", count(log, flow.KindRunCancelling), count(log, flow.KindStepSucceeded))
		}
	}
}

// A resume starts an unsafe tool again because an operator says so; it is not taken for what a dead node was at.
func TestResumeOfAnUnsafeTool(t *testing.T) {
	var calls atomic.Int32
	n := startNode(t, newDatabase(t), "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		if calls.Add(1) == 1 {
			return failure("tool_error")
		}
		return echo(ctx, a)
	}), nil)
	id := n.submit("spec: workflow/v1\nname: u\nsteps:\n  - {id: a, tool: \"builtin:noop\", side_effect: unsafe, retry: none}\n", `{}`)
	n.status(id, flow.RunStatusFailed)
	n.tell(id, flow.ToldResume, `{}`)
	n.status(id, flow.RunStatusSucceeded)
}

// Whoever submits while the node drains gets an answer, and a yes is durable.
func TestSubmitWhileDraining(t *testing.T) {
	url := newDatabase(t)
	n := startNode(t, url, "n1", workerFunc(echo), nil)
	w, err := workflow.Compile([]byte(chain3))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.db.PutDefinition(t.Context(), store.TenantDefault, w.Hash, w.Source); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var yes []uuid.UUID
	enough := make(chan struct{}, 10_000)
	for range 200 {
		group.Go(func() {
			for {
				id := uuid.Must(uuid.NewV7())
				err := n.engine.Submit(t.Context(), &flow.Submission{ID: id, Tenant: store.TenantDefault, Workflow: w, Input: json.RawMessage(`{}`), Priority: -1})
				if err != nil {
					if !fault.Is(err, fault.KindUnavailable) {
						t.Errorf("a draining node answers %v", err)
					}
					return
				}
				mu.Lock()
				yes = append(yes, id)
				mu.Unlock()
				select {
				case enough <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 500 {
		<-enough
	}
	n.stop()
	answered := make(chan struct{})
	go func() { group.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(patience):
		t.Fatal("a submission got no answer")
	}
	for _, id := range yes {
		if _, err := n.db.Run(t.Context(), store.TenantDefault, id); err != nil {
			t.Fatalf("acknowledged, and not there: %v", err)
		}
	}
}

// A run that is submitted again while it is at work is the same run.
func TestSubmitTwice(t *testing.T) {
	var calls atomic.Int32
	submitted, started := make(chan struct{}), make(chan struct{}, 10)
	for shards := 1; shards <= 2; shards++ {
		n := startNode(t, newDatabase(t), "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
			calls.Add(1)
			started <- struct{}{}
			<-submitted
			if a.No == 1 {
				return failure("server")
			}
			return echo(ctx, a)
		}), func(c *engineConfig) { c.Shards = shards })
		w, err := workflow.Compile([]byte("spec: workflow/v1\nname: r\nsteps:\n  - {id: a, tool: \"builtin:noop\", retry: {backoff: {initial: 10ms}}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := n.db.PutDefinition(t.Context(), store.TenantDefault, w.Hash, w.Source); err != nil {
			t.Fatal(err)
		}
		sub := &flow.Submission{ID: uuid.Must(uuid.NewV7()), Tenant: store.TenantDefault, Workflow: w, Input: json.RawMessage(`{}`), Priority: -1}
		if err := n.engine.Submit(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
		<-started
		if err := n.engine.Submit(t.Context(), sub); err != nil {
			t.Errorf("submitted again with %d shards: %v", shards, err)
		}
		close(submitted)
		n.status(sub.ID, flow.RunStatusSucceeded)
		if got := calls.Swap(0); got != 2 {
			t.Errorf("%d attempts were performed for 2", got)
		}
		submitted = make(chan struct{})
		for len(started) > 0 {
			<-started
		}
	}
}

// What no caller should send costs its submission, not the node.
func TestPanicOverASubmission(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	if _, err := n.trySubmit(chain3, `{`); err == nil {
		t.Error("input that is not JSON was taken")
	}
	n.status(n.submit(chain3, `{}`), flow.RunStatusSucceeded)
}

// A run whose log or definition cannot be read does not keep those from being loaded that were claimed with it.
func TestUnreadableRunsAreSetAsideAlone(t *testing.T) {
	url := newDatabase(t)
	first := startNode(t, url, "n1", workerFunc(func(context.Context, flow.Attempt) *flow.Outcome { return failure("server") }), nil)
	other := "spec: workflow/v1\nname: other\nsteps:\n  - {id: a, tool: \"builtin:noop\", retry: {backoff: {initial: 10m, max: 10m, jitter: none}}}\n"
	lost, garbled, empty := first.submit(other, `{}`), first.submit(parks, `{}`), first.submit(parks, `{}`)
	var good []uuid.UUID
	for range 10 {
		good = append(good, first.submit(parks, `{}`))
	}
	for _, id := range append([]uuid.UUID{lost, garbled, empty}, good...) {
		first.status(id, flow.RunStatusWaiting)
	}
	first.stop()
	exec(t, url, `delete from definition where hash = (select hash from run where id = $1)`, lost)
	exec(t, url, `insert into event (run_id, at, seq, gen, attempt, v, kind, step, data, more) values ($1, now(), 100, 0, 0, 1, 'run_failed', '', '', 'garbage')`, garbled)
	exec(t, url, `alter table event disable trigger event_guard`)
	exec(t, url, `delete from event where run_id = $1`, empty)
	exec(t, url, `update run set wake_at = now()`)
	exec(t, url, `insert into inbox (run_id, kind, data) select id, 'cancel', '{}' from run`)
	second := startNode(t, url, "n2", workerFunc(echo), nil)
	for _, id := range good {
		second.status(id, flow.RunStatusCancelled)
	}
	for _, id := range []uuid.UUID{lost, garbled, empty} {
		second.status(id, flow.RunStatusQuarantined)
	}
}

// Where there is room, what waits for it does not wait any longer.
func TestRoomIsFilledAtOnce(t *testing.T) {
	release := make(chan struct{})
	n := startNode(t, newDatabase(t), "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		<-release
		return echo(ctx, a)
	}), func(c *engineConfig) { c.Shards, c.RunsMax = 1, 2 })
	var runs []uuid.UUID
	for range 200 {
		runs = append(runs, n.submit(chain3, `{}`))
	}
	close(release)
	for _, id := range runs {
		n.status(id, flow.RunStatusSucceeded)
	}
}

// Thousands of messages to a few runs are all eaten; each run hears them one by one.
func TestMessageStorm(t *testing.T) {
	url := newDatabase(t)
	n := startNode(t, url, "n1", workerFunc(func(ctx context.Context, _ flow.Attempt) *flow.Outcome {
		<-ctx.Done()
		return failure("cancelled")
	}), nil)
	var runs []uuid.UUID
	for range 20 {
		runs = append(runs, n.submit(chain3, `{}`))
	}
	exec(t, url, `insert into inbox (run_id, kind, data) select r, 'resume', '{}' from unnest($1::uuid[]) r, generate_series(1, 250)`, runs)
	for _, id := range runs {
		n.tell(id, flow.ToldCancel, `{}`)
	}
	for _, id := range runs {
		n.status(id, flow.RunStatusCancelled)
	}
	n.until("the messages are gone", func() bool {
		left, err := n.db.RunInbox(t.Context(), runs)
		return err == nil && len(left) == 0
	})
}

// A node that is told to stop while Postgres is away gives up in the end; what it did not write happens elsewhere.
func TestDrainWithoutPostgres(t *testing.T) {
	url := newDatabase(t)
	way := newLink(t, url)
	release, started := make(chan struct{}), make(chan struct{}, 10)
	first := startNode(t, way.url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		started <- struct{}{}
		<-release
		return echo(ctx, a)
	}), func(c *engineConfig) { c.DrainTimeout, c.LeaseTTL = 100*time.Millisecond, time.Second })
	id := first.submit(chain3, `{}`)
	<-started
	way.cut()
	close(release) // its outcome cannot be recorded
	stopped := make(chan struct{})
	go func() { first.stop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(patience):
		way.mend()
		t.Fatal("the node does not stop")
	}
	second := startNode(t, url, "n2", workerFunc(echo), func(c *engineConfig) { c.LeaseTTL = time.Second })
	second.status(id, flow.RunStatusSucceeded)
	if got := count(second.log(id), flow.KindStepSucceeded); got != 3 {
		t.Errorf("%d outcomes for 3 steps", got)
	}
}

// A run that begins with many attempts has started once.
func TestRunStartIsCountedOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), func(c *engineConfig) {
		c.Metrics = telemetry.New(registry, telemetry.Build{})
	})
	n.status(n.submit("spec: workflow/v1\nname: w\nsteps:\n  - {id: a, needs: [], tool: \"builtin:noop\"}\n  - {id: b, needs: [], tool: \"builtin:noop\"}\n", `{}`), flow.RunStatusSucceeded)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "fermata_run_start_delay_seconds" {
			continue
		}
		if got := f.GetMetric()[0].GetHistogram().GetSampleCount(); got != 1 {
			t.Errorf("counted %d times", got)
		}
		return
	}
	t.Error("not counted at all")
}
