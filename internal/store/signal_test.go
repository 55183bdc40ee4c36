package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

// listens submits a run that waits for a signal, "go".
func listens(t testing.TB, s shard, edit ...func(*NewRun)) uuid.UUID {
	t.Helper()
	return submit(t, s, flow.RunStatusRunning, append([]func(*NewRun){func(n *NewRun) { n.Signals = []string{"go"} }}, edit...)...)
}

// emit commits a signal of a run's.
func emit(t testing.TB, s shard, run uuid.UUID, list ...flow.Emitted) {
	t.Helper()
	if err := s.commit(t.Context(), Change{Run: run, Tenant: TenantDefault, Emitted: list}); err != nil {
		t.Fatal(err)
	}
}

// heard are the ids of the signals in a run's inbox.
func heard(t testing.TB, db *DB, run uuid.UUID) (ids []string) {
	t.Helper()
	for _, m := range must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t) {
		var s flow.Signal
		if err := json.Unmarshal(m.Body, &s); err != nil || m.Kind != flow.ToldSignal || s.Name != "go" {
			t.Fatalf("%+v: %v", m, err)
		}
		ids = append(ids, s.ID)
	}
	return ids
}

// A run is told of the signals of its names from its submission until it ends, and again when it was resumed.
func TestSignalsWhileTheRunGoesOn(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run, emitter := listens(t, s), submit(t, s, flow.RunStatusRunning)
	foreign := listens(t, s, func(n *NewRun) { n.Tenant = uuid.New() })
	deaf := listens(t, s, func(n *NewRun) { n.Signals = []string{"stop"} })
	say := func(id string) {
		t.Helper()
		emit(t, s, emitter, flow.Emitted{ID: id, Name: "go", Data: json.RawMessage(`{"x":"\ud800"}`)})
	}
	put := func(status flow.RunStatus, message int64) {
		t.Helper()
		r := row(status)
		r.Signals = []string{"go"}
		c := Change{Run: run, Tenant: TenantDefault, Row: r}
		if message > 0 {
			c.Eaten = []int64{message}
		}
		if err := s.commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	say("1")
	if m := must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t); len(m) != 1 || string(m[0].Body) != `{"id":"1","name":"go","data":{"x":"\ud800"}}` {
		t.Errorf("told: %+v", m)
	}
	put(flow.RunStatusRunning, 0)
	say("2")
	put(flow.RunStatusFailed, 0)
	say("3: it has failed")
	do(t, direct(t, db), `delete from inbox`)
	resume := message(t, db, run)
	if got := claimed(must(db.Claim(t.Context(), s.Lease, 1, format, true))(t)); !cmp.Equal(got, []uuid.UUID{run}) {
		t.Fatalf("claimed: %v", got)
	}
	say("4: its resume is not applied")
	put(flow.RunStatusRunning, resume)
	say("5")
	put(flow.RunStatusWaiting, 0)
	say("6")
	if got := claimed(must(db.Claim(t.Context(), s.Lease, 1, format, true))(t)); !cmp.Equal(got, []uuid.UUID{run}) {
		t.Fatalf("parked, with signals: %v", got)
	}
	put(flow.RunStatusCancelled, 0)
	say("7: it was cancelled")
	if diff := cmp.Diff([]string{"5", "6"}, heard(t, db, run)); diff != "" {
		t.Errorf("heard after its resume (-want +got):\n%s", diff)
	}
	if others := must(db.RunInbox(t.Context(), []uuid.UUID{foreign, deaf, emitter}))(t); len(others) != 0 {
		t.Errorf("others were told: %+v", others)
	}
	if n := ask[int](t, direct(t, db), `select count(*) from signal_wait where run_id = $1`, run); n != 0 {
		t.Errorf("an ended run waits for %d signals", n)
	}
}

// All parts of a batch see the tables as they were: who is submitted in it is not told, and who ends in it is.
func TestSignalsWithinABatch(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	itself, ending, fresh, short := listens(t, s), listens(t, s), id(), id()
	ended := row(flow.RunStatusFailed)
	ended.Signals = []string{"go"}
	err := s.commit(t.Context(),
		Change{Run: fresh, New: listening(flow.RunStatusRunning), Events: events(1, 1)},
		Change{Run: short, New: listening(flow.RunStatusRunning), Events: events(1, 1), Row: ended},
		Change{Run: ending, Tenant: TenantDefault, Row: ended},
		Change{Run: itself, Tenant: TenantDefault, Events: events(2, 2), Emitted: []flow.Emitted{{ID: "1", Name: "go"}, {ID: "1", Name: "go"}, {ID: "2", Name: "no"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		run  uuid.UUID
		want []string
	}{"itself": {itself, []string{"1"}}, "ending": {ending, []string{"1"}}, "fresh": {fresh, nil}, "short": {short, nil}} {
		if diff := cmp.Diff(c.want, heard(t, db, c.run)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	got := ask[[]uuid.UUID](t, direct(t, db), `select array_agg(run_id order by run_id) from signal_wait`)
	if diff := cmp.Diff([]uuid.UUID{itself, fresh}, got); diff != "" {
		t.Errorf("who waits (-want +got):\n%s", diff)
	}
}

// A batch that is sent twice, because nobody knew what became of it, tells everybody once.
func TestEmittedOnce(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run, emitter := listens(t, s), submit(t, s, flow.RunStatusRunning)
	for range 3 {
		emit(t, s, emitter, flow.Emitted{ID: "1", Name: "go"}, flow.Emitted{ID: "2", Name: "go"})
	}
	if diff := cmp.Diff([]string{"1", "2"}, heard(t, db, run)); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
	emit(t, s, emitter, flow.Emitted{ID: "2", Name: "go"}, flow.Emitted{ID: "3", Name: "go"})
	if diff := cmp.Diff([]string{"1", "2", "3"}, heard(t, db, run)); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
	if got := ask[string](t, direct(t, db), `select string_agg(id || run_id || name || data || told || left_off, ' ' order by id) from emitted where id < '3'`); got !=
		fmt.Sprintf(`1%[1]sgo{"id":"1","name":"go"}1false 2%[1]sgo{"id":"2","name":"go"}1false`, emitter) {
		t.Errorf("kept: %s", got)
	}
}

func TestEmitToAThousandRuns(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	const runs = 1_000
	var changes, parked []Change
	for range runs {
		run := id()
		r := row(flow.RunStatusWaiting)
		changes = append(changes, Change{Run: run, New: listening(flow.RunStatusRunning), Events: events(1, 1)})
		parked = append(parked, Change{Run: run, Row: r})
	}
	for _, batch := range [][]Change{changes, parked} {
		if err := s.commit(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	if got := claimed(must(db.Claim(t.Context(), s.Lease, runs, format, true))(t)); len(got) != 0 {
		t.Fatalf("%d runs were claimed before the signal", len(got))
	}
	emit(t, s, submit(t, s, flow.RunStatusRunning), flow.Emitted{ID: "1", Name: "go"})
	got := map[uuid.UUID]bool{}
	for range 4 {
		for _, c := range must(db.Claim(t.Context(), s.Lease, runs/4, format, true))(t) {
			got[c.Run] = true
		}
	}
	if len(got) != runs || ask[int](t, direct(t, db), `select count(distinct run_id) from inbox`) != runs {
		t.Errorf("%d runs were claimed", len(got))
	}
}

// A signal through the API to all that wait: once for its id, however often and at once it is sent.
func TestSignalAll(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	var runs []uuid.UUID
	for range 3 {
		runs = append(runs, listens(t, s))
	}
	foreign := uuid.New()
	listens(t, s, func(n *NewRun) { n.Tenant = foreign })
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if n, err := db.SignalAll(t.Context(), TenantDefault, "go", "1", json.RawMessage(`"\u0000"`)); err != nil || n != len(runs) {
				t.Errorf("%d runs: %v", n, err)
			}
		})
	}
	group.Wait()
	listens(t, s)
	for tenant, c := range map[uuid.UUID]struct {
		name, id string
		want     int
	}{TenantDefault: {"go", "1", 3}, foreign: {"go", "1", 1}, uuid.New(): {"go", "1", 0}} {
		if n := must(db.SignalAll(t.Context(), tenant, c.name, c.id, nil))(t); n != c.want {
			t.Errorf("%s: %d runs, want %d", tenant, n, c.want)
		}
	}
	if _, err := db.SignalAll(t.Context(), TenantDefault, "other", "1", nil); !isFault(err, fault.KindConflict, "signal_id_used") {
		t.Errorf("another signal under the same id: %v", err)
	}
	if n := must(db.SignalAll(t.Context(), TenantDefault, "g\x00", "2\x00", nil))(t); n != 0 {
		t.Errorf("nobody waits for it, but %d runs were told", n)
	}
	for _, run := range runs {
		if m := must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t); len(m) != 1 || string(m[0].Body) != `{"id":"1","name":"go","data":"\u0000"}` {
			t.Errorf("told: %+v", m)
		}
	}
}

// More than can be told at once: through the API nobody is told, of a run's signal those are that were submitted first.
func TestSignalToTooMany(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn := direct(t, db)
	emitter := submit(t, s, flow.RunStatusRunning)
	do(t, conn, `insert into signal_wait select $1, 'go', uuid_from(now() + n * interval '1 s') from generate_series(1, $2) n`, TenantDefault, SignalRunsMax+1)
	if _, err := db.SignalAll(t.Context(), TenantDefault, "go", "1", nil); !isFault(err, fault.KindTooLarge, "signal_runs_too_many") || !strings.Contains(err.Error(), fmt.Sprint(SignalRunsMax)) {
		t.Errorf("%v", err)
	}
	if n := ask[int](t, conn, `select (select count(*) from inbox) + (select count(*) from emitted)`); n != 0 {
		t.Errorf("%d rows of what was refused", n)
	}
	emit(t, s, emitter, flow.Emitted{ID: "1", Name: "go"})
	const told = `select told || ' ' || left_off || ' ' || (select count(*) from inbox where strpos(data, '"id":"' || e.id || '"') > 0) || ' ' ||
		(select max(i.run_id::text) < (select max(run_id::text) from signal_wait) from inbox i) from emitted e where id = $1`
	if got, want := ask[string](t, conn, told, "1"), fmt.Sprintf("%d true %d true", SignalRunsMax, SignalRunsMax); got != want {
		t.Errorf("told, left off, messages, not the last: %s, want %s", got, want)
	}
	large := json.RawMessage(`"` + strings.Repeat("x", SignalBytesMax/100-100) + `"`)
	emit(t, s, emitter, flow.Emitted{ID: "2", Name: "go", Data: large})
	if got := ask[string](t, conn, told, "2"); got != "100 true 100 true" {
		t.Errorf("a large one: %s", got)
	}
	do(t, conn, `delete from signal_wait where run_id = (select max(run_id::text)::uuid from signal_wait)`)
	if n := must(db.SignalAll(t.Context(), TenantDefault, "go", "3", nil))(t); n != SignalRunsMax {
		t.Errorf("as many as can be told: %d", n)
	}
}

func TestSignalToOneRun(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run, final := submit(t, s, flow.RunStatusRunning), submit(t, s, flow.RunStatusRunning)
	if err := s.commit(t.Context(), Change{Run: final, Row: row(flow.RunStatusSucceeded)}); err != nil {
		t.Fatal(err)
	}
	if err := db.Signal(t.Context(), TenantDefault, run, "go", "1", json.RawMessage(`[1]`)); err != nil {
		t.Fatal(err)
	}
	if m := must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t); len(m) != 1 || m[0].Kind != flow.ToldSignal || string(m[0].Body) != `{"id":"1","name":"go","data":[1]}` {
		t.Errorf("told: %+v", m)
	}
	if err := db.Signal(t.Context(), TenantDefault, final, "go", "1", nil); !isFault(err, fault.KindConflict, "run_ended") {
		t.Errorf("to a final run: %v", err)
	}
	if err := db.Signal(t.Context(), uuid.New(), run, "go", "1", nil); !fault.Is(err, fault.KindNotFound) {
		t.Errorf("to another tenant's run: %v", err)
	}
}

func TestEffectsNeedATenant(t *testing.T) {
	signals := row(flow.RunStatusRunning)
	signals.Signals = []string{"go"}
	for name, c := range map[string]Change{
		"asked": {Asked: []flow.Ask{question(id())}}, "emitted": {Emitted: []flow.Emitted{{ID: "1", Name: "go"}}}, "signals": {Row: signals},
	} {
		c.Run = id()
		var refused *RefusedError
		if err := newBatch().encode(Lease{}, []Change{c}); !errors.As(err, &refused) || !errors.Is(err, errNoTenant) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSweepEmitted(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	for i := range 4 {
		must(db.SignalAll(t.Context(), TenantDefault, "go", fmt.Sprint(i), nil))(t)
	}
	do(t, conn, `update emitted set at = now() - case when id = '0' then interval '29 days' else interval '31 days' end where id < '3'`)
	for _, want := range []int{1, 1, 0} {
		if n := must(db.SweepEmitted(t.Context(), 1))(t); n != want {
			t.Errorf("%d swept, want %d", n, want)
		}
	}
	if got := ask[string](t, conn, `select string_agg(id, '' order by id) from emitted`); got != "03" {
		t.Errorf("left: %s", got)
	}
}

// A child that ends tells its parent in the same batch; the parent is claimable at once, wherever it was parked. A parent
// may tell a child that it submits in the same batch.
func TestParentsAndChildrenTellOneAnother(t *testing.T) {
	db := open(t)
	s, other := newShard(t, db), newShard(t, db)
	parent, child := submit(t, s, flow.RunStatusRunning), id()
	fresh := newRun(flow.RunStatusQueued)
	fresh.Parent, fresh.ParentStep, fresh.Depth = parent, "sub", 1
	err := s.commit(t.Context(),
		Change{Run: parent, Row: row(flow.RunStatusWaiting), Told: []Message{{Run: child, Kind: MessageBudget, Body: json.RawMessage(`{}`)}}},
		Change{Run: child, New: fresh, Events: events(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if got := claimed(must(db.Claim(t.Context(), other.Lease, 10, format, true))(t)); !cmp.Equal(got, []uuid.UUID{child}) {
		t.Fatalf("claimed: %v", got)
	}
	told := must(db.RunInbox(t.Context(), []uuid.UUID{child}))(t)
	if len(told) != 1 || told[0].Kind != MessageBudget {
		t.Fatalf("the child was told %+v", told)
	}
	body, err := json.Marshal(flow.ChildEnded{Step: "sub", Gen: 1, Attempt: 1, Run: child, Status: flow.RunStatusFailed})
	if err != nil {
		t.Fatal(err)
	}
	err = other.commit(t.Context(), Change{
		Run: child, Row: row(flow.RunStatusFailed), Eaten: []int64{told[0].ID}, Told: []Message{{Run: parent, Kind: flow.ToldChild, Body: body}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := claimed(must(db.Claim(t.Context(), s.Lease, 10, format, true))(t)); !cmp.Equal(got, []uuid.UUID{parent}) {
		t.Errorf("claimed: %v", got)
	}
	if told := must(db.RunInbox(t.Context(), []uuid.UUID{parent}))(t); len(told) != 1 || told[0].Kind != flow.ToldChild || string(told[0].Body) != string(body) {
		t.Errorf("the parent was told %+v", told)
	}
}

// A run that takes no messages is sent signals up to a limit; what people decide about it always comes through.
func TestSignalsWaiting(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run, other := listens(t, s), listens(t, s)
	if _, err := db.background.Exec(t.Context(), `insert into inbox (run_id, kind, data) select $1, 'signal', '{}' from generate_series(2, $2)`, run, SignalsWaitingMax); err != nil {
		t.Fatal(err)
	}
	signal := func(to uuid.UUID) error { return db.Signal(t.Context(), TenantDefault, to, "go", "", nil) }
	if err := signal(run); err != nil {
		t.Errorf("the last one: %v", err)
	}
	err := signal(run)
	if f := fault.Of(err); f == nil || f.Kind != fault.KindLimited || f.RetryAfter == 0 {
		t.Errorf("one too many: %v", err)
	}
	if err := signal(other); err != nil {
		t.Errorf("another run: %v", err)
	}
	if err := db.Send(t.Context(), TenantDefault, Message{Run: run, Kind: MessageCancel}); err != nil {
		t.Errorf("cancel: %v", err)
	}
}
