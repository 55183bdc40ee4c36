//go:build unix

package chaos

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const beginApproved = `  - {id: begin, approval: {title: "Begin ${{ input.n }}?"}}`

// apart is a kid and its parent that different nodes work on.
type apart struct {
	Kid, Parent uuid.UUID
}

// scatter lets node a start runs with so many kids each. All kids wait for a person at first, so that nobody owns them; of
// those that are answered while one node stands still, the other goes on with. It returns when every kid is at work, half
// of them on b, and tells which these are.
func (s *scene) scatter(a, b *node, parents, kids int) []apart {
	s.t.Helper()
	s.client.load(a.family(beginApproved, kids), 1, parents, a)()
	s.await(time.Minute, "every kid is asked about", func() bool { return len(a.open()) == parents*kids })
	asked := a.open()
	half := len(asked) / 2
	claimedBy := func(n, other *node, approvals []string) {
		other.freeze()
		for _, id := range approvals {
			n.approve(id)
		}
		s.models.await(time.Minute, "the kids are at work on node "+n.name, len(approvals), both(isOpen, by(n.name)))
		other.thaw()
	}
	claimedBy(b, a, asked[:half])
	claimedBy(a, b, asked[half:])
	list := rows(s.db, pgx.RowToStructByPos[apart], `select kid.id, parent.id from run kid join run parent on parent.id = kid.parent_id
		join lease kl on kl.id = kid.owner join node kn on kn.id = kl.node join lease pl on pl.id = parent.owner join node pn on pn.id = pl.node
		where kn.name = $1 and pn.name = $2`, b.name, a.name)
	s.want(len(list) == half, "%d kids are at work on another node than their parent, not %d", len(list), half)
	return list
}

// judgeFamilies looks at the outputs of parents that succeeded.
func (s *scene) judgeFamilies(n *node, e *evidence, kids int) {
	s.t.Helper()
	for number := range e.promised {
		s.judgeFamily(n, e, number, kids)
	}
}

// judgeFamily: a parent that succeeded gave each kid's word, in order.
func (s *scene) judgeFamily(n *node, e *evidence, number, kids int) {
	s.t.Helper()
	id := e.promised[number].id
	if e.rows[id].Status != "succeeded" {
		return
	}
	var list []string
	n.output(id, &list)
	s.want(len(list) == kids, "run %d gave %d outputs", number, len(list))
	for i, said := range list {
		s.want(strings.HasSuffix(said, fmt.Sprintf(" to say of %d", 1000*number+i)), "run %d: kid %d gave %q", number, i, said)
	}
}

// TestFamilyOnTwoNodes: runs and those that their steps started are on different nodes. The ends of the kids are told
// soon, and to cancel a parent reaches its kids on the other node.
func TestFamilyOnTwoNodes(t *testing.T) {
	long(t)
	const parents, kids, soon = 10, 8, 1500 * time.Millisecond
	s := newScene(t)
	held := s.models.hold(func(call) bool { return true })
	a, b := s.start("a"), s.start("b")
	across := s.scatter(a, b, parents, kids)
	cancelled := s.client.id(parents)
	status, err := s.client.cancel(a, cancelled)
	s.want(err == nil && status == http.StatusAccepted, "the cancel was answered by %d, %v", status, err)
	s.await(startLimit, "the cancel has reached all", func() bool {
		return one[int64](s.db, `select count(*) from run where (id = $1 or parent_id = $1) and status = 'cancelled'`, cancelled) == kids+1
	})
	s.models.await(startLimit, "the calls of its kids are cut", kids, isCut)
	held.release()
	s.finish(time.Minute)
	s.still()
	e := s.judge("succeeded", "cancelled")

	s.judgeFamilies(a, e, kids)
	told, longest := 0, time.Duration(0)
	for _, pair := range across {
		if pair.Parent == cancelled {
			continue
		}
		log := e.logs[pair.Kid]
		heard := naming(e.logs[pair.Parent], "step_succeeded", pair.Kid)
		if len(heard) == 1 {
			told++
			longest = max(longest, heard[0].Durable.Sub(log[len(log)-1].Durable))
		}
	}
	s.want(told > 0, "no end of a kid was told to another node")
	s.want(longest <= soon, "the longest way of the end of a kid to its parent took %s", longest)
	s.want(len(e.calls) == parents*kids, "%d calls for %d kids", len(e.calls), parents*kids)
	t.Logf("%d of %d kids on another node than their parent; the longest way of an end took %s", len(across), parents*kids, longest)
}

// TestKillParentsNode: the node that owns parents and some of their kids is killed, while the others are at work elsewhere.
func TestKillParentsNode(t *testing.T) {
	long(t)
	const parents, kids = 10, 8
	s := newScene(t)
	held := s.models.hold(func(c call) bool { return c.no <= parents*kids })
	a, b := s.start("a"), s.start("b")
	s.season(b)
	across := s.scatter(a, b, parents, kids)
	a.kill()
	killed := time.Now()
	held.release() // the kids on the other node end, while nobody owns their parents
	s.finish(time.Minute)
	took := time.Since(killed)
	s.still()
	e := s.judge()

	s.judgeFamilies(b, e, kids)
	orphans := count(e.calls, both(isCut, by("a")))
	s.want(orphans > 0, "the dead node had no kid at work")
	s.want(len(e.calls) == parents*kids+orphans, "%d calls for %d kids, of which %d were in hand", len(e.calls), parents*kids, orphans)
	t.Logf("%d kids at work on the other node, %d on the one that died; all finished after %s", len(across), orphans, took)
}

// TestFreezeParentsNode: the node that owns the parents is frozen beyond its lease, while kids end elsewhere, and goes on
// later.
func TestFreezeParentsNode(t *testing.T) {
	long(t)
	const parents, kids = 10, 8
	s := newScene(t)
	held := s.models.hold(func(c call) bool { return c.no <= parents*kids })
	a, b := s.start("a"), s.start("b")
	s.season(b)
	across := s.scatter(a, b, parents, kids)
	a.freeze()
	held.release() // answers wait in the sockets of the one, and the kids of the other end
	s.finish(time.Minute)
	own := s.models.count(both(by("a"), func(c call) bool { return c.no <= parents*kids }))
	s.want(own > 0, "the frozen node had no kid at work")
	a.thaw()
	s.await(time.Minute, "late writes are refused and counted", func() bool { return a.metric("fermata_stale_writes_rejected_total") > 0 })
	s.await(time.Minute, "the node that was frozen is ready again", func() bool { return a.status("/readyz") == http.StatusOK })
	s.still()
	e := s.judge()

	s.judgeFamilies(b, e, kids)
	s.want(len(e.calls) == parents*kids+own, "%d calls for %d kids, %d of them on the frozen node", len(e.calls), parents*kids, own)
	t.Logf("%d kids were on another node than their parent, %d on the frozen one", len(across), own)
}

// TestParkedParents: parents that wait long are nobody's. The end of a kid brings them back soon.
func TestParkedParents(t *testing.T) {
	long(t)
	const parents, kids, soon = 20, 2, 2 * time.Second
	s := newScene(t)
	held := s.models.hold(func(c call) bool { return c.run%2 == 1 })
	a, b := s.start("a"), s.start("b")
	s.client.load(a.family(beginAsking, kids), 1, parents, a, b)()
	s.models.await(time.Minute, "one kid of each is done, the other is at work", parents, isOpen)
	s.await(time.Minute, "all parents are parked", func() bool {
		return one[int64](s.db, `select count(*) from run where parent_id is null and owner is null and status = 'waiting' and waiting_for = 'child'`) == parents
	})
	held.release()
	s.finish(time.Minute)
	s.still()
	e := s.judge()

	s.judgeFamilies(a, e, kids)
	longest := time.Duration(0)
	for id, r := range e.rows {
		if r.Parent != nil {
			log := e.logs[id]
			heard := naming(e.logs[*r.Parent], "step_succeeded", id)
			longest = max(longest, heard[0].Durable.Sub(log[len(log)-1].Durable))
		}
	}
	s.want(longest <= soon, "the longest way of the end of a kid to its parent took %s", longest)
	t.Logf("%d parents were parked; the longest way of an end took %s", parents, longest)
}

// TestKillPostgresInAMapOfRuns: kill -9 of the postmaster, twice, in the middle of maps whose items are runs.
func TestKillPostgresInAMapOfRuns(t *testing.T) {
	long(t)
	const parents, kids, kills, atWork = 4, 40, 2, 10
	s := newScene(t)
	s.models.takes(100 * time.Millisecond)
	a, b := s.start("a", "--workers", "20"), s.start("b", "--workers", "20")
	s.client.load(a.family(beginAsking, kids), 1, parents, a, b)()
	for i := range kills {
		s.models.await(time.Minute, "a part of the kids' steps", (i+1)*2*parents*kids/(kills+1), isAnswered)
		s.models.await(time.Minute, "kids are at work", atWork, isOpen)
		s.db.kill()
		s.db.restart()
	}
	s.finish(time.Minute)
	s.still()
	e := s.judge()

	s.judgeFamilies(a, e, kids)
	failures := a.said(`"msg":"commit"`) + b.said(`"msg":"commit"`)
	s.want(failures > 0, "no commit failed")
	s.want(len(e.calls) == 2*parents*kids, "%d calls for %d steps", len(e.calls), 2*parents*kids)
	s.want(len(e.rows) == parents*(kids+1), "there are %d runs", len(e.rows))
	t.Logf("killed %d times; %d commits failed; %d calls for %d steps", kills, failures, len(e.calls), 2*parents*kids)
}
