package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/tool"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const contract = `{"type":"object","required":["text"],"properties":{"text":{"type":"string"}},"additionalProperties":false}`

func agentAttempt(t testing.TB) flow.Attempt {
	t.Helper()
	schema, err := workflow.ParseSchema(json.RawMessage(contract))
	if err != nil {
		t.Fatal(err)
	}
	writer := &workflow.AgentStep{Agent: workflow.Agent{
		Name: "writer", Role: "grinder", Instructions: "Write.", Output: workflow.Contract{Schema: schema, JSON: true},
		Chain: workflow.Chain{Entries: []workflow.ChainEntry{{Model: "m"}}},
	}}
	return flow.Attempt{
		Run: uuid.MustParse("0190a0f0-0000-7000-8000-000000000001"), Workflow: "w", Path: "write", Gen: 1, No: 2, Start: 7,
		Step:  &workflow.Step{ID: "write", Path: "write", Kind: workflow.KindAgent, Timeout: time.Minute, Agent: writer},
		Agent: &writer.Agent,
		Input: json.RawMessage(`{"prompt":"About tea.","input":{"n":1}}`),
	}
}

func toolAttempt(ref, args string) flow.Attempt {
	return flow.Attempt{
		Path: "act", Gen: 1, No: 1, Key: "key", Input: json.RawMessage(args),
		Step: &workflow.Step{ID: "act", Path: "act", Kind: workflow.KindTool, Timeout: time.Minute, Tool: &workflow.ToolStep{Ref: ref}},
	}
}

// models answers with the lines of a script in turn. Each costs one call.
type models struct {
	mu     sync.Mutex
	script []string // a reply; "!class" for a failure; "..." until the context is done
	asked  []gateway.Request
	at     int
}

func (m *models) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	m.mu.Lock()
	m.asked = append(m.asked, r)
	line := m.script[m.at]
	m.at++
	calls := []usage.Call{{Provider: "p", Model: "m", Try: 1, Cost: usage.Money(m.at)}}
	m.mu.Unlock()
	switch {
	case line == "...":
		<-ctx.Done()
		calls[0].Class = "cancelled"
		return gateway.Answer{}, &gateway.FailedError{Class: "cancelled", Message: "cut", Calls: calls}
	case line == "panic":
		panic("boom")
	case line == "odd":
		return gateway.Answer{}, errors.New("odd")
	case strings.HasPrefix(line, "!"):
		calls[0].Class = line[1:]
		return gateway.Answer{}, &gateway.FailedError{Class: line[1:], Message: "scripted", Calls: calls}
	}
	return gateway.Answer{Reply: provider.Reply{Text: line}, Calls: calls}, nil
}

// do does an attempt and gives what was reported, in short.
func do(ctx context.Context, w *Worker, a flow.Attempt) (turns []flow.Turn, outcome *flow.Outcome, said []string) {
	w.Do(ctx, a, func(r flow.Report) {
		if r.Path != a.Path || r.Gen != a.Gen || r.No != a.No || r.Start != a.Start {
			said = append(said, fmt.Sprintf("of another attempt: %+v", r))
		}
		if r.Turn != nil {
			turns = append(turns, *r.Turn)
			said = append(said, "turn "+r.Turn.Reply+costs(r.Turn.Calls))
		}
		if r.Outcome != nil {
			outcome = r.Outcome
			end := string(outcome.Output)
			if f := outcome.Failure; f != nil {
				end = "failed " + f.Class
			}
			said = append(said, end+costs(r.Outcome.Calls))
		}
	})
	return turns, outcome, said
}

func costs(calls []usage.Call) string {
	s := ""
	for _, c := range calls {
		s += fmt.Sprintf(" $%d", c.Cost)
	}
	return s
}

func TestAgents(t *testing.T) {
	answered := []flow.Turn{{Reply: "first", Calls: []usage.Call{{}}}, {Reply: "second", Calls: []usage.Call{{}}}}
	for _, c := range []struct {
		name   string
		script []string
		turns  []flow.Turn
		said   []string
	}{
		{"answered", []string{`{"text":"tea","confidence":80,"unresolved":["which"]}`}, nil, []string{`{"text":"tea"} $1`}},
		{"asked again; the turn is reported with what it cost", []string{"tea", `{"text":"tea"}`}, nil, []string{"turn tea $1", `{"text":"tea"} $2`}},
		{"asked twice, then given up", []string{"a", "b", "c"}, nil, []string{"turn a $1", "turn b $2", "failed invalid_output $3"}},
		{"the chain failed", []string{"!rate_limited"}, nil, []string{"failed rate_limited $1"}},
		{"failed after a turn", []string{"a", "!auth"}, nil, []string{"turn a $1", "failed auth $2"}},
		{"goes on after a crash: turns are not bought again", []string{`{"text":"tea"}`}, answered, []string{`{"text":"tea"} $1`}},
		{"and the count of questions goes on too", []string{"third"}, answered, []string{"failed invalid_output $1"}},
		{"a crash after the last answer: nothing is bought", nil, append(answered[:1:1], flow.Turn{Reply: `{"text":"tea"}`}), []string{`{"text":"tea"}`}},
		{"only the engine cancels", []string{"!cancelled"}, nil, []string{"failed internal $1"}},
		{"an error of no class", []string{"odd"}, nil, []string{"failed internal"}},
		{"a panic keeps what was paid", []string{"a", "panic"}, nil, []string{"turn a $1", "failed internal"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := agentAttempt(t)
			a.Turns = c.turns
			_, outcome, said := do(t.Context(), New(Config{Gateway: &models{script: c.script}}), a)
			if diff := cmp.Diff(c.said, said); diff != "" {
				t.Error(diff)
			}
			if len(outcome.PromptHash) != 32 {
				t.Errorf("prompt hash %q", outcome.PromptHash)
			}
		})
	}
}

func TestAgentOutcome(t *testing.T) {
	m := &models{script: []string{"Sure: {\"text\":\"tea\",\"confidence\":\"80%\",\"unresolved\":[\"which\"],}", "x", `{"text":"y"}`}}
	w := New(Config{Gateway: m})
	_, o, _ := do(t.Context(), w, agentAttempt(t))
	if o.Confidence == nil || *o.Confidence != 80 || !o.Repaired || !cmp.Equal(o.Unresolved, []string{"which"}) {
		t.Errorf("got %+v", o)
	}
	_, again, _ := do(t.Context(), w, agentAttempt(t))
	if again.PromptHash != o.PromptHash {
		t.Error("the same prompt has two hashes")
	}
	want := []string{
		"0190a0f0-0000-7000-8000-000000000001/write/1/2/0", "0190a0f0-0000-7000-8000-000000000001/write/1/2/0",
		"0190a0f0-0000-7000-8000-000000000001/write/1/2/1",
	}
	var seeds []string
	for _, r := range m.asked {
		seeds = append(seeds, r.Seed)
	}
	if diff := cmp.Diff(want, seeds); diff != "" {
		t.Error(diff)
	}
	if r := m.asked[2]; r.Caller.Agent != "writer" || r.CallsMax != gateway.CallsMax-1 || len(r.Ask.Messages) != 4 {
		t.Errorf("asked %+v", r)
	}
}

func TestFeedbackIsTold(t *testing.T) {
	m := &models{script: []string{"!auth"}}
	a := agentAttempt(t)
	a.Feedback = "it was too long"
	do(t.Context(), New(Config{Gateway: m}), a)
	if got := m.asked[0].Ask.Messages[1].Content; !strings.Contains(got, "About tea.") || !strings.Contains(got, `{"n":1}`) || !strings.Contains(got, a.Feedback) {
		t.Errorf("the model is told %q", got)
	}
}

func TestAgentEnds(t *testing.T) {
	for _, c := range []struct {
		name     string
		script   []string
		timeout  time.Duration
		deadline time.Duration // from the beginning; 0: none
		cancel   time.Duration // likewise
		after    time.Duration
		class    string
		calls    int
	}{
		{"its timeout", []string{"..."}, time.Minute, 0, 0, time.Minute, "timeout", 1},
		{"its timeout holds over all turns", []string{"x", "..."}, time.Minute, time.Hour, 0, time.Minute, "timeout", 1},
		{"the end of what is around it", []string{"..."}, time.Minute, 20 * time.Second, 0, 20 * time.Second, "timeout", 1},
		{"that has passed", nil, time.Minute, -time.Second, 0, 0, "timeout", 0},
		{"no timeout of its own", []string{"..."}, 0, 3 * time.Hour, 0, 3 * time.Hour, "timeout", 1},
		{"cancelled: what was paid comes back", []string{"..."}, time.Minute, 0, 5 * time.Second, 5 * time.Second, "cancelled", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				a := agentAttempt(t)
				a.Step.Timeout = c.timeout
				if c.deadline != 0 {
					a.Deadline = began.Add(c.deadline)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				_, o, said := do(ctx, New(Config{Gateway: &models{script: c.script}}), a)
				if o.Failure == nil || o.Failure.Class != c.class || len(o.Calls) != c.calls || time.Since(began) != c.after {
					t.Errorf("%s after %s: %+v", said, time.Since(began), o.Failure)
				}
			})
		})
	}
}

// The deadline is the database's time: a node whose clock is ten minutes off must not cut an attempt short.
func TestDeadlineIsReadAgainstTheGivenClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		off := func() time.Time { return time.Now().Add(-10 * time.Minute) }
		began := time.Now()
		a := agentAttempt(t)
		a.Deadline = off().Add(30 * time.Second)
		_, o, _ := do(t.Context(), New(Config{Gateway: &models{script: []string{"..."}}, Now: off}), a)
		if time.Since(began) != 30*time.Second || o.Failure.Class != "timeout" {
			t.Errorf("%+v after %s", o.Failure, time.Since(began))
		}
	})
}

type queue struct {
	mu     sync.Mutex
	delays []time.Duration
}

func (q *queue) StepQueued(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.delays = append(q.delays, d)
}

// One place, three agents: they go one after the other, and the timeout of each counts from when its work starts.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{}
		w := New(Config{Gateway: &models{script: []string{"...", "...", "..."}}, Metrics: q, AgentsMax: 1})
		began := time.Now()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if _, o, _ := do(t.Context(), w, agentAttempt(t)); o.Failure.Class != "timeout" || len(o.Calls) != 1 {
					t.Errorf("got %+v", o.Failure)
				}
			})
		}
		synctest.Wait()
		late := agentAttempt(t)
		late.Deadline = began.Add(30 * time.Second)
		if _, o, _ := do(t.Context(), w, late); o.Failure.Class != "timeout" || len(o.Calls) != 0 || time.Since(began) != 30*time.Second {
			t.Errorf("got %+v after %s", o.Failure, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, o, _ := do(ctx, w, agentAttempt(t)); o.Failure.Class != "cancelled" || len(o.Calls) != 0 {
			t.Errorf("got %+v", o.Failure)
		}
		all.Wait()
		if diff := cmp.Diff([]time.Duration{0, time.Minute, 2 * time.Minute}, q.delays); diff != "" || time.Since(began) != 3*time.Minute {
			t.Errorf("%s after %s", diff, time.Since(began))
		}
	})
}

func TestToolSteps(t *testing.T) {
	schema, err := workflow.ParseSchema(json.RawMessage(contract))
	if err != nil {
		t.Fatal(err)
	}
	w := New(Config{})
	for _, c := range []struct {
		ref, args string
		checked   bool
		no        int16
		said      string
	}{
		{tool.RefNoop, `{"a":1}`, false, 1, `{"a":1}`},
		{tool.RefNoop, `{"text":"x"}`, true, 1, `{"text":"x"}`},
		{tool.RefNoop, `{"text":1}`, true, 1, "failed invalid_output"},
		{tool.RefSleep, `{"seconds":0}`, false, 1, `{"seconds":0}`},
		{tool.RefFail, `{"class":"server"}`, false, 1, "failed server"},
		{tool.RefFail, `{"times":1}`, false, 1, "failed tool_error"},
		{tool.RefFail, `{"times":1}`, false, 2, `{"attempt":2}`},
		{"builtin:unknown", `{}`, false, 1, "failed not_found"},
	} {
		a := toolAttempt(c.ref, c.args)
		a.No = c.no
		if c.checked {
			a.Step.Tool.Output = workflow.Contract{Schema: schema, JSON: true}
		}
		if _, _, said := do(t.Context(), w, a); !cmp.Equal(said, []string{c.said}) {
			t.Errorf("%s %s: %q, want %q", c.ref, c.args, said, c.said)
		}
	}
}

// oddTools breaks every promise of a tool.
type oddTools struct{ out string }

func (o oddTools) Call(_ context.Context, r tool.Request) (json.RawMessage, error) {
	switch r.Ref {
	case "panic":
		panic("boom")
	case "plain":
		return nil, errors.New("no class")
	case "cancelled":
		return nil, &tool.Error{Class: "cancelled", Message: "I say so"}
	}
	if r.Key != "key" || r.Attempt != 1 {
		return nil, fmt.Errorf("asked %+v", r)
	}
	return json.RawMessage(o.out), nil
}

func TestOddTools(t *testing.T) {
	for _, c := range []struct{ ref, out, said string }{
		{"x", `{"ok":true}`, `{"ok":true}`},
		{"x", `{`, "failed invalid_output"},
		{"x", ``, "failed invalid_output"},
		{"x", `"` + strings.Repeat("x", workflow.OutputBytesMax) + `"`, "failed invalid_output"},
		{"x", strings.Repeat("[", 1_001) + strings.Repeat("]", 1_001), "failed invalid_output"},
		{"panic", "", "failed internal"},
		{"plain", "", "failed tool_error"},
		{"cancelled", "", "failed tool_error"},
	} {
		if _, _, said := do(t.Context(), New(Config{Tools: oddTools{c.out}}), toolAttempt(c.ref, `{}`)); !cmp.Equal(said, []string{c.said}) {
			t.Errorf("%s %.20s: %q, want %q", c.ref, c.out, said, c.said)
		}
	}
}

func TestToolEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(Config{})
		began := time.Now()
		if _, _, said := do(t.Context(), w, toolAttempt(tool.RefSleep, `{"seconds":3600}`)); !cmp.Equal(said, []string{"failed timeout"}) || time.Since(began) != time.Minute {
			t.Errorf("%q after %s", said, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, _, said := do(ctx, w, toolAttempt(tool.RefSleep, `{"seconds":3600}`)); !cmp.Equal(said, []string{"failed cancelled"}) {
			t.Errorf("%q", said)
		}
		if _, _, said := do(ctx, w, toolAttempt(tool.RefNoop, `{}`)); !cmp.Equal(said, []string{"failed cancelled"}) {
			t.Errorf("%q", said)
		}
	})
}

// A step of no kind that has attempts is a defect, told as one.
func TestOddKind(t *testing.T) {
	a := toolAttempt(tool.RefNoop, `{}`)
	a.Step.Kind = workflow.KindGroup
	if _, _, said := do(t.Context(), New(Config{}), a); !cmp.Equal(said, []string{"failed internal"}) {
		t.Errorf("%q", said)
	}
	b := agentAttempt(t)
	b.Input = json.RawMessage(`[`)
	if _, _, said := do(t.Context(), New(Config{}), b); !cmp.Equal(said, []string{"failed internal"}) {
		t.Errorf("%q", said)
	}
}

// The whole way: agent, gateway and the simulated provider, through the ladder.
func TestWithSimulatedModels(t *testing.T) {
	sim, err := gateway.Connect(gateway.ProviderConfig{Name: "simulated", Kind: gateway.KindSimulated, Fallback: true})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Providers: []gateway.Provider{sim}})
	if err != nil {
		t.Fatal(err)
	}
	w := New(Config{Gateway: g})
	for model, want := range map[string]string{"claude-sonnet-4-6": "", "simulated/fenced": "", "simulated/prose": "invalid_output", "simulated/fail": "server"} {
		a := agentAttempt(t)
		a.Agent.Chain = workflow.Chain{Entries: []workflow.ChainEntry{{Model: model}}}
		turns, o, said := do(t.Context(), w, a)
		got := ""
		if o.Failure != nil {
			got = o.Failure.Class
		}
		if got != want {
			t.Errorf("%s: %q", model, said)
			continue
		}
		switch model {
		case "simulated/prose":
			if len(turns) != 2 || len(o.Calls) != 1 {
				t.Errorf("%s: %d turns", model, len(turns))
			}
		case "simulated/fenced":
			if !o.Repaired {
				t.Errorf("%s: not repaired", model)
			}
		case "claude-sonnet-4-6":
			if o.Repaired || !strings.Contains(string(o.Output), provider.SimulatedMark) || o.Confidence == nil || *o.Confidence < 70 || !o.Calls[0].Simulated || o.Calls[0].Cost == 0 {
				t.Errorf("%s: %+v", model, o)
			}
		}
	}
}

func TestNoopIsCheap(t *testing.T) {
	w := New(Config{})
	a := toolAttempt(tool.RefNoop, `{"a":1}`)
	ctx := t.Context()
	report := func(flow.Report) {}
	if n := testing.AllocsPerRun(1000, func() { w.Do(ctx, a, report) }); n > 1 {
		t.Errorf("%v allocations; only the outcome should be one", n)
	}
}

func BenchmarkNoop(b *testing.B) {
	w := New(Config{})
	a := toolAttempt(tool.RefNoop, `{"a":1}`)
	for b.Loop() {
		w.Do(b.Context(), a, func(flow.Report) {})
	}
}
