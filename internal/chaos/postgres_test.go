//go:build unix

package chaos

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// TestKillPostgres: kill -9 of the postmaster under load, three times. Nothing acknowledged is lost.
func TestKillPostgres(t *testing.T) {
	long(t)
	const runs, kills = 100, 3
	s := newScene(t)
	s.models.takes(50 * time.Millisecond)
	a, b := s.start("a"), s.start("b")
	var loads []func()
	var back []time.Duration
	for i := range kills {
		first := 1 + i*runs
		loads = append(loads, s.client.load(chain, first, runs, a, b))
		s.models.await(time.Minute, "the load is on", runs/2, func(c call) bool { return c.run >= first && c.answered })
		s.want(len(s.client.promises()) < first+runs-1 && s.models.count(isOpen) > 0, "nothing was on its way when Postgres was killed")
		s.db.kill()
		killed := time.Now()
		s.db.restart()
		settled := s.settled()
		s.await(time.Minute, "steps are committed again", func() bool { return s.settled() > settled })
		back = append(back, time.Since(killed))
	}
	last := time.Now()
	for _, wait := range loads {
		wait()
	}
	accepted := time.Since(last)
	s.finish(time.Minute)
	e := s.judge()

	failures := a.said(`"msg":"commit"`) + b.said(`"msg":"commit"`)
	s.want(failures > 0, "no commit failed")
	s.want(a.metric("fermata_lease_expirations_total")+b.metric("fermata_lease_expirations_total") == 0, "a lease expired")
	t.Logf("killed %d times; committing again after %v; %d commits failed, %d of unknown fate were resolved; %d submissions refused, %d unheard, %d replayed, "+
		"all accepted %s after the last return; %d calls for %d steps", kills, back, failures, a.said("unknown commit resolved")+b.said("unknown commit resolved"),
		s.client.refused.Load(), s.client.unheard.Load(), s.client.replayed.Load(), accepted, len(e.calls), kills*runs*len(chainSteps))
}

// owner is who works on a run, and how often it saw a node die.
type owner struct {
	Run, Lease uuid.UUID
	Crashes    int16
}

func (s *scene) owners() map[uuid.UUID]owner {
	s.t.Helper()
	list := map[uuid.UUID]owner{}
	for _, o := range rows(s.db, pgx.RowToStructByPos[owner], `select id, owner, crashes from run where owner is not null`) {
		list[o.Run] = o
	}
	return list
}

// TestOutage: two nodes are without Postgres for longer than a lease. Nobody takes anything from anybody, even where one
// is late to renew its lease afterwards, and no call is thrown away.
func TestOutage(t *testing.T) {
	long(t)
	const runs, outage = 40, 20 * time.Second
	s := newScene(t)
	s.models.takes(20 * time.Millisecond)
	during := s.models.hold(func(c call) bool { return c.run%4 < 2 }) // answered while Postgres is away
	after := s.models.hold(func(c call) bool { return c.run%4 >= 2 }) // answered when it is back
	a, b := s.start("a"), s.start("b")
	s.season(a)
	s.season(b)
	s.client.load(chain, 1, runs, a, b)()
	s.models.await(time.Minute, "every run is at work", runs, isOpen)
	before := s.owners()
	s.want(len(before) == runs && s.owned("a") > 0 && s.owned("b") > 0, "the nodes own %d and %d runs", s.owned("a"), s.owned("b"))

	s.db.stop()
	stopped := time.Now()
	during.release()
	s.models.await(startLimit, "calls are answered during the outage", runs/2, isAnswered)
	for _, n := range []*node{a, b} {
		s.await(startLimit, "node "+n.name+" is not ready", func() bool { return n.status("/readyz") == http.StatusServiceUnavailable })
	}
	looked := 0
	for time.Since(stopped) < outage {
		for _, n := range []*node{a, b} {
			s.want(n.status("/livez") == http.StatusOK, "node %s is not alive after %s", n.name, time.Since(stopped))
			s.want(n.status("/readyz") == http.StatusServiceUnavailable, "node %s is ready after %s", n.name, time.Since(stopped))
			resp, text, err := s.client.post(n.url+"/v1/runs", "chaos-away", mustJSON(t, chain(9999)))
			s.want(err == nil && resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "",
				"node %s answers a submission after %s: %v %s %v", n.name, time.Since(stopped), resp, text, err)
		}
		looked++
		pause(t.Context(), time.Second)
	}
	calls := len(s.models.ledger())
	s.want(calls == runs, "%d calls were begun by the end of the outage, not %d", calls, runs)
	a.freeze() // it is late to renew its leases: they have run out, and the other looks at them first
	s.db.restart()
	returned := time.Now()
	s.models.await(time.Minute, "runs go on", runs+1, func(call) bool { return true })
	resumed := time.Since(returned)
	pause(t.Context(), leaseTTL/3) // more than a sweep
	s.want(one[int64](s.db, `select count(*) from lease where until < now() and closed_at is null`) > 0, "no lease had run out while the other node looked")
	a.thaw()
	for _, n := range []*node{a, b} {
		s.await(time.Minute, "node "+n.name+" is ready again", func() bool { return n.status("/readyz") == http.StatusOK })
	}
	for id, now := range s.owners() {
		if was := before[id]; now != was {
			t.Errorf("run %s changed hands: %+v, was %+v", id, now, was)
		}
	}
	after.release()
	s.finish(time.Minute)
	e := s.judge()

	s.want(len(e.calls) == runs*len(chainSteps) && count(e.calls, isAnswered) == len(e.calls), "%d calls (%d answered) for %d steps",
		len(e.calls), count(e.calls, isAnswered), runs*len(chainSteps))
	for _, n := range []*node{a, b} {
		s.want(n.metric("fermata_lease_expirations_total") == 0, "node %s found an expired lease", n.name)
		s.want(n.metric("fermata_runs_recovered_total") == 0, "node %s recovered runs", n.name)
		s.want(n.metric("fermata_stale_writes_rejected_total") == 0, "node %s had writes refused", n.name)
	}
	t.Logf("away for %s, %d calls answered meanwhile; looked %d times: alive, not ready, 503; going on %s after the return; %d calls for %d steps",
		returned.Sub(stopped), runs/2, looked, resumed, len(e.calls), runs*len(chainSteps))
}
