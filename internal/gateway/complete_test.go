package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a provider that answers by model: each call takes the next line of its model's script, the last one for
// ever. A line is a class, or "ok", with "wait=2s", "takes=1m" and "learned" after it.
type scripted struct {
	name    string
	scripts map[string][]string

	mu    sync.Mutex
	asked []string // model@seconds since the start
	calls []provider.Call
	began time.Time
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Complete(ctx context.Context, c provider.Call) (provider.Reply, error) {
	s.mu.Lock()
	if s.began.IsZero() {
		s.began = time.Now()
	}
	s.asked = append(s.asked, fmt.Sprintf("%s@%.0fs", c.Model, time.Since(s.began).Seconds()))
	s.calls = append(s.calls, c)
	script := s.scripts[c.Model]
	line := strings.Fields(script[0])
	if len(script) > 1 {
		s.scripts[c.Model] = script[1:]
	}
	s.mu.Unlock()
	e := &provider.Error{Class: provider.Class(line[0]), Message: "scripted"}
	for _, more := range line[1:] {
		name, value, _ := strings.Cut(more, "=")
		d, _ := time.ParseDuration(value)
		switch name {
		case "wait":
			e.RetryAfter = d
		case "learned":
			e.Learned = true
		case "final":
			e.NoRetry = true
		case "says": // parts of an answer come first
			if c.Stream != nil {
				c.Stream(provider.Delta{Text: value})
			}
		case "takes":
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
				e.Class, e.Tokens, e.Estimated = provider.ClassTimeout, usage.Tokens{Input: 1000}, true
				if errors.Is(ctx.Err(), context.Canceled) {
					e.Class = provider.ClassCancelled
				}
				return provider.Reply{}, e
			}
		}
	}
	if line[0] == "ok" {
		return provider.Reply{Text: "answer of " + c.Model, FinishReason: "stop", Tokens: usage.Tokens{Input: 1000, Output: 100}}, nil
	}
	return provider.Reply{}, e
}

// counted sums a metric up over its series.
func counted(t *testing.T, r *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func chain(entries ...workflow.ChainEntry) workflow.Chain { return workflow.Chain{Entries: entries} }

func question() agent.Ask {
	return agent.Ask{Messages: []agent.Message{{Role: "user", Content: "?"}}}
}

func TestChains(t *testing.T) {
	const timed = time.Minute
	for _, c := range []struct {
		name    string
		scripts map[string][]string
		chain   workflow.Chain
		within  time.Duration
		max     int
		asked   string // who was asked, without the times
		want    string // provider/model depth.try, or the class of the failure
	}{
		{"first answers", map[string][]string{"a": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a", "p/a 0.1"},
		{"retried, then answers", map[string][]string{"a": {"server", "overloaded", "ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 2}), timed, 0, "a a a", "p/a 0.3"},
		{"retries used up, next", map[string][]string{"a": {"network"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 1}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a a b", "p/b 1.1"},
		{"no retry left at all", map[string][]string{"a": {"server"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 2}), timed, 0, "a a a", "server"},
		{"bad request: nobody else", map[string][]string{"a": {"invalid_request"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a", "invalid_request"},
		{"policy: nobody else", map[string][]string{"a": {"content_policy"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a", "content_policy"},
		{"truncated: nobody else", map[string][]string{"a": {"output_truncated"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a", "output_truncated"},
		{"auth: next at once", map[string][]string{"a": {"auth"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a b", "p/b 1.1"},
		{"quota: next at once", map[string][]string{"a": {"quota_exhausted"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a b", "p/b 1.1"},
		{"cut stream: next at once", map[string][]string{"a": {"stream_interrupted"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a b", "p/b 1.1"},
		{"timeout: next at once", map[string][]string{"a": {"ok takes=20s"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Timeout: 10 * time.Second, Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a b", "p/b 1.1"},
		{"timeout, retried where the entry says so", map[string][]string{"a": {"ok takes=20s", "ok"}}, chain(workflow.ChainEntry{Model: "p/a", Timeout: 10 * time.Second, Retries: 1, RetryTimeouts: true}), timed, 0, "a a", "p/a 0.2"},
		{"unknown: once more", map[string][]string{"a": {"unknown"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 5}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a a b", "p/b 1.1"},
		{"a class nobody knows is unknown", map[string][]string{"a": {"odd"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 5}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a a b", "p/b 1.1"},
		{"a lesson is no retry", map[string][]string{"a": {"capability_mismatch learned", "capability_mismatch learned", "ok"}}, chain(workflow.ChainEntry{Model: "p/a"}), timed, 0, "a a a", "p/a 0.3"},
		{"lessons end", map[string][]string{"a": {"capability_mismatch learned"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a a a a b", "p/b 1.1"},
		{"told not to try again", map[string][]string{"a": {"server final"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a b", "p/b 1.1"},
		{"told to wait too long: next", map[string][]string{"a": {"rate_limited wait=31s"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), 10 * time.Minute, 0, "a b", "p/b 1.1"},
		{"told to wait more than half of what is left: next", map[string][]string{"a": {"rate_limited wait=11s"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), 20 * time.Second, 0, "a b", "p/b 1.1"},
		{"told to wait: waits", map[string][]string{"a": {"rate_limited wait=25s", "ok"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a a", "p/a 0.2"},
		{"the last entry waits as long as it fits", map[string][]string{"a": {"rate_limited wait=50s", "ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}), timed, 0, "a a", "p/a 0.2"},
		{"and not longer", map[string][]string{"a": {"rate_limited wait=70s", "ok"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 3}), timed, 0, "a", "rate_limited"},
		{"the deadline ends everything", map[string][]string{"a": {"ok takes=2m"}, "b": {"ok"}}, chain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "p/b"}), timed, 0, "a", "timeout"},
		{"no more calls than allowed", map[string][]string{"a": {"server"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 10}), time.Hour, 3, "a a a", "server"},
		{"never more than 24", map[string][]string{"a": {"rate_limited"}}, chain(workflow.ChainEntry{Model: "p/a", Retries: 10}, workflow.ChainEntry{Model: "p/a", Retries: 10}, workflow.ChainEntry{Model: "p/a", Retries: 10}), time.Hour, 99, strings.TrimSpace(strings.Repeat("a ", CallsMax)), "rate_limited"},
		{"the last failure that means something is told", map[string][]string{"a": {"overloaded"}, "b": {"auth"}}, chain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "p/b"}, workflow.ChainEntry{Model: "nobody/x"}), timed, 0, "a b", "overloaded"},
		{"only failures of configuration: the one of a request", map[string][]string{"a": {"auth"}}, chain(workflow.ChainEntry{Model: "p/a"}, workflow.ChainEntry{Model: "nobody/x"}), timed, 0, "a", "auth"},
		{"too long for one window: no smaller one is tried", map[string][]string{"gpt-4o": {"context_length"}, "grok-3": {"ok"}, "claude-haiku-4-5": {"ok"}}, chain(workflow.ChainEntry{Model: "p/gpt-4o"}, workflow.ChainEntry{Model: "p/gpt-4o-mini"}, workflow.ChainEntry{Model: "p/claude-haiku-4-5"}), timed, 0, "gpt-4o claude-haiku-4-5", "p/claude-haiku-4-5 2.1"},
		{"no entries", nil, chain(), timed, 0, "", "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &scripted{name: "p", scripts: c.scripts}
				q := &scripted{name: "q"} // so that p is not the only one
				registry := prometheus.NewRegistry()
				g, err := New(Config{Providers: []Provider{{Provider: p}, {Provider: q}}, Metrics: telemetry.New(registry, telemetry.Build{})})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.within)
				defer cancel()
				a, err := g.Complete(ctx, Request{Chain: c.chain, Ask: question(), CallsMax: c.max})
				got, calls := fmt.Sprintf("%s/%s %d.%d", a.Provider, a.Asked, a.Depth, a.Try), a.Calls
				var failed *FailedError
				if errors.As(err, &failed) {
					got, calls = failed.Class, failed.Calls
					if failed.Message == "" {
						t.Error("a failure without a message")
					}
				}
				if got != c.want {
					t.Errorf("got %s (%v), want %s", got, err, c.want)
				}
				var asked []string
				for _, s := range p.asked {
					model, _, _ := strings.Cut(s, "@")
					asked = append(asked, model)
				}
				if diff := cmp.Diff(c.asked, strings.Join(asked, " ")); diff != "" {
					t.Error(diff)
				}
				if n := counted(t, registry, "fermata_llm_requests_total"); int(n) != len(calls) {
					t.Errorf("counted %v of %d calls", n, len(calls))
				}
				if n := counted(t, registry, "fermata_llm_requests_in_flight"); n != 0 {
					t.Errorf("%v still in flight", n)
				}
			})
		})
	}
}

// Every call is written down with its place, its try and its price; money of failed calls too.
func TestCallsAreWrittenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o-2024-08-06": {"server", "ok takes=1m"}, "own-model": {"ok takes=3s"}}}
		sim := &scripted{name: "sim", scripts: map[string][]string{"claude-opus-4-6": {"rate_limited wait=2m"}}}
		g, err := New(Config{Providers: []Provider{{Provider: p}, {Provider: sim, Simulated: true}}})
		if err != nil {
			t.Fatal(err)
		}
		a, err := g.Complete(t.Context(), Request{Seed: "s", Ask: question(), Chain: chain(
			workflow.ChainEntry{Model: "sim/claude-opus-4-6"},
			workflow.ChainEntry{Model: "gpt-4o-2024-08-06", Retries: 1, Timeout: 10 * time.Second},
			workflow.ChainEntry{Model: "own-model"},
		)})
		if err != nil {
			t.Fatal(err)
		}
		for i := range a.Calls {
			if line := &a.Calls[i]; line.Cost > 0 && (line.Price == "" || line.Rates == nil) {
				t.Errorf("call %d does not say by which price: %+v", i, line)
			}
			a.Calls[i].Price, a.Calls[i].Rates = "", nil
			if a.Calls[i].Try == 2 || a.Calls[i].Depth == 2 {
				continue
			}
			a.Calls[i].Millis = 0
		}
		want := []usage.Call{
			{Provider: "sim", Model: "claude-opus-4-6", Simulated: true, Class: "rate_limited", Message: "scripted", Try: 1},
			{Provider: "p", Model: "gpt-4o-2024-08-06", Class: "server", Message: "scripted", Depth: 1, Try: 1},
			{Provider: "p", Model: "gpt-4o-2024-08-06", Class: "timeout", Message: "scripted", Depth: 1, Try: 2, Millis: 10_000, Tokens: usage.Tokens{Input: 1000}, Cost: 2_500_000, Estimated: true},
			{Provider: "p", Model: "own-model", Depth: 2, Try: 1, Millis: 3_000, Tokens: usage.Tokens{Input: 1000, Output: 100}, Unpriced: true},
		}
		if diff := cmp.Diff(want, a.Calls); diff != "" {
			t.Error(diff)
		}
		if p.calls[0].Seed != "s/1.1" || p.calls[1].Seed != "s/1.2" || p.calls[2].Seed != "s/2.1" {
			t.Errorf("the seeds do not tell tries apart: %q %q %q", p.calls[0].Seed, p.calls[1].Seed, p.calls[2].Seed)
		}
	})
}

func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{name: "p", scripts: map[string][]string{"a": {"server", "ok takes=1m"}}}
		g, err := New(Config{Providers: []Provider{{Provider: p}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Second, cancel)
		_, err = g.Complete(ctx, Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a", Retries: 5}, workflow.ChainEntry{Model: "b"})})
		var failed *FailedError
		if !errors.As(err, &failed) || failed.Class != "cancelled" || len(failed.Calls) != 2 || failed.Calls[1].Tokens.Input != 1000 {
			t.Errorf("got %+v", failed)
		}
	})
	t.Run("in a wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &scripted{name: "p", scripts: map[string][]string{"a": {"rate_limited wait=20s"}}}
			g, err := New(Config{Providers: []Provider{{Provider: p}}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Second, cancel)
			began := time.Now()
			_, err = g.Complete(ctx, Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: "a", Retries: 5}, workflow.ChainEntry{Model: "a"})})
			var failed *FailedError
			if !errors.As(err, &failed) || failed.Class != "cancelled" || len(failed.Calls) != 1 || time.Since(began) != 10*time.Second {
				t.Errorf("got %+v after %s", failed, time.Since(began))
			}
		})
	})
}

func TestMaxTokens(t *testing.T) {
	p := &scripted{name: "p", scripts: map[string][]string{"gpt-4o": {"ok"}, "gpt-5.1": {"ok"}, "own": {"ok"}}}
	g, err := New(Config{Providers: []Provider{{Provider: p}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		model     string
		set, want int
	}{
		{"gpt-4o", 0, TokensDefault},
		{"gpt-4o", 100, 100},
		{"gpt-4o", 1_000_000, 16_384},
		{"gpt-5.1", 0, TokensReasoningDefault},
		{"own", 0, TokensDefault},
		{"own", 1_000_000, 1_000_000},
	} {
		ask := question()
		ask.MaxTokens = c.set
		if _, err := g.Complete(t.Context(), Request{Ask: ask, Chain: chain(workflow.ChainEntry{Model: c.model})}); err != nil {
			t.Fatal(err)
		}
		if got := p.calls[len(p.calls)-1].MaxTokens; got != c.want {
			t.Errorf("%s with %d: asked for %d, want %d", c.model, c.set, got, c.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for retries, limit := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second} {
		longest := time.Duration(0)
		for range 2000 {
			d := backoff(retries, lots(nil).draw())
			if d < 0 || d > limit {
				t.Fatalf("after %d retries: %s", retries, d)
			}
			longest = max(longest, d)
		}
		if longest < limit*3/4 {
			t.Errorf("after %d retries never more than %s: the jitter is not full", retries, longest)
		}
	}
	if d := backoff(1_000_000, 1); d > backoffMax {
		t.Errorf("overflow: %s", d)
	}
}
