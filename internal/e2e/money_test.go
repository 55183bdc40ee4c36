package e2e

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/upstream"
)

// What the model called priced costs: $10 for a million tokens of an answer, the rest is free. An answer may have 1,000
// tokens, so that a cent is set aside for each call; it has 5, so that each costs five thousandths of one.
const (
	pricedPrices = `
prices:
  - {model: priced, input: "0", output: "10", source: of the test}
  - {model: flat, input: "0", output: "0", per_call: "0.01", source: of the test}
`
	answerMax  = 1000
	pricedNano = upstream.OutputTokens * 10_000
	flatNano   = 10_000_000
)

// moneyService is a service whose models are played by one server each: by provider.
type moneyService struct {
	*service
	servers map[string]*upstream.Server
}

// startMoneyService starts a service with a provider of each name. Answers that are held wait for the gate of their server.
func startMoneyService(t *testing.T, providers ...string) moneyService {
	t.Helper()
	m := moneyService{servers: map[string]*upstream.Server{}}
	config := "providers:\n  - {name: simulated, kind: simulated, fallback: true, latency: 1ms}\n"
	for _, name := range providers {
		m.servers[name] = &upstream.Server{Gate: make(chan struct{})}
		server := httptest.NewServer(m.servers[name])
		t.Cleanup(server.Close)
		config += fmt.Sprintf("  - {name: %s, kind: openai, base_url: %s/v1, api_key_env: E2E_KEY}\n", name, server.URL)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config+pricedPrices), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("E2E_KEY", secretKey)
	m.service = startAlone(t, file)
	return m
}

// startAlone starts a service on a Postgres of its own: nothing was spent there, and no breaker was heard of.
func startAlone(t *testing.T, config string) *service {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(dataDir), "money-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // as for dataDir
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := startService(filepath.Join(dir, "data"), "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(syscall.SIGTERM) })
	return s
}

// shownBudget is what these tests read of a budget.
type shownBudget struct {
	Limit, Spent, Reserved, Left struct {
		USD    string
		Nano   int64 `json:"nano_usd"`
		Tokens int64
	}
	Crossings []struct{ Percent int }
}

func (s *service) budget(t *testing.T, name string) shownBudget {
	t.Helper()
	status, body := s.get(t, "/v1/budgets/"+name)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	return decode[shownBudget](t, body)
}

// put sends JSON that makes or changes something.
func (s *service) put(t *testing.T, path string, body any) (status int, answer string) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.url+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got.StatusCode, string(text)
}

// mustPut is put that has to succeed.
func (s *service) mustPut(t *testing.T, path string, body any) {
	t.Helper()
	if status, answer := s.put(t, path, body); status != http.StatusOK && status != http.StatusCreated {
		t.Fatalf("PUT %s: %d %s", path, status, answer)
	}
}

// chatAnswer is how a call through the door for models ended.
type chatAnswer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// refusal is the error in an answer.
func (a chatAnswer) refusal() (code, message string) {
	var body struct {
		Error struct{ Code, Message string }
	}
	_ = json.Unmarshal(a.body, &body) // what cannot be read has neither
	return body.Error.Code, body.Error.Message
}

// chat asks a model. It may be called from any goroutine.
func (s *service) chat(ctx context.Context, model string) chatAnswer {
	body := fmt.Sprintf(`{"model":%q,"max_tokens":%d,"messages":[{"role":"user","content":"Say something."}]}`, model, answerMax)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return chatAnswer{err: err}
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return chatAnswer{err: err}
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return chatAnswer{status: answer.StatusCode, header: answer.Header, body: got, err: err}
}

// chats asks a model so many times at once.
func (s *service) chats(ctx context.Context, model string, n int) <-chan chatAnswer {
	answers := make(chan chatAnswer, n)
	for range n {
		go func() { answers <- s.chat(ctx, model) }()
	}
	return answers
}

// take reads so many answers, and counts them by status.
func take(t *testing.T, answers <-chan chatAnswer, n int) (list []chatAnswer, by map[int]int) {
	t.Helper()
	by = map[int]int{}
	limit := time.After(commandLimit)
	for range n {
		select {
		case a := <-answers:
			if a.err != nil {
				t.Fatal(a.err)
			}
			by[a.status]++
			list = append(list, a)
		case <-limit:
			t.Fatalf("only %v of %d answers came", by, n)
		}
	}
	return list, by
}

// await looks until something holds. The limit only ends tests that hang.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.After(commandLimit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestMoney: what is spent is what was allowed, to the nano-dollar, however many ask at once.
func TestMoney(t *testing.T) {
	m := startMoneyService(t, "direct", "steps", "shares", "waiting", "raised", "soft", "priceless", "leaving")
	t.Run("200 calls under a budget for 37", m.directCalls)
	t.Run("200 steps of a run with a budget for 37", m.stepsOfARun)
	t.Run("a step that may spend half of its run's budget", m.shareOfARun)
	t.Run("a run waits for its own budget", m.runWaits)
	t.Run("a raised budget wakes the run that waits for it", m.raisedBudget)
	t.Run("soft limits are told once", m.softLimits)
	t.Run("a model without a price", m.noPrice)
	t.Run("spend", m.spend)
	t.Run("callers who leave", m.callersLeave)
}

const (
	callers = 200
	fitting = 37
)

// directCalls holds the answers of those who were let through, so that what is set aside for them stays: no settlement
// makes room for another.
func (m moneyService) directCalls(t *testing.T) {
	server := m.servers["direct"]
	server.Script("priced", upstream.Step{Hold: true})
	m.mustPut(t, "/v1/budgets/everything", map[string]any{
		"scope": "tenant", "window": "lifetime", "limit": map[string]any{"usd": "0.37"}, "on_hard": "reject",
	})
	answers := m.chats(t.Context(), "direct/priced", callers)
	refused, by := take(t, answers, callers-fitting)
	if by[http.StatusForbidden] != callers-fitting {
		t.Fatalf("answers before any call had ended: %v\n%s", by, refused[0].body)
	}
	for _, a := range refused {
		if code, message := a.refusal(); code != "budget_exhausted" || !strings.Contains(message, `budget "everything" (tenant) is exhausted`) {
			t.Fatalf("%s", a.body)
		}
	}
	if b := m.budget(t, "everything"); b.Reserved.USD != "0.37" || b.Spent.Nano != 0 || b.Left.Nano != 0 {
		t.Errorf("with %d calls at work: %+v", fitting, b)
	}
	// Those who were let through are on their way.
	await(t, "they have reached the provider", func() bool { return server.Count("priced") >= fitting })
	if n := server.Count("priced"); n != fitting {
		t.Errorf("the provider was asked %d times, not %d", n, fitting)
	}
	close(server.Gate)
	if answered, by := take(t, answers, fitting); by[http.StatusOK] != fitting {
		t.Errorf("of those who were let through: %v\n%s", by, answered[0].body)
	}
	await(t, "nothing is set aside", func() bool { return m.budget(t, "everything").Reserved.Nano == 0 })
	if b := m.budget(t, "everything"); b.Spent.Nano != fitting*pricedNano || b.Reserved.Tokens != 0 {
		t.Errorf("spent %d nano-USD, not %d: %+v", b.Spent.Nano, fitting*pricedNano, b)
	}
	if a := m.chat(t.Context(), "direct/priced"); a.status != http.StatusOK || a.header.Get("Fermata-Cost-Usd") != "0.00005" {
		t.Errorf("what was not used is not given back: %d %s %s", a.status, a.header.Get("Fermata-Cost-Usd"), a.body)
	}
	if r := m.fermata(t, "budget", "ls").want(t, 0); !strings.Contains(r.out, "everything") {
		t.Errorf("%s", r.out)
	}
	m.fermata(t, "budget", "rm", "everything").want(t, 0)
}

// startedRun is what these tests read of a run that may not have ended.
type startedRun struct {
	ID, Status string
	Cost       shownMoney
	Error      struct{ Class, Message string }
	Waiting    struct{ Kind, Sentence, Step string } `json:"waiting_for"`
}

func (s *service) run(t *testing.T, id string) startedRun {
	t.Helper()
	_, body := s.get(t, "/v1/runs/"+id)
	return decode[startedRun](t, body)
}

// submit starts a run of a definition and does not wait for it.
func (s *service) submit(t *testing.T, definition, extra map[string]any) string {
	t.Helper()
	body := map[string]any{"definition": definition, "input": map[string]any{}}
	for key, value := range extra {
		body[key] = value
	}
	status, _, answer := s.post(t, "/v1/runs", body)
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	return decode[struct{ ID string }](t, string(answer)).ID
}

func (s *service) awaitStatus(t *testing.T, id, status string) startedRun {
	t.Helper()
	var run startedRun
	await(t, id+" is "+status, func() bool {
		run = s.run(t, id)
		if slices.Contains([]string{"succeeded", "failed", "cancelled"}, run.Status) && run.Status != status {
			t.Fatalf("%s is %s: %+v", id, run.Status, run.Error)
		}
		return run.Status == status
	})
	return run
}

// kinds counts the events of a run by kind.
func (s *service) kinds(t *testing.T, id string) map[string]int {
	t.Helper()
	kinds := map[string]int{}
	for after := 0; ; {
		status, body := s.get(t, fmt.Sprintf("/v1/runs/%s/events?after=%d", id, after))
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		page := decode[struct {
			Data    []shownEvent
			LastSeq int `json:"last_seq"`
		}](t, body)
		for _, e := range page.Data {
			kinds[e.Kind]++
		}
		if len(page.Data) == 0 {
			break
		}
		after = page.LastSeq
	}
	return kinds
}

// asking is a workflow of steps that ask one model, one after the other or all at once.
func asking(name, model string, steps int, sequential bool) map[string]any {
	list := make([]any, steps)
	for i := range list {
		list[i] = map[string]any{"id": fmt.Sprintf("ask_%d", i+1), "agent": "asker", "prompt": fmt.Sprintf("Say something, %d.", i+1), "retry": "none"}
	}
	return map[string]any{
		"spec": "workflow/v1", "name": name, "sequential": sequential, "max_parallel": callers,
		"agents": map[string]any{"asker": map[string]any{"model": model, "max_tokens": answerMax}},
		"steps":  []any{map[string]any{"id": "all", "group": map[string]any{"sequential": sequential, "steps": list}}},
	}
}

func (m moneyService) stepsOfARun(t *testing.T) {
	server := m.servers["steps"]
	server.Script("flat", upstream.Step{Hold: true})
	definition := asking("many-steps", "steps/flat", callers, false)
	definition["budget"] = map[string]any{"usd": "0.37", "on_exceeded": "fail"}
	id := m.submit(t, definition, nil)
	// What is set aside may come back: nobody fails as long as it is not spent.
	await(t, "those whom the budget has no money for wait", func() bool { return m.kinds(t, id)["attempt_failed"] >= callers-fitting })
	await(t, "the others have reached the provider", func() bool { return server.Count("flat") >= fitting })
	if n := server.Count("flat"); n != fitting {
		t.Errorf("the provider was asked %d times, not %d", n, fitting)
	}
	if b := m.bill(t, id); b.Reserved.USD != "0.37" {
		t.Errorf("set aside for the calls at work: %+v", b.Reserved)
	}
	close(server.Gate)
	run := m.awaitStatus(t, id, "failed")
	if run.Error.Class != "budget_exceeded" || !strings.Contains(run.Error.Message, `budget "run" (run) is exhausted`) {
		t.Errorf("%+v", run.Error)
	}
	if run.Cost.Nano != fitting*flatNano {
		t.Errorf("the run cost %d nano-USD, not %d", run.Cost.Nano, fitting*flatNano)
	}
	if kinds := m.kinds(t, id); kinds["step_succeeded"] != fitting {
		t.Errorf("%d calls were paid; events %v", fitting, kinds)
	}
	await(t, "nothing is set aside", func() bool { return m.bill(t, id).Reserved.USD == "" })
	if n := server.Count("flat"); n != fitting {
		t.Errorf("the provider was asked %d times in the end, not %d", n, fitting)
	}
}

// shareOfARun: what a step may spend bounds all inside it, however much the run may.
func (m moneyService) shareOfARun(t *testing.T) {
	server := m.servers["shares"]
	server.Script("flat", upstream.Step{Hold: true})
	definition := asking("shared", "shares/flat", callers, false)
	definition["budget"] = map[string]any{"usd": "0.74"}
	all, _ := definition["steps"].([]any)[0].(map[string]any)
	all["budget"] = map[string]any{"share": 0.5}
	id := m.submit(t, definition, nil)
	await(t, "those whom the step has no money for wait", func() bool { return m.kinds(t, id)["attempt_failed"] >= callers-fitting })
	await(t, "the others have reached the provider", func() bool { return server.Count("flat") >= fitting })
	if b := m.bill(t, id); b.Reserved.USD != "0.37" {
		t.Errorf("set aside for the calls at work: %+v", b.Reserved)
	}
	close(server.Gate)
	run := m.awaitStatus(t, id, "failed")
	if run.Error.Class != "budget_exceeded" || !strings.Contains(run.Error.Message, `budget "all" (step) is exhausted: spent $0.37`) {
		t.Errorf("%+v", run.Error)
	}
	if n := server.Count("flat"); n != fitting || run.Cost.Nano != fitting*flatNano {
		t.Errorf("%d calls, %d nano-USD", n, run.Cost.Nano)
	}
}

// twoOfThree is money for the first two of three calls in a row: of each, much less is spent than set aside.
const twoOfThree = "0.01005"

func (m moneyService) runWaits(t *testing.T) {
	server := m.servers["waiting"]
	definition := asking("waits", "waiting/priced", 3, true)
	definition["budget"] = map[string]any{"usd": twoOfThree}
	id := m.submit(t, definition, nil)
	run := m.awaitStatus(t, id, "waiting")
	if run.Waiting.Kind != "budget" || run.Waiting.Step != "ask_3" || !strings.Contains(run.Waiting.Sentence, "raise the budget or resume the run") {
		t.Errorf("%+v", run.Waiting)
	}
	if n := server.Count("priced"); n != 2 || run.Cost.Nano != 2*pricedNano {
		t.Errorf("%d calls for %d nano-USD before there was too little", n, run.Cost.Nano)
	}
	m.fermata(t, "resume", id, "--budget", "0.02").want(t, 0)
	run = m.awaitStatus(t, id, "succeeded")
	kinds := m.kinds(t, id)
	if n := server.Count("priced"); n != 3 || run.Cost.Nano != 3*pricedNano {
		t.Errorf("%d calls for %d nano-USD: what was done was paid again", n, run.Cost.Nano)
	}
	if kinds["run_budget_raised"] != 1 || kinds["step_succeeded"] != 4 {
		t.Errorf("events %v", kinds)
	}
	if b := m.bill(t, id); b.Budget.Limit.USD != "0.02" || b.Totals.Calls != 3 || b.Reserved.USD != "" {
		t.Errorf("%+v, set aside %+v", b.Budget, b.Reserved)
	}
}

func (m moneyService) raisedBudget(t *testing.T) {
	server := m.servers["raised"]
	limit := func(usd string) {
		m.mustPut(t, "/v1/budgets/of-one-workflow", map[string]any{
			"scope": "workflow", "of": "raised", "window": "lifetime", "limit": map[string]any{"usd": usd}, "on_hard": "pause",
		})
	}
	limit(twoOfThree)
	id := m.submit(t, asking("raised", "raised/priced", 3, true), nil)
	run := m.awaitStatus(t, id, "waiting")
	if run.Waiting.Kind != "budget" || !strings.Contains(run.Waiting.Sentence, "of-one-workflow") {
		t.Errorf("%+v", run.Waiting)
	}
	m.awaitRunOnce(t, id, server, func() { limit("0.02") })
	await(t, "nothing is set aside", func() bool { return m.budget(t, "of-one-workflow").Reserved.Nano == 0 })
	if b := m.budget(t, "of-one-workflow"); b.Spent.Nano != 3*pricedNano {
		t.Errorf("%+v", b)
	}
	if kinds := m.kinds(t, id); kinds["step_succeeded"] != 4 || kinds["run_budget_raised"] != 0 {
		t.Errorf("events %v", kinds)
	}
}

// awaitRunOnce lets a run that waits go on, and looks that what was done is not done again.
func (m moneyService) awaitRunOnce(t *testing.T, id string, server *upstream.Server, wake func()) {
	t.Helper()
	before := server.Count("priced")
	woken := time.Now()
	wake()
	run := m.awaitStatus(t, id, "succeeded")
	if n := server.Count("priced"); before != 2 || n != 3 || run.Cost.Nano != 3*pricedNano {
		t.Errorf("%d calls, then %d, for %d nano-USD", before, n, run.Cost.Nano)
	}
	// A run that waits for money looks by itself after 45 s: it must not have been that.
	if took := time.Since(woken); took > 40*time.Second {
		t.Errorf("it went on only after %s", took)
	}
}

func (m moneyService) softLimits(t *testing.T) {
	m.mustPut(t, "/v1/budgets/soft", map[string]any{
		"scope": "provider", "of": "soft", "window": "day", "limit": map[string]any{"usd": "0.37"}, "soft_percents": []int{50, 80}, "on_hard": "reject", "export": true,
	})
	if _, by := take(t, m.chats(t.Context(), "soft/flat", callers), callers); by[http.StatusOK] != fitting || by[http.StatusForbidden] != callers-fitting {
		t.Fatalf("answers: %v", by)
	}
	await(t, "all is settled", func() bool { return m.budget(t, "soft").Reserved.Nano == 0 })
	b := m.budget(t, "soft")
	if len(b.Crossings) != 2 || b.Crossings[0].Percent != 50 || b.Crossings[1].Percent != 80 || b.Spent.USD != "0.37" {
		t.Errorf("%+v", b)
	}
	if n := m.servers["soft"].Count("flat"); n != fitting {
		t.Errorf("the provider was asked %d times, not %d", n, fitting)
	}
	_, metrics := m.get(t, "/metrics")
	for _, want := range []string{
		`fermata_budget_notes_total{note="soft"} 2`, fmt.Sprintf(`fermata_budget_denials_total{action="reject",scope="provider"} %d`, callers-fitting),
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s in /metrics", want)
		}
	}
	await(t, "the budget is exported", func() bool {
		_, metrics := m.get(t, "/metrics")
		return strings.Contains(metrics, `fermata_budget_spent_usd{budget="soft"} 0.37`+"\n") && strings.Contains(metrics, `fermata_budget_reserved_usd{budget="soft"} 0`+"\n")
	})
}

// noPrice: under a budget in money a model is refused whose price nobody knows; the message says what to do, and that
// helps. A price of 0 is a price: it costs nothing and is counted.
func (m moneyService) noPrice(t *testing.T) {
	m.mustPut(t, "/v1/budgets/priceless", map[string]any{
		"scope": "provider", "of": "priceless", "window": "lifetime", "limit": map[string]any{"usd": "1.00"}, "on_hard": "reject",
	})
	server := m.servers["priceless"]
	a := m.chat(t.Context(), "priceless/newcomer")
	if code, message := a.refusal(); a.status != http.StatusForbidden || code != "unpriced_model" || !strings.Contains(message, "PUT /v1/prices") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := server.Count("newcomer"); n != 0 {
		t.Errorf("it was asked %d times all the same", n)
	}
	for _, c := range []struct {
		input, output string
		cost          string
	}{{"1", "2", "0.000022"}, {"0", "0", "0.00"}} {
		m.mustPut(t, "/v1/prices", map[string]any{
			"model": "newcomer", "rows": []any{map[string]any{"input": c.input, "output": c.output, "source": "a letter"}},
		})
		if a := m.chat(t.Context(), "priceless/newcomer"); a.status != http.StatusOK || a.header.Get("Fermata-Cost-Usd") != c.cost {
			t.Errorf("at %s and %s: %d, cost %s\n%s", c.input, c.output, a.status, a.header.Get("Fermata-Cost-Usd"), a.body)
		}
	}
	await(t, "both are settled", func() bool {
		return m.budget(t, "priceless").Spent.Tokens == 2*(upstream.InputTokens+upstream.OutputTokens)
	})
	if b := m.budget(t, "priceless"); b.Spent.USD != "0.000022" || b.Reserved.Nano != 0 {
		t.Errorf("%+v", b)
	}
}

// spentReport is what these tests read of the spend.
type spentReport struct {
	Data []struct {
		Keys      map[string]string
		Simulated bool
		Calls     int64
		Cost      shownMoney
		Finished  int64 `json:"runs_finished"`
	}
	Totals, Simulated struct {
		Calls                  int64
		Variable, Fixed, Total shownMoney
		Finished               int64 `json:"runs_finished"`
		Unpriced               []struct{ Provider, Model string }
	}
}

// rows shows the groups, one a line.
func (r spentReport) rows(keys ...string) string {
	var lines []string
	for _, g := range r.Data {
		line := ""
		for _, key := range keys {
			line += g.Keys[key] + " "
		}
		lines = append(lines, fmt.Sprintf("%s%d %s simulated=%t runs=%d", line, g.Calls, g.Cost.USD, g.Simulated, g.Finished))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (s *service) spent(t *testing.T, query string) spentReport {
	t.Helper()
	status, body := s.get(t, "/v1/spend?"+query)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	return decode[spentReport](t, body)
}

// spend adds up what the tests before it have spent, and what it spends itself: runs with labels, and simulated calls,
// which are added to nothing.
func (m moneyService) spend(t *testing.T) {
	for _, team := range []string{"red", "red", "blue"} {
		id := m.submit(t, asking("labelled", "raised/flat", 1, true), map[string]any{"labels": map[string]any{"team": team}})
		m.awaitStatus(t, id, "succeeded")
	}
	if a := m.chat(t.Context(), "simulated/gpt-4o"); a.status != http.StatusOK || a.header.Get("Fermata-Simulated") != "true" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := m.chat(t.Context(), "raised/nobody-knows"); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	const calls = 38 + fitting + fitting + 3 + 3 + fitting + 2 + 3 + 1 // by test, in order
	var all spentReport
	await(t, "every call is in the spend", func() bool {
		all = m.spent(t, "group_by=provider,model")
		return all.Totals.Calls >= calls && all.Simulated.Calls >= 1
	})
	want := strings.Join([]string{
		"direct priced 38 0.0019 simulated=false runs=0",
		"priceless newcomer 2 0.000022 simulated=false runs=0",
		"raised flat 3 0.03 simulated=false runs=0",
		"raised nobody-knows 1 0.00 simulated=false runs=0",
		"raised priced 3 0.00015 simulated=false runs=0",
		"shares flat 37 0.37 simulated=false runs=0",
		"soft flat 37 0.37 simulated=false runs=0",
		"steps flat 37 0.37 simulated=false runs=0",
		"waiting priced 3 0.00015 simulated=false runs=0",
	}, "\n")
	if got := m.spent(t, "group_by=provider,model&simulated=false").rows("provider", "model"); got != want {
		t.Errorf("by provider and model:\n%s\nwant\n%s", got, want)
	}
	if all.Totals.Variable.Nano != 1_142_222_000 || len(all.Totals.Unpriced) != 1 || all.Totals.Unpriced[0].Model != "nobody-knows" {
		t.Errorf("%+v", all.Totals)
	}
	if got := all.rows("provider", "model"); all.Simulated.Calls != 1 || all.Simulated.Variable.Nano == 0 || !strings.Contains(got, "simulated gpt-4o 1 "+all.Simulated.Variable.USD+" simulated=true") {
		t.Errorf("%+v\n%s", all.Simulated, got)
	}
	if got := m.spent(t, "group_by=label:team").rows("label:team"); !strings.Contains(got, "blue 1 0.01 simulated=false runs=1") || !strings.Contains(got, "red 2 0.02 simulated=false runs=2") {
		t.Errorf("by label:\n%s", got)
	}
	m.spendByWorkflow(t)
	m.spendOfPlans(t, all.Totals.Variable.Nano)
}

func (m moneyService) spendByWorkflow(t *testing.T) {
	got := m.spent(t, "group_by=workflow&interval=day").rows("workflow")
	for _, want := range []string{
		"labelled 3 0.03 simulated=false runs=3", "many-steps 37 0.37 simulated=false runs=1", "raised 3 0.00015 simulated=false runs=1", "waits 3 0.00015 simulated=false runs=1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("by workflow, no %q:\n%s", want, got)
		}
	}
	out := m.fermata(t, "spend", "--csv", "--group-by", "workflow,model", "--interval", "day", "--since", "2d").want(t, 0).out
	table, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if head := strings.Join(table[0][:5], " "); head != "workflow model day simulated calls" {
		t.Errorf("%s", head)
	}
	day := time.Now().UTC().Format(time.DateOnly)
	if !slices.ContainsFunc(table, func(row []string) bool { return strings.Join(row[:5], " ") == "labelled flat "+day+" false 3" }) {
		t.Errorf("the runs with labels are not in the table:\n%s", out)
	}
}

// spendOfPlans: a flat plan of $730.50 a month is a dollar an hour.
func (m moneyService) spendOfPlans(t *testing.T, variable int64) {
	now := time.Now().UTC().Truncate(time.Hour)
	m.mustPut(t, "/v1/subscriptions/plan", map[string]any{"monthly": "730.50", "from": now.AddDate(0, 0, -3)})
	window := "from=" + url.QueryEscape(now.Add(-23*time.Hour).Format(time.RFC3339)) + "&to=" + url.QueryEscape(now.Add(time.Hour).Format(time.RFC3339))
	r := m.spent(t, window)
	if r.Totals.Fixed.USD != "24.00" || r.Totals.Variable.Nano != variable || r.Totals.Total.Nano != 24e9+variable || r.Simulated.Fixed.Nano != 0 {
		t.Errorf("a day of it: %+v, simulated %+v", r.Totals, r.Simulated)
	}
}

// callersLeave: a call whose caller has left is cut. What came until then is paid, what was set aside for the rest is free
// again. A budget that lets runs wait refuses who is no run.
func (m moneyService) callersLeave(t *testing.T) {
	server := m.servers["leaving"]
	server.Script("priced", upstream.Step{Hold: true})
	m.mustPut(t, "/v1/budgets/leaving", map[string]any{
		"scope": "provider", "of": "leaving", "window": "lifetime", "limit": map[string]any{"usd": "0.37"}, "on_hard": "pause",
	})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	answers := m.chats(ctx, "leaving/priced", fitting)
	await(t, "all are in flight", func() bool { return server.Count("priced") == fitting })
	a := m.chat(t.Context(), "leaving/priced")
	if code, _ := a.refusal(); a.status != http.StatusForbidden || code != "budget_exhausted" {
		t.Errorf("one too many: %d %s", a.status, a.body)
	}
	leave()
	for range fitting {
		if a := <-answers; a.err == nil {
			t.Errorf("who had left was answered: %d %s", a.status, a.body)
		}
	}
	await(t, "all are settled", func() bool {
		return m.budget(t, "leaving").Reserved.Nano == 0 && m.spent(t, "group_by=model&provider=leaving").Totals.Calls == fitting
	})
	spent, b := m.spent(t, "provider=leaving").Totals.Variable.Nano, m.budget(t, "leaving")
	if b.Spent.Nano != spent || b.Spent.Nano > fitting*pricedNano || b.Spent.Tokens == 0 {
		t.Errorf("the budget says %d nano-USD and %d tokens, the spend %d", b.Spent.Nano, b.Spent.Tokens, spent)
	}
	await(t, "every call was cut", func() bool {
		return !slices.ContainsFunc(server.Calls("priced"), func(c upstream.Call) bool { return !c.Abandoned })
	})
}
