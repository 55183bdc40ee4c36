//go:build unix

package chaos

import (
	"net/http"
	"testing"
	"time"
)

// TestNetwork: the network between the only node and Postgres fails in every way: answers are lost, questions are
// lost, everything is slow, connections are forgotten without a word.
func TestNetwork(t *testing.T) {
	long(t)
	const runs = 60
	s := newScene(t)
	s.models.takes(150 * time.Millisecond)
	l := newLink(t, s.db)
	a := s.startOn(l.url, "127.0.0.1:0", "a")
	next := 1
	load := func() { // and no submission is on its way when it returns
		first := next
		next += runs
		s.client.load(chain, first, runs, a)()
		s.models.await(time.Minute, "the load is on", runs, func(c call) bool { return c.run >= first && c.answered })
		s.want(s.unfinished() > runs/4, "all but %d runs were finished before anything broke", s.unfinished())
	}
	through := func(what string) {
		broken := time.Now()
		s.finish(time.Minute)
		t.Logf("%s: all finished %s after that", what, time.Since(broken))
	}

	load()
	lost := l.dropped[toNode].Load()
	l.mute.Store(true) // what Postgres did, the node does not hear
	s.await(time.Minute, "answers are lost", func() bool { return l.dropped[toNode].Load() > lost })
	settle(t)
	l.reset()
	l.mute.Store(false)
	through("answers lost, connections reset")

	load()
	lost = l.dropped[toServer].Load()
	l.deaf.Store(true) // what the node says, Postgres does not hear
	s.await(time.Minute, "questions are lost", func() bool { return l.dropped[toServer].Load() > lost })
	settle(t)
	l.reset()
	l.deaf.Store(false)
	through("questions lost, connections reset")

	load()
	l.slow.Store(int64(100 * time.Millisecond))
	settled := s.settled()
	s.await(time.Minute, "the slow network carries something", func() bool { return s.settled() > settled+5 })
	l.slow.Store(0)
	through("200 ms slower a while")

	load()
	forgotten := l.forget()
	s.want(forgotten > 0, "there was no connection to forget")
	through("connections forgotten")

	e := s.judge()
	landed, not := a.said("unknown commit resolved", `"landed":true`), a.said("unknown commit resolved", `"landed":false`)
	s.want(landed > 0, "no commit of unknown fate had landed")
	s.want(not > 0, "no commit of unknown fate had not landed")
	t.Logf("commits of unknown fate: %d had landed, %d had not; %d connections were forgotten; %d submissions refused, %d unheard; %d calls for %d steps, %d called again",
		landed, not, forgotten, s.client.refused.Load(), s.client.unheard.Load(), len(e.calls), (next-1)*len(chainSteps), calledAgain(e.calls))
}

// settle lets every shard run into the broken network: there is no event for what does not arrive.
func settle(t *testing.T) { pause(t.Context(), 500*time.Millisecond) }

// TestPartition: one of two nodes is cut off from Postgres without a word, beyond its lease. It stays alive, says that it
// is not ready, and begins nothing; its runs go on at the other. When it is back, its late writes are refused.
func TestPartition(t *testing.T) {
	long(t)
	const runs = 40
	s := newScene(t)
	s.models.takes(20 * time.Millisecond)
	h := s.models.hold(by("a"))
	l := newLink(t, s.db)
	a, b := s.startOn(l.url, "127.0.0.1:0", "a"), s.start("b")
	s.season(b)
	s.client.load(chain, 1, runs, a)()
	s.models.await(time.Minute, "the node is at work", runs, both(isOpen, by("a")))

	l.deaf.Store(true)
	l.mute.Store(true)
	parted := time.Now()
	h.release() // the answers come while nothing can be recorded
	s.await(2*leaseTTL, "the node that is cut off is not ready", func() bool { return a.status("/readyz") == http.StatusServiceUnavailable })
	notReady := time.Since(parted)
	s.finish(time.Minute)
	finished := time.Since(parted)
	s.want(a.status("/livez") == http.StatusOK, "the node that is cut off is not alive")
	resp, text, err := s.client.post(a.url+"/v1/runs", "chaos-parted", mustJSON(t, chain(9999)))
	s.want(err == nil && resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "",
		"a submission to the node that is cut off: %v %s %v", resp, text, err)
	s.want(s.models.count(by("a")) == runs, "the node that was cut off began %d calls", s.models.count(by("a"))-runs)

	l.reset()
	l.deaf.Store(false)
	l.mute.Store(false)
	healed := time.Now()
	s.await(time.Minute, "the node is ready again", func() bool { return a.status("/readyz") == http.StatusOK })
	ready := time.Since(healed)
	s.await(time.Minute, "its late writes are refused", func() bool { return a.metric("fermata_stale_writes_rejected_total") > 0 })
	s.client.load(chain, 1000, 10, a)()
	s.finish(time.Minute)
	s.judge()

	s.want(b.metric("fermata_runs_recovered_total", `reason="lease_expired"`) == runs, "node b did not recover all runs")
	t.Logf("cut off with %d runs: not ready after %s, all finished on the other after %s; ready again %s after the end of it, %v late writes refused",
		runs, notReady, finished, ready, a.metric("fermata_stale_writes_rejected_total"))
}
