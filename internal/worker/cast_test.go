package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// cast answers by who is asked: each has lines of its own, taken in turn. A line is a reply; "!class" for a failure;
// "..." until the context is done; "call agent: task; agent: task" for tasks that are handed out; "same " before a reply
// of a family that was to be avoided.
type cast struct {
	mu    sync.Mutex
	lines map[string][]string
	asked []string // who, in order
	seen  map[string][]gateway.Request
}

// who was asked, in order.
func (c *cast) who() []string {
	list := slices.Clone(c.asked)
	for i, who := range list {
		if who == "" {
			list[i] = "author"
		}
	}
	return list
}

// whoOf is whose question it is.
func whoOf(r gateway.Request) string {
	return strings.TrimPrefix(strings.TrimPrefix(r.Session, r.Caller.Run.String()+"/"+r.Caller.Step), "/")
}

func (c *cast) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	who := whoOf(r)
	c.mu.Lock()
	c.asked = append(c.asked, who)
	if c.seen == nil {
		c.seen = map[string][]gateway.Request{}
	}
	c.seen[who] = append(c.seen[who], r)
	line := "!not_in_the_script"
	if left := c.lines[who]; len(left) > 0 {
		line, c.lines[who] = left[0], left[1:]
	}
	c.mu.Unlock()
	return spoken(ctx, r, line)
}

// spoken is what a line comes to.
func spoken(ctx context.Context, r gateway.Request, line string) (gateway.Answer, error) {
	call := usage.Call{Provider: "p", Model: "m", Try: 1, Depth: r.From, Cost: 1, RequestID: r.Seed, Millis: 5, Tokens: usage.Tokens{Output: 3}}
	if n := len(r.Chain.Entries); r.From < n {
		call.Model = r.Chain.Entries[r.From].Model
	} else if n > 0 {
		return gateway.Answer{}, &gateway.FailedError{Message: "no request was made"}
	}
	if line == "..." {
		<-ctx.Done()
		line = "!cancelled"
	}
	if class, failed := strings.CutPrefix(line, "!"); failed {
		call.Class = class
		return gateway.Answer{}, &gateway.FailedError{Class: class, Message: "scripted", Calls: []usage.Call{call}}
	}
	a := gateway.Answer{Calls: []usage.Call{call}, Depth: r.From}
	line, a.SameFamily = strings.CutPrefix(line, "same ")
	tasks, calls := strings.CutPrefix(line, "call ")
	if !calls || len(r.Ask.Tools) == 0 || string(r.Ask.ToolChoice) == `"none"` && !strings.HasPrefix(tasks, "!") {
		a.Reply = provider.Reply{Text: line}
		return a, nil
	}
	for i, task := range strings.Split(strings.TrimPrefix(tasks, "!"), "; ") {
		to, what, _ := strings.Cut(task, ": ")
		a.ToolCalls = append(a.ToolCalls, agent.ToolCall{
			ID: fmt.Sprintf("call-%d", i), Name: "delegate", Arguments: fmt.Sprintf(`{"agent":%q,"task":%q,"context":"background"}`, to, what),
		})
	}
	return a, nil
}

// scene is an attempt of an agent, for tests to change.
func scene(t testing.TB, edit func(*flow.Attempt)) flow.Attempt {
	t.Helper()
	a := agentAttempt(t)
	if edit != nil {
		edit(&a)
	}
	return a
}

// condition compiles an expression over an answer and the run.
func condition(t testing.TB, source string) *workflow.Expr {
	t.Helper()
	w, err := workflow.Compile([]byte("spec: workflow/v1\nname: w\nsteps:\n  - {id: a, agent: {chain: [{model: m, accept: " + source + "}]}, prompt: p}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return w.Steps[0].Agent.Agent.Chain.Entries[0].Accept
}

func judgeAgent() *workflow.Agent {
	return &workflow.Agent{
		Name: "critic", Role: "validator", Instructions: "Be strict.", Chain: workflow.Chain{Entries: []workflow.ChainEntry{{Model: "judge-model"}}},
		Delegates: []*workflow.Agent{{Name: "nobody"}},
	}
}

// verdict is what a judge says.
func verdict(score float64, issues ...string) string {
	raw, err := json.Marshal(agent.Verdict{Score: score, Pass: len(issues) == 0, Issues: append([]string{}, issues...)})
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// lastSaid is the last message of a question.
func lastSaid(r gateway.Request) string { return r.Ask.Messages[len(r.Ask.Messages)-1].Content }

func text(s string) string { return fmt.Sprintf(`{"text":%q}`, s) }

var attemptRun = uuid.MustParse("0190a0f0-0000-7000-8000-000000000001")

const attemptTime = time.Minute

// slow is a cast that takes 25 s for each answer.
type slow struct{ cast }

func (s *slow) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	select {
	case <-time.After(25 * time.Second):
	case <-ctx.Done():
	}
	return s.cast.Complete(ctx, r)
}
