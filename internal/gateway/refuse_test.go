package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// purse is a budget in memory.
type purse struct {
	onHard          OnHard
	limit           usage.Money
	mu              sync.Mutex
	spent, reserved usage.Money
	held            map[uuid.UUID]usage.Money
	most            usage.Money // spent and reserved, at the worst moment
	broken          bool
}

func (p *purse) Applies(Charge) bool { return true }

func (p *purse) Reserve(_ context.Context, c Charge) (Hold, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.broken:
		return Hold{}, errors.New("the database is away")
	case c.Unpriced || p.spent+p.reserved+c.Cost > p.limit:
		return Hold{}, &BudgetError{
			Budget: "monthly", Scope: "tenant", OnHard: p.onHard, Limit: p.limit, Spent: p.spent, Reserved: p.reserved, Need: c.Cost, Unpriced: c.Unpriced,
		}
	}
	if p.held == nil {
		p.held = map[uuid.UUID]usage.Money{}
	}
	h := Hold{ID: uuid.New(), Amount: c.Cost}
	p.held[h.ID] = c.Cost
	p.reserved += c.Cost
	p.most = max(p.most, p.spent+p.reserved)
	return h, nil
}

func (p *purse) Settle(s Settlement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reserved -= p.held[s.Hold.ID]
	delete(p.held, s.Hold.ID)
	p.spent += s.Call.Cost
}

func newGateway(t *testing.T, c Config) *Gateway {
	t.Helper()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// What a budget does with a call it has no money for. gpt-4o answers with 1,000 + 100 tokens: $0.0035; an answer of
// 4,096 tokens may cost $0.04 and more.
func TestBudgets(t *testing.T) {
	dear := []workflow.ChainEntry{{Model: "p/gpt-4o"}, {Model: "p/claude-opus-4-6"}}
	for _, c := range []struct {
		name   string
		purse  *purse
		chain  []workflow.ChainEntry
		asked  string
		want   string // the class of the failure; empty: answered
		tokens int    // max_tokens of the request; 0: not looked at
	}{
		{name: "enough", purse: &purse{limit: usage.USD}, chain: dear, asked: "gpt-4o"},
		{name: "too little: refused, nobody asked", purse: &purse{limit: usage.USD / 1000, onHard: OnHardReject}, chain: dear, want: "budget_exceeded"},
		{name: "pause: refused, the caller waits", purse: &purse{limit: usage.USD / 1000, onHard: OnHardPause}, chain: dear, want: "budget_exceeded"},
		{name: "clamped to what is left", purse: &purse{limit: usage.USD / 100, onHard: OnHardClamp}, chain: dear, asked: "gpt-4o", tokens: 1000},
		{name: "not clamped to nothing", purse: &purse{limit: usage.USD / 1000, onHard: OnHardClamp}, chain: dear, want: "budget_exceeded"},
		{
			name: "downgraded to the cheapest entry that is paid for", purse: &purse{limit: usage.USD / 100, onHard: OnHardDowngrade},
			chain: []workflow.ChainEntry{{Model: "p/claude-opus-4-6"}, {Model: "p/gpt-4o"}, {Model: "p/gpt-4o-mini"}}, asked: "gpt-4o-mini",
		},
		{name: "an unknown price under a hard budget", purse: &purse{limit: usage.USD}, chain: []workflow.ChainEntry{{Model: "p/own"}}, want: "budget_exceeded"},
		{name: "a budget nobody can ask", purse: &purse{limit: usage.USD, broken: true}, chain: dear, want: "unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok"}, "gpt-4o-mini": {"ok"}, "claude-opus-4-6": {"ok"}, "own": {"ok"}}}
				g := newGateway(t, Config{Providers: []Provider{{Provider: p}, {Provider: &scripted{name: "q"}}}, Budgets: c.purse})
				_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(c.chain...)})
				var failed *FailedError
				if errors.As(err, &failed); (failed == nil) != (c.want == "") || failed != nil && failed.Class != c.want {
					t.Fatalf("got %v, want %q", err, c.want)
				}
				if failed != nil && !c.purse.broken && (failed.Budget == nil || !strings.Contains(failed.Message, "monthly")) {
					t.Errorf("the failure does not name the budget: %v", err)
				}
				if got := asked(p); got != c.asked {
					t.Errorf("asked %q, want %q", got, c.asked)
				}
				if got := 0; c.tokens > 0 {
					if got = p.calls[0].MaxTokens; got > c.tokens || got < c.tokens*9/10 {
						t.Errorf("asked for %d tokens, want about %d", got, c.tokens)
					}
				}
				if len(c.purse.held) > 0 || c.purse.most > c.purse.limit {
					t.Errorf("%d still held; at worst %s of %s", len(c.purse.held), c.purse.most, c.purse.limit)
				}
			})
		})
	}
}

func asked(p *scripted) string {
	var models []string
	for _, s := range p.asked {
		model, _, _ := strings.Cut(s, "@")
		models = append(models, model)
	}
	return strings.Join(models, " ")
}

// A dearer fallback is paid for anew, before it is asked.
func TestFallbackIsReservedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		money := &purse{limit: usage.USD * 6 / 100, onHard: OnHardReject} // enough for gpt-4o, not for Opus
		p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"server"}, "claude-opus-4-6": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: money})
		_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "gpt-4o"}, workflow.ChainEntry{Model: "claude-opus-4-6"})})
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Class != "budget_exceeded" || asked(p) != "gpt-4o" || len(money.held) > 0 {
			t.Errorf("got %v, asked %q, %d held", err, asked(p), len(money.held))
		}
	})
}

// A chain of which every breaker is open gets one last try, at the one that would open first; then everybody is told when
// to come again.
func TestLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"server"}, "b": {"server"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		for range breakerConsecutive {
			for _, model := range []string{"a", "b"} {
				_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: model})})
			}
		}
		p.mu.Lock()
		p.asked = nil
		p.mu.Unlock()
		both := chain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b"})
		_, err := g.Complete(t.Context(), Request{Ask: question(), Chain: both})
		if n := len(p.asked); n != 1 || err == nil {
			t.Errorf("asked %d times, want once: %v (%v)", n, p.asked, err)
		}
		p.scripts = map[string][]string{"a": {"ok"}, "b": {"ok"}}
		time.Sleep(breakerOpenMax + 10*time.Second)
		if _, err := g.Complete(t.Context(), Request{Ask: question(), Chain: both}); err != nil {
			t.Errorf("half a minute later: %v", err)
		}
		// Held by an operator there is no last resort.
		for _, id := range []string{"p/a", "p/b"} {
			if !g.HoldBreaker(id, true, "being moved") {
				t.Fatalf("no breaker %s", id)
			}
		}
		_, err = g.Complete(t.Context(), Request{Ask: question(), Chain: both})
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Class != "unavailable" || len(failed.Calls) != 0 || len(failed.Attempts) != 2 {
			t.Errorf("got %+v", failed)
		}
	})
}

// An upstream that always fails gets no more than a tenth on top of the calls there are.
func TestNoRetryStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"server"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
		var all sync.WaitGroup
		const calls = 5_000
		for range calls {
			all.Go(func() {
				_, _ = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a", Retries: 3})})
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		if n := len(p.asked); n > calls*11/10 {
			t.Errorf("%d requests for %d calls", n, calls)
		}
	})
}

// judged lets answers of the models named pass.
func judged(pass ...string) func(Judged) *Rejection {
	scores := map[string]float64{"a": 10, "b": 25, "c": 20}
	return func(j Judged) *Rejection {
		if slices.Contains(pass, j.Entry.Model) {
			return nil
		}
		return &Rejection{Reason: "confidence too low", Confidence: scores[j.Entry.Model]}
	}
}

// An answer that is not accepted falls through at once, without a retry; if none is, the best one is attached.
func TestAcceptance(t *testing.T) {
	accept := &workflow.Expr{}
	entries := []workflow.ChainEntry{{Model: "a", Retries: 3, Accept: accept}, {Model: "b", Retries: 3, Accept: accept}, {Model: "c", Accept: accept}}
	scripts := func() map[string][]string { return map[string][]string{"a": {"ok"}, "b": {"ok"}, "c": {"ok"}} }
	p := &scripted{name: "p", scripts: scripts()}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
	a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(entries...), Judge: judged("b")})
	if err != nil || a.Depth != 1 || len(a.Calls) != 2 || a.Calls[0].Class != "low_confidence" || a.Calls[0].Confidence == nil || *a.Calls[0].Confidence != 10 {
		t.Errorf("got %+v, %v", a, err)
	}
	_, err = g.Complete(t.Context(), Request{Ask: question(), Chain: chain(entries...), Judge: judged()})
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Class != "low_confidence" || failed.Best == nil || failed.Best.Asked != "b" || len(failed.Calls) != 3 {
		t.Errorf("none accepted: %+v", failed)
	}
	best := chain(entries...)
	best.AcceptBest = true
	if a, err = g.Complete(t.Context(), Request{Ask: question(), Chain: best, Judge: judged()}); err != nil || !a.BelowGate || a.Asked != "b" || len(a.Calls) != 3 {
		t.Errorf("the best of those below the gate: %+v, %v", a, err)
	}
}

// A slow entry is not waited for; the first good answer wins, the other call is cut and settled.
func TestHedge(t *testing.T) {
	for _, c := range []struct {
		name    string
		a, b    string
		want    string
		took    time.Duration
		calls   int
		classes string
	}{
		{"quick enough", "ok takes=1s", "ok", "a", time.Second, 1, "ok"},
		{"the second is quicker", "ok takes=20s", "ok takes=1s", "b", 4 * time.Second, 2, "cancelled ok"},
		{"the first is quicker after all", "ok takes=5s", "ok takes=20s", "a", 5 * time.Second, 2, "ok cancelled"},
		{"the second fails", "ok takes=10s", "invalid_request", "a", 10 * time.Second, 2, "invalid_request ok"},
		{"the first fails late", "server takes=5s", "ok takes=10s", "b", 13 * time.Second, 2, "ok server"},
		{"the first fails early", "auth", "ok takes=1s", "b", time.Second, 2, "auth ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				money := &purse{limit: 10 * usage.USD}
				p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {c.a}, "gpt-4o-mini": {c.b}}}
				g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: money})
				hedged := chain(workflow.ChainEntry{Model: "gpt-4o"}, workflow.ChainEntry{Model: "gpt-4o-mini"})
				hedged.Hedge, hedged.HedgeAfter = true, 3*time.Second
				began := time.Now()
				a, err := g.Complete(t.Context(), Request{Ask: question(), Chain: hedged})
				if want := map[string]string{"a": "gpt-4o", "b": "gpt-4o-mini"}[c.want]; err != nil || a.Asked != want || time.Since(began) != c.took {
					t.Fatalf("%s answered after %s (%v), want %s after %s", a.Asked, time.Since(began), err, want, c.took)
				}
				var classes []string
				for _, line := range a.Calls {
					class := line.Class
					if class == "" {
						class = "ok"
					}
					classes = append(classes, class)
				}
				slices.Sort(classes)
				want := strings.Fields(c.classes)
				slices.Sort(want)
				if !slices.Equal(classes, want) || len(money.held) != 0 {
					t.Errorf("calls %v, want %v; %d still held", classes, want, len(money.held))
				}
			})
		})
	}
}

// What was told cannot be taken back, unless whoever listens allows it.
func TestStreaming(t *testing.T) {
	for _, c := range []struct {
		name     string
		first    string
		restarts bool
		told     string
		answered bool
	}{
		{"fails before anything came", "server", false, "m:b", true},
		{"fails after a part", "stream_interrupted says=half", false, "m:a half", false},
		{"fails after a part, restarts allowed", "stream_interrupted says=half", true, "m:a half|restart m:b ", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &scripted{name: "p", scripts: map[string][]string{"a": {c.first}, "b": {"ok says=whole"}}}
			g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
			var told []string
			_, err := g.Complete(t.Context(), Request{
				Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a"}, workflow.ChainEntry{Model: "b"}), Restarts: c.restarts,
				Stream: func(d Delta) {
					s := "m:" + d.Model + " " + d.Text
					if d.Restart {
						s = "restart " + s
					}
					told = append(told, s)
				},
			})
			if got := strings.Join(told, "|"); !strings.HasPrefix(got, c.told) || (err == nil) != c.answered {
				t.Errorf("told %q (%v), want %q", got, err, c.told)
			}
		})
	}
}

// A prompt that is too long is refused before the call, goes to a model with room, or is trimmed: never silently.
func TestTooLong(t *testing.T) {
	long := agent.Ask{Messages: []agent.Message{{Role: agent.RoleUser, Content: strings.Repeat("the quick brown fox jumps over the lazy dog\n", 16_000)}}} // about 160,000 tokens
	for _, c := range []struct {
		name     string
		models   []string
		overflow workflow.Overflow
		asked    string
		trimmed  bool
	}{
		{"refused", []string{"gpt-4o"}, workflow.OverflowFail, "", false},
		{"a later model has room", []string{"gpt-4o", "gemini-2.5-pro"}, workflow.OverflowFail, "gemini-2.5-pro", false},
		{"trimmed where nobody has room", []string{"gpt-4o"}, workflow.OverflowTrim, "gpt-4o", true},
		{"not trimmed where somebody has", []string{"gpt-4o", "gemini-2.5-pro"}, workflow.OverflowTrim, "gemini-2.5-pro", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok"}, "gemini-2.5-pro": {"ok"}}}
			g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
			var entries []workflow.ChainEntry
			for _, m := range c.models {
				entries = append(entries, workflow.ChainEntry{Model: m})
			}
			a, err := g.Complete(t.Context(), Request{Ask: long, Chain: chain(entries...), Overflow: c.overflow})
			if got := asked(p); got != c.asked {
				t.Errorf("asked %q, want %q (%v)", got, c.asked, err)
			}
			var failed *FailedError
			if c.asked == "" && (!errors.As(err, &failed) || failed.Class != "context_length" || len(failed.Calls) != 0) {
				t.Errorf("got %v", err)
			}
			if c.trimmed != (len(a.Calls) > 0 && a.Calls[0].Trimmed > 0) {
				t.Errorf("trimmed: %+v", a.Calls)
			}
		})
	}
}

// The same work on the dearest model of the chain is the baseline; what failed has none.
func TestSavings(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"claude-haiku-4-5": {"ok"}, "gpt-4o": {"stream_interrupted"}}}
	g := newGateway(t, Config{Providers: []Provider{{Provider: p}}})
	a, err := g.Complete(t.Context(), Request{
		Ask: question(), Baseline: []string{"claude-haiku-4-5", "claude-opus-4-6"}, Chain: chain(workflow.ChainEntry{Model: "gpt-4o"}, workflow.ChainEntry{Model: "claude-haiku-4-5"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := usage.Sum{}
	for _, line := range a.Calls {
		sum.Add(line)
	}
	// 1,000 + 100 tokens: Haiku 1/5, Opus 5/25.
	if got := fmt.Sprint(sum.Cost, " of ", sum.Baseline); got != "0.0015 of 0.0075" {
		t.Errorf("%s", got)
	}
}
