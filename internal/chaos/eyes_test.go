//go:build unix

package chaos

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

// whole is what a run of three steps leaves when nothing went wrong.
func whole() *evidence {
	id := uuid.Must(uuid.NewV7())
	at := time.Unix(1_700_000_000, 0)
	finished := at.Add(time.Minute)
	e := &evidence{
		promised: map[int]promise{7: {id: id, at: at}},
		rows:     map[uuid.UUID]row{id: {ID: id, Status: "succeeded", Calls: 3, Cost: 30, Done: 3, Total: 3, Finished: &finished}},
		logs:     map[uuid.UUID][]event{},
		spent:    bill{Calls: 3, Input: 300, Output: 45, Cost: 30},
	}
	add := func(kind, step, data string) {
		at = at.Add(time.Second)
		e.logs[id] = append(e.logs[id], event{
			Run: id, Seq: int32(len(e.logs[id]) + 1), At: at, Durable: at, Kind: kind, Step: step, Data: data, Gen: 1, Attempt: 1,
		})
	}
	add("run_submitted", "", "{}")
	for _, step := range chainSteps {
		add("step_started", step, "")
		c := call{no: len(e.calls) + 1, run: 7, step: step, asked: step, node: "a", began: at, ended: at.Add(time.Millisecond), answered: true}
		e.calls = append(e.calls, c)
		add("step_succeeded", step, `{"output":"`+c.mark()+`","calls":[{"try":1,"tokens":{"input":100,"output":15},"cost_nano":10}]}`)
	}
	add("run_succeeded", "", "{}")
	return e
}

func (e *evidence) log() *[]event {
	log := e.logs[e.promised[7].id]
	return &log
}

func (e *evidence) put(log []event) { e.logs[e.promised[7].id] = log }

func (e *evidence) editRow(edit func(*row)) {
	r := e.rows[e.promised[7].id]
	edit(&r)
	e.rows[e.promised[7].id] = r
}

// TestJudge: the judge acquits what is whole, and sees each thing that can be wrong.
func TestJudge(t *testing.T) {
	if found := whole().findings([]string{"succeeded"}); len(found) > 0 {
		t.Fatalf("innocent, and found guilty: %v", found)
	}
	for rule, spoil := range map[string]func(e *evidence){
		"an acknowledged run is there and ends": func(e *evidence) { clear(e.rows) },
		"a promise makes one run":               func(e *evidence) { id := uuid.New(); e.rows[id] = row{ID: id, Status: "running"} },
		"a log has no gaps":                     func(e *evidence) { e.put(slices.Delete(*e.log(), 3, 4)) },
		"a step succeeds once": func(e *evidence) {
			log := *e.log()
			e.put(slices.Insert(log, 3, log[2]))
		},
		"a run ends once, and nothing follows": func(e *evidence) { e.put(append(*e.log(), event{Kind: "step_succeeded", Step: "four"})) },
		"a step starts after what it needs":    func(e *evidence) { (*e.log())[2].Kind = "attempt_failed" },
		"no step starts once a run is cancelling": func(e *evidence) {
			e.put(slices.Insert(*e.log(), 3, event{Kind: "run_cancelling"}))
		},
		"a committed step is not executed again": func(e *evidence) {
			again := e.calls[0]
			again.began = (*e.log())[2].Durable.Add(time.Millisecond)
			e.calls = append(e.calls, again)
		},
		"what was answered and committed is not asked for": func(e *evidence) {
			again := e.calls[0]
			again.no, again.began = len(e.calls)+1, (*e.log())[2].Durable.Add(time.Millisecond)
			e.calls = append(e.calls, again)
		},
		"the end of each child is told once": func(e *evidence) {
			id, parent := uuid.New(), e.promised[7].id
			e.rows[id] = row{ID: id, Status: "succeeded", Parent: &parent}
		},
		"an answer is in the log at most once":             func(e *evidence) { e.calls[1].answered = false },
		"spend is the sum of the calls in the logs":        func(e *evidence) { e.spent.Cost++ },
		"nothing is owned or waiting once runs have ended": func(e *evidence) { e.editRow(func(r *row) { r.Owner = new(uuid.UUID) }) },
	} {
		t.Run(rule, func(t *testing.T) {
			e := whole()
			spoil(e)
			if found := e.findings([]string{"succeeded"}); len(found[rule]) == 0 {
				t.Errorf("not seen; found only %v", found)
			}
		})
	}
}

// TestJudgeRows: what a run's row says is judged, too.
func TestJudgeRows(t *testing.T) {
	for name, edit := range map[string]func(*row){
		"failed":        func(r *row) { r.Status = "failed" },
		"steps missing": func(r *row) { r.Done = 2 },
		"calls missing": func(r *row) { r.Calls = 2 },
		"money missing": func(r *row) { r.Cost = 20 },
	} {
		e := whole()
		e.editRow(edit)
		if found := e.findings([]string{"succeeded"}); len(found) == 0 {
			t.Errorf("%s: not seen", name)
		}
	}
}
