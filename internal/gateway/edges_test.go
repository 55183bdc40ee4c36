package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// respond is a provider that answers by a function.
type respond struct {
	name string
	do   func(ctx context.Context, c provider.Call) (provider.Reply, error)
}

func (r respond) Name() string { return r.name }

func (r respond) Complete(ctx context.Context, c provider.Call) (provider.Reply, error) {
	return r.do(ctx, c)
}

// register keeps what is settled.
type register struct {
	purse
	lines []usage.Call
}

func (r *register) Settle(s Settlement) {
	r.purse.Settle(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, s.Call)
}

func classOfFailure(err error) string {
	var failed *FailedError
	if errors.As(err, &failed) {
		return failed.Class
	}
	return fmt.Sprint(err)
}

// openBreaker makes the breaker of a model open.
func openBreaker(g *Gateway, of, model string) *breaker {
	b := g.breakers.named(of, model, g.now())
	for range breakerConsecutive {
		pass{b: b}.observe(g.now(), &provider.Error{Class: provider.ClassServer, Message: "no"})
	}
	return b
}

// hedgedChain asks the second entry three seconds after the first.
func hedgedChain(entries ...workflow.ChainEntry) workflow.Chain {
	c := chain(entries...)
	c.Hedge, c.HedgeAfter = true, 3*time.Second
	return c
}

// A panic in an adapter, or in what judges or listens, leaves nothing behind: whoever is around it goes on.
func TestPanicLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		p := respond{"p", func(context.Context, provider.Call) (provider.Reply, error) {
			if broken {
				panic("a defect")
			}
			return provider.Reply{Text: "ok", Tokens: usage.Tokens{Input: 10, Output: 1}}, nil
		}}
		money := &purse{limit: usage.USD}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p, Limits: RateLimits{Concurrency: 1}}}, Budgets: money})
		openBreaker(g, "p", "gpt-4o")
		time.Sleep(breakerOpenMax + 5*time.Second) // the next request is its probe
		ask := func() error {
			defer func() { _ = recover() }()
			_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "gpt-4o"})})
			return err
		}
		_ = ask()
		if n := g.lanes.credentials["p"].busy; n != 0 {
			t.Errorf("%d places are taken for ever", n)
		}
		if len(money.held) != 0 {
			t.Errorf("%d reservations are held for ever", len(money.held))
		}
		g.lanes.credentials["p"].busy = 0
		broken = false
		time.Sleep(time.Hour)
		if err := ask(); err != nil {
			t.Errorf("an hour later: %v", err)
		}
	})
}

// What the second request was cut for is told, not that it was cut.
func TestHedgeTellsTheReason(t *testing.T) {
	t.Run("while it was asked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &scripted{name: "p", scripts: map[string][]string{"a": {"invalid_request takes=5s"}, "b": {"ok takes=20s"}}}
			g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
			_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedgedChain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b"})})
			if got := classOfFailure(err); got != "invalid_request" {
				t.Errorf("told %s: %v", got, err)
			}
		})
	})
	t.Run("while its money was set aside", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"invalid_request takes=5s"}, "gpt-4o-mini": {"ok"}}}
			g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: &slowPurse{slow: "gpt-4o-mini"}})
			_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedgedChain(workflow.ChainEntry{Model: "gpt-4o"}, workflow.ChainEntry{Model: "gpt-4o-mini"})})
			if got := classOfFailure(err); got != "invalid_request" {
				t.Errorf("told %s: %v", got, err)
			}
		})
	})
}

// slowPurse never answers for one model.
type slowPurse struct{ slow string }

func (*slowPurse) Applies(Charge) bool { return true }
func (*slowPurse) Settle(Settlement)   {}
func (s *slowPurse) Reserve(ctx context.Context, c Charge) (Hold, error) {
	if c.Model == s.slow {
		<-ctx.Done()
		return Hold{}, ctx.Err()
	}
	return Hold{ID: uuid.New()}, nil
}

// The last request that is allowed is not cut because there is none after it.
func TestHedgeAtTheCallLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"server takes=5s"}, "b": {"ok takes=10s"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		a, err := g.Complete(t.Context(), Request{Ask: question(), CallsMax: 2, Chain: hedgedChain(workflow.ChainEntry{Model: "a", Retries: 2}, workflow.ChainEntry{Model: "b"})})
		if err != nil || a.Asked != "b" {
			t.Errorf("got %q, %v", a.Asked, err)
		}
	})
}

// Nor because a budget refuses a retry of the first.
func TestHedgeGoesOnWhereTheRetryIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"server takes=5s"}, "gpt-4o-mini": {"ok takes=30s"}}}
		money := &purse{limit: usage.USD}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: money})
		time.AfterFunc(4*time.Second, func() { money.mu.Lock(); money.limit = 1; money.mu.Unlock() })
		a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedgedChain(workflow.ChainEntry{Model: "gpt-4o", Retries: 2}, workflow.ChainEntry{Model: "gpt-4o-mini"})})
		if err != nil || a.Asked != "gpt-4o-mini" {
			t.Errorf("got %q, %v", a.Asked, err)
		}
	})
}

// Two at once make no more requests than are allowed.
func TestHedgeKeepsToTheCallLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"other": {"ok takes=10s"}, "a": {"ok"}}}
		q := &scripted{name: "q", scripts: map[string][]string{"b": {"ok takes=20s"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p, Limits: RateLimits{Concurrency: 1}}, {Provider: q}}})
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "p/other"})})
		})
		synctest.Wait()
		a, err := g.Complete(t.Context(), Request{Ask: question(), CallsMax: 1, Chain: hedgedChain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "q/b"})})
		all.Wait()
		if err != nil || len(a.Calls) > 1 {
			t.Errorf("%d requests, 1 is allowed: %v", len(a.Calls), err)
		}
	})
}

// An answer that the second withholds for its content is not asked for at a third, any more than without a hedge.
func TestHedgeDoesNotAskAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"server takes=5s"}, "b": {"content_policy takes=10s"}, "c": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedgedChain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b"}, workflow.ChainEntry{Model: "c"})})
		if got := classOfFailure(err); got != "content_policy" || asked(p) != "a b" {
			t.Errorf("asked %q, got %s", asked(p), got)
		}
	})
}

// Run with -race: one request of two is refused by a budget while the other fails.
func TestHedgeHasNoRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok takes=5s"}, "gpt-4o-mini": {"server takes=5s"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: &hungryPurse{}})
		hedged := hedgedChain(workflow.ChainEntry{Model: "gpt-4o-mini", Retries: 0}, workflow.ChainEntry{Model: "gpt-4o"})
		for range 100 {
			_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: hedged})
			time.Sleep(time.Minute)
		}
	})
}

// hungryPurse refuses gpt-4o, at the moment at which the other request fails.
type hungryPurse struct{}

func (*hungryPurse) Applies(Charge) bool { return true }
func (*hungryPurse) Settle(Settlement)   {}
func (*hungryPurse) Reserve(_ context.Context, c Charge) (Hold, error) {
	if c.Model == "gpt-4o" {
		time.Sleep(2 * time.Second)
		return Hold{}, &BudgetError{Budget: "b", OnHard: OnHardReject}
	}
	return Hold{ID: uuid.New()}, nil
}

// The baseline model would have been asked once, though two answered.
func TestHedgeHasOneBaseline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok takes=5s"}, "gpt-4o-mini": {"ok takes=2s"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedgedChain(workflow.ChainEntry{Model: "gpt-4o"}, workflow.ChainEntry{Model: "gpt-4o-mini"})})
		if err != nil || len(a.Calls) != 2 {
			t.Fatal(err, len(a.Calls))
		}
		based := 0
		for _, line := range a.Calls {
			if line.Baseline > 0 {
				based++
			}
		}
		if based != 1 {
			t.Errorf("%d calls have a baseline: %+v", based, a.Calls)
		}
	})
}

// However long a chain is hedged, about one request in twenty is slow: those that were cut were slow too.
func TestHedgeDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		p := respond{"p", func(ctx context.Context, c provider.Call) (provider.Reply, error) {
			d := 100 * time.Millisecond
			if c.Model == "a" {
				d = time.Second + time.Duration(r.IntN(9_000))*time.Millisecond
			}
			if !pause(ctx, d) {
				return provider.Reply{}, &provider.Error{Class: provider.ClassCancelled}
			}
			return provider.Reply{Text: "ok", FirstToken: d, Tokens: usage.Tokens{Input: 1}}, nil
		}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		hedge := chain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b"})
		hedge.Hedge = true
		const calls = 2_000
		late := 0
		for i := range calls {
			a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedge})
			if err != nil {
				t.Fatal(err)
			}
			if i >= calls/2 && len(a.Calls) > 1 {
				late++
			}
		}
		if share := float64(late) / (calls / 2); share > 0.15 {
			t.Errorf("%.0f %% of the later calls were asked twice, want about 5 %%", 100*share)
		}
	})
}

// What a classifier cost stands in the ledger as what it was, and saved nothing.
func TestClassifierInTheLedger(t *testing.T) {
	p := respond{"p", func(context.Context, provider.Call) (provider.Reply, error) {
		return provider.Reply{Text: "research", Tokens: usage.Tokens{Input: 1000, Output: 100}}, nil
	}}
	ledger := &register{purse: purse{limit: usage.USD}}
	g := newGateway(t, Config{
		Providers: []Provider{{Provider: p}}, Budgets: ledger,
		Chains: map[string]workflow.Chain{"namer": {Name: "namer", Entries: []workflow.ChainEntry{{Model: "gpt-4o-mini"}}}},
		Rules:  []Rule{{ID: "name-it", When: When{}, Classify: "namer"}},
	})
	a, err := g.Complete(t.Context(), Request{Ask: question(), Route: ClassAuto, Seed: "s", Baseline: []string{"claude-opus-4-6"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Calls) != 2 || a.Calls[0].Rule != "classify:name-it" {
		t.Fatalf("calls %+v", a.Calls)
	}
	if diff := fmt.Sprint(ledger.lines[0].Rule, " ", ledger.lines[0].Baseline); diff != "classify:name-it 0.00" {
		t.Errorf("the ledger has %s for the classifier", diff)
	}
}

// A longer answer is not asked for than the model can give.
func TestLongerThanTheModelCan(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"output_truncated"}}}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
	longer := chain(workflow.ChainEntry{Model: "gpt-4o"})
	longer.LongerOnce = true
	ask := question()
	ask.MaxTokens = 16_384 // all that gpt-4o can
	_, err := g.Complete(t.Context(), Request{Ask: ask, Chain: longer})
	for _, c := range p.calls {
		if c.MaxTokens > 16_384 {
			t.Errorf("asked for %d tokens of a model that can 16,384 (%v)", c.MaxTokens, err)
		}
	}
}

// A shut breaker is not stood in a queue for.
func TestNoQueueForAShutBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"busy": {"ok takes=2m"}, "a": {"ok"}}}
		q := &scripted{name: "q", scripts: map[string][]string{"b": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p, Limits: RateLimits{Concurrency: 1}}, {Provider: q}}})
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "p/busy"})})
		})
		synctest.Wait()
		g.HoldBreaker("p/a", true, "being moved")
		began := time.Now()
		a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "q/b"})})
		if took := time.Since(began); err != nil || a.Asked != "b" || took > 0 {
			t.Errorf("%s answered after %s: %v", a.Asked, took, err)
		}
		all.Wait()
	})
}

// A request that was not made is not counted against the limit of requests.
func TestRefusedRequestsAreNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"ok"}, "b": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p, Limits: RateLimits{Requests: 3}}}})
		g.HoldBreaker("p/a", true, "being moved")
		for range 3 {
			_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a"})})
		}
		began := time.Now()
		if _, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "b"})}); err != nil || time.Since(began) > 0 {
			t.Errorf("the first request waited %s for its turn: %v", time.Since(began), err)
		}
	})
}

// Calls that wait for the limit of one model leave the credential's places to the others.
func TestLanesDoNotBlockEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"slow": {"ok"}, "quick": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p, Limits: RateLimits{Concurrency: 2}}}})
		g.lanes.learn("p/slow", provider.Limits{Requests: provider.Limit{Max: 3, Left: 0}}) // one in 20 s
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "slow"})})
			})
		}
		synctest.Wait()
		began := time.Now()
		if _, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "quick"})}); err != nil || time.Since(began) > 0 {
			t.Errorf("waited %s behind calls that nobody makes yet: %v", time.Since(began), err)
		}
		all.Wait()
	})
}

// Both lanes together are waited for no longer than half of what is left, so that the next entry has the other half.
func TestPatienceIsForBothLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"busy": {"ok takes=9s"}, "a": {"ok"}}}
		q := &scripted{name: "q", scripts: map[string][]string{"b": {"ok takes=2s"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p, Limits: RateLimits{Concurrency: 1}}, {Provider: q}}})
		l := &lane{atOnce: 1, busy: 1}
		g.lanes.models["p/a"] = l
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "p/busy"})})
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		a, err := g.Complete(ctx, Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "q/b"})})
		if err != nil || a.Asked != "b" {
			t.Errorf("got %q, %v", a.Asked, err)
		}
		all.Wait()
	})
}

// Who leaves the queue from the middle does not cost its run its turn.
func TestLeavingKeepsTheTurn(t *testing.T) {
	var q fairQueue
	a1, a2, b1 := &waiter{who: "a"}, &waiter{who: "a"}, &waiter{who: "b"}
	for _, w := range []*waiter{a1, a2, b1} {
		q.push(w)
	}
	q.remove(a2)
	if q.peek() != a1 {
		t.Error("run a lost its turn because its second call gave up")
	}
}

// When the one who waits for much gives up, those behind who need little are let in at once.
func TestWhoIsBehindIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all sync.WaitGroup
		l := &lane{}
		l.input.set(60, time.Now())
		_, _ = l.enter(t.Context(), "x", estimate{input: 30}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		all.Go(func() { _, _ = l.enter(ctx, "big", estimate{input: 60}, time.Minute) })
		synctest.Wait()
		began := time.Now()
		var took time.Duration
		all.Go(func() {
			_, _ = l.enter(t.Context(), "small", estimate{input: 1}, time.Minute)
			took = time.Since(began)
		})
		synctest.Wait()
		cancel()
		all.Wait()
		if took > time.Second {
			t.Errorf("let in after %s; there was room when the other had gone", took)
		}
	})
}

// What requests from before it opened come to says nothing of a provider that has recovered since.
func TestStaleFailuresDoNotOpenIt(t *testing.T) {
	b, now := &breaker{provider: "p", model: "m"}, epoch
	var old []pass
	for range 20 { // they hang for a minute
		p, _ := b.admit(now, false)
		old = append(old, p)
	}
	for range breakerConsecutive {
		b.act(t, "server", &now)
	}
	now = now.Add(breakerOpenMax)
	b.act(t, "ok", &now)
	b.act(t, "ok", &now)
	b.act(t, "=closed", &now)
	for _, p := range old {
		p.observe(now, failed(provider.ClassTimeout))
	}
	if got := b.view(now).State; got != "closed" {
		t.Errorf("%s, for what happened before it had closed", got)
	}
}

// A probe from before a reset is not the one that is out now.
func TestStaleProbe(t *testing.T) {
	b, now := &breaker{provider: "p", model: "m"}, epoch
	openIt := func() {
		for range breakerConsecutive {
			b.act(t, "server", &now)
		}
		now = now.Add(breakerOpenMax + 5*time.Second)
	}
	openIt()
	old, _ := b.admit(now, false)
	b.heard(BreakerNews{Action: BreakerReset}, now)
	openIt()
	if _, refused := b.admit(now, false); refused != nil {
		t.Fatal(refused.reason)
	}
	old.giveBack()
	if _, refused := b.admit(now, false); refused == nil {
		t.Error("two probes at once")
	}
}

// An answer that is not accepted is one all the same: its provider is well again.
func TestRejectedAnswersCloseABreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		openBreaker(g, "p", "a")
		time.Sleep(breakerOpenMax + 5*time.Second)
		for range 5 {
			_, _ = g.Complete(t.Context(), Request{Ask: question(), Judge: judged(), Chain: chain(workflow.ChainEntry{Model: "a", Accept: &workflow.Expr{}})})
		}
		if got := g.breakerState("p/a"); got != "closed" || len(p.asked) != 5 {
			t.Errorf("%s after %d whole answers", got, len(p.asked))
		}
	})
}

// The last entry is waited for as long as it fits, whoever it was that its provider told to wait.
func TestTheLastEntryWaitsOutAThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"server"}, "b": {"rate_limited wait=3s", "ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "b"})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		a, err := g.Complete(ctx, Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b", Retries: 2})})
		if err != nil || a.Asked != "b" {
			t.Errorf("got %q: %v", a.Asked, err)
		}
	})
}

// The last resort is an entry that can be one: a credential that is refused cannot.
func TestLastResortCanBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"ok"}, "b": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		g.Heard([]BreakerNews{{ID: "p/a", Action: BreakerDisabled, Reason: "auth", Until: time.Now().Add(5 * time.Second)}})
		openBreaker(g, "p", "b")
		a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b"})})
		if err != nil || a.Asked != "b" {
			t.Errorf("got %q: %v", a.Asked, err)
		}
	})
}

// The best answer is taken wherever the chain ends, not only at its end.
func TestTheBestIsTakenWhereItStops(t *testing.T) {
	accept := &workflow.Expr{}
	for name, c := range map[string]struct {
		second string
		max    int
		limit  usage.Money
	}{
		"no more calls":    {"ok", 1, usage.USD},
		"a budget is out":  {"ok", 0, usage.USD / 100},
		"the next refuses": {"content_policy", 0, usage.USD},
	} {
		t.Run(name, func(t *testing.T) {
			p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o-mini": {"ok"}, "claude-opus-4-6": {c.second}}}
			g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: &purse{limit: c.limit, onHard: OnHardReject}})
			best := chain(workflow.ChainEntry{Model: "gpt-4o-mini", Accept: accept}, workflow.ChainEntry{Model: "claude-opus-4-6", Accept: accept})
			best.AcceptBest = true
			a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: best, Judge: judged(), CallsMax: c.max})
			if err != nil || !a.BelowGate || a.Asked != "gpt-4o-mini" {
				t.Errorf("got %+v, %v", a.Asked, err)
			}
		})
	}
}

// What was streamed is what is returned, also where the best of rejected answers is.
func TestStreamOfTheBest(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"b": {"ok says=from-b"}, "c": {"ok says=from-c"}}}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
	accept := &workflow.Expr{}
	best := chain(workflow.ChainEntry{Model: "b", Accept: accept}, workflow.ChainEntry{Model: "c", Accept: accept})
	best.AcceptBest = true
	model := ""
	a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: best, Judge: judged(), Restarts: true, Stream: func(d Delta) { model = d.Model }})
	if err != nil || model != a.Asked {
		t.Errorf("the answer of %q was returned, whoever listened has that of %q: %v", a.Asked, model, err)
	}
}

// A cheaper model that was asked and failed failed for its own reason: waiting mends it, money does not.
func TestDowngradedFailure(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o-mini": {"server"}}}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p, Only: true, Vendor: "nobody"}}, Budgets: &purse{limit: usage.USD / 100, onHard: OnHardDowngrade}})
	_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "p/claude-opus-4-6"}, workflow.ChainEntry{Model: "p/gpt-4o-mini"})})
	if got := classOfFailure(err); got != "server" || asked(p) != "gpt-4o-mini" {
		t.Errorf("asked %q, told %s: %v", asked(p), got, err)
	}
}

// stubborn says that enough is left, and refuses.
type stubborn struct{ asked int }

func (*stubborn) Applies(Charge) bool { return true }
func (*stubborn) Settle(Settlement)   {}
func (s *stubborn) Reserve(context.Context, Charge) (Hold, error) {
	s.asked++
	return Hold{}, &BudgetError{Budget: "b", OnHard: OnHardClamp, Limit: usage.USD}
}

// A budget is asked a few times, not once for every token.
func TestClampAsksAFewTimes(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok"}}}
	money := &stubborn{}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: money})
	_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "gpt-4o"})})
	if money.asked > 20 {
		t.Errorf("asked %d times", money.asked)
	}
}

// Two ways to the same model are two requests with two names.
func TestSeedsTellWaysApart(t *testing.T) {
	plan := &scripted{name: "plan", scripts: map[string][]string{"gpt-4o": {"server"}}}
	p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok"}}}
	g := newGateway(t, Config{Providers: []Provider{
		{Provider: plan, Vendor: "openai", Subscription: "flat"}, {Provider: p, Vendor: "openai"},
	}})
	a, err := g.Complete(t.Context(), Request{Ask: question(), Seed: "s", Caller: Caller{Mode: ModeInteractive}, Chain: chain(workflow.ChainEntry{Model: "gpt-4o"})})
	if err != nil || len(a.Calls) != 2 {
		t.Fatalf("%+v, %v", a.Calls, err)
	}
	if plan.calls[0].Seed == p.calls[0].Seed || a.Calls[0].Depth == a.Calls[1].Depth && a.Calls[0].Try == a.Calls[1].Try {
		t.Errorf("both are try %d of entry %d, seed %s", a.Calls[0].Try, a.Calls[0].Depth, p.calls[0].Seed)
	}
}

// Whoever is told to come again is told the first moment at which somebody can answer.
func TestComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, Config{Providers: []Provider{{Provider: &scripted{name: "p"}}}})
		now := time.Now()
		g.Heard([]BreakerNews{
			{ID: "p/a", Action: BreakerThrottled, Until: now.Add(time.Minute)},
			{ID: "p/b", Action: BreakerThrottled, Until: now.Add(10 * time.Minute)},
		})
		_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b"})})
		var failed *FailedError
		if !errors.As(err, &failed) || failed.RetryAfter > time.Minute {
			t.Errorf("come again in %s: %v", failed.RetryAfter, err)
		}
	})
}

// Now decides which price holds; that a breaker's time passes does not depend on it.
func TestFixedNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"rate_limited wait=5s", "ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Now: func() time.Time { return epoch }})
		a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a", Retries: 2})})
		if err != nil || a.Try != 2 {
			t.Errorf("got %+v: %v", a.Asked, err)
		}
	})
}

// A rule that decides by how much is asked decides before a model is asked for the class.
func TestClassifierIsNotAskedForNothing(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o-mini": {"ok"}, "claude-haiku-4-5": {"ok"}, "claude-sonnet-4-6": {"ok"}, "gpt-4o": {"ok"}, "claude-opus-4-6": {"ok"}}}
	g := newGateway(t, Config{
		Providers: []Provider{{Provider: p}},
		Chains:    map[string]workflow.Chain{"namer": {Name: "namer", Entries: []workflow.ChainEntry{{Model: "gpt-4o-mini"}}}},
		Rules: []Rule{
			{ID: "busy", When: When{CallsPerDayOver: 1}, Models: []string{"claude-haiku-4-5"}},
			{ID: "name-it", Classify: "namer"},
		},
	})
	for i := range 3 {
		a, err := g.Complete(t.Context(), Request{Ask: question(), Route: ClassAuto, Caller: Caller{Agent: "a"}})
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && (a.Rule != "busy" || len(a.Calls) != 1) {
			t.Errorf("question %d: rule %q after %d calls; the first of them is %+v", i+1, a.Rule, len(a.Calls), a.Calls[0].Rule)
		}
	}
}

// An answer is clamped to what is left for it, also where thinking costs more than the answer.
func TestClampWithDearThinking(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"thinker": {"ok"}}}
	money := &purse{limit: usage.USD / 100, onHard: OnHardClamp}
	g := newGateway(t, Config{
		Providers: []Provider{{Provider: p}}, Budgets: money, Prices: []PriceRow{{Model: "thinker", Input: "1", Output: "1", Reasoning: "10"}}, // a million
	})
	_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "thinker"})})
	if err != nil || p.calls[0].MaxTokens < 950 || p.calls[0].MaxTokens > 1_000 { // $0.01 pays for 1,000 tokens at $10
		t.Errorf("%d requests; $0.01 pays for about 1,000 tokens: %v", len(p.calls), err)
	}
}

// A probe whose answer has begun keeps nobody else out: the answer may take minutes.
func TestProbeThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, end := make(chan struct{}), make(chan struct{})
		var calls atomic.Int32
		p := respond{"p", func(_ context.Context, c provider.Call) (provider.Reply, error) {
			if calls.Add(1) == 1 {
				c.Stream(provider.Delta{Text: "a"})
				close(begun)
				<-end
			}
			return provider.Reply{Text: "a", Tokens: usage.Tokens{Input: 1}}, nil
		}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		openBreaker(g, "p", "m")
		time.Sleep(breakerOpenMax * 2)
		ask := Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "m"})}
		var first sync.WaitGroup
		first.Go(func() {
			if _, err := g.Complete(t.Context(), ask); err != nil {
				t.Error(err)
			}
		})
		<-begun
		for range 3 {
			if _, err := g.Complete(t.Context(), ask); err != nil {
				t.Error(err)
			}
		}
		close(end)
		first.Wait()
		if state := g.breakers.named("p", "m", time.Now()).view(time.Now()).State; state != "closed" {
			t.Errorf("the breaker is %s", state)
		}
	})
}

// An answer that was cut at its limit was paid for, and would have been on the baseline model.
func TestCutAnswerHasABaseline(t *testing.T) {
	p := respond{"p", func(context.Context, provider.Call) (provider.Reply, error) {
		return provider.Reply{}, &provider.Error{Class: provider.ClassOutputTruncated, Tokens: usage.Tokens{Input: 1000, Output: 100}}
	}}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
	_, err := g.Complete(t.Context(), Request{Ask: question(), Baseline: []string{"claude-opus-4-6"}, Chain: chain(workflow.ChainEntry{Model: "claude-haiku-4-5"})})
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Calls[0].Baseline != 7_500_000 {
		t.Errorf("got %v", err)
	}
}
