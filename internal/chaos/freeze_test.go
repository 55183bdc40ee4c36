//go:build unix

package chaos

import (
	"testing"
	"time"
)

// TestFreeze: one of two nodes is frozen beyond its lease and goes on later. Its late writes are refused and counted.
func TestFreeze(t *testing.T) {
	long(t)
	const runs = 60
	s := newScene(t)
	s.models.takes(20 * time.Millisecond)
	answerLate := s.models.hold(func(c call) bool { return c.node == "a" && c.run%2 == 0 }) // answers wait in a's sockets
	answerLast := s.models.hold(func(c call) bool { return c.node == "a" && c.run%2 == 1 }) // answers come when it is back
	a, b := s.start("a"), s.start("b")
	s.season(b)
	s.client.load(chain, 1, runs, a)()
	s.models.await(time.Minute, "the node is at work", runs, both(isOpen, by("a")))
	owned := s.owned("a")
	s.want(owned == runs, "the node owns %d of %d runs", owned, runs)

	a.freeze()
	frozen := time.Now()
	answerLate.release()
	s.await(3*leaseTTL, "the frozen node's runs are freed", func() bool {
		return b.metric("fermata_runs_recovered_total", `reason="lease_expired"`) >= runs
	})
	freed := time.Since(frozen)
	s.finish(time.Minute)
	finished := time.Since(frozen)
	s.want(s.models.count(both(isOpen, by("a"))) > 0, "no call of the frozen node is open")
	late := s.models.count(both(isAnswered, by("a")))
	s.want(late > 0, "no answer waits for the frozen node")

	a.thaw()
	stale := 0.0
	s.await(time.Minute, "the late writes are refused and counted", func() bool {
		stale = a.metric("fermata_stale_writes_rejected_total")
		return stale > 0
	})
	answerLast.release()
	s.models.await(startLimit, "every call of the node that was frozen is over", runs, both(by("a"), func(c call) bool { return !c.open }))
	s.await(time.Minute, "the node that was frozen is ready again", func() bool { return a.status("/readyz") == 200 })
	s.client.load(chain, 1000, 10, a)() // and of use
	s.finish(time.Minute)
	stale = a.metric("fermata_stale_writes_rejected_total")
	fenced := a.said("commit refused: the lease is gone")
	s.want(fenced > 0, "no late write came as far as Postgres")
	e := s.judge()

	for n, p := range e.promised {
		if got := of(e.logs[p.id], "step_succeeded"); got != len(chainSteps) {
			t.Errorf("run %d has %d outcomes", n, got)
		}
	}
	t.Logf("frozen with %d runs owned; freed after %s, finished on the other after %s; %d answers were waiting, %v late writes refused, in %d commits by Postgres, the others before",
		owned, freed, finished, late, stale, fenced)
}
