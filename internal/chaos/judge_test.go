//go:build unix

package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	findingsShown = 10
	leasesLimit   = 40 * time.Second // a dead node's lease runs out, is closed and dropped
)

// event is a line of a run's log. The fields are in the order of the query.
type event struct {
	Run     uuid.UUID
	Seq     int32
	At      time.Time
	Kind    string
	Step    string
	Gen     int16
	Attempt int16
	Data    string
	Durable time.Time // when its transaction was committed
}

// row is a run as lists show it.
type row struct {
	ID       uuid.UUID
	Status   string
	Owner    *uuid.UUID
	Calls    int64
	Cost     int64
	Done     int32
	Total    int32
	Finished *time.Time
	Parent   *uuid.UUID // whose step started it
}

// bill is what models have cost.
type bill struct{ Calls, Input, CacheRead, Output, Cost, Unpriced int64 }

func (b bill) plus(c bill) bill {
	return bill{b.Calls + c.Calls, b.Input + c.Input, b.CacheRead + c.CacheRead, b.Output + c.Output, b.Cost + c.Cost, b.Unpriced + c.Unpriced}
}

// noted is a call to a model as the log has it.
type noted struct {
	bill
	answered bool
}

// evidence is all that is left after a test.
type evidence struct {
	promised map[int]promise
	rows     map[uuid.UUID]row
	logs     map[uuid.UUID][]event // in order of seq
	calls    []call
	spent    bill // by the table
	inbox    int64
}

func (s *scene) evidence() *evidence {
	s.t.Helper()
	e := &evidence{promised: s.client.promises(), rows: map[uuid.UUID]row{}, logs: map[uuid.UUID][]event{}, calls: s.models.ledger()}
	for _, r := range rows(s.db, pgx.RowToStructByPos[row], `select id, status, owner, calls, cost_nano, steps_done, steps_total,
		finished_at, parent_id from run`) {
		e.rows[r.ID] = r
	}
	for _, ev := range rows(s.db, pgx.RowToStructByPos[event], `select run_id, seq, at, kind, step, gen, attempt, data,
		pg_xact_commit_timestamp(tx) from event_log order by run_id, seq`) {
		e.logs[ev.Run] = append(e.logs[ev.Run], ev)
	}
	e.spent = rows(s.db, pgx.RowToStructByPos[bill], `select coalesce(sum(calls), 0)::bigint, coalesce(sum(tokens_input), 0)::bigint,
		coalesce(sum(tokens_cache_read), 0)::bigint, coalesce(sum(tokens_output), 0)::bigint, coalesce(sum(cost_nano), 0)::bigint,
		coalesce(sum(unpriced), 0)::bigint from spend`)[0]
	e.inbox = one[int64](s.db, `select count(*) from inbox`)
	return e
}

var ends = []string{"succeeded", "failed", "cancelled"}

// finish waits until every acknowledged run has ended. except are numbers of runs that will not.
func (s *scene) finish(limit time.Duration, except ...int) time.Duration {
	s.t.Helper()
	defer s.tellUnfinished()
	return s.await(limit, "every acknowledged run has ended", func() bool {
		return s.unfinished(except...) == 0
	})
}

// tellUnfinished says of a test that failed where its runs stand.
func (s *scene) tellUnfinished() {
	if s.t.Failed() {
		for _, line := range rows(s.db, pgx.RowTo[string], `select format('%s %s: %s %s %s, crashes %s, owner %s, wakes %s',
			workflow, id, status, stage, waiting_for, crashes, owner, wake_at) from run where status <> all($1) order by id limit 20`, ends) {
			s.t.Log(line)
		}
	}
}

// unfinished counts the acknowledged runs that have not ended.
func (s *scene) unfinished(except ...int) int {
	s.t.Helper()
	var ids []uuid.UUID
	for n, p := range s.client.promises() {
		if !slices.Contains(except, n) {
			ids = append(ids, p.id)
		}
	}
	ended := one[int64](s.db, `select count(*) from run where id = any($1) and status = any($2)`, ids, ends)
	return len(ids) - int(ended)
}

// judge looks at all that is left, once the runs have ended. allowed are the statuses that runs may have ended with.
func (s *scene) judge(allowed ...string) *evidence {
	s.t.Helper()
	if len(allowed) == 0 {
		allowed = []string{"succeeded"}
	}
	e := s.evidence()
	for name, findings := range e.findings(allowed) {
		for _, f := range findings[:min(len(findings), findingsShown)] {
			s.t.Errorf("%s: %s", name, f)
		}
		if more := len(findings) - findingsShown; more > 0 {
			s.t.Errorf("%s: and %d more", name, more)
		}
	}
	s.judgeLeases()
	return e
}

// findings is everything that is wrong, by the rule it breaks.
func (e *evidence) findings(allowed []string) map[string][]string {
	found := map[string][]string{}
	for name, rule := range map[string]func() []string{
		"an acknowledged run is there and ends":            func() []string { return e.ended(allowed) },
		"a promise makes one run":                          e.strangers,
		"a log has no gaps":                                e.gaps,
		"a step succeeds once":                             e.doubles,
		"a run ends once, and nothing follows":             e.afterlife,
		"a step starts after what it needs":                e.order,
		"no step starts once a run is cancelling":          e.lateStarts,
		"a committed step is not executed again":           e.repeats,
		"an answer is in the log at most once":             e.unasked,
		"what was answered and committed is not asked for": e.rebought,
		"the end of each child is told once":               e.untold,
		"spend is the sum of the calls in the logs":        e.money,
		"nothing is owned or waiting once runs have ended": e.leftovers,
	} {
		if list := rule(); len(list) > 0 {
			found[name] = list
		}
	}
	return found
}

func (e *evidence) ended(allowed []string) (found []string) {
	for _, n := range slices.Sorted(maps.Keys(e.promised)) {
		r, ok := e.rows[e.promised[n].id]
		switch {
		case !ok:
			found = append(found, fmt.Sprintf("run %d (%s) is lost", n, e.promised[n].id))
		case !slices.Contains(allowed, r.Status):
			found = append(found, fmt.Sprintf("run %d (%s) is %s", n, r.ID, r.Status))
		case r.Status == "succeeded" && r.Done != r.Total:
			found = append(found, fmt.Sprintf("run %d (%s) succeeded with %d of %d steps done", n, r.ID, r.Done, r.Total))
		}
	}
	return found
}

func (e *evidence) strangers() (found []string) {
	known := map[uuid.UUID]int{}
	for n, p := range e.promised {
		if other, twice := known[p.id]; twice {
			found = append(found, fmt.Sprintf("runs %d and %d are one: %s", n, other, p.id))
		}
		known[p.id] = n
	}
	for id, r := range e.rows {
		switch _, ok := known[id]; {
		case r.Parent == nil && !ok:
			found = append(found, fmt.Sprintf("run %s was promised to nobody", id))
		case r.Parent != nil && len(naming(e.logs[*r.Parent], "step_waiting", id)) != 1:
			found = append(found, fmt.Sprintf("run %s was not started by run %s, once", id, *r.Parent))
		}
	}
	return found
}

// naming are the events of a kind that name a child; empty: of any kind but the one that started it.
func naming(log []event, kind string, child uuid.UUID) (list []event) {
	for _, ev := range log {
		if of := ev.Kind == kind || kind == "" && ev.Kind != "step_waiting"; of && strings.Contains(ev.Data, `"child":{"run":"`+child.String()+`"`) {
			list = append(list, ev)
		}
	}
	return list
}

// untold: of each child that has ended, its parent knows, once.
func (e *evidence) untold() (found []string) {
	for id, r := range e.rows {
		if r.Parent == nil || !slices.Contains(ends, r.Status) {
			continue
		}
		told := len(naming(e.logs[*r.Parent], "", id))
		if told > 1 || told == 0 && e.rows[*r.Parent].Status == "succeeded" {
			found = append(found, fmt.Sprintf("run %s is %s; its parent %s was told of it %d times", id, r.Status, *r.Parent, told))
		}
	}
	return found
}

func (e *evidence) gaps() (found []string) {
	for id, log := range e.logs {
		for i, ev := range log {
			if int(ev.Seq) != i+1 {
				found = append(found, fmt.Sprintf("run %s: event %d is the %d. in its log", id, ev.Seq, i+1))
				break
			}
		}
	}
	for id := range e.rows {
		if len(e.logs[id]) == 0 {
			found = append(found, fmt.Sprintf("run %s has no log", id))
		}
	}
	return found
}

// of counts the events of one kind in a log.
func of(log []event, kind string) (n int) {
	for _, ev := range log {
		if ev.Kind == kind {
			n++
		}
	}
	return n
}

func (e *evidence) doubles() (found []string) {
	type key struct {
		step string
		gen  int16
	}
	for id, log := range e.logs {
		seen := map[key]bool{}
		for _, ev := range log {
			k := key{ev.Step, ev.Gen}
			if ev.Kind == "step_succeeded" && seen[k] {
				found = append(found, fmt.Sprintf("run %s: step %s (generation %d) succeeded again at %d", id, ev.Step, ev.Gen, ev.Seq))
			}
			seen[k] = seen[k] || ev.Kind == "step_succeeded"
		}
	}
	return found
}

func (e *evidence) afterlife() (found []string) {
	last := []string{"run_succeeded", "run_failed", "run_cancelled"}
	for id, log := range e.logs {
		for i, ev := range log {
			if slices.Contains(last, ev.Kind) && i != len(log)-1 {
				found = append(found, fmt.Sprintf("run %s: %s at %d of %d", id, ev.Kind, ev.Seq, len(log)))
			}
		}
		if r := e.rows[id]; slices.Contains(ends, r.Status) && log[len(log)-1].Kind != "run_"+r.Status {
			found = append(found, fmt.Sprintf("run %s is %s, its log ends with %s", id, r.Status, log[len(log)-1].Kind))
		}
	}
	return found
}

// order: in a chain, a step needs the one before it.
func (e *evidence) order() (found []string) {
	for id, log := range e.logs {
		done := map[string]bool{}
		for _, ev := range log {
			if at := slices.Index(chainSteps, ev.Step); ev.Kind == "step_started" && at > 0 && !done[chainSteps[at-1]] {
				found = append(found, fmt.Sprintf("run %s: step %s started at %d before %s was done", id, ev.Step, ev.Seq, chainSteps[at-1]))
			}
			done[ev.Step] = done[ev.Step] || ev.Kind == "step_succeeded"
		}
		if done[chainSteps[0]] && of(log, "run_succeeded") > 0 && of(log, "step_succeeded") != len(chainSteps) {
			found = append(found, fmt.Sprintf("run %s succeeded after %d steps", id, of(log, "step_succeeded")))
		}
	}
	return found
}

func (e *evidence) lateStarts() (found []string) {
	for id, log := range e.logs {
		cancelling := false
		for _, ev := range log {
			if cancelling && ev.Kind == "step_started" {
				found = append(found, fmt.Sprintf("run %s: step %s started at %d", id, ev.Step, ev.Seq))
			}
			cancelling = cancelling || ev.Kind == "run_cancelling"
		}
	}
	return found
}

// repeats compares the provider's ledger with the commits of the log: both were written by the clock of this machine.
func (e *evidence) repeats() (found []string) {
	calls := e.byStep()
	for n, id := range e.numbered() {
		for _, ev := range e.logs[id] {
			if ev.Kind != "step_succeeded" {
				continue
			}
			for _, c := range calls[stepOf{n, ev.Step}] {
				if c.began.After(ev.Durable) {
					found = append(found, fmt.Sprintf("run %d: step %s was committed at %s, called by %s at %s",
						n, ev.Step, ev.Durable.Format(time.StampMicro), c.node, c.began.Format(time.StampMicro)))
				}
			}
		}
	}
	return found
}

// numbered are the runs by the numbers in their inputs; of children they are not promised to anybody.
func (e *evidence) numbered() map[int]uuid.UUID {
	list := map[int]uuid.UUID{}
	for n, p := range e.promised {
		list[n] = p.id
	}
	for id, log := range e.logs {
		var submitted struct{ Input struct{ N int } }
		if err := json.Unmarshal([]byte(log[0].Data), &submitted); err == nil && e.rows[id].Parent != nil {
			list[submitted.Input.N] = id
		}
	}
	return list
}

// answerMark finds the answers of the provider in what was logged.
var answerMark = regexp.MustCompile(`#(\d+)#`)

// committed are the times at which answers of the provider became durable, by their numbers.
func (e *evidence) committed() map[int]time.Time {
	durable := map[int]time.Time{}
	for _, log := range e.logs {
		for _, ev := range log {
			if ev.Kind != "step_succeeded" && ev.Kind != "turn_answered" && ev.Kind != "plan_made" {
				continue
			}
			for _, found := range answerMark.FindAllStringSubmatch(ev.Data, -1) {
				no, _ := strconv.Atoi(found[1]) // digits
				if at, known := durable[no]; !known || ev.Durable.Before(at) {
					durable[no] = ev.Durable
				}
			}
		}
	}
	return durable
}

// prompted is a prompt to a model of one step of one run.
type prompted struct {
	stepOf
	model, asked string
}

func (e *evidence) byPrompt() map[prompted][]call {
	all := map[prompted][]call{}
	for _, c := range e.calls {
		k := prompted{stepOf{c.run, c.step}, c.model, c.asked}
		all[k] = append(all[k], c)
	}
	return all
}

// rebought: once an answer is committed, nobody asks for it again.
func (e *evidence) rebought() (found []string) {
	durable := e.committed()
	for p, calls := range e.byPrompt() {
		for _, first := range calls {
			at, ok := durable[first.no]
			for _, again := range calls {
				if ok && again.began.After(at) {
					found = append(found, fmt.Sprintf("run %d: step %s: answer %s to %s was committed at %s, and asked for again by %s at %s",
						p.run, p.step, first.mark(), p.model, at.Format(time.StampMicro), again.node, again.began.Format(time.StampMicro)))
				}
			}
		}
	}
	return found
}

// askedAgain counts the calls that repeat one before, and the most for one prompt.
func (e *evidence) askedAgain() (all, most int) {
	for _, calls := range e.byPrompt() {
		all += len(calls) - 1
		most = max(most, len(calls)-1)
	}
	return all, most
}

// stepOf is a step of a run, by the run's number.
type stepOf struct {
	run  int
	step string
}

func (e *evidence) byStep() map[stepOf][]call {
	all := map[stepOf][]call{}
	for _, c := range e.calls {
		k := stepOf{c.run, c.step}
		all[k] = append(all[k], c)
	}
	return all
}

// ofChild is what a child has cost, as an event tells its parent. It is in the parent's sum, and spent by the child.
func ofChild(ev event) (b bill, err error) {
	if !strings.Contains(ev.Data, `"child":{`) {
		return b, nil
	}
	var body struct {
		Child struct {
			Sum struct {
				Calls int64 `json:"calls"`
				Cost  int64 `json:"cost_nano"`
			} `json:"sum"`
		} `json:"child"`
	}
	if err := json.Unmarshal([]byte(ev.Data), &body); err != nil {
		return b, fmt.Errorf("run %s: event %d: %w", ev.Run, ev.Seq, err)
	}
	return bill{Calls: body.Child.Sum.Calls, Cost: body.Child.Sum.Cost}, nil
}

// billed reads the calls that an event carries.
func billed(ev event) (list []noted, err error) {
	if !strings.Contains(ev.Data, `"calls"`) {
		return nil, nil
	}
	var body struct {
		Calls []struct {
			Class  string `json:"class"`
			Tokens struct {
				Input     int64 `json:"input"`
				CacheRead int64 `json:"cache_read"`
				Output    int64 `json:"output"`
			} `json:"tokens"`
			Cost     int64 `json:"cost_nano"`
			Unpriced bool  `json:"unpriced"`
		} `json:"calls"`
	}
	if err := json.Unmarshal([]byte(ev.Data), &body); err != nil {
		return nil, fmt.Errorf("run %s: event %d: %w", ev.Run, ev.Seq, err)
	}
	for _, c := range body.Calls {
		b := noted{answered: c.Class == ""}
		b.bill = bill{Calls: 1, Input: c.Tokens.Input, CacheRead: c.Tokens.CacheRead, Output: c.Tokens.Output, Cost: c.Cost}
		if c.Unpriced {
			b.Unpriced = 1
		}
		list = append(list, b)
	}
	return list, nil
}

// money: the table of what was spent, the summaries of the runs and the logs say the same.
func (e *evidence) money() (found []string) {
	var all bill
	for id, log := range e.logs {
		var own, sum bill
		for _, ev := range log {
			list, err := billed(ev)
			if err != nil {
				found = append(found, err.Error())
			}
			for _, b := range list {
				own = own.plus(b.bill)
			}
			of, err := ofChild(ev)
			if err != nil {
				found = append(found, err.Error())
			}
			sum = sum.plus(of)
		}
		sum = sum.plus(own)
		if r := e.rows[id]; r.Finished != nil && (r.Calls != sum.Calls || r.Cost != sum.Cost) {
			found = append(found, fmt.Sprintf("run %s: its row says %d calls for %d nano-USD, its log %d for %d", id, r.Calls, r.Cost, sum.Calls, sum.Cost))
		}
		all = all.plus(own)
	}
	if all != e.spent {
		found = append(found, fmt.Sprintf("the table says %+v, the logs %+v", e.spent, all))
	}
	return found
}

// unasked: the log holds no more answers than the provider gave.
func (e *evidence) unasked() (found []string) {
	given := e.byStep()
	for n, id := range e.numbered() {
		answers := map[string]int{}
		for _, ev := range e.logs[id] {
			list, _ := billed(ev) // what cannot be read is found by money
			answers[ev.Step] += count(list, func(n noted) bool { return n.answered })
		}
		for step, had := range answers {
			if got := count(given[stepOf{n, step}], isAnswered); had > got {
				found = append(found, fmt.Sprintf("run %d: step %s has %d answers, the provider gave %d", n, step, had, got))
			}
		}
	}
	return found
}

func (e *evidence) leftovers() (found []string) {
	for id, r := range e.rows {
		if slices.Contains(ends, r.Status) && r.Owner != nil {
			found = append(found, fmt.Sprintf("run %s is %s and owned by %s", id, r.Status, r.Owner))
		}
	}
	if e.inbox > 0 {
		found = append(found, fmt.Sprintf("%d messages lie in the inbox", e.inbox))
	}
	return found
}

// judgeLeases waits for the leases of dead nodes to go, and looks whether anything is owned by one that does not exist.
func (s *scene) judgeLeases() {
	s.t.Helper()
	names := []string{}
	for _, n := range s.live() {
		names = append(names, n.name)
	}
	s.await(leasesLimit, "every lease belongs to a live node", func() bool {
		return one[int64](s.db, `select count(*) from lease l where not exists (select from node n where n.id = l.node
			and n.name = any($1) and n.registered_at = (select max(o.registered_at) from node o where o.name = n.name))`, names) == 0
	})
	if n := one[int64](s.db, `select count(*) from run r where r.owner is not null and not exists (select from lease l where l.id = r.owner)`); n > 0 {
		s.t.Errorf("%d runs are owned by leases that do not exist", n)
	}
}
