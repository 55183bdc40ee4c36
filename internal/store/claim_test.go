package store

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

const format = 1

func claimed(list []Claimed) []uuid.UUID {
	var runs []uuid.UUID
	for _, c := range list {
		runs = append(runs, c.Run)
	}
	return runs
}

func TestClaimByPriorityThenAge(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	var want []uuid.UUID
	for _, priority := range []int{5, 9, 5, 0, 9} {
		want = append(want, submit(t, s, flow.RunStatusQueued, func(n *NewRun) { n.Priority = priority }))
	}
	want = []uuid.UUID{want[1], want[4], want[0], want[2], want[3]}
	first := must(db.Claim(t.Context(), s.Lease, 2, format, true))(t)
	rest := must(db.Claim(t.Context(), s.Lease, 10, format, true))(t)
	if diff := cmp.Diff(want, claimed(slices.Concat(first, rest))); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	r := must(db.Run(t.Context(), TenantDefault, want[0]))(t)
	if r.Status != flow.RunStatusRunning || r.Owner == nil || *r.Owner != s.ID {
		t.Errorf("claimed: %+v", r)
	}
	c := first[0]
	if c.Workflow != r.Workflow || c.Version != r.Version || c.Hash != r.Hash || c.Tenant != r.Tenant || c.Status != r.Status {
		t.Errorf("claimed: %+v, want %+v", c, r)
	}
	if again := must(db.Claim(t.Context(), s.Lease, 10, format, true))(t); len(again) != 0 {
		t.Errorf("claimed twice: %v", again)
	}
	owned := claimed(must(db.Owned(t.Context(), s.Lease))(t))
	slices.SortFunc(owned, compareIDs)
	slices.SortFunc(want, compareIDs)
	if diff := cmp.Diff(want, owned); diff != "" {
		t.Errorf("owned (-want +got):\n%s", diff)
	}
}

func compareIDs(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }

func TestClaimWhatIsClaimable(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn := direct(t, db)
	at := func(d time.Duration) *time.Time { at := time.Now().Add(d); return &at }
	park := func(r *Row) uuid.UUID {
		run := submit(t, s, flow.RunStatusRunning)
		if err := s.commit(t.Context(), Change{Run: run, Row: r}); err != nil {
			t.Fatal(err)
		}
		return run
	}
	tell := func(run uuid.UUID) uuid.UUID {
		if err := db.Send(t.Context(), TenantDefault, Message{Run: run, Kind: MessageResume}); err != nil {
			t.Fatal(err)
		}
		return run
	}
	waiting := func(wake *time.Time) *Row { r := row(flow.RunStatusWaiting); r.WakeAt = wake; return r }
	aside := submit(t, s, flow.RunStatusRunning)
	if err := db.Quarantine(t.Context(), s.Lease, aside, "broke\x00 it"); err != nil {
		t.Fatal(err)
	}
	claimable := map[uuid.UUID]string{
		submit(t, s, flow.RunStatusQueued):    "queued",
		park(waiting(at(-time.Second))):       "due",
		tell(park(waiting(at(time.Hour)))):    "not due, with a message",
		tell(tell(park(waiting(nil)))):        "without a time, with messages",
		tell(park(waiting(at(-time.Second)))): "due, with a message",
		tell(park(row(flow.RunStatusFailed))): "failed, with a message",
	}
	freed := park(row(flow.RunStatusCancelling))
	claimable[freed] = "cancelling, without an owner"
	do(t, conn, `update run set owner = null where id = $1`, freed)
	for run, why := range map[uuid.UUID]string{
		submit(t, s, flow.RunStatusQueued, func(n *NewRun) { n.Format = format + 1 }): "a format too new",
		park(waiting(at(time.Hour))):              "not due",
		park(waiting(nil)):                        "without a time",
		park(row(flow.RunStatusFailed)):           "failed",
		park(row(flow.RunStatusSucceeded)):        "final",
		submit(t, s, flow.RunStatusRunning):       "owned",
		tell(submit(t, s, flow.RunStatusRunning)): "owned, with a message",
		tell(aside): "quarantined, with a message",
	} {
		claimable[run] = "not: " + why
	}
	got := map[uuid.UUID]flow.RunStatus{}
	for _, c := range must(db.Claim(t.Context(), s.Lease, 100, format, true))(t) {
		got[c.Run] = c.Status
	}
	for run, why := range claimable {
		status, ok := got[run]
		if want := !strings.HasPrefix(why, "not: "); ok != want {
			t.Errorf("%s: claimed %t", why, ok)
		}
		want := flow.RunStatusRunning
		switch {
		case strings.HasPrefix(why, "cancelling"):
			want = flow.RunStatusCancelling
		case strings.HasPrefix(why, "failed"):
			want = flow.RunStatusFailed // until its owner has applied the resume
		}
		if ok && status != want {
			t.Errorf("%s: it is %s now", why, status)
		}
	}

	r := must(db.Run(t.Context(), TenantDefault, aside))(t)
	if r.Status != flow.RunStatusQuarantined || r.Error == nil || r.Error.Message != "broke\ufffd it" {
		t.Errorf("quarantined: %+v", r)
	}
	if did := must(db.Unquarantine(t.Context(), uuid.New(), aside)); did == nil {
		t.Error("another tenant's run was released")
	}
	if !must(db.Unquarantine(t.Context(), TenantDefault, aside))(t) || must(db.Unquarantine(t.Context(), TenantDefault, aside))(t) {
		t.Error("released once, not twice")
	}
	if got := claimed(must(db.Claim(t.Context(), s.Lease, 100, format, true))(t)); !cmp.Equal(got, []uuid.UUID{aside}) {
		t.Errorf("after its release: %v", got)
	}
}

// The ways of being claimable do not count, only priority and age do.
func TestClaimTheMostUrgentOfAll(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	queued := submit(t, s, flow.RunStatusQueued)
	past := time.Now().Add(-time.Second)
	var parked []uuid.UUID
	for _, priority := range []int{5, 9} {
		run := submit(t, s, flow.RunStatusRunning, func(n *NewRun) { n.Priority = priority })
		if err := s.commit(t.Context(), Change{Run: run, Row: &Row{Status: flow.RunStatusWaiting, Release: true, WakeAt: &past, Format: format}}); err != nil {
			t.Fatal(err)
		}
		parked = append(parked, run)
	}
	for _, want := range []uuid.UUID{parked[1], queued, parked[0]} {
		if got := claimed(must(db.Claim(t.Context(), s.Lease, 1, format, true))(t)); !cmp.Equal(got, []uuid.UUID{want}) {
			t.Errorf("claimed %v, want %s", got, want)
		}
	}
}

// Of the runs that saw several nodes die only one is claimed at once, beside the others, and none where there is no
// place for one. Those that saw one die are claimed like any.
func TestClaimSuspectsOneByOne(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	suspects := map[uuid.UUID]bool{}
	for range 3 {
		suspects[submit(t, s, flow.RunStatusQueued)] = true
	}
	due := submit(t, s, flow.RunStatusRunning)
	suspects[due] = true
	past := time.Now().Add(-time.Second)
	if err := s.commit(t.Context(), Change{Run: due, Row: &Row{Status: flow.RunStatusWaiting, Release: true, WakeAt: &past, Format: format}}); err != nil {
		t.Fatal(err)
	}
	do(t, direct(t, db), `update run set crashes = 2`)
	for range 5 {
		submit(t, s, flow.RunStatusQueued)
	}
	once := submit(t, s, flow.RunStatusQueued)
	do(t, direct(t, db), `update run set crashes = 1 where id = $1`, once)
	for round, want := range []int{6, 1, 1, 1, 1, 0} {
		list := must(db.Claim(t.Context(), s.Lease, 100, format, round > 0))(t)
		n := 0
		for _, c := range list {
			if suspects[c.Run] != c.Suspect() {
				t.Errorf("crashes of %+v", c)
			}
			if suspects[c.Run] {
				n++
			}
		}
		if len(list) != want || n > 1 {
			t.Errorf("round %d: %d claimed, %d of them suspects; want %d", round, len(list), n, want)
		}
	}
}

func TestClaimersDoNotShare(t *testing.T) {
	db := open(t)
	node := newNode(t, db, "one")
	const runs, claimers = 400, 8
	s := grant(t, db, node)
	var changes []Change
	for range runs {
		changes = append(changes, Change{Run: id(), New: newRun(flow.RunStatusQueued), Events: events(1, 1)})
	}
	if err := s.commit(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	owner := map[uuid.UUID]uuid.UUID{}
	var group sync.WaitGroup
	for range claimers {
		l := grant(t, db, node).Lease
		group.Go(func() {
			for {
				list, err := db.Claim(t.Context(), l, 7, format, true)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, c := range list {
					if by, taken := owner[c.Run]; taken {
						t.Errorf("%s was claimed by %s and %s", c.Run, by, l.ID)
					}
					owner[c.Run] = l.ID
				}
				all := len(owner) == runs
				mu.Unlock()
				if all {
					return
				}
			}
		})
	}
	group.Wait()
	if len(owner) != runs {
		t.Errorf("%d runs were claimed, want %d", len(owner), runs)
	}
}

// A message that arrives while its run ends is refused, or comes in time: Send waits for the batch that ends the run.
func TestSendRacesTheEnd(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	look := direct(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	hold := direct(t, db)
	do(t, hold, `begin`)
	do(t, hold, `update run set status = 'cancelled', owner = null, finished_at = now() where id = $1`, run)
	done := make(chan error, 1)
	go func() { done <- db.Send(t.Context(), TenantDefault, Message{Run: run, Kind: MessageResume}) }()
	waiting(t, look, 1)
	do(t, hold, `commit`)
	if err := <-done; !fault.Is(err, fault.KindConflict) {
		t.Errorf("sent to a cancelled run: %v", err)
	}
	if n := ask[int](t, look, `select count(*) from inbox`); n != 0 {
		t.Errorf("%d messages", n)
	}
	if err := db.Send(t.Context(), id(), Message{Run: run, Kind: MessageResume}); !fault.Is(err, fault.KindNotFound) {
		t.Errorf("sent to another tenant's run: %v", err)
	}
}

func TestQuarantineOnlyOwnRuns(t *testing.T) {
	db := open(t)
	s, other := newShard(t, db), newShard(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	if err := db.Quarantine(t.Context(), other.Lease, run, "x"); !errors.Is(err, errNotOwned) {
		t.Errorf("quarantine of another lease's run: %v", err)
	}
}

func TestCountLive(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	for _, status := range []flow.RunStatus{"waiting", "waiting", "cancelling", "succeeded", "failed"} {
		run := submit(t, s, flow.RunStatusRunning)
		if err := s.commit(t.Context(), Change{Run: run, Row: row(status)}); err != nil {
			t.Fatal(err)
		}
	}
	submit(t, s, flow.RunStatusRunning)
	submit(t, s, flow.RunStatusQueued)
	if err := db.Quarantine(t.Context(), s.Lease, submit(t, s, flow.RunStatusRunning), "x"); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"queued": 1, "running": 1, "waiting": 2, "cancelling": 1, "quarantined": 1}
	if diff := cmp.Diff(want, must(db.CountLive(t.Context()))(t)); diff != "" {
		t.Errorf("live runs (-want +got):\n%s", diff)
	}
}
