//go:build unix

package chaos

import (
	"net/http"
	"testing"
	"time"
)

// TestKillOnlyNode: kill -9 of the only node in the middle of 200 runs. Under its old name it goes on at once, without
// waiting for the lease of the process that died.
func TestKillOnlyNode(t *testing.T) {
	const runs = 200
	s := newScene(t)
	s.models.takes(250 * time.Millisecond)
	a := s.start("a")
	s.client.load(chain, 1, runs, a)()
	s.models.await(time.Minute, "half of the steps", runs*len(chainSteps)/2, isAnswered)
	a.kill()
	killed := time.Now()
	before := len(s.models.ledger())
	s.models.await(startLimit, "the calls of the dead node are over", before, func(c call) bool { return !c.open })
	cut, done, left := s.models.count(isCut), s.settled(), s.unfinished()
	s.want(cut > 0 && done > 0 && left > 0, "the kill did not come in the middle: %d calls cut, %d steps done, %d runs unfinished", cut, done, left)

	a = a.again()
	ready := time.Since(killed)
	s.models.await(time.Minute, "the first call after the restart", before+1, func(call) bool { return true })
	resumed := time.Since(killed)
	s.finish(time.Minute)
	finished := time.Since(killed)
	e := s.judge()

	s.want(resumed < leaseTTL, "the restarted node waited for the old lease: %s", resumed)
	s.want(a.metric("fermata_runs_recovered_total", `reason="startup"`) > 0, "no run was recovered at startup")
	s.want(a.metric("fermata_lease_expirations_total") == 0, "the dead node's lease was left to expire")
	t.Logf("killed with %d steps committed, %d calls cut, %d runs unfinished; ready after %s, first call after %s, all finished after %s; "+
		"%d calls for %d steps: %d called again, none of them committed before", done, cut, left, ready, resumed, finished,
		len(e.calls), runs*len(chainSteps), calledAgain(e.calls))
}

// TestKillOneOfTwo: the runs of a node that was killed finish on the other one.
func TestKillOneOfTwo(t *testing.T) {
	long(t)
	const runs, limit = 100, 20 * time.Second
	s := newScene(t)
	s.models.takes(50 * time.Millisecond)
	a, b := s.start("a"), s.start("b")
	s.season(b)
	s.client.load(chain, 1, runs, a, b)()
	s.models.await(time.Minute, "a third of the steps", runs, isAnswered)
	a.kill()
	killed := time.Now()
	orphans := s.owned("a")
	s.want(orphans > 0, "the dead node owned no run")
	s.finish(time.Minute)
	took := time.Since(killed)
	e := s.judge()

	s.want(took <= limit, "the runs of the dead node took %s to finish on the other", took)
	s.want(b.metric("fermata_runs_recovered_total", `reason="lease_expired"`) >= float64(orphans), "node b recovered fewer than %d runs", orphans)
	s.want(b.metric("fermata_lease_expirations_total") > 0, "no lease expired")
	t.Logf("killed with %d runs owned; all finished on the other after %s; %d calls for %d steps, %d called again",
		orphans, took, len(e.calls), runs*len(chainSteps), calledAgain(e.calls))
}

// TestPoison: a run in whose attempt three nodes died is set aside. The others go on, although they were at work each
// time, too.
func TestPoison(t *testing.T) {
	long(t)
	const poison, others, deaths = 666, 30, 3
	s := newScene(t)
	s.models.takes(200 * time.Millisecond)
	isPoison := func(c call) bool { return c.run == poison }
	s.models.hold(isPoison)
	a := s.start("a")
	s.client.load(chain, poison, 1, a)()
	s.client.load(chain, 1, others, a)()
	bystanders := 0
	for i := range deaths {
		s.models.await(time.Minute, "the poisonous step is at work", i+1, isPoison)
		bystanders += s.models.count(isOpen) - 1
		a.kill()
		a = a.again()
	}
	s.want(bystanders > 0, "no other attempt was at work when the nodes died")
	s.await(time.Minute, "the poisonous run is set aside", func() bool {
		return one[string](s.db, `select status from run where id = $1`, s.client.id(poison)) == "quarantined"
	})
	s.finish(time.Minute, poison)
	s.client.load(chain, 1000, others, a)()
	s.finish(time.Minute, poison)
	e := s.judge("succeeded", "quarantined")

	for n, p := range e.promised {
		if status := e.rows[p.id].Status; (status == "quarantined") != (n == poison) {
			t.Errorf("run %d is %s", n, status)
		}
	}
	called := count(e.calls, isPoison)
	s.want(called == deaths, "the poisonous step was called %d times", called)
	s.want(a.said("run quarantined") == 1, "the log of the node does not say that a run was set aside")
	t.Logf("set aside after %d deaths, with %d attempts of others at work in them; %d other runs finished", deaths, bystanders, len(e.promised)-1)
}

// TestSubmitAcrossKill: a node is killed while submissions are on their way. Sent again under their keys to the other
// node, each makes one run. Keys that the dead node was at are free again after a minute, unless their run was made.
func TestSubmitAcrossKill(t *testing.T) {
	long(t)
	const runs = 300
	s := newScene(t)
	a, b := s.start("a"), s.start("b")
	wait := s.client.load(chain, 1, runs, a, b)
	s.await(time.Minute, "the load is on", func() bool { return len(s.client.promises()) > runs/4 })
	a.kill()
	killed := time.Now()
	s.want(len(s.client.promises()) < runs, "all was submitted when the node was killed")
	wait()
	accepted := time.Since(killed)
	s.finish(time.Minute)
	finished := time.Since(killed)
	e := s.judge()

	s.want(s.client.unheard.Load() > 0, "no submission went unheard")
	s.want(b.metric("fermata_runs_recovered_total", `reason="lease_expired"`) > 0, "no run was recovered")
	t.Logf("%d submissions unheard, %d refused, %d replayed; all accepted %s after the kill, all finished after %s; %d runs for %d keys",
		s.client.unheard.Load(), s.client.refused.Load(), s.client.replayed.Load(), accepted, finished, len(e.rows), runs)
}

// TestTerminate: SIGTERM under load. What is at work may end, what does not end in time is cut; everything else goes on
// at the other node at once, and nobody pays for it with an attempt.
func TestTerminate(t *testing.T) {
	long(t)
	const runs, atWork, drain = 60, 45, 4 * time.Second
	s := newScene(t)
	s.models.takes(20 * time.Millisecond)
	stuck := func(c call) bool { return c.node == "a" && c.run <= 5 }
	slow := s.models.hold(by("a"))
	s.models.hold(stuck) // these end only by being cut
	a, b := s.start("a", "--drain-timeout", drain.String()), s.start("b")
	s.client.load(chain, 1, runs/2, a)()
	s.client.load(chain, runs/2+1, runs/2, a, b)()
	s.models.await(time.Minute, "the node is at work", atWork, both(isOpen, by("a")))

	a.terminate()
	told := time.Now()
	s.await(startLimit, "the draining node is not ready", func() bool { return a.status("/readyz") == http.StatusServiceUnavailable })
	notReady := time.Since(told)
	s.want(a.status("/livez") == http.StatusOK, "the draining node is not alive")
	resp, _, err := s.client.post(a.url+"/v1/runs", "chaos-refused", mustJSON(t, chain(9999)))
	s.want(err == nil && resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "",
		"a submission to the draining node was not refused: %v %v", resp, err)
	calls := len(s.models.ledger())
	slow.release()
	s.models.await(startLimit, "the attempts at work have ended", atWork-5, both(isAnswered, by("a")))
	a.awaitEnd(startLimit)
	ended := time.Since(told)
	s.finish(time.Minute)
	finished := time.Since(told)
	e := s.judge()

	s.want(calls == atWork+count(e.calls[:calls], by("b")), "the draining node began calls")
	cut := count(e.calls, isCut)
	s.want(cut == 5, "%d calls were cut, not 5", cut)
	s.want(len(e.calls) == runs*len(chainSteps)+cut, "%d calls for %d steps and %d cuts", len(e.calls), runs*len(chainSteps), cut)
	for n, p := range e.promised {
		for _, ev := range e.logs[p.id] {
			s.want(ev.Attempt <= 1, "run %d: step %s has an attempt %d", n, ev.Step, ev.Attempt)
		}
	}
	s.want(a.said("runs freed", `"reason":"drain"`) > 0, "the node did not hand back any run")
	s.want(b.metric("fermata_lease_expirations_total") == 0, "a lease was left to expire")
	s.want(finished < leaseTTL, "the runs went on only after %s", finished)
	t.Logf("%d attempts at work; not ready after %s, ended after %s (%d cut after %s), all finished after %s; attempts of every step: 1",
		atWork, notReady, ended, cut, drain, finished)
}
