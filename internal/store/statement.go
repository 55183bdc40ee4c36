package store

import (
	"fmt"
	"strings"
)

// A commit is one statement: the fence, and one part for each kind of change that the batch holds. It is composed of
// exactly those parts, so a batch pays for nothing it does not need; each composition is prepared once a connection.
//
// Being a single statement, it is a transaction of its own: there is no moment between its parts, no begin to wait
// for, and its COMMIT is asked for in the same message. All parts read the same snapshot and do not see one another's
// writes, so a batch holds each row at most once; and there are no foreign keys from event or inbox to run, which
// would be checked row by row.
type part uint8

const (
	partNew        part = iota // submitted runs
	partRow                    // summaries of runs that this lease owns
	partEvent                  // the events
	partEaten                  // messages applied
	partTold                   // messages to other runs
	partSpend                  // money, added up by the hour
	partAsked                  // approvals
	partWithdrawn              // approvals that nobody waits for any more
	partSignal                 // signals that runs wait for
	partQuiet                  // runs that wait for none any more
	partEmitted                // signals to whoever waits for them
	partDefinition             // of runs that were planned
	partsCount
)

// parts is a set of parts.
type parts uint16

func (p parts) has(x part) bool { return p&(1<<x) != 0 }

// fence locks the lease at its epoch: the row lock makes takeover wait for this batch, and this batch for takeover.
// Read committed looks at the epoch again after waiting.
const fence = `with f as materialized (select id from lease where id = $1 and epoch = $2 for no key update)`

// partTypes are the composite types of the parameters, as the migrations make them. A part that changes shape gets
// a new type: nodes of the version before still send the old one.
var partTypes = [partsCount]string{
	partNew: "run_new_3", partRow: "run_row_3", partEvent: "event_new", partEaten: "int8", partTold: "inbox_new", partSpend: "spend_new_2",
	partAsked: "approval_new", partWithdrawn: "approval_end", partSignal: "signal_wait_new", partQuiet: "uuid", partEmitted: "emitted_new",
	partDefinition: "definition_new",
}

// partSQL are the statements of the parts; %s is the part's parameter.
var partSQL = [partsCount]string{
	partNew: `n as (insert into run (id, tenant_id, created_at, version, steps_total, priority, format, status, workflow,
	hash, stakes, mode, preview, labels, owner, stage, waiting_for, error_class, error_message, error_step,
	cost_nano, tokens_input, tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning,
	calls, unpriced_calls, simulated_calls, steps_done, wake_at, crashes, started_at, finished_at,
	baseline_nano, cache_saved_nano, parent_id, parent_step, depth)
	select u.id, u.tenant_id, u.created_at, u.version, u.steps_total, u.priority, u.format, u.status, u.workflow,
		u.hash, u.stakes, u.mode, u.preview, u.labels, case when u.owned then f.id end,
		u.stage, u.waiting_for, u.error_class, u.error_message, u.error_step,
		u.cost_nano, u.tokens_input, u.tokens_cache_read, u.tokens_cache_write, u.tokens_output, u.tokens_reasoning,
		u.calls, u.unpriced_calls, u.simulated_calls, u.steps_done, u.wake_at, u.crashes, u.started_at, u.finished_at,
		u.baseline_nano, u.cache_saved_nano, u.parent_id, u.parent_step, u.depth
	from f, unnest(%s) u)`,

	// "is not distinct from" keeps the planner off the index of owners, which would read all the runs of the lease.
	partRow: `d as (update run set status = u.status, stage = u.stage, waiting_for = u.waiting_for, preview = u.preview,
	error_class = u.error_class, error_message = u.error_message, error_step = u.error_step,
	cost_nano = u.cost_nano, tokens_input = u.tokens_input, tokens_cache_read = u.tokens_cache_read,
	tokens_cache_write = u.tokens_cache_write, tokens_output = u.tokens_output, tokens_reasoning = u.tokens_reasoning,
	calls = u.calls, unpriced_calls = u.unpriced_calls, simulated_calls = u.simulated_calls,
	steps_done = u.steps_done, steps_total = case when u.steps_total > 0 then u.steps_total else run.steps_total end,
	wake_at = u.wake_at, crashes = u.crashes, format = u.format,
	started_at = u.started_at, finished_at = u.finished_at,
	baseline_nano = u.baseline_nano, cache_saved_nano = u.cache_saved_nano, owner = case when not u.release then f.id end
	from f, unnest(%s) u
	where run.id = u.id and run.owner is not distinct from f.id returning 1)`,

	partEvent: `e as (insert into event (run_id, at, seq, gen, attempt, v, kind, step, data, more)
	select u.* from f, unnest(%s) u)`,

	partEaten: `x as (delete from inbox using f, unnest(%s) u(id) where inbox.id = u.id)`,

	partTold: `t as (insert into inbox (run_id, kind, data) select u.* from f, unnest(%s) u)`,

	partSpend: `s as (insert into spend (hour, tenant_id, workflow, agent, provider, model, simulated, calls, unpriced,
		tokens_input, tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning, cost_nano,
		baseline_nano, cache_saved_nano, lease)
	select u.*, f.id from f, unnest(%s) u
	on conflict (hour, tenant_id, workflow, agent, provider, model, simulated, lease) do update set ` + spendAdded + `)`,

	partAsked: `a as (insert into approval (id, tenant_id, run_id, step, gen, about, workflow, title, show, form, initial,
		choices, assignees, status, expires_at)
	select u.* from f, unnest(%s) u on conflict do nothing)`,

	// Here it keeps the planner off the index of the lists.
	partWithdrawn: `w as (update approval set status = u.status from f, unnest(%s) u
	where approval.id = u.id and approval.status is not distinct from 'open')`,

	partSignal: `g as (insert into signal_wait (tenant_id, name, run_id) select u.* from f, unnest(%s) u on conflict do nothing)`,

	partQuiet: `q as (delete from signal_wait using f, unnest(%s) u(id) where signal_wait.run_id = u.id)`,

	partDefinition: `h as (insert into definition (tenant_id, hash, body) select u.* from f, unnest(%s) u on conflict do nothing)`,

	partEmitted: emittedFrom + `f, unnest(%s) u` + emittedTold,
}

// spendAdded adds a line to the one that is there.
const spendAdded = `calls = spend.calls + excluded.calls, unpriced = spend.unpriced + excluded.unpriced,
		tokens_input = spend.tokens_input + excluded.tokens_input,
		tokens_cache_read = spend.tokens_cache_read + excluded.tokens_cache_read,
		tokens_cache_write = spend.tokens_cache_write + excluded.tokens_cache_write,
		tokens_output = spend.tokens_output + excluded.tokens_output,
		tokens_reasoning = spend.tokens_reasoning + excluded.tokens_reasoning,
		cost_nano = spend.cost_nano + excluded.cost_nano,
		baseline_nano = spend.baseline_nano + excluded.baseline_nano,
		cache_saved_nano = spend.cache_saved_nano + excluded.cache_saved_nano`

// fenceParams are the lease and its epoch; the parts follow.
const fenceParams = 2

// commitSQL composes the statement. It answers one row: 1 while the lease holds, else 0. The division is the proof
// that every summary found its run under this lease: it fails the batch when one did not.
func commitSQL(have parts) string {
	var sql strings.Builder
	sql.WriteString(fence)
	param := fenceParams
	proof := "1"
	for p := range partsCount {
		if !have.has(p) {
			continue
		}
		param++
		array := placeholder(p, param)
		if p == partRow {
			proof = `1 / (case when held.n = 0 or (select count(*) from d) = cardinality(` + array + `) then 1 else 0 end)`
		}
		fmt.Fprintf(&sql, ",\n"+partSQL[p], array)
	}
	fmt.Fprintf(&sql, "\nselect held.n, %s from (select count(*) as n from f) held", proof)
	return sql.String()
}

func placeholder(p part, param int) string { return fmt.Sprintf("$%d::%s[]", param, partTypes[p]) }
