package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

func TestCommitThenRead(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run := submit(t, s, flow.RunStatusRunning, func(n *NewRun) { n.Labels = map[string]string{"team": "a\x00b"} })
	if r := must(db.Run(t.Context(), TenantDefault, run))(t); r.Status != flow.RunStatusRunning || r.Owner == nil || *r.Owner != s.ID {
		t.Errorf("submitted: %+v", r)
	}
	started, finished := time.Now().UTC().Truncate(time.Microsecond), time.Now().UTC().Truncate(time.Microsecond).Add(time.Second)
	sum := usage.Sum{Calls: 7, Tokens: usage.Tokens{Input: 1, CacheRead: 2, CacheWrite: 3, Output: 4, Reasoning: 5}, Cost: 6, Unpriced: 8, Simulated: 9}
	err := s.commit(t.Context(), Change{Run: run, Events: events(2, 4), Row: &Row{
		Status: flow.RunStatusFailed, Stage: "s", Preview: "p\x00\xff", Error: &flow.Failure{Class: "server", Message: "m", Step: "a"},
		Sum: sum, StepsDone: 2, Release: true, Crashes: 1, Format: 1, StartedAt: &started, FinishedAt: &finished,
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := must(db.Run(t.Context(), TenantDefault, run))(t)
	want := RunRow{
		ID: run, Tenant: TenantDefault, Workflow: "wf", Version: 1, Hash: workflow.Hash{1}, Status: flow.RunStatusFailed, Stage: "s",
		Preview: "p\ufffd\ufffd", Error: &flow.Failure{Class: "server", Message: "m", Step: "a"}, Sum: sum, StepsDone: 2, StepsTotal: 3,
		Labels: map[string]string{"team": "a\ufffdb"}, Stakes: "normal", Mode: "batch", Priority: 5, Crashes: 1, Format: 1,
		CreatedAt: r.CreatedAt, StartedAt: &started, FinishedAt: &finished,
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if page := must(db.Events(t.Context(), TenantDefault, run, 1, 2))(t); len(page) != 2 || page[0].Seq != 2 || page[1].Seq != 3 {
		t.Errorf("page of events: %+v", page)
	}
	if end := must(db.Events(t.Context(), TenantDefault, run, 4, 2))(t); len(end) != 0 {
		t.Errorf("after the last event: %+v", end)
	}
	if last := must(db.LastEvent(t.Context(), TenantDefault, run))(t); last.Seq != 4 {
		t.Errorf("last event: %+v", last)
	}
	if logs := must(db.Logs(t.Context(), []uuid.UUID{run, id()}))(t); len(logs) != 1 || len(logs[run]) != 4 {
		t.Errorf("logs: %v", logs)
	}
	for seq, has := range map[int32]bool{4: true, 5: false} {
		if got := must(db.HasEvent(t.Context(), run, seq))(t); got != has {
			t.Errorf("has event %d: %t", seq, got)
		}
	}
}

// What a run's owner does in one batch: submit and finish, eat a message, tell another run, spend.
func TestCommitOfEverythingAtOnce(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn := direct(t, db)
	old := submit(t, s, flow.RunStatusRunning)
	if err := db.Send(t.Context(), TenantDefault, Message{Run: old, Kind: MessageCancel}); err != nil {
		t.Fatal(err)
	}
	messages := must(db.Inbox(t.Context(), []uuid.UUID{s.ID}, 10))(t)
	if len(messages) != 1 || messages[0].Run != old || messages[0].Kind != MessageCancel {
		t.Fatalf("inbox: %+v", messages)
	}
	hour := time.Now().Truncate(time.Hour)
	line := SpendLine{Hour: hour, Tenant: TenantDefault, Workflow: "wf", Agent: "a", Provider: "p", Model: "m", Calls: 1, Cost: 5, Tokens: usage.Tokens{Input: 3}}
	fresh := id()
	err := s.commit(t.Context(),
		Change{Run: fresh, New: newRun(flow.RunStatusRunning), Events: events(1, 3), Row: row(flow.RunStatusSucceeded), Spend: []SpendLine{line, line}},
		Change{
			Run: old, Eaten: []int64{messages[0].ID}, Events: events(2, 2), Spend: []SpendLine{line}, Row: row(flow.RunStatusRunning),
			Told: []Message{{Run: fresh, Kind: "child", Body: json.RawMessage(`{"x":1}`)}, {Run: fresh, Kind: "child"}},
		})
	if err != nil {
		t.Fatal(err)
	}
	if r := must(db.Run(t.Context(), TenantDefault, fresh))(t); r.Status != flow.RunStatusSucceeded || r.Owner != nil || r.FinishedAt == nil {
		t.Errorf("submitted and finished: %+v", r)
	}
	if left := must(db.Inbox(t.Context(), []uuid.UUID{s.ID}, 10))(t); len(left) != 0 {
		t.Errorf("the message is still there: %+v", left)
	}
	if told := must(db.RunInbox(t.Context(), []uuid.UUID{fresh}))(t); len(told) != 2 || string(told[0].Body) != `{"x":1}` || told[1].Body != nil {
		t.Errorf("told: %+v", told)
	}
	if got := ask[string](t, conn, `select calls || ' ' || cost_nano || ' ' || tokens_input from spend`); got != "3 15 9" {
		t.Errorf("spend: %s", got)
	}
	// The run is final, so what was told came too late.
	if n := must(db.SweepInbox(t.Context(), 10))(t); n != 2 {
		t.Errorf("swept %d messages", n)
	}
}

// Models do emit these: escapes are kept byte for byte, since the log is text.
func TestBodiesAreKeptByteForByte(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	bodies := []string{
		`{"output":"\u0000"}`, `{"output":"\ud800"}`, `{"output":"\udc00\ud83d"}`, `{"b":1,"a":2,"b":3}`, `1e999999`, `"é\u00e9😀"`,
		`{"output":"` + strings.Repeat("long ", 20_000) + `"}`, "",
	}
	conn := direct(t, db)
	for name, apart := range map[string]time.Duration{"a row each": time.Microsecond, "in one row": 0} {
		run, log := id(), events(1, int32(len(bodies)))
		for i := range log {
			log[i].At = log[0].At.Add(time.Duration(i) * apart)
			if bodies[i] != "" {
				log[i].Body = json.RawMessage(bodies[i])
			}
		}
		if err := s.commit(t.Context(), Change{Run: run, New: newRun(flow.RunStatusRunning), Events: log}); err != nil {
			t.Fatal(err)
		}
		got := must(db.Logs(t.Context(), []uuid.UUID{run}))(t)[run]
		if diff := cmp.Diff(log, got); diff != "" {
			t.Errorf("%s: log (-written +read):\n%s", name, diff)
		}
		viewed := ask[[]string](t, conn, `select array_agg(data order by seq) from event_log where run_id = $1`, run)
		if diff := cmp.Diff(bodies, viewed); diff != "" {
			t.Errorf("%s: event_log (-written +read):\n%s", name, diff)
		}
	}
}

func TestEventsComeBackAsTheyWere(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	text := rapid.Custom(func(t *rapid.T) string { return clean(rapid.String().Draw(t, "text")) })
	rapid.Check(t, func(rt *rapid.T) {
		run := id()
		var log []flow.Event
		for i := range rapid.IntRange(1, 5).Draw(rt, "events") {
			e := flow.Event{
				Seq: int32(i + 1), At: time.UnixMicro(rapid.Int64Range(-1e15, 4e15).Draw(rt, "at")).UTC(), Kind: flow.Kind(text.Draw(rt, "kind")),
				V: rapid.Int16().Draw(rt, "v"), Step: text.Draw(rt, "step"), Gen: rapid.Int16().Draw(rt, "gen"), Attempt: rapid.Int16().Draw(rt, "attempt"),
			}
			if rapid.Bool().Draw(rt, "body") {
				e.Body, _ = json.Marshal(rapid.String().Draw(rt, "body"))
			}
			log = append(log, e)
		}
		if err := s.commit(context.Background(), Change{Run: run, Events: log}); err != nil {
			rt.Fatal(err)
		}
		got, err := db.Logs(context.Background(), []uuid.UUID{run})
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(log, got[run]); diff != "" {
			rt.Errorf("log (-written +read):\n%s", diff)
		}
	})
}

func TestRefusedBatchesWriteNothing(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn := direct(t, db)
	other := newShard(t, db)
	mine, foreign, final := submit(t, s, flow.RunStatusRunning), submit(t, other, flow.RunStatusRunning), submit(t, s, flow.RunStatusRunning)
	if err := s.commit(t.Context(), Change{Run: final, Row: row(flow.RunStatusSucceeded)}); err != nil {
		t.Fatal(err)
	}
	finished := time.Now()
	for name, bad := range map[string]Change{
		"event twice":              {Run: mine, Events: events(1, 1)},
		"event number 0":           {Run: mine, Events: []flow.Event{{Kind: "k"}}},
		"raw NUL in a body":        {Run: mine, Events: []flow.Event{{Seq: 2, Body: json.RawMessage("\"\x00\"")}}},
		"half a rune in a body":    {Run: mine, Events: []flow.Event{{Seq: 2, Body: json.RawMessage("\"\xff\"")}}},
		"run twice":                {Run: mine, New: newRun(flow.RunStatusRunning)},
		"unknown status":           {Run: mine, Row: row("odd")},
		"final without a time":     {Run: mine, Row: &Row{Status: flow.RunStatusSucceeded, Release: true}},
		"final with an owner":      {Run: mine, Row: &Row{Status: flow.RunStatusSucceeded, FinishedAt: &finished}},
		"waiting with an owner":    {Run: mine, Row: &Row{Status: flow.RunStatusWaiting}},
		"running without an owner": {Run: mine, Row: &Row{Status: flow.RunStatusRunning, Release: true}},
		"running with an end":      {Run: mine, Row: &Row{Status: flow.RunStatusRunning, FinishedAt: &finished}},
		"another lease's run":      {Run: foreign, Row: row(flow.RunStatusRunning)},
		"nobody's run":             {Run: final, Row: row(flow.RunStatusRunning)},
		"no run":                   {Run: id(), Row: row(flow.RunStatusRunning)},
		"priority":                 {Run: id(), New: func() *NewRun { n := newRun(flow.RunStatusRunning); n.Priority = 10; return n }()},
		"queued and owned":         {Run: id(), New: func() *NewRun { n := newRun(flow.RunStatusQueued); n.Owned = true; return n }()},
	} {
		t.Run(name, func(t *testing.T) {
			good := id()
			line := SpendLine{Hour: time.Now(), Tenant: TenantDefault, Model: name, Calls: 1}
			err := s.commit(t.Context(), Change{Run: good, New: newRun(flow.RunStatusRunning), Events: events(1, 1), Spend: []SpendLine{line}}, bad)
			var refused *RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("%v, want a refusal", err)
			}
			if must(db.HasRun(t.Context(), good))(t) || must(db.HasEvent(t.Context(), good, 1))(t) {
				t.Error("something of the batch was written")
			}
			if ask[int](t, conn, `select count(*) from spend where model = $1`, name) != 0 {
				t.Error("the batch was paid")
			}
		})
	}
	if err := s.commit(t.Context(), Change{Run: mine, Events: events(2, 2)}); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

func TestBatchTooLargeIsRefused(t *testing.T) {
	b := newBatch()
	e := events(1, 1)
	e[0].Body = make([]byte, batchBytesMax)
	var refused *RefusedError
	if err := b.encode(Lease{}, []Change{{Run: id(), Events: e}}); !errors.As(err, &refused) {
		t.Errorf("%v, want a refusal", err)
	}
}

// The schema says what Go says.
func TestFinalIsFinal(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn := direct(t, db)
	for _, status := range []flow.RunStatus{flow.RunStatusSucceeded, flow.RunStatusCancelled} {
		run := submit(t, s, flow.RunStatusRunning)
		if err := s.commit(t.Context(), Change{Run: run, Row: row(status)}); err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{
			`update run set status = 'queued', finished_at = null where id = $1`,
			`update run set finished_at = now() where id = $1`,
			`update run set status = 'failed' where id = $1`,
			`update run set cost_nano = 1 where id = $1`,
			`update run set hash = sha256('x') where id = $1`,
		} {
			if _, err := conn.Exec(t.Context(), sql, run); !isState(err, "23000") {
				t.Errorf("%s of a %s run: %v", sql, status, err)
			}
		}
	}
	run := submit(t, s, flow.RunStatusRunning)
	for _, sql := range []string{
		`update run set hash = sha256('x') where id = $1`,
		`update run set tenant_id = gen_random_uuid() where id = $1`,
		`update event set data = '' where run_id = $1`,
		`update event set seq = 7 where run_id = $1`,
		`delete from event where run_id = $1`,
	} {
		if _, err := conn.Exec(t.Context(), sql, run); !isState(err, "23000") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestFourShardsSpendOnTheSameKeys(t *testing.T) {
	db := open(t)
	node := newNode(t, db, "one")
	hour := time.Now().Truncate(time.Hour)
	const shards, commits, keys = 4, 50, 8
	var group sync.WaitGroup
	for i := range shards {
		s := grant(t, db, node)
		group.Go(func() {
			for n := range commits {
				var lines []SpendLine
				for k := range keys { // in another order each time: this is what deadlocks are made of
					k = (k*(2*i+1) + n) % keys
					lines = append(lines, SpendLine{Hour: hour, Tenant: TenantDefault, Model: fmt.Sprint(k), Calls: 1, Cost: usage.Money(k)})
				}
				if err := s.commit(t.Context(), Change{Run: id(), Spend: lines}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	conn := direct(t, db)
	for k := range keys {
		got := ask[string](t, conn, `select sum(calls)::text || ' ' || sum(cost_nano)::text from spend where model = $1`, fmt.Sprint(k))
		if want := fmt.Sprintf("%d %d", shards*commits, shards*commits*k); got != want {
			t.Errorf("key %d: %s, want %s", k, got, want)
		}
	}
}

// blockRun holds a run's row, so that a batch with a change of it stops in the middle: with its fence locked.
func blockRun(t *testing.T, db *DB, run uuid.UUID) (release func()) {
	t.Helper()
	conn := direct(t, db)
	do(t, conn, `begin`)
	do(t, conn, `select 1 from run where id = $1 for update`, run)
	return func() { do(t, conn, `rollback`) }
}

func TestCommitWhoseProcessIsEnded(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	conn := direct(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	for _, c := range []struct {
		how  string
		want func(error) bool
	}{
		{`pg_terminate_backend`, func(err error) bool { return errors.Is(err, ErrUnknown) }},
		{`pg_cancel_backend`, func(err error) bool {
			var refused *RefusedError
			return err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrLeaseLost) && !errors.As(err, &refused)
		}},
	} {
		release := blockRun(t, db, run)
		done := make(chan error, 1)
		go func() {
			done <- s.commit(t.Context(), Change{Run: run, Row: row(flow.RunStatusRunning), Events: events(2, 2)})
		}()
		waiting(t, conn, 1)
		do(t, conn, `select `+c.how+`(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
		if err := <-done; !c.want(err) {
			t.Errorf("%s: %v", c.how, err)
		}
		release()
		if must(db.HasEvent(t.Context(), run, 2))(t) {
			t.Errorf("%s: the batch was written", c.how)
		}
	}
	if err := s.commit(t.Context(), Change{Run: run, Row: row(flow.RunStatusRunning), Events: events(2, 2)}); err != nil {
		t.Errorf("on a new connection: %v", err)
	}
}

func TestFate(t *testing.T) {
	refused := func(err error) bool { return errors.As(err, new(*RefusedError)) }
	unknown := func(err error) bool { return errors.Is(err, ErrUnknown) }
	for _, c := range []struct {
		severity, state  string
		refused, unknown bool
	}{
		{"ERROR", "22021", true, false},  // character not in repertoire
		{"ERROR", "22012", true, false},  // the proof
		{"ERROR", "23505", true, false},  // unique violation
		{"ERROR", "21000", true, false},  // cardinality violation
		{"ERROR", "54000", true, false},  // program limit
		{"ERROR", "40P01", false, false}, // deadlock
		{"ERROR", "55P03", false, false}, // lock not available
		{"ERROR", "57014", false, false}, // query cancelled
		{"ERROR", "53100", false, false}, // disk full
		{"ERROR", "42P01", false, false}, // not migrated
		{"FATAL", "57P01", false, true},  // ended by an operator
		{"PANIC", "XX000", false, true},
	} {
		err := fate(fmt.Errorf("x: %w", &pgconn.PgError{SeverityUnlocalized: c.severity, Code: c.state}))
		if refused(err) != c.refused || unknown(err) != c.unknown {
			t.Errorf("%s %s: %v", c.severity, c.state, err)
		}
	}
	if err := fate(errors.New("unexpected EOF")); !unknown(err) {
		t.Errorf("no answer: %v", err)
	}
	if err := fate(&pgconn.PgError{SeverityUnlocalized: "ERROR", Code: stateDivisionByZero}); !errors.Is(err, errNotOwned) {
		t.Errorf("the proof: %v", err)
	}
}

func TestCommitToNowhere(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	db.conn = db.conn.Copy()
	db.conn.Host, db.conn.Port, db.conn.Fallbacks = "127.0.0.1", 1, nil
	db.conn.ConnectTimeout = time.Second
	err := s.commit(t.Context(), Change{Run: id(), Events: events(1, 1)})
	if err == nil || errors.Is(err, ErrUnknown) || errors.Is(err, ErrLeaseLost) || errors.As(err, new(*RefusedError)) {
		t.Errorf("nothing was sent, but: %v", err)
	}
}

// A definition that many runs of a batch need is sent once: a thousand copies would be more than one commit takes.
func TestDefinitionIsSentOnce(t *testing.T) {
	fresh := NewRun{Tenant: TenantDefault, Status: "queued", Definition: []byte(strings.Repeat("x", 1<<20))}
	changes := make([]Change, 1_000)
	for i := range changes {
		changes[i] = Change{Run: uuid.New(), New: &fresh}
	}
	b := newBatch()
	for range 2 { // its buffers are used again
		if err := b.encode(Lease{}, changes); err != nil {
			t.Fatal(err)
		}
		if n := b.of[partDefinition].n; n != 1 {
			t.Errorf("%d definitions are sent", n)
		}
	}
}
