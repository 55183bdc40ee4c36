package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const chain3 = `
spec: workflow/v1
name: chain3
steps:
  - {id: a, tool: "builtin:noop", args: {v: 1}}
  - {id: b, tool: "builtin:noop", args: {v: "${{ steps.a.output.v + 1 }}"}}
  - {id: c, tool: "builtin:noop", args: {v: "${{ steps.b.output.v + 1 }}"}}
`

func TestRunFromSubmissionToResult(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	id := n.submit(chain3, `{}`)
	row := n.status(id, flow.RunStatusSucceeded)
	if row.StepsDone != 3 || row.FinishedAt == nil {
		t.Errorf("the row is not the run's: %+v", row)
	}
	w, err := workflow.Compile([]byte(chain3))
	if err != nil {
		t.Fatal(err)
	}
	run, err := flow.Fold(id, store.TenantDefault, w, n.log(id))
	if err != nil {
		t.Fatal(err)
	}
	if result := run.View().Result; result == nil || string(result.Output) != `{"v":3}` {
		t.Errorf("result %+v", result)
	}
}

// A run of which nothing is left to do when it is submitted is inserted and finished by one batch.
func TestSubmitAndFinishInOneBatch(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	id := n.submit("spec: workflow/v1\nname: now\nsteps:\n  - {id: a, set: {x: 1}}\n", `{}`)
	row := n.status(id, flow.RunStatusSucceeded)
	if log := n.log(id); log[len(log)-1].Kind != flow.KindRunSucceeded || row.FinishedAt == nil {
		t.Errorf("log ends with %s; row %+v", log[len(log)-1].Kind, row)
	}
}

// Models emit NULs, lone surrogates and numbers no machine holds; they are kept as they were written.
func TestStrangeOutputsSurvive(t *testing.T) {
	const strange = `{"nul":"a\u0000b","lone":"\ud800 and \udfff","huge":1e400000,"dup":1}`
	n := startNode(t, newDatabase(t), "n1", workerFunc(func(_ context.Context, a flow.Attempt) *flow.Outcome {
		if a.Path == "a" {
			return &flow.Outcome{Output: json.RawMessage(strange)}
		}
		return &flow.Outcome{Output: json.RawMessage(`{}`)}
	}), nil)
	id := n.submit("spec: workflow/v1\nname: odd\nsteps:\n  - {id: a, tool: \"builtin:noop\"}\n  - {id: b, needs: [a], tool: \"builtin:noop\"}\noutput: {nul: \"${{ steps.a.output.nul }}\"}\n", `{}`)
	n.status(id, flow.RunStatusSucceeded)
	for _, e := range n.log(id) {
		if e.Kind == flow.KindStepSucceeded && e.Step == "a" && string(e.Body) != `{"output":`+strange+`}` {
			t.Errorf("kept as %s", e.Body)
		}
	}
}

// Data that Postgres refuses costs its own run alone: loaded again once, then set aside; a resume sets it free.
func TestRefusedDataQuarantinesItsRunAlone(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	n := startNode(t, newDatabase(t), "n1", workerFunc(func(_ context.Context, a flow.Attempt) *flow.Outcome {
		if string(a.Input) == `{"v":"bad"}` && broken.Load() {
			return &flow.Outcome{Output: json.RawMessage("\"\xff\xfe\"")} // not UTF-8: no honest worker does this
		}
		return echo(context.Background(), a) //nolint:forbidigo // ignored
	}), nil)
	def := "spec: workflow/v1\nname: one\ninput: {type: object, properties: {v: {type: string}}}\nsteps:\n  - {id: a, tool: \"builtin:noop\", args: {v: \"${{ input.v }}\"}}\n"
	bad := n.submit(def, `{"v":"bad"}`)
	var good []uuid.UUID
	for i := range 20 {
		good = append(good, n.submit(def, fmt.Sprintf(`{"v":"%d"}`, i)))
	}
	for _, id := range good {
		n.status(id, flow.RunStatusSucceeded)
	}
	n.status(bad, flow.RunStatusQuarantined)
	broken.Store(false)
	if ok, err := n.db.Unquarantine(t.Context(), store.TenantDefault, bad); err != nil || !ok {
		t.Fatalf("unquarantine: %v %v", ok, err)
	}
	n.status(bad, flow.RunStatusSucceeded)
}

func TestInvalidSubmissionLeavesNothing(t *testing.T) {
	n := startNode(t, newDatabase(t), "n1", workerFunc(echo), nil)
	id, err := n.trySubmit("spec: workflow/v1\nname: x\ninput: {type: object, required: [n], properties: {n: {type: integer}}}\nsteps:\n  - {id: a, set: {x: 1}}\n", `{"n":"no"}`)
	if !fault.Is(err, fault.KindInvalid) || len(fault.Of(err).Issues) == 0 {
		t.Fatalf("got %v", err)
	}
	if _, err := n.db.Run(t.Context(), store.TenantDefault, id); !fault.Is(err, fault.KindNotFound) {
		t.Errorf("something is left: %v", err)
	}
}

// Retries, cancel and resume go through timers and the inbox.
func TestRetryCancelResume(t *testing.T) {
	release := make(chan struct{})
	var calls atomic.Int32
	n := startNode(t, newDatabase(t), "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		switch {
		case a.Path == "flaky" && a.No < 3:
			return failure("server")
		case a.Path == "stuck":
			select {
			case <-ctx.Done():
				return failure("cancelled")
			case <-release:
			}
		case a.Path == "broken" && calls.Add(1) == 1:
			return failure("invalid_request")
		}
		return echo(ctx, a)
	}), nil)
	retried := n.submit("spec: workflow/v1\nname: r\nsteps:\n  - {id: flaky, tool: \"builtin:noop\", retry: {backoff: {initial: 10ms}}}\n", `{}`)
	n.status(retried, flow.RunStatusSucceeded)

	stuck := n.submit("spec: workflow/v1\nname: s\nsteps:\n  - {id: stuck, tool: \"builtin:noop\", timeout: 1h}\n", `{}`)
	n.tell(stuck, flow.ToldCancel, `{"reason":"test"}`)
	n.status(stuck, flow.RunStatusCancelled)
	if log := n.log(stuck); count(log, flow.KindStepCancelled) != 1 {
		t.Errorf("the call was not cut: %v", log)
	}

	broken := n.submit("spec: workflow/v1\nname: b\nsteps:\n  - {id: first, tool: \"builtin:noop\"}\n  - {id: broken, needs: [first], tool: \"builtin:noop\"}\n", `{}`)
	n.status(broken, flow.RunStatusFailed)
	n.tell(broken, flow.ToldResume, `{"reason":"test"}`)
	n.status(broken, flow.RunStatusSucceeded)
	log := n.log(broken)
	if got := count(log, flow.KindStepSucceeded); got != 2 {
		t.Errorf("%d steps succeeded; the first must not run again", got)
	}
	close(release)
}

// A long wait parks the run: no owner and no memory. A message that arrives while it parks is not lost.
func TestParkRacingASignal(t *testing.T) {
	url := newDatabase(t)
	n := startNode(t, url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		return failure("server")
	}), nil)
	def := "spec: workflow/v1\nname: p\nsteps:\n  - {id: a, tool: \"builtin:noop\", retry: {backoff: {initial: 10m, max: 10m, jitter: none}}}\n"
	parked := n.submit(def, `{}`)
	if row := n.status(parked, flow.RunStatusWaiting); row.WakeAt == nil || row.WaitingFor != "retry" {
		t.Errorf("row of a parked run: %+v", row)
	}
	n.tell(parked, flow.ToldCancel, `{}`)
	n.status(parked, flow.RunStatusCancelled)

	var group sync.WaitGroup
	runs := make([]uuid.UUID, 50)
	for i := range runs {
		runs[i] = n.submit(def, `{}`)
		group.Go(func() { n.tell(runs[i], flow.ToldCancel, `{}`) })
	}
	group.Wait()
	for _, id := range runs {
		n.status(id, flow.RunStatusCancelled)
	}
}

// Where there is no room a run waits in the table, and is claimed when there is.
func TestNoRoomQueues(t *testing.T) {
	release := make(chan struct{})
	n := startNode(t, newDatabase(t), "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		<-release
		return echo(ctx, a)
	}), func(c *engineConfig) { c.RunsMax = 2 })
	var runs []uuid.UUID
	for range 8 {
		runs = append(runs, n.submit(chain3, `{}`))
	}
	if row := n.status(runs[7], flow.RunStatusQueued); row.StartedAt != nil {
		t.Errorf("a queued run has started: %+v", row)
	}
	close(release)
	for _, id := range runs {
		n.status(id, flow.RunStatusSucceeded)
	}
}

// Draining lets attempts end, hands the rest back, and consumes no attempt.
func TestDrainHandsBack(t *testing.T) {
	url := newDatabase(t)
	started := make(chan struct{}, 100)
	first := startNode(t, url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		started <- struct{}{}
		<-ctx.Done()
		return failure("cancelled")
	}), func(c *engineConfig) { c.DrainTimeout = 50 * time.Millisecond })
	var runs []uuid.UUID
	for range 10 {
		runs = append(runs, first.submit(chain3, `{}`))
		<-started
	}
	second := startNode(t, url, "n2", workerFunc(echo), nil)
	first.stop()
	if _, err := first.trySubmit(chain3, `{}`); !fault.Is(err, fault.KindUnavailable) {
		t.Errorf("a drained node answers %v", err)
	}
	for _, id := range runs {
		second.status(id, flow.RunStatusSucceeded)
		for _, e := range second.log(id) {
			if e.Attempt > 1 {
				t.Errorf("an attempt was consumed: %s %s#%d", e.Kind, e.Step, e.Attempt)
			}
		}
	}
}

// A node whose lease was taken writes nothing more, and goes on under a new one.
func TestLostLease(t *testing.T) {
	url := newDatabase(t)
	release, started := make(chan struct{}), make(chan struct{}, 10)
	n := startNode(t, url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		started <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
			return failure("cancelled")
		}
		return echo(ctx, a)
	}), nil)
	id := n.submit(chain3, `{}`)
	<-started
	exec(t, url, `update lease set closed_at = now(), epoch = epoch + 1`)
	n.until("the lease is noticed to be gone", func() bool { return len(started) > 0 }) // the run was claimed again
	close(release)
	n.status(id, flow.RunStatusSucceeded)
	log := n.log(id)
	if got := count(log, flow.KindStepSucceeded); got != 3 {
		t.Errorf("%d outcomes for 3 steps", got)
	}
}

// A panic over a run sets that run aside, and nothing else stops.
func TestUnreadableLogIsQuarantined(t *testing.T) {
	url := newDatabase(t)
	n := startNode(t, url, "n1", workerFunc(func(context.Context, flow.Attempt) *flow.Outcome { return failure("server") }), nil)
	id := n.submit("spec: workflow/v1\nname: p\nsteps:\n  - {id: a, tool: \"builtin:noop\", retry: {backoff: {initial: 10m, max: 10m, jitter: none}}}\n", `{}`)
	n.status(id, flow.RunStatusWaiting)
	exec(t, url, `insert into event (run_id, at, seq, gen, attempt, v, kind, step, data) select run_id, at, max(seq) over () + 1, 1, 1, 99, 'step_started', 'a', '' from event where run_id = $1 limit 1`, id)
	exec(t, url, `update run set wake_at = now() where id = $1`, id)
	n.status(id, flow.RunStatusQuarantined)
	n.status(n.submit("spec: workflow/v1\nname: s\nsteps:\n  - {id: a, set: {x: 1}}\n", `{}`), flow.RunStatusSucceeded)
}
