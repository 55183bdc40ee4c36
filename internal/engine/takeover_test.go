package engine_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

func shortLease(c *engineConfig) { c.LeaseTTL, c.DrainTimeout = time.Second, 100*time.Millisecond }

// stuck is a worker that stops at one step until it is let go or cut, and tells when it got there.
type stuck struct {
	at      flow.Path
	started chan struct{}
	release chan struct{}
}

func newStuck(at flow.Path) *stuck {
	return &stuck{at: at, started: make(chan struct{}, 1_000), release: make(chan struct{})}
}

func (s *stuck) work(ctx context.Context, a flow.Attempt) *flow.Outcome {
	if a.Path == s.at {
		s.started <- struct{}{}
		select {
		case <-s.release:
		case <-ctx.Done():
			return failure("cancelled")
		}
	}
	return echo(ctx, a)
}

// judge demands of a finished run's log: numbers without gaps, one outcome of each step and generation, one end.
func (n *node) judge(runs []uuid.UUID, outcomes int) {
	n.t.Helper()
	for _, id := range runs {
		log := n.log(id)
		settled := map[string]int{}
		for i, e := range log {
			if int(e.Seq) != i+1 {
				n.t.Fatalf("run %s: event %d has number %d", id, i+1, e.Seq)
			}
			switch e.Kind { //nolint:exhaustive // the outcomes
			case flow.KindStepSucceeded, flow.KindStepFailed, flow.KindStepSkipped, flow.KindStepCancelled:
				settled[e.Step]++
			}
		}
		for step, times := range settled {
			if times != 1 {
				n.t.Errorf("run %s: step %s has %d outcomes", id, step, times)
			}
		}
		if last := log[len(log)-1].Kind; len(settled) != outcomes || last != flow.KindRunSucceeded {
			n.t.Errorf("run %s: %d outcomes, and it ends with %s", id, len(settled), last)
		}
	}
}

// The runs of a node that cannot renew go on elsewhere; what it has to say when it is back is refused, and it goes on.
func TestTakeover(t *testing.T) {
	url := newDatabase(t)
	way, worker := newLink(t, url), newStuck("b")
	first := startNode(t, way.url, "n1", workerFunc(worker.work), shortLease)
	second := startNode(t, url, "n2", workerFunc(echo), shortLease)
	var runs []uuid.UUID
	for range 20 {
		runs = append(runs, first.submit(chain3, `{}`))
		<-worker.started
	}
	way.cut()
	for _, id := range runs {
		second.status(id, flow.RunStatusSucceeded)
	}
	close(worker.release)
	way.mend()
	first.until("the first node is back", func() bool {
		_, err := first.db.Run(t.Context(), store.TenantDefault, runs[0]) // connections that broke are found out by their use
		return err == nil && first.engine.Ready() == nil
	})
	second.judge(runs, 3)
	second.stop()
	second.status(first.submit(chain3, `{}`), flow.RunStatusSucceeded)
}

// While Postgres is away nobody loses a run to anybody, however long it takes, and no attempt is repeated.
func TestNobodyStealsAfterAStall(t *testing.T) {
	url := newDatabase(t)
	way, worker := newLink(t, url), newStuck("b")
	nodes := []*node{
		startNode(t, way.url, "n1", workerFunc(worker.work), shortLease),
		startNode(t, way.url, "n2", workerFunc(worker.work), shortLease),
	}
	var runs []uuid.UUID
	for i := range 20 {
		runs = append(runs, nodes[i%2].submit(chain3, `{}`))
		<-worker.started
	}
	way.cut()
	close(worker.release)
	eyes := &node{t: t, db: openStore(t, url)} // not through the link
	eyes.until("all leases have run out", func() bool {
		return one[int](t, url, `select count(*) from lease where until > now()`) == 0
	})
	way.mend()
	for _, id := range runs {
		eyes.status(id, flow.RunStatusSucceeded)
	}
	eyes.judge(runs, 3)
	if again := len(worker.started); again > 0 {
		t.Errorf("%d attempts were made again", again)
	}
}

// A batch of which the end never comes holds its lease; the takeover ends its server process, and it is never written.
func TestTakeoverOfAHalfSentBatch(t *testing.T) {
	url := newDatabase(t)
	way, worker := newLink(t, url), newStuck("b")
	first := startNode(t, way.url, "n1", workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		worker.work(ctx, a)
		return &flow.Outcome{Output: json.RawMessage(`{"v":1,"mark":"half-sent"}`)}
	}), func(c *engineConfig) { c.Shards = 1; shortLease(c) })
	id := first.submit(chain3, `{}`)
	<-worker.started
	way.hold("half-sent")
	close(worker.release)
	<-way.held
	way.cut() // but for the connection of the batch
	second := startNode(t, url, "n2", workerFunc(echo), shortLease)
	second.status(id, flow.RunStatusSucceeded)
	second.judge([]uuid.UUID{id}, 3)
	for _, e := range second.log(id) {
		if e.Kind == flow.KindStepSucceeded && e.Step == "b" && string(e.Body) != `{"output":{"v":2}}` {
			t.Errorf("written after the takeover: %s", e.Body)
		}
	}
	way.mend()
}

// A run in whose attempt three nodes died is set aside; an operator lets it go on.
func TestThreeTakeoversQuarantine(t *testing.T) {
	url := newDatabase(t)
	worker := newStuck("b")
	n := startNode(t, url, "n1", workerFunc(worker.work), nil)
	id := n.submit(chain3, `{}`)
	for range 3 {
		<-worker.started
		exec(t, url, `update lease set closed_at = now(), epoch = epoch + 1 where closed_at is null and id = (select owner from run where id = $1)`, id)
	}
	row := n.status(id, flow.RunStatusQuarantined)
	if row.Error == nil || row.Error.Class != "internal" {
		t.Errorf("row of a run set aside: %+v", row)
	}
	close(worker.release)
	if ok, err := n.db.Unquarantine(t.Context(), store.TenantDefault, id); err != nil || !ok {
		t.Fatalf("unquarantine: %v %v", ok, err)
	}
	n.status(id, flow.RunStatusSucceeded)
	n.judge([]uuid.UUID{id}, 3)
}

// A batch whose answer is lost is neither written twice nor forgotten, whether it has landed or not, and the node keeps
// its runs.
func TestUnknownCommit(t *testing.T) {
	url := newDatabase(t)
	way := newLink(t, url)
	eyes := &node{t: t, db: openStore(t, url)}
	for name, fate := range map[string]func(string){"landed": way.lose, "not landed": way.hold} {
		worker := newStuck("b")
		n := startNode(t, way.url, name, workerFunc(worker.work), func(c *engineConfig) { c.Shards = 1 })
		id := n.submit(chain3, `{}`)
		<-worker.started
		fate(`{"v":2}`)
		close(worker.release)
		<-way.held
		if name == "not landed" {
			way.cut()
			way.mend()
			exec(t, url, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid()`)
		}
		eyes.status(id, flow.RunStatusSucceeded)
		eyes.judge([]uuid.UUID{id}, 3)
		if again := len(worker.started); again > 0 {
			t.Errorf("%s: the attempt was made %d times more", name, again)
		}
		n.stop()
	}
}

// Nodes come and go under load: every acknowledged run finishes, whole.
func TestNodesComeAndGo(t *testing.T) {
	const runsMax, nodesMax = 500, 3
	url := newDatabase(t)
	work := workerFunc(func(ctx context.Context, a flow.Attempt) *flow.Outcome {
		if rand.N(50) == 0 && a.No == 1 {
			return failure("server")
		}
		return echo(ctx, a)
	})
	def := "spec: workflow/v1\nname: g\nsteps:\n" +
		"  - {id: a, tool: \"builtin:noop\", retry: {backoff: {initial: 1ms}}}\n" +
		"  - {id: b, needs: [], tool: \"builtin:noop\", retry: {backoff: {initial: 1ms}}}\n" +
		"  - {id: c, needs: [a, b], tool: \"builtin:noop\", retry: {backoff: {initial: 1ms}}}\n" +
		"  - {id: d, needs: [c], set: {x: \"${{ steps.c.output }}\"}}\n"
	start := func() *node {
		return startNode(t, url, "n"+uuid.NewString(), work, func(c *engineConfig) { c.Shards = 4 })
	}
	nodes := make([]*node, nodesMax)
	for i := range nodes {
		nodes[i] = start()
	}
	var mu sync.Mutex
	var runs []uuid.UUID
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for {
				mu.Lock()
				n := nodes[rand.N(nodesMax)]
				enough := len(runs) >= runsMax
				mu.Unlock()
				if enough {
					return
				}
				if id, err := n.trySubmit(def, `{}`); err == nil {
					mu.Lock()
					runs = append(runs, id)
					mu.Unlock()
				}
			}
		})
	}
	go func() { group.Wait(); close(done) }()
	for coming := true; coming; {
		i := rand.N(nodesMax)
		n := nodes[i]
		n.stop()
		next := start()
		mu.Lock()
		nodes[i] = next
		mu.Unlock()
		select {
		case <-done:
			coming = false
		default:
		}
	}
	for _, id := range runs {
		nodes[0].status(id, flow.RunStatusSucceeded)
	}
	nodes[0].judge(runs, 4)
}
