package rehearsal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/tool"
	"github.com/fermata-run/fermata/internal/usage"
)

// garbage is what a model says that has lost its mind: no JSON, and nothing that could be mended into it.
const garbage = "]} Here you go, as discussed: {\"unfinished"

// script is what models and tools say. It is asked by the goroutines of attempts.
type script struct {
	c *Case

	mu     sync.Mutex
	used   map[string]int // times, by the pointer of the line
	said   map[string]int // the line that a call was answered by: the same call, made again after a crash, gets the same
	missed []Failure      // calls that no line fits, where one should
	calls  map[string]callCount
}

// callCount is how many requests one turn of an agent took.
type callCount struct {
	step, agent string
	requests    int
}

func newScript(c *Case) *script {
	return &script{c: c, used: map[string]int{}, said: map[string]int{}, calls: map[string]callCount{}}
}

// speaker is the attempt that a context belongs to, and who speaks for it.
type speaker struct {
	path    string // of the step, with those of the runs around
	attempt flow.Attempt
	agent   string // of the model call
}

type speakerKey struct{}

func withSpeaker(ctx context.Context, s speaker) context.Context {
	return context.WithValue(ctx, speakerKey{}, s)
}

func speakerOf(ctx context.Context) speaker {
	s, _ := ctx.Value(speakerKey{}).(speaker)
	return s
}

// noLine is what said knows of a call that no line fits.
const noLine = -1

// line finds the line that answers a call: the one it was answered by before, else the first that fits and is not used up.
func (s *script) line(call string, n int, fits func(i int) (pointer string, times int, ok bool)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, again := s.said[call]; again {
		return i
	}
	found := noLine
	for i := range n {
		pointer, times, ok := fits(i)
		if ok && (times == 0 || s.used[pointer] < times) {
			found = i
			s.used[pointer]++
			break
		}
	}
	s.said[call] = found
	return found
}

// respond answers a call of a model; nil: the simulation does.
func (s *script) respond(ctx context.Context, c provider.Call) *provider.Scripted {
	who, turn, asked := speakerOf(ctx), turnOf(c.Ask), provider.Answered(c.Ask)
	i := s.line("model "+c.Model+" "+c.Seed, len(s.c.Models), func(i int) (string, int, bool) {
		l := &s.c.Models[i]
		return l.pointer, l.Times, matches(l.Step, who.path) && matches(l.Agent, who.agent) && matches(l.Model, c.Model) &&
			(l.Attempt == 0 || l.Attempt == int(who.attempt.No)) && (l.Turn == 0 || l.Turn == turn) && strings.Contains(asked, l.Prompt)
	})
	if i != noLine {
		return s.c.Models[i].scripted()
	}
	if s.c.Unscripted != "fail" {
		return nil
	}
	message := fmt.Sprintf("no line of models fits this call: step %s, agent %s, model %s, attempt %d, turn %d", who.path, named(who.agent), c.Model, who.attempt.No, turn)
	s.miss(s.c.pointer, message, "", "")
	return &provider.Scripted{Class: provider.ClassInvalidRequest, Text: message}
}

func named(name string) string {
	if name == "" {
		return "without a name"
	}
	return name
}

// miss notes what the script has no line for, or the wrong one.
func (s *script) miss(pointer, what, expected, got string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.missed) < missedMax {
		s.missed = append(s.missed, Failure{Pointer: pointer, What: what, Expected: expected, Got: got})
	}
}

// missedMax bounds what is told of one case.
const missedMax = 10

// turnOf is the number of the turn that is asked for, from 1.
func turnOf(a agent.Ask) int {
	turn := 1
	for _, m := range a.Messages {
		if m.Role == agent.RoleAssistant {
			turn++
		}
	}
	return turn
}

// scripted is what the simulation is told to say.
func (l *modelLine) scripted() *provider.Scripted {
	r := &provider.Scripted{Latency: time.Duration(l.Latency)}
	if t := l.Tokens; t != nil {
		r.Tokens = &usage.Tokens{Input: t.Input, CacheRead: t.CacheRead, CacheWrite: t.CacheWrite, Output: t.Output, Reasoning: t.Reasoning}
	}
	switch l.Error {
	case "":
		r.Text, r.Improvised = textOf(l.Answer), l.Answer == nil && l.Calls == nil
		for _, call := range l.Calls {
			r.Calls = append(r.Calls, provider.ScriptedCall{Name: call.Name, Arguments: cmp.Or(string(call.Arguments), "{}")})
		}
		return r
	case "timeout":
		r.Hangs = true
		return r
	case "garbage":
		r.Text = garbage
		return r
	case "truncated":
		r.Class = provider.ClassOutputTruncated
	case "refuse":
		r.Class = provider.ClassContentPolicy
	default:
		r.Class = provider.Class(l.Error)
	}
	r.Text = l.Message
	return r
}

// textOf is what a model says: a text as it stands, any other value as JSON.
func textOf(answer json.RawMessage) string {
	var text string
	if bytes.HasPrefix(answer, []byte(`"`)) && json.Unmarshal(answer, &text) == nil {
		return text
	}
	return string(answer)
}

// Call answers a call of a tool. What no line fits is called if it is built in, and fails else: a rehearsal reaches nothing
// outside.
func (s *script) Call(ctx context.Context, r tool.Request) (json.RawMessage, error) {
	who := speakerOf(ctx)
	call := fmt.Sprintf("tool %s %s %d.%d %s %s", who.attempt.Run, who.path, who.attempt.Gen, r.Attempt, r.Ref, r.Args)
	i := s.line(call, len(s.c.Tools), func(i int) (string, int, bool) {
		l := &s.c.Tools[i]
		return l.pointer, l.Times, matches(l.Step, who.path) && matches(l.Tool, r.Ref) && (l.Attempt == 0 || l.Attempt == r.Attempt)
	})
	switch {
	case i != noLine:
		return s.c.Tools[i].result(ctx)
	case strings.HasPrefix(r.Ref, "builtin:"):
		return (&tool.Tools{}).Call(ctx, r)
	}
	message := fmt.Sprintf("no line of tools fits this call: step %s, tool %s, attempt %d", who.path, r.Ref, r.Attempt)
	s.miss(s.c.pointer, message, "", "")
	return nil, &tool.Error{Class: tool.ClassNotFound, Message: message}
}

func (l *toolLine) result(ctx context.Context) (json.RawMessage, error) {
	if l.Latency > 0 {
		t := time.NewTimer(time.Duration(l.Latency))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, &tool.Error{Class: tool.ClassCancelled, Message: "cut"}
		}
	}
	if l.Error == "" {
		return l.Output, nil
	}
	message := l.Message
	if message == "" {
		message = "as the script says"
	}
	return nil, &tool.Error{Class: l.Error, Message: message}
}

// door is the gateway as the worker sees it: it says who asks, and counts the requests.
type door struct {
	*gateway.Gateway
	script *script
}

// Complete makes one model call.
func (d door) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	who := speakerOf(ctx)
	who.agent = r.Caller.Agent
	answer, err := d.Gateway.Complete(withSpeaker(ctx, who), r)
	made := answer.Calls
	if failed, ok := err.(*gateway.FailedError); ok { //nolint:errorlint // Complete gives no other
		made = failed.Calls
	}
	d.script.mu.Lock()
	defer d.script.mu.Unlock()
	d.script.calls[r.Seed+" "+r.Caller.Agent] = callCount{who.path, r.Caller.Agent, len(made)} // made again after a crash, it is one
	return answer, err
}

// unused lists the lines that answered nothing.
func (s *script) unused() []string {
	var list []string
	note := func(pointer string) {
		if s.used[pointer] == 0 && strings.HasPrefix(pointer, s.c.pointer+"/") { // those of the file are for other cases, too
			list = append(list, strings.TrimPrefix(pointer, s.c.pointer+"/"))
		}
	}
	for i := range s.c.Models {
		note(s.c.Models[i].pointer)
	}
	for i := range s.c.Tools {
		note(s.c.Tools[i].pointer)
	}
	for i := range s.c.Approvals {
		note(s.c.Approvals[i].pointer)
	}
	return list
}
