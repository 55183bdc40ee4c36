package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

func TestSimulatedCallsTools(t *testing.T) {
	ask := prompt(brief)
	ask.Tools = []agent.Tool{{Name: "now"}, {Name: "review", Parameters: json.RawMessage(schemas["draft"])}}
	for _, c := range []struct{ choice, want string }{{``, ""}, {`"auto"`, ""}, {`"none"`, ""}, {`"required"`, "now"}, {`{"name":"review"}`, "review"}, {`{"name":"unknown"}`, ""}, {`7`, ""}} {
		ask.ToolChoice = json.RawMessage(c.choice)
		call := Call{Model: "gpt-4o", Ask: ask, MaxTokens: 4096, Seed: "a"}
		r, err := NewSimulated(SimulatedConfig{}).Complete(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		if c.want == "" {
			if r.FinishReason != "stop" || len(r.ToolCalls) != 0 || !strings.Contains(r.Text, SimulatedMark) {
				t.Errorf("%s: %+v", c.choice, r)
			}
			continue
		}
		if r.FinishReason != "tool_calls" || len(r.ToolCalls) != 1 || r.ToolCalls[0].Name != c.want || r.ToolCalls[0].ID == "" || r.Text != "" || r.Tokens.Output == 0 {
			t.Fatalf("%s: %+v", c.choice, r)
		}
		schema := `{"type":"object"}`
		if c.want == "review" {
			schema = schemas["draft"]
			if !strings.Contains(r.ToolCalls[0].Arguments, SimulatedMark) {
				t.Errorf("no mark: %s", r.ToolCalls[0].Arguments)
			}
		}
		check(t, compiled(t, schema), r.ToolCalls[0].Arguments)
		again, err := NewSimulated(SimulatedConfig{}).Complete(t.Context(), call)
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Errorf("not the same again: %v\n%s", err, diff)
		}
	}
}

func TestSimulatedStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSimulated(SimulatedConfig{Latency: 10 * time.Second})
		began := time.Now()
		var heard []string
		var first, last time.Duration
		call := Call{Model: "gpt-4o", Ask: prompt(brief), MaxTokens: 4096, Stream: func(d Delta) {
			if last = time.Since(began); heard == nil {
				first = last
			}
			heard = append(heard, d.Text)
		}}
		r, err := s.Complete(t.Context(), call)
		if err != nil || strings.Join(heard, "") != r.Text || len(heard) < 10 || len(heard) > partsMax {
			t.Errorf("%d parts of %+v, %v", len(heard), r, err)
		}
		if first != 5*time.Second || last <= first || r.FirstToken != first || time.Since(began) > 10*time.Second {
			t.Errorf("the first part after %s (%s), the last after %s of %s", first, r.FirstToken, last, time.Since(began))
		}

		// Given up in the middle: what was said is charged.
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		heard = nil
		_, err = s.Complete(ctx, call)
		if e := failure(t, err); e.Class != ClassTimeout || !e.Begun || e.Tokens.Output != CountTokens(strings.Join(heard, ""), "gpt-4o") {
			t.Errorf("%d parts, %+v", len(heard), e)
		}

		call.FirstToken = time.Second
		began = time.Now()
		for _, model := range []string{"gpt-4o", "timeout"} {
			call.Model = model
			_, err = s.Complete(t.Context(), call)
			if e := failure(t, err); e.Class != ClassTimeout || e.Begun || e.Tokens.Input == 0 {
				t.Errorf("%+v", e)
			}
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("gave up after %s", took)
		}
	})
}

func TestSimulatedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSimulated(SimulatedConfig{})
		long := agent.Message{Role: "system", Content: strings.Repeat(prose, 100), Stable: true}
		ask := func(model, question string, messages ...agent.Message) usage.Tokens {
			r, err := s.Complete(t.Context(), Call{Model: model, Ask: agent.Ask{Messages: append(messages, agent.Message{Role: "user", Content: question})}})
			if err != nil {
				t.Fatal(err)
			}
			if whole := CountAsk(agent.Ask{Messages: append(messages, agent.Message{Role: "user", Content: question})}, model); r.Tokens.InputTotal() != whole {
				t.Errorf("%d of %d tokens are counted", r.Tokens.InputTotal(), whole)
			}
			r.Tokens.Output = 0
			return r.Tokens
		}
		const model = "claude-haiku-4-5"
		written := ask(model, "One?", long)
		if written.CacheWrite < cachedTokensMin || written.CacheRead != 0 || written.Input > 20 {
			t.Errorf("the first: %+v", written)
		}
		for _, wait := range []time.Duration{0, 4 * time.Minute, 4 * time.Minute} { // each use keeps it
			time.Sleep(wait)
			if got := ask(model, "Two!", long); got.CacheRead != written.CacheWrite || got.CacheWrite != 0 {
				t.Errorf("after %s: %+v", wait, got)
			}
		}
		time.Sleep(cacheTime)
		if got := ask(model, "Three?", long); got.CacheWrite != written.CacheWrite {
			t.Errorf("after five minutes: %+v", got)
		}
		if got := ask("gpt-4o", "One?", long); got.CacheWrite != 0 || got.CacheRead != 0 {
			t.Errorf("OpenAI charges for no writes: %+v", got)
		}
		if got := ask("gpt-4o", "Two?", long); got.CacheRead == 0 {
			t.Errorf("OpenAI: %+v", got)
		}
		for name, got := range map[string]usage.Tokens{
			"own model": ask("own", "One?", long), "short": ask(model, "One?", agent.Message{Role: "system", Content: "Be brief.", Stable: true}),
			"not stable": ask(model, "One?", agent.Message{Role: "system", Content: long.Content}),
		} {
			if got.CacheRead+got.CacheWrite != 0 {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}

func TestSimulatedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSimulated(SimulatedConfig{RequestsMax: 2})
		for i := range 3 {
			r, err := s.Complete(t.Context(), Call{Model: "m", Ask: prompt("x"), Seed: fmt.Sprint(i)})
			if i < 2 {
				if want := (Limit{Max: 2, Left: int64(1 - i), Reset: time.Minute}); err != nil || r.Limits.Requests != want {
					t.Errorf("%+v, %v", r.Limits, err)
				}
				continue
			}
			e := failure(t, err)
			if e.Class != ClassRateLimited || e.RetryAfter != time.Minute || e.Limits.Requests.Left != 0 {
				t.Errorf("%+v", e)
			}
			time.Sleep(e.RetryAfter)
		}
		if _, err := s.Complete(t.Context(), Call{Model: "m", Ask: prompt("x")}); err != nil {
			t.Errorf("after the wait: %v", err)
		}
	})
}

func TestSimulatedScript(t *testing.T) {
	exact := usage.Tokens{Input: 1000, CacheRead: 3000, Output: 200}
	s := NewSimulated(SimulatedConfig{Script: []ScriptLine{
		{Contains: "Nordwind", Model: "claude-opus-4-6", Answer: "Move.", Tokens: &exact},
		{Contains: "Nordwind", Answer: "Stay."},
		{Contains: "overload", Class: "overloaded"},
		{Contains: "cut", Class: "output_truncated", Tokens: &exact},
	}})
	ask := func(model, text string) (Reply, error) {
		a := prompt("Nordwind was the first question.")
		a.Messages = append(a.Messages, agent.Message{Role: "assistant", Content: "Nordwind."}, agent.Message{Role: "user", Content: text})
		return s.Complete(t.Context(), Call{Model: model, Ask: a, MaxTokens: 100})
	}
	if r, err := ask("claude-opus-4-6", "Should Nordwind move?"); err != nil || r.Text != "Move." || r.Tokens != exact || r.Estimated {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := ask("gpt-4o", "Should Nordwind move?"); err != nil || r.Text != "Stay." || r.Tokens.Output != CountTokens("Stay.", "gpt-4o") {
		t.Errorf("%+v, %v", r, err)
	}
	_, err := ask("gpt-4o", "overload")
	if e := failure(t, err); e.Class != ClassOverloaded || e.Status != 529 || e.Tokens.Total() != 0 {
		t.Errorf("%+v", e)
	}
	_, err = ask("gpt-4o", "cut")
	if e := failure(t, err); e.Class != ClassOutputTruncated || e.Tokens != exact {
		t.Errorf("%+v", e)
	}
	tools := NewSimulated(SimulatedConfig{Script: []ScriptLine{
		{Contains: "found it", Answer: "Done."},
		{Contains: "Build", Answer: "First I look.", Calls: []ScriptedCall{{"look", `{"at":1}`}, {"look", `{"at":2}`}}},
	}})
	work := prompt("Build it.")
	work.Tools = []agent.Tool{{Name: "look"}}
	r, err := tools.Complete(t.Context(), Call{Model: "gpt-4o", Ask: work})
	if err != nil || r.Text != "First I look." || len(r.ToolCalls) != 2 || r.FinishReason != "tool_calls" || r.ToolCalls[0].ID == r.ToolCalls[1].ID || r.ToolCalls[1].Arguments != `{"at":2}` {
		t.Fatalf("%+v, %v", r, err)
	}
	work.Messages = append(work.Messages, agent.Message{Role: "assistant", ToolCalls: r.ToolCalls},
		agent.Message{Role: "tool", ToolCallID: r.ToolCalls[0].ID, Content: "found it"}, agent.Message{Role: "tool", ToolCallID: r.ToolCalls[1].ID, Content: "nothing"})
	if r, err = tools.Complete(t.Context(), Call{Model: "gpt-4o", Ask: work}); err != nil || r.Text != "Done." {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := ask("gpt-4o", "Something else."); err != nil || !strings.Contains(r.Text, SimulatedMark) {
		t.Errorf("%+v, %v", r, err)
	}
}
