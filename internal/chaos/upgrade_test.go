//go:build unix

package chaos

import (
	"os"
	"testing"
	"time"
)

// as gives a scene in which nodes are started of another program, until back is called.
func (s *scene) as(program string) (back func()) {
	own := s.program
	s.program = program
	return func() { s.program = own }
}

// TestUpgrade: a node of a release before dies with runs at work; one of this release brings the database up to date and
// takes them up, and both work side by side on runs of the language of before. Those of the language since, the former node leaves alone, also when it is the
// only one. The newer one takes up what the former one leaves.
func TestUpgrade(t *testing.T) {
	long(t)
	path := os.Getenv(former)
	if path == "" {
		t.Skip("set " + former + " to the program of a release before")
	}
	const runs, kids = 60, 10
	s := newScene(t)
	s.models.takes(150 * time.Millisecond)
	since := func(c call) bool { return c.step == "begin" || c.step == "say" }
	back := s.as(path)
	old := s.start("old")
	back()
	s.client.load(chain, 1, runs, old)()
	s.models.await(time.Minute, "the former node is at work", runs, isAnswered)
	old.kill()
	s.want(s.unfinished() > 0, "the former node left nothing")
	young := s.start("young")
	s.finish(time.Minute)

	back = s.as(path)
	old = old.again()
	back()
	s.season(old)
	s.client.load(chain, 1000, runs, old, young)()
	s.finish(time.Minute)
	for _, n := range []*node{old, young} {
		s.want(s.models.count(func(c call) bool { return c.run >= 1000 && c.node == n.name }) > 0, "node %s did not work", n.name)
	}

	held := s.models.hold(since)
	s.client.load(young.family(beginAsking, kids), 500, 3, young)()
	s.models.await(time.Minute, "the kids are at work", 3*kids, both(isOpen, since))
	s.client.load(chain, 2000, runs, young)()
	young.kill()
	held.release()
	s.finish(time.Minute, 500, 501, 502)
	s.await(3*leaseTTL, "the lease of the newer node is gone", func() bool { return s.owned("young") == 0 })
	pause(t.Context(), leaseTTL/3) // more than a sweep
	s.want(s.unfinished() == 3, "%d runs are not finished", s.unfinished())
	s.want(s.owned("old") == 0, "the former node owns %d runs that it cannot read", s.owned("old"))
	s.want(s.models.count(both(since, by("old"))) == 0, "the former node worked on runs that it cannot read")

	young.again()
	s.finish(time.Minute)
	s.still()
	old.terminate()
	old.awaitEnd(startLimit)
	s.judge()
}
