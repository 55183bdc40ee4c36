//go:build unix

package chaos

import (
	"testing"
	"time"
)

// TestNetwork: the network between the only node and Postgres fails in every way: answers are lost, questions are
// lost, everything is slow, connections are forgotten without a word.
func TestNetwork(t *testing.T) {
	long(t)
	const runs = 60
	s := newScene(t)
	s.models.takes(30 * time.Millisecond)
	l := newLink(t, s.db)
	a := s.startOn(l.url, "127.0.0.1:0", "a")
	next := 1
	load := func() (wait func()) {
		first := next
		next += runs
		wait = s.client.load(chain, first, runs, a)
		s.await(time.Minute, "the load is on", func() bool {
			return s.models.count(func(c call) bool { return c.run >= first && c.answered }) >= runs/2
		})
		return wait
	}
	through := func(what string, wait func()) {
		broken := time.Now()
		wait()
		s.finish(time.Minute)
		t.Logf("%s: all finished after %s", what, time.Since(broken))
	}

	wait := load()
	lost := l.dropped[toNode].Load()
	l.mute.Store(true) // what Postgres did, the node does not hear
	s.await(time.Minute, "answers are lost", func() bool { return l.dropped[toNode].Load() > lost })
	settle(t)
	l.reset()
	l.mute.Store(false)
	through("answers lost", wait)

	wait = load()
	lost = l.dropped[toServer].Load()
	l.deaf.Store(true) // what the node says, Postgres does not hear
	s.await(time.Minute, "questions are lost", func() bool { return l.dropped[toServer].Load() > lost })
	settle(t)
	l.reset()
	l.deaf.Store(false)
	through("questions lost", wait)

	wait = load()
	l.slow.Store(int64(100 * time.Millisecond))
	settled := s.settled()
	s.await(time.Minute, "the slow network carries something", func() bool { return s.settled() > settled+5 })
	l.slow.Store(0)
	through("slow", wait)

	wait = load()
	forgotten := l.forget()
	s.want(forgotten > 0, "there was no connection to forget")
	through("connections forgotten", wait)

	e := s.judge()
	landed, not := a.said("unknown commit resolved", `"landed":true`), a.said("unknown commit resolved", `"landed":false`)
	s.want(landed > 0, "no commit of unknown fate had landed")
	s.want(not > 0, "no commit of unknown fate had not landed")
	t.Logf("commits of unknown fate: %d had landed, %d had not; %d connections were forgotten; %d submissions refused, %d unheard; %d calls for %d steps, %d called again",
		landed, not, forgotten, s.client.refused.Load(), s.client.unheard.Load(), len(e.calls), (next-1)*len(chainSteps), calledAgain(e.calls))
}

// settle lets every shard run into the broken network: there is no event for what does not arrive.
func settle(t *testing.T) { pause(t.Context(), 500*time.Millisecond) }
