package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkCommit appends what steps leave behind: an outcome of some 1 KB and a start of some 150 B, in turns; a row
// each, and as one decision makes them: the outcome and the next start in one row.
func BenchmarkCommit(b *testing.B) {
	bodies := []json.RawMessage{
		json.RawMessage(`{"output":"` + strings.Repeat("x", 1000) + `"}`), json.RawMessage(`{"input":"` + strings.Repeat("x", 138) + `"}`),
	}
	for _, perRow := range []int{1, 2} {
		for _, size := range []int{10, 50, 200, 1000} {
			b.Run(fmt.Sprintf("%d a row/%d", perRow, size), func(b *testing.B) {
				db := open(b)
				s := newShard(b, db)
				conn := direct(b, db)
				before, began, n := ask[string](b, conn, `select pg_current_wal_insert_lsn()::text`), time.Now(), 0
				for b.Loop() {
					var changes []Change
					for left := size; left > 0; left -= rawEventsPerRun {
						c := Change{Run: id(), Events: events(1, int32(min(left, rawEventsPerRun)))}
						for i := range c.Events {
							c.Events[i].At = began.Add(time.Duration(i/perRow) * time.Microsecond)
							c.Events[i].Body = bodies[i%2]
						}
						changes = append(changes, c)
					}
					if err := s.commit(b.Context(), changes...); err != nil {
						b.Fatal(err)
					}
					n += size
				}
				b.ReportMetric(float64(n)/time.Since(began).Seconds(), "events/s")
				b.ReportMetric(ask[float64](b, conn, `select (pg_current_wal_insert_lsn() - $1::pg_lsn)::float8`, before)/float64(n), "walB/event")
			})
		}
	}
}

// BenchmarkClaim claims suspects one by one.
func BenchmarkClaim(b *testing.B) {
	db := open(b)
	s := newShard(b, db)
	do(b, direct(b, db), `insert into run (id, tenant_id, created_at, version, priority, format, status, workflow, hash, stakes, mode, crashes)
		select uuid_from(now() - n * interval '1 s'), $1, now(), 1, 5, 1, 'queued', 'wf', sha256('x'), 'normal', 'batch', 2 from generate_series(1, 50000) n`, TenantDefault)
	for b.Loop() {
		if list, err := db.Claim(b.Context(), s.Lease, 100, format, true); err != nil || len(list) != 1 {
			b.Fatal(list, err)
		}
	}
}

// BenchmarkCommitOfRuns writes all that a shard does for runs of ten steps: they are submitted in one batch and end in
// the next, beside their events and what they spent.
func BenchmarkCommitOfRuns(b *testing.B) {
	db := open(b)
	conn := direct(b, db)
	schema, drop, err := db.scratch(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer drop()
	a, err := db.appender(b.Context(), schema, 200, 500, true)
	if err != nil {
		b.Fatal(err)
	}
	defer a.c.Close()
	before := ask[string](b, conn, `select pg_current_wal_insert_lsn()::text`)
	for b.Loop() {
		if err := a.append(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	runs := ask[float64](b, conn, `select count(*)::float8 from `+schema+`.run`)
	b.ReportMetric(runs/b.Elapsed().Seconds(), "runs/s")
	b.ReportMetric(ask[float64](b, conn, `select (pg_current_wal_insert_lsn() - $1::pg_lsn)::float8`, before)/runs, "walB/run")
}
