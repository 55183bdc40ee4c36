//go:build unix

package chaos

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestCancelRaces: runs are cancelled at random moments, at whichever node. Each ends cancelled or succeeded.
func TestCancelRaces(t *testing.T) {
	long(t)
	const runs = 100
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	s := newScene(t)
	s.models.takes(60 * time.Millisecond)
	nodes := []*node{s.start("a"), s.start("b")}
	answers := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for n := 1; n <= runs; n++ {
		s.client.load(chain, n, 1, nodes[n%2])()
		moment, at := time.Duration(dice.IntN(300))*time.Millisecond, nodes[dice.IntN(2)]
		all.Go(func() {
			pause(t.Context(), moment)
			status, err := s.client.cancel(at, s.client.id(n))
			if err != nil {
				t.Errorf("cancel run %d: %v", n, err)
			}
			mu.Lock()
			answers[status]++
			mu.Unlock()
		})
	}
	all.Wait()
	s.finish(time.Minute)
	s.await(startLimit, "messages that came too late are gone", func() bool { return one[int64](s.db, `select count(*) from inbox`) == 0 })
	e := s.judge("succeeded", "cancelled")

	for status := range answers {
		s.want(status == http.StatusAccepted || status == http.StatusConflict, "a cancel was answered by %d", status)
	}
	ended := map[string]int{}
	for _, r := range e.rows {
		ended[r.Status]++
	}
	cut := count(e.calls, isCut)
	s.want(ended["cancelled"] > 0 && ended["succeeded"] > 0, "there was no race: %v", ended)
	s.want(cut > 0, "no call was cut")
	t.Logf("cancels answered %v; runs ended %v; %d calls cut", answers, ended, cut)
}

// TestManyRuns: two nodes take 2,000 short runs over HTTP, while one of them is restarted under its name again and
// again, so that runs change hands: each has one owner at a time.
func TestManyRuns(t *testing.T) {
	long(t)
	const runs, restarts = 2_000, 3
	s := newScene(t)
	a, b := s.start("a"), s.start("b")
	began := time.Now()
	wait := s.client.load(short, 1, runs, a, b)
	for i := range restarts {
		s.await(time.Minute, "the load is on", func() bool { return len(s.client.promises()) > (i+1)*runs/(restarts+2) })
		a.terminate()
		a.awaitEnd(startLimit)
		a = a.again()
	}
	wait()
	accepted := time.Since(began)
	s.finish(time.Minute)
	finished := time.Since(began)
	s.judge()

	handed := 0
	for _, n := range s.nodes {
		handed += n.said("runs freed", `"reason":"drain"`)
	}
	s.want(handed > 0, "no run changed hands")
	for _, n := range []*node{a, b} {
		s.want(n.metric("fermata_runs_finished_total", `outcome="succeeded"`) > 0, "node %s finished no run", n.name)
	}
	t.Logf("%d runs accepted within %s (%d refused, %d unheard, %d replayed), finished within %s; runs were handed back %d times",
		runs, accepted, s.client.refused.Load(), s.client.unheard.Load(), s.client.replayed.Load(), finished, handed)
}
