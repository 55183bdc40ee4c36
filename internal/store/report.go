package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/usage"
)

// Limits of a report.
const (
	spendRowsMax = 10_000
	spendRunsMax = 1_000_000 // runs (and calls without a run) that a report by label or a count of runs looks at
	spendKeysMax = 8
)

// SpendQuery asks what was spent between two times, by whole hours, grouped by workflow, agent, provider, model, day,
// hour (both UTC), simulated, or label:<key>. With a label the sums are those of runs submitted in that time, whenever
// they spent it, and of calls without a run: nothing else carries labels. A run with any simulated call counts as one.
type SpendQuery struct {
	From, To                         time.Time
	GroupBy                          []string
	Workflow, Agent, Provider, Model string // empty: all
	Simulated                        *bool  // nil: both
}

// SpendRow is one line of a report.
type SpendRow struct {
	Keys                       []string // as GroupBy; of a run without the label ""
	Calls, Unpriced            int64
	Tokens                     usage.Tokens // of the five coarse types
	Cost, Baseline, CacheSaved usage.Money
	// Runs that were submitted in that time and have ended. Only where a run can be told to belong to the line: grouped
	// by workflow, day, hour, simulated or label, and narrowed to nothing but these.
	RunsFinished, RunsSucceeded int64
}

// spendKeys are the SQL of what lines of spend can be grouped by, runKeys of what runs can be.
var (
	spendKeys = map[string]string{
		"workflow": "s.workflow", "agent": "s.agent", "provider": "s.provider", "model": "s.model", "simulated": "s.simulated::text",
		"day": "to_char(s.hour at time zone 'UTC', 'YYYY-MM-DD')", "hour": hourSQL("s.hour"),
	}
	runKeys = map[string]string{
		"workflow": "r.workflow", "simulated": "r.simulated::text", "day": "to_char(r.created_at at time zone 'UTC', 'YYYY-MM-DD')", "hour": hourSQL("r.created_at"),
	}
)

func hourSQL(column string) string {
	return `to_char(date_trunc('hour', ` + column + ` at time zone 'UTC'), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`
}

// Spend reports what a tenant spent.
func (db *DB) Spend(ctx context.Context, tenant uuid.UUID, q SpendQuery) ([]SpendRow, error) {
	q.From, q.To = q.From.UTC().Truncate(time.Hour), ceilHour(q.To)
	if err := q.check(); err != nil {
		return nil, err
	}
	if q.byLabel() {
		return db.spendOfRuns(ctx, tenant, q)
	}
	rows, err := db.spendOfHours(ctx, tenant, q)
	if err != nil || !q.countsRuns() {
		return rows, err
	}
	counts, err := db.spendOfRuns(ctx, tenant, q)
	if err != nil {
		return nil, err
	}
	return countRuns(rows, counts), nil
}

// ceilHour is the end of the hour that a time falls into.
func ceilHour(t time.Time) time.Time {
	return t.UTC().Add(time.Hour - time.Nanosecond).Truncate(time.Hour)
}

func (q *SpendQuery) check() error {
	if !q.From.Before(q.To) {
		return fault.New(fault.KindInvalid, "spend_range", "a report needs a time to begin and a later one to end")
	}
	if len(q.GroupBy) > spendKeysMax {
		return fault.New(fault.KindInvalid, "spend_group", "a report is grouped by at most %d keys", spendKeysMax)
	}
	for i, key := range q.GroupBy {
		label := strings.HasPrefix(key, "label:")
		switch {
		case slices.Contains(q.GroupBy[:i], key):
			return fault.New(fault.KindInvalid, "spend_group", "%s is named twice", key)
		case !label && spendKeys[key] == "":
			return fault.New(fault.KindInvalid, "spend_group",
				"a report cannot be grouped by %q; it can by workflow, agent, provider, model, day, hour, simulated and label:<key>", key)
		case q.byLabel() && !label && runKeys[key] == "":
			return fault.New(fault.KindInvalid, "spend_group", "only runs have labels: with one, a report is grouped by workflow, day, hour, simulated and labels, not by %s", key)
		}
	}
	if q.byLabel() && (q.Agent != "" || q.Provider != "" || q.Model != "") {
		return fault.New(fault.KindInvalid, "spend_group", "only runs have labels: a report by label can be narrowed to a workflow, not to agents, providers or models")
	}
	return nil
}

func (q *SpendQuery) byLabel() bool {
	return slices.ContainsFunc(q.GroupBy, func(key string) bool { return strings.HasPrefix(key, "label:") })
}

// countsRuns: each run belongs to one line.
func (q *SpendQuery) countsRuns() bool {
	for _, key := range q.GroupBy {
		if runKeys[key] == "" {
			return false
		}
	}
	return q.Agent == "" && q.Provider == "" && q.Model == ""
}

const spendSums = `sum(calls)::int8, sum(unpriced)::int8, sum(tokens_input)::int8, sum(tokens_cache_read)::int8,
	sum(tokens_cache_write)::int8, sum(tokens_output)::int8, sum(tokens_reasoning)::int8, sum(cost_nano)::int8,
	sum(baseline_nano)::int8, sum(cache_saved_nano)::int8`

// spendOfHours adds up lines of spend: the index is by hour and tenant.
func (db *DB) spendOfHours(ctx context.Context, tenant uuid.UUID, q SpendQuery) ([]SpendRow, error) {
	keys := make([]string, len(q.GroupBy))
	for i, key := range q.GroupBy {
		keys[i] = spendKeys[key]
	}
	sql := `select array[` + strings.Join(keys, ", ") + `]::text[] as keys, ` + spendSums + `, 0::int8, 0::int8 from spend s
		where s.hour >= $1 and s.hour < $2 and s.tenant_id = $3 and ($4 = '' or s.workflow = $4) and ($5 = '' or s.agent = $5)
			and ($6 = '' or s.provider = $6) and ($7 = '' or s.model = $7) and ($8::boolean is null or s.simulated = $8)
		group by keys order by keys limit $9`
	rows, err := collect(ctx, db.api, "report spend", scanSpend, sql, q.From, q.To, tenant,
		clean(q.Workflow), clean(q.Agent), clean(q.Provider), clean(q.Model), q.Simulated, spendRowsMax+1)
	return bounded(rows, err)
}

// runSums are the sums in the row of a run. Those of the runs that its steps started are in them once these have ended.
var runSums = []string{
	"calls", "unpriced_calls", "tokens_input", "tokens_cache_read", "tokens_cache_write", "tokens_output", "tokens_reasoning",
	"cost_nano", "baseline_nano", "cache_saved_nano",
}

// insideSums are the sums of the runs that the steps of a run started, ownSums what of its sums is the run's own. Those of
// a run that has just ended may not have come to the one around it.
var insideSums, ownSums = func() (inside, own string) {
	for i, sum := range runSums {
		if i > 0 {
			inside, own = inside+", ", own+", "
		}
		inside += "coalesce(sum(c." + sum + "), 0)::int8 as " + sum
		own += "run." + sum + " - case when run.calls >= i.calls then i." + sum + " else 0 end as " + strings.TrimSuffix(sum, "_calls")
	}
	return "select " + inside + " from run c where c.parent_id = run.id and c.finished_at is not null", own
}()

// spendOfRuns adds up the rows of runs, and of calls that belong to none, by the time their ids were made.
func (db *DB) spendOfRuns(ctx context.Context, tenant uuid.UUID, q SpendQuery) ([]SpendRow, error) {
	args := []any{q.From, q.To, tenant, clean(q.Workflow), spendRowsMax + 1, spendRunsMax + 1, q.Simulated}
	keys := make([]string, len(q.GroupBy))
	for i, key := range q.GroupBy {
		if label, ok := strings.CutPrefix(key, "label:"); ok {
			args = append(args, clean(label))
			keys[i] = fmt.Sprintf("coalesce(r.labels ->> $%d, '')", len(args))
			continue
		}
		keys[i] = runKeys[key]
	}
	sql := `with r as materialized (
		(select workflow, labels, created_at, simulated_calls > 0 as simulated, ` + ownSums + `,
			finished_at is not null as finished, status = 'succeeded' as succeeded
		from run cross join lateral (` + insideSums + `) i
		where run.id >= uuid_from($1) and run.id < uuid_from($2) and run.tenant_id = $3 and ($4 = '' or run.workflow = $4) limit $6)
		union all
		(select workflow, labels, at, simulated, 1, unpriced::int, tokens_input + tokens_audio_input + tokens_image_input, tokens_cache_read,
			tokens_cache_write + tokens_cache_write_1h, tokens_output + tokens_audio_output, tokens_reasoning, cost_nano, baseline_nano, cache_saved_nano, false, false
		from call where id >= uuid_from($1) and id < uuid_from($2) and tenant_id = $3 and ($4 = '' or workflow = $4) limit $6)),
	g as (select array[` + strings.Join(keys, ", ") + `]::text[] as keys, r.* from r where $7::boolean is null or r.simulated = $7)
	select keys, ` + spendSums + `, count(*) filter (where finished), count(*) filter (where succeeded), (select count(*) from r)
	from g group by keys order by keys limit $5`
	var read int64
	scan := func(row pgx.CollectableRow) (SpendRow, error) { return scanSpendThen(row, &read) }
	rows, err := collect(ctx, db.api, "report spend of runs", scan, sql, args...)
	if err == nil && read > spendRunsMax {
		return nil, fault.New(fault.KindInvalid, "spend_too_much", "more than %d runs fall into that time: narrow it", spendRunsMax)
	}
	return bounded(rows, err)
}

func bounded(rows []SpendRow, err error) ([]SpendRow, error) {
	if isState(err, stateCanceled) {
		return nil, fault.New(fault.KindInvalid, "spend_too_much", "the report takes longer than %s: narrow the time, or group by less", statementTimeout)
	}
	if err == nil && len(rows) > spendRowsMax {
		return nil, fault.New(fault.KindInvalid, "spend_too_much", "the report has more than %d lines: narrow the time, or group by less", spendRowsMax)
	}
	return rows, err
}

// countRuns gives each line its runs. Those of a line that spent nothing make one of their own.
func countRuns(rows, counts []SpendRow) []SpendRow {
	at := make(map[string]int, len(rows))
	key := func(r SpendRow) string { return strings.Join(r.Keys, "\x00") }
	for i, r := range rows {
		at[key(r)] = i
	}
	for _, c := range counts {
		if c.RunsFinished == 0 {
			continue
		}
		i, ok := at[key(c)]
		if !ok {
			i = len(rows)
			rows = append(rows, SpendRow{Keys: c.Keys})
		}
		rows[i].RunsFinished, rows[i].RunsSucceeded = c.RunsFinished, c.RunsSucceeded
	}
	slices.SortFunc(rows, func(a, b SpendRow) int { return slices.Compare(a.Keys, b.Keys) })
	return rows
}

func scanSpend(row pgx.CollectableRow) (SpendRow, error) { return scanSpendThen(row) }

// scanSpendThen reads a line whose columns stand before some others.
func scanSpendThen(row pgx.CollectableRow, then ...any) (s SpendRow, err error) {
	t := &s.Tokens
	err = row.Scan(append([]any{
		&s.Keys, &s.Calls, &s.Unpriced, &t.Input, &t.CacheRead, &t.CacheWrite, &t.Output, &t.Reasoning,
		&s.Cost, &s.Baseline, &s.CacheSaved, &s.RunsFinished, &s.RunsSucceeded,
	}, then...)...)
	return s, err
}
