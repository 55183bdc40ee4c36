package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// shownMoney is an amount as the API shows it.
type shownMoney struct {
	USD  string
	Nano int64 `json:"nano_usd"`
}

// shownSavings is what the API shows of savings.
type shownSavings struct {
	Baseline, Cost, Saved shownMoney
	CacheSaved            shownMoney `json:"cache_saved"`
	RoutingSaved          shownMoney `json:"routing_saved"`
	Percent               float64
}

// billLine is one request in the bill of a run.
type billLine struct {
	Step, Provider, Model, Outcome, Price string
	Depth, Try, Attempt                   int
	Simulated                             bool
	Tokens                                struct{ Input, Output int64 }
	Cost, Baseline                        shownMoney
}

// bill is what these tests read of what a run cost.
type bill struct {
	Status    string
	Simulated bool
	Totals    struct {
		Calls   int
		Cost    shownMoney
		Savings shownSavings
	}
	ByStep []struct {
		Step    string
		Cost    shownMoney
		Savings shownSavings
	} `json:"by_step"`
	Lines            []billLine
	Budget, Reserved struct {
		USD   string
		Limit shownMoney
	}
}

// asked are the requests of a bill with what became of them, in order.
func (b bill) asked() string {
	words := make([]string, len(b.Lines))
	for i, l := range b.Lines {
		words[i] = l.Provider + ":" + l.Outcome
	}
	return strings.Join(words, " ")
}

func (s *service) bill(t *testing.T, id string) bill {
	t.Helper()
	status, body := s.get(t, "/v1/runs/"+id+"/cost")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	return decode[bill](t, body)
}

// The example of what the right model for each part saves comes out at the cent that its comment foretells.
func TestSavingsExample(t *testing.T) {
	s := startAlone(t, example("savings.config.yaml"))
	ran := decode[shownRun](t, s.fermata(t, "run", "-o", "json", "--wait", "-f", example("savings.yaml"), "-i", "system=authentication").want(t, 0).out)

	want := shownSavings{
		Baseline: shownMoney{"0.18", 180e6}, Cost: shownMoney{"0.049", 49e6}, Saved: shownMoney{"0.131", 131e6},
		CacheSaved: shownMoney{"0.087", 87e6}, RoutingSaved: shownMoney{"0.044", 44e6}, Percent: 72.8,
	}
	_, page := s.get(t, "/v1/runs/"+ran.ID)
	run := decode[struct {
		Status  string
		Cost    shownMoney
		Savings shownSavings
	}](t, page)
	if run.Status != "succeeded" || run.Cost.USD != "0.049" || run.Savings != want {
		t.Errorf("run: %s, cost %s, %+v", run.Status, run.Cost.USD, run.Savings)
	}
	b := s.bill(t, ran.ID)
	if !b.Simulated || b.Totals.Calls != 3 || b.Totals.Cost != want.Cost || b.Totals.Savings != want {
		t.Errorf("bill: %+v", b.Totals)
	}
	steps := ""
	for _, step := range b.ByStep {
		steps += fmt.Sprintf("%s %s of %s\n", step.Step, step.Cost.USD, step.Savings.Baseline.USD)
	}
	if steps != "form 0.001 of 0.012\nlogic 0.045 of 0.132\ntests_and_docs 0.003 of 0.036\n" {
		t.Errorf("by step:\n%s", steps)
	}
	for _, l := range b.Lines {
		if !l.Simulated || !strings.Contains(l.Price, "price list of October 2024") {
			t.Errorf("a line does not say that it is simulated, or where its price is from: %+v", l)
		}
	}

	shown := s.fermata(t, "cost", "--lines", ran.ID).want(t, 0).out
	for _, want := range []string{"total $0.049 for 3 model calls, 44,800 tokens", "simulated", "saved $0.131 (72.8%) of the baseline's $0.18", "price list of October 2024"} {
		if !strings.Contains(shown, want) {
			t.Errorf("fermata cost does not show %q:\n%s", want, shown)
		}
	}
	spent := s.fermata(t, "spend", "--workflow", "savings", "--since", "1h").want(t, 0).out
	for _, want := range []string{"\ntotal $0.00\n", "\nsimulated total $0.049\n", "saved $0.131 (72.8%) of the baseline's $0.18", "$0.049 a finished run"} {
		if !strings.Contains(spent, want) {
			t.Errorf("fermata spend does not show %q:\n%s", want, spent)
		}
	}
}

// The example of a chain whose first model is down: the next one answers, the bill names every request, and once the
// breaker has opened, the model that is down is not asked any more.
func TestFailoverExample(t *testing.T) {
	s := startAlone(t, example("failover.config.yaml"))
	down := 0
	for n, want := range []int{2, 2, 1, 0} { // five failures open the breaker
		ran := decode[shownRun](t, s.fermata(t, "run", "-o", "json", "--wait", "-f", example("failover.yaml"),
			"-i", "question=What does a fermata tell the orchestra?").want(t, 0).out)
		b := s.bill(t, ran.ID)
		failed := strings.Count(b.asked(), "down:server")
		if failed != want {
			t.Errorf("run %d: the model that is down was asked %d times, not %d: %s", n+1, failed, want, b.asked())
		}
		down += failed
		last := b.Lines[len(b.Lines)-1]
		if last.Outcome != "ok" || last.Provider != "simulated" || last.Depth == 0 {
			t.Errorf("run %d was not answered further down the chain: %+v", n+1, last)
		}
		checkFailoverBill(t, b)
		_, page := s.get(t, "/v1/runs/"+ran.ID+"?include=provenance")
		made := decode[struct {
			Cost       shownMoney
			Provenance []struct {
				Depth int `json:"fallback_depth"`
			}
		}](t, page)
		if made.Cost.Nano != b.Totals.Cost.Nano || len(made.Provenance) != 1 || made.Provenance[0].Depth != last.Depth {
			t.Errorf("run %d: %+v, its bill says %d nano-USD and depth %d", n+1, made, b.Totals.Cost.Nano, last.Depth)
		}
	}
	_, metrics := s.get(t, "/metrics")
	if want := `fermata_llm_fallbacks_total{from_model="claude-opus-4-6",reason="server",to_model="gpt-4o"} 3`; !strings.Contains(metrics, want) {
		t.Errorf("no %s in /metrics", want)
	}
	breakers := decode[[]struct {
		ID, State         string
		Samples, Failures int
	}](t, s.fermata(t, "breaker", "ls", "-o", "json").want(t, 0).out)
	for _, b := range breakers {
		if b.ID == "down/claude-opus-4-6" && (b.State != "open" || b.Failures != down) {
			t.Errorf("%+v after %d failures", b, down)
		}
	}
	if len(breakers) < 2 {
		t.Errorf("breakers: %+v", breakers)
	}
}

// checkFailoverBill works the money out by the list prices, in nano-dollars for a token: what was not answered cost
// nothing, and the baseline is the dearest model of the chain, once.
func checkFailoverBill(t *testing.T, b bill) {
	t.Helper()
	var sum int64
	for _, l := range b.Lines {
		cost, baseline := int64(0), int64(0)
		switch {
		case l.Outcome == "server":
		case l.Model == "gpt-4o":
			cost = 2500*l.Tokens.Input + 10000*l.Tokens.Output
		case l.Model == "claude-sonnet-4-6":
			cost = 3000*l.Tokens.Input + 15000*l.Tokens.Output
		}
		if l.Outcome == "ok" {
			baseline = 5000*l.Tokens.Input + 25000*l.Tokens.Output
		}
		if l.Cost.Nano != cost || l.Baseline.Nano != baseline {
			t.Errorf("%+v should cost %d of %d", l, cost, baseline)
		}
		sum += cost
	}
	if b.Totals.Cost.Nano != sum || sum == 0 || b.Budget.Limit.USD != "0.50" {
		t.Errorf("the lines make %d nano-USD, the bill says %d, budget %s", sum, b.Totals.Cost.Nano, b.Budget.Limit.USD)
	}
}
