//go:build unix

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/upstream"
)

// Two models of the provider have prices of their own: one is charged by the tokens of its answer, $10 for a million, one
// by the call.
const (
	pricedPrices = `
prices:
  - {model: priced, input: "0", output: "10", source: of the test}
  - {model: flat, input: "0", output: "0", per_call: "0.01", source: of the test}
`
	answerMax  = 1000                      // tokens: a cent is set aside for a call to priced
	pricedNano = tokensCompletion * 10_000 // and so much is spent
	peersLimit = 5 * time.Second           // until what one node knows is known to the others
)

// configure writes the nodes' configuration: the provider of the scene, and what else is given.
func (s *scene) configure(more string) {
	s.t.Helper()
	s.write("config.yaml", fmt.Sprintf("providers:\n  - {name: %s, kind: openai, base_url: %s/v1, api_key_env: %s}\n%s%s",
		providerName, s.models.url, keyVariable, more, pricedPrices))
}

// request sends JSON to a node and reads the answer into a value, where there is one.
func (n *node) request(method, path string, body, into any) (status int, text string) {
	n.t.Helper()
	var sent io.Reader
	if body != nil {
		sent = bytes.NewReader(mustJSON(n.t, body))
	}
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, sent)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.http.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			n.t.Fatalf("%s %s: %d %s: %v", method, path, resp.StatusCode, raw, err)
		}
	}
	return resp.StatusCode, string(raw)
}

// order is a request that has to succeed.
func (n *node) order(method, path string, body any) {
	n.t.Helper()
	if status, text := n.request(method, path, body, nil); status >= 300 {
		n.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
}

// budget makes or changes a budget without an end in time.
func (n *node) budget(name, usd string, more map[string]any) {
	n.t.Helper()
	body := map[string]any{"scope": "tenant", "window": "lifetime", "limit": map[string]any{"usd": usd}, "on_hard": "reject", "export": true}
	for key, value := range more {
		body[key] = value
	}
	n.order(http.MethodPut, "/v1/budgets/"+name, body)
}

// knows reports whether a node goes by a budget that is exported.
func (n *node) knows(budget string) bool {
	n.t.Helper()
	_, body, err := n.get("/metrics")
	_, seen := sumMetric(body, "fermata_budget_limit_usd", []string{fmt.Sprintf("budget=%q", budget)})
	return err == nil && seen
}

// chatted is how a call through the door for models ended.
type chatted struct {
	status int
	retry  string // Retry-After
	text   string
	err    error
}

// chat asks a model through a node. It may be called from any goroutine. run is the number in its prompt.
func (n *node) chat(model string, run int) chatted {
	const limit = 2 * time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	body := fmt.Sprintf(`{"model":%q,"max_tokens":%d,"messages":[{"role":"user","content":"run=%d step=chat"}]}`, model, answerMax, run)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return chatted{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return chatted{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return chatted{resp.StatusCode, resp.Header.Get("Retry-After"), string(text), err}
}

// chats asks a model so many times at once, through the nodes in turn.
func chats(model string, first, count int, nodes ...*node) <-chan chatted {
	answers := make(chan chatted, count)
	for i := range count {
		go func() { answers <- nodes[i%len(nodes)].chat(model, first+i) }()
	}
	return answers
}

// tally reads so many answers and counts them by status.
func (s *scene) tally(answers <-chan chatted, count int) (by map[int]int, last chatted) {
	s.t.Helper()
	by = map[int]int{}
	for range count {
		last = <-answers // every call has a limit
		if last.err != nil {
			s.t.Fatal(last.err)
		}
		by[last.status]++
	}
	return by, last
}

// purse is where a budget stands, by the table.
type purse struct{ Limit, Spent, Reserved int64 }

const purseSQL = `select b.limit_nano, coalesce(w.spent_nano, 0), coalesce(w.reserved_nano, 0)
	from budget b left join budget_window w on w.budget = b.id where b.name = $1`

func (s *scene) purse(name string) purse {
	s.t.Helper()
	return rows(s.db, pgx.RowToStructByPos[purse], purseSQL, name)[0]
}

// watch looks at a budget again and again from beside the service, until stop, which says how often it looked. Whenever
// it looks, what is spent and set aside is within the limit.
func (s *scene) watch(name string) (stop func() int) {
	ctx, cancel := context.WithCancel(s.t.Context())
	looked := 0
	var group sync.WaitGroup
	group.Go(func() {
		conn, err := pgx.Connect(ctx, s.db.url)
		if err != nil {
			s.t.Errorf("watch budget %s: %v", name, err)
			return
		}
		defer conn.Close(context.WithoutCancel(ctx))
		for ctx.Err() == nil {
			var p purse
			if err := conn.QueryRow(ctx, purseSQL, name).Scan(&p.Limit, &p.Spent, &p.Reserved); err == nil {
				looked++
				if p.Spent < 0 || p.Reserved < 0 || p.Spent+p.Reserved > p.Limit {
					s.t.Errorf("budget %s: %+v", name, p)
				}
			}
			pause(ctx, pollEvery)
		}
	})
	stop = sync.OnceValue(func() int {
		cancel()
		group.Wait()
		return looked
	})
	s.t.Cleanup(func() { stop() })
	return stop
}

// reservations counts what is set aside, by state.
func (s *scene) reservations(state string) (count, nano int64) {
	s.t.Helper()
	type sum struct{ Count, Nano int64 }
	found := rows(s.db, pgx.RowToStructByPos[sum], `select count(*), coalesce(sum(nano), 0)::bigint from reservation where state = $1`, state)[0]
	return found.Count, found.Nano
}

// spent is the report of what was spent, in nano-dollars.
func (n *node) spent() (nano int64) {
	n.t.Helper()
	var report struct {
		Totals struct {
			Variable struct {
				Nano int64 `json:"nano_usd"`
			}
		}
	}
	n.request(http.MethodGet, "/v1/spend?from="+url.QueryEscape(time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339)), nil, &report)
	return report.Totals.Variable.Nano
}

// thrifty is a chain that brings a budget along, and so does each of its steps.
func thrifty(n int) map[string]any {
	run := chain(n)
	run["budget"] = map[string]any{"usd": "1.00"}
	definition, _ := run["definition"].(map[string]any) //nolint:errcheck // made so
	steps, _ := definition["steps"].([]any)             //nolint:errcheck // made so
	for _, step := range steps {
		step.(map[string]any)["budget"] = map[string]any{"share": 0.5} //nolint:forcetypeassert // made so
	}
	return run
}

// aside is what is set aside in all budgets, those of runs included.
func (s *scene) aside() int64 {
	s.t.Helper()
	return one[int64](s.db, `select coalesce(sum(reserved_nano + reserved_tokens), 0)::bigint from budget_window`)
}

// TestKillUnderBudget: kill -9 of the only node with 100 calls in flight under a budget. What they had set aside is taken
// as spent, because each may have been made; nothing stays set aside, the runs go on and finish, and what is reported as
// spent is what stands in the logs.
func TestKillUnderBudget(t *testing.T) {
	long(t)
	const runs, direct = 60, 40
	s := newScene(t)
	s.configure("")
	a := s.start("a")
	a.budget("everything", "20.00", nil)
	stop := s.watch("everything")
	h := s.models.hold(func(call) bool { return true })
	s.client.load(thrifty, 1, runs, a)()
	answers := chats(providerName+"/priced", 9000, direct, a)
	s.models.await(time.Minute, "all are in flight", runs+direct, isOpen)
	inSteps := one[int64](s.db, `select count(*) from budget_window where run_id <> budget and reserved_nano > 0`)
	s.want(inSteps == runs, "something is set aside in the budgets of %d steps, not %d", inSteps, runs)
	held, nano := s.reservations("held")
	s.want(held == runs+direct && s.purse("everything").Reserved == nano && nano > 0, "%d calls are in flight under %d reservations of %d, the budget says %+v",
		runs+direct, held, nano, s.purse("everything"))

	a.kill()
	killed := time.Now()
	for range direct {
		s.want((<-answers).err != nil, "a call was answered by a node that was dead")
	}
	h.release()
	a = a.again()
	s.finish(time.Minute)
	finished := time.Since(killed)
	s.await(time.Minute, "nothing is set aside", func() bool { return s.aside() == 0 })
	freed := time.Since(killed)
	s.want(freed < time.Minute, "the reservations of the dead node were freed only after %s", freed)
	open, _ := s.reservations("held")
	lost, gone := s.reservations("lost")
	s.want(open == 0 && lost == runs+direct && gone == nano, "%d reservations are held, %d of %d are lost", open, lost, gone)
	e := s.judge()

	p := s.purse("everything")
	s.want(p.Spent == e.spent.Cost+gone, "the budget says %d, the logs %d and what was lost %d", p.Spent, e.spent.Cost, gone)
	s.want(a.spent() == e.spent.Cost, "the report says %d, the logs %d", a.spent(), e.spent.Cost)
	s.want(a.metric("fermata_budget_notes_total", `note="lost"`) == runs+direct, "%v calls were noted as lost", a.metric("fermata_budget_notes_total", `note="lost"`))
	s.want(a.chat(providerName+"/priced", 9999).status == http.StatusOK, "the budget is of no use any more")
	looked := stop()
	s.want(looked > 100, "the budget was looked at only %d times", looked)
	t.Logf("killed with %d calls in flight and %d nano-USD set aside; runs finished after %s, nothing set aside after %s; looked %d times, never over the limit",
		held, nano, finished, freed, looked)
}

// TestKillUnderAParentsBudget: kill -9 of the only node while runs that a run's steps started have calls in flight. What they
// had set aside in the budgets of the run and the step around them is settled as in their own; they go on and finish, and
// what the bill says is spent is what was recorded and what was lost.
func TestKillUnderAParentsBudget(t *testing.T) {
	long(t)
	const children, cent = 20, 10_000_000
	s := newScene(t)
	s.configure("")
	a := s.start("a")
	a.order(http.MethodPost, "/v1/workflows", map[string]any{"definition": map[string]any{
		"spec": "workflow/v1", "name": "chaos-child",
		"input":  map[string]any{"type": "object", "properties": map[string]any{"n": map[string]any{"type": "integer"}}},
		"agents": map[string]any{"writer": map[string]any{"model": providerName + "/flat"}},
		"steps":  []any{map[string]any{"id": "one", "agent": "writer", "prompt": prompt("one")}},
	}})
	items := make([]any, children)
	for i := range items {
		items[i] = i
	}
	h := s.models.hold(func(call) bool { return true })
	var run struct{ ID string }
	a.request(http.MethodPost, "/v1/runs", map[string]any{"definition": map[string]any{
		"spec": "workflow/v1", "name": "chaos-parent", "budget": map[string]any{"usd": "1.00"},
		"steps": []any{map[string]any{"id": "each", "budget": map[string]any{"share": 0.5}, "map": map[string]any{
			"items": items, "max_items": children, "concurrency": children,
			"steps": []any{map[string]any{"id": "sub", "workflow": map[string]any{"name": "chaos-child", "input": map[string]any{"n": "${{ item }}"}}}},
		}}},
	}}, &run)
	s.models.await(time.Minute, "all are in flight", children, isOpen)
	levels := func(what string) []int64 {
		return rows(s.db, pgx.RowTo[int64], `select `+what+` from budget_window where run order by run_id = budget, id`)
	}
	s.want(slices.Equal(levels("reserved_nano"), []int64{children * cent, children * cent}), "set aside around the children: %v", levels("reserved_nano"))
	a.kill()
	h.release()
	a = a.again()
	var bill struct {
		Status string
		Totals struct{ Cost struct{ USD string } }
		Budget struct{ Spent struct{ USD string } }
	}
	s.await(time.Minute, "the run is finished", func() bool {
		a.request(http.MethodGet, "/v1/runs/"+run.ID+"/cost", nil, &bill)
		return bill.Status == "succeeded"
	})
	s.await(time.Minute, "nothing is set aside", func() bool { return s.aside() == 0 })
	a.request(http.MethodGet, "/v1/runs/"+run.ID+"/cost", nil, &bill)
	s.want(bill.Totals.Cost.USD == "0.20" && bill.Budget.Spent.USD == "0.40", "the bill: %+v", bill)
	s.want(slices.Equal(levels("spent_nano"), []int64{2 * children * cent, 2 * children * cent}), "spent around the children: %v", levels("spent_nano"))
}

// TestTerminateUnderBudget: SIGTERM with 100 calls in flight that do not end. They are cut, and what they had set aside is
// settled before the process ends: nobody has to clear up behind it.
func TestTerminateUnderBudget(t *testing.T) {
	long(t)
	const runs, direct = 60, 40
	s := newScene(t)
	s.configure("")
	a := s.start("a", "--drain-timeout", "1s")
	a.budget("everything", "20.00", nil)
	stop := s.watch("everything")
	h := s.models.hold(func(call) bool { return true })
	s.client.load(thrifty, 1, runs, a)()
	answers := chats(providerName+"/priced", 9000, direct, a)
	s.models.await(time.Minute, "all are in flight", runs+direct, isOpen)
	s.want(s.aside() > 0, "nothing is set aside")
	a.terminate()
	for range direct {
		got := <-answers
		s.want(got.err != nil || got.status >= http.StatusInternalServerError, "a call that was not answered was answered: %d %s", got.status, got.text)
	}
	a.awaitEnd(startLimit)
	held, _ := s.reservations("held")
	lost, _ := s.reservations("lost")
	s.want(held == 0 && lost == 0 && s.aside() == 0, "behind the node that ended %d reservations are held, %d lost", held, lost)
	h.release()
	a = a.again()
	s.finish(time.Minute)
	s.await(time.Minute, "nothing is set aside", func() bool { return s.aside() == 0 })
	p := s.purse("everything")
	s.want(p.Spent == a.spent(), "the budget says %d, the report %d", p.Spent, a.spent())
	for id, r := range s.evidence().rows {
		s.want(r.Status == "succeeded", "run %s is %s", id, r.Status)
	}
	s.want(stop() > 10, "nobody looked at the budget")
	t.Logf("%d calls cut; %d nano-USD spent in the end", s.models.count(isCut), p.Spent)
}

// TestOneBudgetTwoNodes: calls through two nodes at once share a budget for 37 of them.
func TestOneBudgetTwoNodes(t *testing.T) {
	long(t)
	const callers, fitting, early = 200, 37, 20
	s := newScene(t)
	s.configure("")
	a, b := s.start("a"), s.start("b")
	a.budget("tokens", "0.37", map[string]any{"scope": "model", "of": "priced"})
	a.budget("calls", "0.37", map[string]any{"scope": "model", "of": "flat"})
	known := s.await(peersLimit, "node b knows the budgets", func() bool { return b.knows("tokens") && b.knows("calls") })
	stop, stopCalls := s.watch("tokens"), s.watch("calls")

	// While they are in flight nothing is given back: exactly so many are let through.
	h := s.models.hold(func(c call) bool { return c.run < 1000 })
	first := chats(providerName+"/priced", 1, early, a, b)
	s.models.await(time.Minute, "both have calls in flight", early, isOpen)
	answers := chats(providerName+"/priced", 1+early, callers-early, a, b)
	got, last := s.tally(answers, callers-fitting)
	s.want(got[http.StatusForbidden] == callers-fitting, "answers before any call had ended: %v, %s", got, last.text)
	s.models.await(time.Minute, "all that were let through are in flight", fitting, isOpen)
	at := map[string]int{"a": s.models.count(by("a")), "b": s.models.count(by("b"))}
	s.want(at["a"]+at["b"] == fitting && at["a"] >= early/2 && at["b"] >= early/2, "calls in flight: %v", at)
	s.want(s.purse("tokens").Reserved == 370_000_000, "%+v", s.purse("tokens"))
	h.release()
	got, last = s.tally(answers, fitting-early)
	s.want(got[http.StatusOK] == fitting-early, "answers of those let through: %v, %s", got, last.text)
	got, last = s.tally(first, early)
	s.want(got[http.StatusOK] == early, "answers of the first: %v, %s", got, last.text)
	s.await(time.Minute, "nothing is set aside", func() bool { return s.purse("tokens").Reserved == 0 })
	s.want(s.purse("tokens").Spent == fitting*pricedNano, "%+v, not %d", s.purse("tokens"), fitting*pricedNano)

	// Settled as fast as they come: the limit is spent to the last cent, and not beyond.
	got, last = s.tally(chats(providerName+"/flat", 1000, callers, a, b), callers)
	s.want(got[http.StatusOK] == fitting && got[http.StatusForbidden] == callers-fitting, "answers: %v, %s", got, last.text)
	s.await(time.Minute, "nothing is set aside", func() bool { return s.purse("calls").Reserved == 0 })
	s.want(s.purse("calls").Spent == 370_000_000, "%+v", s.purse("calls"))
	s.want(len(s.models.ledger()) == 2*fitting, "the provider was asked %d times", len(s.models.ledger()))
	s.want(stop()+stopCalls() > 10, "nobody looked at the budgets")
	t.Logf("node b knew the budgets after %s; of %d calls at once %v were in flight, of %d more these were answered: %v", known, callers, at, callers, got)
}

// shownBreaker is what these tests read of a breaker.
type shownBreaker struct {
	ID, State string
	Held      bool
}

func (n *node) breaker(id string) shownBreaker {
	n.t.Helper()
	var page struct{ Data []shownBreaker }
	n.request(http.MethodGet, "/v1/breakers", nil, &page)
	for _, b := range page.Data {
		if b.ID == id {
			return b
		}
	}
	return shownBreaker{}
}

// TestNodesTellEachOther: a breaker that opens on one node is open on the other, what an operator does through one node
// is done on both, and so are prices.
func TestNodesTellEachOther(t *testing.T) {
	long(t)
	s := newScene(t)
	broken := &upstream.Server{}
	broken.Script("gpt-4o", upstream.Step{Status: http.StatusInternalServerError, Body: "boom"})
	server := httptest.NewServer(broken)
	t.Cleanup(server.Close)
	s.configure(fmt.Sprintf("  - {name: broken, kind: openai, base_url: %s/v1, api_key_env: %s}\n", server.URL, keyVariable))
	a, b := s.start("a"), s.start("b")
	const id = "broken/gpt-4o"
	state := func(want string) func() bool {
		return func() bool { return a.breaker(id).State == want && b.breaker(id).State == want }
	}

	for a.breaker(id).State != "open" {
		s.want(a.chat(id, 1).status >= 500, "what is broken answered")
		if broken.Count("gpt-4o") > 20 {
			t.Fatalf("%d failures, and the breaker is %+v", broken.Count("gpt-4o"), a.breaker(id))
		}
	}
	opened := s.await(peersLimit, "the breaker is open on the other node", func() bool { return b.breaker(id).State == "open" })
	b.order(http.MethodPost, "/v1/breakers:reset", map[string]any{"id": id})
	s.want(b.breaker(id).State == "closed", "after the reset: %+v", b.breaker(id))
	reset := s.await(peersLimit, "the breaker is closed on both", state("closed"))

	b.order(http.MethodPost, "/v1/breakers:hold", map[string]any{"id": id, "reason": "a test"})
	held := s.await(peersLimit, "the breaker is held on both", func() bool { return a.breaker(id).Held && b.breaker(id).Held })
	asked := broken.Count("gpt-4o")
	got := a.chat(id, 2)
	s.want(got.status == http.StatusServiceUnavailable && broken.Count("gpt-4o") == asked, "a model that is held was asked: %d %s", got.status, got.text)
	a.order(http.MethodPost, "/v1/breakers:release", map[string]any{"id": id})
	s.await(peersLimit, "the breaker is released on both", func() bool { return !a.breaker(id).Held && !b.breaker(id).Held })

	model := providerName + "/" + providerModel
	a.order(http.MethodPut, "/v1/prices", map[string]any{"model": providerModel, "rows": []any{map[string]any{"input": "0", "output": "0", "per_call": "0.5", "source": "a letter"}}})
	priced := func(n *node) bool { return strings.Contains(n.chat(model, 3).text, `"cost_usd":"0.50"`) }
	s.want(priced(a), "the price does not hold where it was put: %s", a.chat(model, 3).text)
	taken := s.await(peersLimit, "the price holds on the other node", func() bool { return priced(b) })
	t.Logf("the other node: breaker open after %s, closed after %s, held after %s; price after %s", opened, reset, held, taken)
}

// narrow is a chain of steps whose provider answers one call at a time.
func narrow(n int) map[string]any {
	run := chain(n)
	definition, _ := run["definition"].(map[string]any) //nolint:errcheck // made so
	definition["agents"] = map[string]any{"writer": map[string]any{"model": "narrow/priced", "max_tokens": answerMax}}
	definition["budget"] = map[string]any{"usd": "1.00"}
	return run
}

// TestBudgetsWithoutPostgres: while Postgres is away, calls under a budget are refused, because nobody knows whether
// there is money, and others are answered. Calls in flight end well, and all that was spent is written when Postgres is
// back. Runs that were about to ask wait, and finish.
func TestBudgetsWithoutPostgres(t *testing.T) {
	long(t)
	const inFlight, free, runs, outage = 10, 10, 5, 4 * time.Second
	s := newScene(t)
	s.configure(fmt.Sprintf("  - {name: narrow, kind: openai, base_url: %[1]s/v1, api_key_env: %[2]s, limits: {concurrency: 1}}\n"+
		"  - {name: free, kind: openai, base_url: %[1]s/v1, api_key_env: %[2]s}\n", s.models.url, keyVariable))
	a := s.start("a")
	a.budget("one-model", "1.00", map[string]any{"scope": "provider", "of": providerName, "on_hard": "reject"})
	h := s.models.hold(func(call) bool { return true })
	s.client.load(narrow, 1, runs, a)()
	answers := chats(providerName+"/priced", 9000, inFlight, a)
	s.models.await(time.Minute, "calls are in flight", inFlight+1, isOpen)

	s.db.stop()
	stopped := time.Now()
	h.release()
	by, last := s.tally(answers, inFlight)
	s.want(by[http.StatusOK] == inFlight, "calls in flight when Postgres went: %v %s", by, last.text)
	asked := len(s.models.ledger())
	by, last = s.tally(chats(providerName+"/priced", 9100, inFlight, a), inFlight)
	s.want(by[http.StatusServiceUnavailable] == inFlight, "calls under a budget that cannot be asked: %v %s", by, last.text)
	s.want(last.retry != "" && strings.Contains(last.text, "is not known"), "they are not told to come again: Retry-After %q, %s", last.retry, last.text)
	s.want(len(s.models.ledger()) == asked, "%d calls were made under a budget that could not be asked", len(s.models.ledger())-asked)
	by, last = s.tally(chats("free/flat", 9200, free, a), free)
	s.want(by[http.StatusOK] == free, "calls under no budget: %v %s", by, last.text)
	pause(t.Context(), outage) // also for the runs that are about to ask
	away := time.Since(stopped)
	s.want(len(s.models.ledger()) <= asked+free, "%d calls were made under a budget that could not be asked", len(s.models.ledger())-asked-free)

	s.db.restart()
	s.await(time.Minute, "the node is ready again", func() bool { return a.status("/readyz") == http.StatusOK })
	s.await(time.Minute, "all calls are written", func() bool { return one[int64](s.db, `select count(*) from call where class = ''`) == inFlight+free })
	s.await(time.Minute, "nothing is set aside", func() bool { n, _ := s.reservations("held"); return n == 0 || s.unfinished() > 0 })
	p := s.purse("one-model")
	s.want(p.Reserved == 0 && p.Spent == inFlight*pricedNano, "the budget: %+v, not %d", p, inFlight*pricedNano)
	s.finish(2 * time.Minute)
	e := s.evidence()
	for n, p := range e.promised {
		s.want(e.rows[p.id].Status == "succeeded", "run %d is %s", n, e.rows[p.id].Status)
	}
	want := inFlight*pricedNano + free*10_000_000 + runs*len(chainSteps)*pricedNano
	s.want(a.spent() == int64(want), "the report says %d, not %d", a.spent(), want)
	t.Logf("away for %s: %d calls in flight answered, %d under a budget refused, %d others answered", away, inFlight, inFlight, free)
}
