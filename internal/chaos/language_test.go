//go:build unix

package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// head is what the definitions here begin with; %s is the name.
const head = `
spec: workflow/v1
name: %s
max_parallel: 100
agents:
  writer: {model: fake/gpt-4o, instructions: Answer in a few words.}
  critic: {model: fake/gpt-4o-mini, role: validator, instructions: Be strict.}
  lead: {model: fake/gpt-4o, role: orchestrator, instructions: Plan.}
steps:
`

// written makes submissions of a definition. The input has the run's number, and so many items.
func written(name, steps string, items int) submission {
	list := make([]int, items)
	for i := range list {
		list[i] = i
	}
	definition := fmt.Sprintf(head, name) + steps
	return func(n int) map[string]any {
		return map[string]any{"definition": definition, "input": map[string]any{"n": n, "items": list}}
	}
}

// crash is kill -9 of the only node while it waits for answers, and its restart under its name. inHand counts the calls
// since the last restart whose answers are in no log, and never will be.
func (s *scene) crash(a *node) (again *node, inHand int) {
	s.t.Helper()
	a.kill()
	all := len(s.models.ledger())
	s.models.await(startLimit, "the calls of the dead node are over", all, func(c call) bool { return !c.open })
	e := s.evidence()
	durable, done, ids := e.committed(), map[string]bool{}, e.numbered()
	for _, log := range e.logs {
		for _, ev := range log {
			done[ev.Run.String()+ev.Step] = done[ev.Run.String()+ev.Step] || ev.Kind == "step_succeeded"
		}
	}
	inHand = count(e.calls[s.known:], func(c call) bool { // the verdict that lets a step succeed is in no log
		return durable[c.no].IsZero() && !done[ids[c.run].String()+c.step]
	})
	s.known = all
	return a.again(), inHand
}

// bought: beside the calls that are needed anyway, there were those that were in hand when nodes died, and no prompt was
// sent again more often than that. Where an answer is lost, what was asked about it is too, and is asked in other words.
func (s *scene) bought(e *evidence, needed, inHand, deaths int) {
	s.t.Helper()
	_, most := e.askedAgain()
	s.want(inHand > 0, "no call was in hand when a node died")
	s.want(len(e.calls) == needed+inHand, "%d calls: %d were needed, and %d were in hand when nodes died", len(e.calls), needed, inHand)
	s.want(most <= deaths, "a prompt was sent %d times more; %d nodes died", most, deaths)
	s.t.Logf("%d calls: %d were needed, and %d were in hand when nodes died", len(e.calls), needed, inHand)
}

// still waits until no run has anything to do: those that a step started may end later than their parents.
func (s *scene) still() {
	s.t.Helper()
	s.await(time.Minute, "every run has ended, and heard all", func() bool {
		return one[int64](s.db, `select (select count(*) from run where status <> all($1)) + (select count(*) from inbox)`, ends) == 0
	})
}

// output is what a run returned.
func (n *node) output(id uuid.UUID, into any) {
	n.t.Helper()
	var run struct{ Output json.RawMessage }
	if status, text := n.request(http.MethodGet, "/v1/runs/"+wireID(id), nil, &run); status != http.StatusOK {
		n.t.Fatalf("%d %s", status, text)
	}
	if err := json.Unmarshal(run.Output, into); err != nil {
		n.t.Fatalf("the output %s: %v", run.Output, err)
	}
}

// mapped is a map over so many items, with an agent and a tool for each.
func mapped(items int) submission {
	return written("chaos-map", `
  - id: each
    map:
      items: input.items
      max_items: 1000
      concurrency: 100
      steps:
        - {id: ask, agent: writer, prompt: "`+prompt("each.${{ index }}.ask")+`"}
        - {id: note, tool: "builtin:noop", args: {item: "${{ item }}", said: "${{ steps.ask.output }}"}}
      output: ${{ steps.note.output }}
`, items)
}

// TestKillInAMap: kill -9 of the only node, twice, in the middle of a map of 1,000 items with two steps each.
func TestKillInAMap(t *testing.T) {
	long(t)
	const items, deaths = 1_000, 2
	s := newScene(t)
	s.models.takes(150 * time.Millisecond)
	a := s.start("a")
	s.client.load(mapped(items), 1, 1, a)()
	inHand := 0
	for i := range deaths {
		s.models.await(time.Minute, "a part of the items", (i+1)*items/(deaths+1), isAnswered)
		var lost int
		a, lost = s.crash(a)
		inHand += lost
	}
	s.finish(time.Minute)
	e := s.judge()

	s.bought(e, items, inHand, deaths)
	s.judgeMap(a, 1, items)
	for _, ev := range e.logs[s.client.id(1)] {
		s.want(ev.Attempt <= 1, "step %s has an attempt %d", ev.Step, ev.Attempt)
	}
}

// judgeMap: the run of that number gave the right thing for each item.
func (s *scene) judgeMap(a *node, n, items int) {
	s.t.Helper()
	var list []struct {
		Item int
		Said string
	}
	a.output(s.client.id(n), &list)
	for i, got := range list {
		if got.Item != i || !strings.HasSuffix(got.Said, fmt.Sprintf(" to each.%d.ask of %d", i, n)) {
			s.t.Fatalf("item %d gave %+v", i, got)
		}
	}
	s.want(len(list) == items, "the map of run %d gave %d items", n, len(list))
}

// strict lets a critic refuse a first draft, and the writer make a second one.
func strict(c call, said string) string {
	switch {
	case c.model != providerModel && strings.Contains(said, "second draft"):
		return `{"score":9,"pass":true,"issues":[],"note":"` + c.mark() + `"}`
	case c.model != providerModel:
		return `{"score":2,"pass":false,"issues":["It is a first draft."],"note":"` + c.mark() + `"}`
	case strings.Contains(said, "does not pass"):
		return "the second draft " + c.mark()
	}
	return "the first draft " + c.mark()
}

// looped has three iterations, in each of which an agent passes a gate.
var looped = written("chaos-loop", `
  - id: improve
    loop:
      max_iterations: 5
      until: iter.number == 3
      steps:
        - id: write
          agent: writer
          prompt: "`+prompt("improve.${{ iter.number }}.write")+`"
          gate: {checks: [{judge: critic, rubric: {done: it is no draft any more}, min_score: 5}], revise: 2}
      output: {number: "${{ iter.number }}", text: "${{ steps.write.output }}"}
`, 0)

// TestKillInALoop: kill -9 of the only node, three times, in the middle of loops whose agents pass a gate at the second
// try. What a conversation has got is kept: no turn of it, and none of its judge's, is asked for again.
func TestKillInALoop(t *testing.T) {
	long(t)
	const runs, iterations, turns, deaths = 20, 3, 4, 3
	s := newScene(t)
	s.models.speaks(strict)
	s.models.takes(150 * time.Millisecond)
	a := s.start("a")
	s.client.load(looped, 1, runs, a)()
	inHand := 0
	for i := range deaths {
		s.models.await(time.Minute, "a part of the turns", (i+1)*runs*iterations*turns/(deaths+1), isAnswered)
		var lost int
		a, lost = s.crash(a)
		inHand += lost
	}
	s.finish(time.Minute)
	e := s.judge()

	s.bought(e, runs*iterations*turns, inHand, deaths)
	for n := 1; n <= runs; n++ {
		s.judgeLoop(a, n)
	}
}

// judgeLoop: the run of that number gave its third second draft.
func (s *scene) judgeLoop(a *node, n int) {
	s.t.Helper()
	var out struct {
		Number int
		Text   string
	}
	if a.output(s.client.id(n), &out); out.Number != 3 || !strings.HasPrefix(out.Text, "the second draft ") {
		s.t.Errorf("run %d gave %+v", n, out)
	}
}

// kid is a workflow that others start.
const kid = "chaos-kid"

// family publishes the workflow that steps start, and gives submissions of one that starts so many runs of it. The kids of
// run n have the numbers from 1000 n on. %s of steps are the first steps of a kid.
func (n *node) family(first string, kids int) submission {
	n.t.Helper()
	n.order(http.MethodPost, "/v1/workflows", map[string]any{"definition": fmt.Sprintf(head, kid) + first + `
  - {id: say, agent: writer, needs: [begin], prompt: "` + prompt("say") + `"}
`})
	return written("chaos-parent", `
  - id: each
    map:
      items: input.items
      max_items: 100
      concurrency: 100
      steps:
        - {id: run, workflow: {name: `+kid+`, input: {n: "${{ input.n * 1000 + index }}"}}}
`, kids)
}

const beginAsking = `  - {id: begin, agent: writer, prompt: "run=${{ input.n }} step=begin"}`

// TestKillParentAndChildren: kill -9 of the only node while runs wait for 20 of their own each.
func TestKillParentAndChildren(t *testing.T) {
	long(t)
	const parents, kids, deaths = 5, 20, 1
	s := newScene(t)
	s.models.takes(150 * time.Millisecond)
	a := s.start("a")
	s.client.load(a.family(beginAsking, kids), 1, parents, a)()
	inHand := 0
	for i := range deaths {
		s.models.await(time.Minute, "a part of the kids' steps", (i+1)*2*parents*kids/(deaths+1), isAnswered)
		var lost int
		a, lost = s.crash(a)
		inHand += lost
	}
	s.finish(time.Minute)
	s.still()
	e := s.judge()

	s.bought(e, 2*parents*kids, inHand, deaths)
	s.want(len(e.rows) == parents*(kids+1), "there are %d runs", len(e.rows))
	s.judgeFamilies(a, e, kids)
}

// open lists the approvals that are open.
func (n *node) open() (ids []string) {
	n.t.Helper()
	var page struct{ Data []struct{ ID string } }
	if status, text := n.request(http.MethodGet, "/v1/approvals?status=open&limit=200", nil, &page); status != http.StatusOK {
		n.t.Fatalf("%d %s", status, text)
	}
	for _, a := range page.Data {
		ids = append(ids, a.ID)
	}
	return ids
}

func (n *node) approve(approval string) {
	n.t.Helper()
	n.order(http.MethodPost, "/v1/approvals/"+approval, map[string]any{"choice": flow.ChoiceApprove})
}

// planning answers a planner with a plan of two steps.
func planning(c call, said string) string {
	if c.step != "delegate" {
		return words(c, said)
	}
	return `{"steps":[{"id":"first","agent":"writer","prompt":"run=${{ input.n }} step=first planned in ` + c.mark() + `"},
		{"id":"second","agent":"writer","prompt":"run=${{ input.n }} step=second after ${{ steps.first.output }}"}]}`
}

// delegated is a plan that a person approves. The planned run of run n has the number n + 1000.
var delegated = written("chaos-plan", `
  - id: delegate
    plan:
      agent: lead
      goal: "`+prompt("delegate")+`"
      input: {n: "${{ input.n + 1000 }}"}
      allow: {kinds: [agent], agents: [writer], max_steps: 5, max_depth: 1, max_usd: 5}
      approval: {when: "true"}
`, 0)

// TestKillAroundAPlan: kill -9 of the only node while planners plan, while their plans wait for approval, and while the
// approved ones run.
func TestKillAroundAPlan(t *testing.T) {
	long(t)
	const runs, deaths = 20, 3
	s := newScene(t)
	s.models.speaks(planning)
	s.models.takes(150 * time.Millisecond)
	later := s.models.hold(func(c call) bool { return c.step == "delegate" && c.run > runs/2 && c.no <= runs })
	a := s.start("a")
	s.client.load(delegated, 1, runs, a)()
	s.await(time.Minute, "half of the plans are made", func() bool { return len(a.open()) == runs/2 })
	s.models.await(time.Minute, "the others are being made", runs/2, isOpen)
	before := a.open()
	a, inHand := s.crash(a)
	s.want(inHand == runs/2, "%d plans were being made when the node died", inHand)
	later.release()
	s.await(time.Minute, "all plans are made", func() bool { return len(a.open()) == runs })
	a, _ = s.crash(a)
	asked := a.open()
	for _, id := range before {
		s.want(slices.Contains(asked, id), "approval %s is not open any more", id)
	}
	for _, id := range asked {
		a.approve(id)
	}
	s.models.await(time.Minute, "the plans run", runs, func(c call) bool { return c.step != "delegate" && c.answered })
	a, lost := s.crash(a)
	inHand += lost
	s.finish(time.Minute)
	s.still()
	e := s.judge()

	s.bought(e, 3*runs, inHand, deaths)
	s.want(len(e.rows) == 2*runs, "there are %d runs", len(e.rows))
	for n, p := range e.promised {
		s.want(of(e.logs[p.id], "plan_made") == 1 && of(e.logs[p.id], "approval_answered") == 1, "run %d: %d plans, %d answers",
			n, of(e.logs[p.id], "plan_made"), of(e.logs[p.id], "approval_answered"))
	}
}

// TestAnswerWhileNobodyIsThere: people answer while no node runs, and in the moment in which one dies. Each answer is
// applied once.
func TestAnswerWhileNobodyIsThere(t *testing.T) {
	long(t)
	const runs = 40
	s := newScene(t)
	a := s.start("a")
	s.client.load(written("chaos-approval", `
  - {id: ask, approval: {title: "Go on with ${{ input.n }}?"}}
  - {id: go, agent: writer, needs: [ask], prompt: "`+prompt("go")+`"}
output: {by: "${{ steps.ask.by }}", said: "${{ steps.go.output }}"}
`, 0), 1, runs, a)()
	s.await(time.Minute, "everything is asked", func() bool { return len(a.open()) == runs })
	asked := a.open()
	for _, id := range asked[:runs/2] {
		a.approve(id)
	}
	a.kill()
	db, err := store.Open(t.Context(), store.Config{URL: s.db.url})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, text := range asked {
		id := uuid.MustParse(strings.TrimPrefix(text, "apr_"))
		row, err := db.AnswerApproval(t.Context(), store.TenantDefault, id, store.Answer{Choice: flow.ChoiceApprove, By: "the night shift"})
		answered := slices.Contains(asked[:runs/2], text)
		if answered != fault.Is(err, fault.KindConflict) || !answered && err != nil {
			t.Fatalf("approval %s (answered before: %t): %+v, %v", id, answered, row, err)
		}
	}
	s.want(one[int64](s.db, `select count(*) from inbox`) >= runs/2, "the answers do not wait for a node")
	a = a.again()
	s.finish(time.Minute)
	s.still()
	e := s.judge()

	by := map[string]int{}
	for n, p := range e.promised {
		s.want(of(e.logs[p.id], "approval_answered") == 1, "run %d: %d answers", n, of(e.logs[p.id], "approval_answered"))
		var out struct{ By string }
		a.output(p.id, &out)
		by[out.By]++
	}
	s.want(by["operator"] == runs/2 && by["the night shift"] == runs/2, "answered by %v", by)
	t.Logf("%d calls for %d steps; answered by %v", len(e.calls), runs, by)
}

// Run n of emits says that it has paid, and later sent; run waitsFrom + n waits for both.
const waitsFrom = 100

var (
	emits = written("chaos-emits", `
  - {id: pay, agent: writer, prompt: "`+prompt("pay")+`"}
  - {id: paid, needs: [pay], emit: {event: paid, data: {order: "${{ input.n }}"}}}
  - {id: send, needs: [paid], agent: writer, prompt: "`+prompt("send")+`"}
  - {id: sent, needs: [send], emit: {event: sent, data: {order: "${{ input.n }}"}}}
output: ["${{ steps.paid.output.event_id }}", "${{ steps.sent.output.event_id }}"]
`, 0)
	waits = written("chaos-waits", fmt.Sprintf(`
  - {id: first, wait: {signal: {name: paid, match: "event.data.order == input.n - %[1]d"}}}
  - {id: then, needs: [first], wait: {signal: {name: sent, match: "event.data.order == input.n - %[1]d"}}}
  - {id: tell, needs: [then], agent: writer, prompt: "`+prompt("tell")+`"}
output: ["${{ steps.first.output.order }}", "${{ steps.then.output.order }}"]
`, waitsFrom), 0)
)

// TestKillAmongSignals: kill -9 of the only node, twice, while runs emit what others wait for. Each event is told once to
// each of them, whoever dies in between.
func TestKillAmongSignals(t *testing.T) {
	long(t)
	const pairs, deaths = 30, 2
	s := newScene(t)
	s.models.takes(150 * time.Millisecond)
	a := s.start("a")
	s.client.load(waits, waitsFrom+1, pairs, a)()
	s.await(time.Minute, "all wait", func() bool {
		return one[int64](s.db, `select count(*) from run where status = 'waiting'`) == pairs
	})
	s.client.load(emits, 1, pairs, a)()
	for i := range deaths {
		s.models.await(time.Minute, "some is paid, some is sent", (2*i+1)*pairs/2, isAnswered)
		a, _ = s.crash(a)
	}
	s.finish(time.Minute)
	s.still()
	e := s.judge()

	s.judgeSignals(a, e, numbers(1, pairs))
	again, _ := e.askedAgain()
	s.want(again > 0, "no call was in hand when the node died")
	t.Logf("%d events told to %d runs; %d calls, %d of them again", 2*pairs, pairs, len(e.calls), again)
}

func numbers(from, count int) (list []int) {
	for n := from; n < from+count; n++ {
		list = append(list, n)
	}
	return list
}

// judgeSignals: all that emitted have found the runs that waited for them, and each event was told once.
func (s *scene) judgeSignals(a *node, e *evidence, emitters []int) {
	s.t.Helper()
	ids := map[string]bool{}
	for _, n := range emitters {
		var list []string
		a.output(s.client.id(n), &list)
		for _, id := range list {
			ids[id] = true
		}
		var orders []int
		if a.output(s.client.id(waitsFrom+n), &orders); !slices.Equal(orders, []int{n, n}) {
			s.t.Errorf("run %d waited for %v", waitsFrom+n, orders)
		}
	}
	emitted := rows(s.db, pgx.RowTo[string], `select id from emitted`)
	s.want(len(ids) == 2*len(emitters) && len(emitted) == 2*len(emitters), "%d events in the logs, %d in the table", len(ids), len(emitted))
	for _, id := range emitted {
		s.want(ids[id], "event %s is in no log", id)
	}
	for _, n := range emitters {
		s.toldOnce(e.logs[s.client.id(waitsFrom+n)], ids)
	}
}

// toldOnce: a run that waits for signals has each at most once, and of no other id.
func (s *scene) toldOnce(log []event, ids map[string]bool) {
	s.t.Helper()
	heard := map[string]bool{}
	for _, ev := range log {
		if ev.Kind != "signal_received" {
			continue
		}
		var signal flow.Signal
		if err := json.Unmarshal([]byte(ev.Data), &signal); err != nil {
			s.t.Fatal(err)
		}
		s.want(ids[signal.ID] && !heard[signal.ID] && !signal.Lost, "run %s: event %d is the signal %+v", ev.Run, ev.Seq, signal)
		heard[signal.ID] = true
	}
	s.want(len(heard) >= 2, "the run heard %d signals", len(heard))
}

// TestKillAnything: runs of every shape on two nodes, of which one after the other is killed and comes back; once Postgres
// is, too.
func TestKillAnything(t *testing.T) {
	long(t)
	const items, kids, deaths, pairs, apart = 200, 10, 4, 10, 200
	const maps, loops, parents, plans, emitters = 1, 11, 31, 41, 51 // from these numbers on, and apart from each other by death
	s := newScene(t)
	defer s.tellUnfinished()
	s.models.takes(500 * time.Millisecond)
	s.models.speaks(func(c call, said string) string {
		if c.model != providerModel || strings.HasSuffix(c.step, ".write") {
			return strict(c, said)
		}
		return planning(c, said)
	})
	nodes := []*node{s.start("a"), s.start("b")}
	family := nodes[0].family(beginAsking, kids)
	load := func(from int) {
		s.client.load(waits, from+waitsFrom+emitters, pairs, nodes...)()
		for _, wait := range []func(){
			s.client.load(emits, from+emitters, pairs, nodes...), s.client.load(mapped(items), from+maps, 1, nodes...),
			s.client.load(looped, from+loops, 5, nodes...), s.client.load(family, from+parents, 2, nodes...),
			s.client.load(delegated, from+plans, 5, nodes...),
		} {
			wait()
		}
	}
	approve := func() {
		for _, id := range nodes[0].open() {
			nodes[0].approve(id)
		}
	}
	for i := range deaths {
		done := s.settled()
		load(i * apart)
		s.await(time.Minute, "something goes on, and no run is suspected of anything", func() bool {
			approve()
			return s.settled() > done+items && one[int64](s.db, `select count(*) from run where crashes > 1`) == 0
		})
		s.want(s.unfinished() > 0, "all was finished before node %d of %d was killed", i+1, deaths)
		nodes[i%2].kill()
		if i == deaths/2 {
			s.db.kill()
			s.db.restart()
		}
		nodes[i%2] = nodes[i%2].again()
		s.await(time.Minute, "both nodes are ready", func() bool {
			return nodes[0].status("/readyz") == http.StatusOK && nodes[1].status("/readyz") == http.StatusOK
		})
	}
	s.await(2*time.Minute, "every run has ended", func() bool { approve(); return s.unfinished() == 0 })
	s.still()
	e := s.judge()

	var emitting []int
	for from := 0; from < deaths*apart; from += apart {
		s.judgeMap(nodes[0], from+maps, items)
		for n := range 5 {
			s.judgeLoop(nodes[0], from+loops+n)
		}
		for n := range 2 {
			s.judgeFamily(nodes[0], e, from+parents+n, kids)
		}
		emitting = append(emitting, numbers(from+emitters, pairs)...)
	}
	s.judgeSignals(nodes[0], e, emitting)
	again, most := e.askedAgain()
	s.want(again > 0 && most <= deaths, "%d calls were made again, %d of one prompt", again, most)
	t.Logf("%d calls, %d of them again, of one prompt %d at most", len(e.calls), again, most)
}
