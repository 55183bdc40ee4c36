package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
)

const reviewing = `{"spec":"workflow/v1","name":"review","agents":{
	"critic":{"instructions":"Judge it.","chain":[{"model":"gpt-4o","retries":1,"accept":"confidence >= 30"},{"model":"grok-3"}],"max_tokens":50,"temperature":0.5,
		"output":{"schema":{"type":"object","required":["pass"],"properties":{"pass":{"type":"boolean"},"confidence":{"type":"number"}},"additionalProperties":false}}},
	"writer":{"instructions":"Write it.","model":"gpt-4o"},
	"bare":{"instructions":"Do it."},
	"dispatcher":{"instructions":"Send it.","route":"social"}},
	"steps":[{"id":"a","agent":"critic","prompt":"x"},{"id":"b","agent":"bare","model":"gpt-4o","prompt":"x"},{"id":"c","agent":"writer","prompt":"x"},{"id":"d","agent":"dispatcher","prompt":"x"}]}`

func reviewer(t testing.TB, answers ...string) (*service, *models) {
	t.Helper()
	s, m := newChat(t, says(answers...))
	s.send(t, "POST", "/v1/workflows", `{"definition":`+reviewing+`}`).want(201)
	return s, m
}

// An agent's instructions stand before the messages, its contract and limits hold.
func TestChatWithAgent(t *testing.T) {
	s, m := reviewer(t, `{"pass": true}`)
	a := s.chatting(t, `{"model":"agent/review/critic","max_tokens":90,"temperature":1,"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"a text"}]}`).want(200)
	var got chatCompletion
	if a.json(&got); *got.Choices[0].Message.Content != `{"pass":true}` {
		t.Errorf("got %s", a.body)
	}
	r := m.last(t)
	if n := len(r.Ask.Messages); n != 3 || !r.Ask.Messages[0].Stable || !strings.HasPrefix(r.Ask.Messages[0].Content, "Judge it.") ||
		r.Ask.Messages[1].Content != "Be kind." || r.Ask.Messages[2].Content != "a text" {
		t.Errorf("asked %+v", r.Ask.Messages)
	}
	if !r.Ask.JSON || r.Ask.Schema == nil || r.Ask.MaxTokens != 50 || *r.Ask.Temperature != 0.5 {
		t.Errorf("asked %+v", r.Ask)
	}
	if r.Caller.Workflow != "review" || r.Caller.Agent != "critic" {
		t.Errorf("for %+v", r.Caller)
	}
}

// An answer that breaks the contract is sent back to who gave it; all that was paid for it is told.
func TestChatHoldsTheContract(t *testing.T) {
	s, m := reviewer(t, `{"pass": "perhaps"}`, `{"pass": false}`)
	a := s.chatting(t, chatBody("agent/review/critic", "")).want(200)
	var got chatCompletion
	if a.json(&got); *got.Choices[0].Message.Content != `{"pass":false}` || got.Usage.Total != 42 || got.Fermata.Cost != "0.006" || len(got.Fermata.Attempts) != 4 {
		t.Errorf("got %s", a.body)
	}
	first, second := m.asked[0], m.asked[1]
	own := len(first.Ask.Messages)
	if d := cmp.Diff(first.Ask.Messages, second.Ask.Messages[:own]); d != "" {
		t.Error(d)
	}
	said, complaint := second.Ask.Messages[own], second.Ask.Messages[own+1]
	if said.Role != agent.RoleAssistant || said.Content != `{"pass": "perhaps"}` || complaint.Role != agent.RoleUser || !strings.Contains(complaint.Content, "/pass") {
		t.Errorf("sent back %+v", second.Ask.Messages[own:])
	}
	if second.From != 1 || second.CallsMax != gateway.CallsMax-2 || second.Seed == first.Seed {
		t.Errorf("asked again from %d with %d calls left, seeds %s %s", second.From, second.CallsMax, first.Seed, second.Seed)
	}
}

func TestChatContractIsNeverMet(t *testing.T) {
	s, m := reviewer(t, `nonsense`)
	a := s.chatting(t, chatBody("agent/review/critic", "")).want(502)
	e := openAIErrorIn(t, a)
	if *e.Code != agent.ClassInvalidOutput || m.times() != 1+agent.AsksAgainMax || len(e.Fermata.Attempts) != 6 || a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("asked %d times: %s", m.times(), a.body)
	}
}

// When sending back is of no use, the next entry is asked afresh.
func TestChatAsksTheNextEntry(t *testing.T) {
	s, m := reviewer(t, "")
	m.answer = func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
		a := answering("nonsense")
		if a.Depth = r.From; a.Depth == 1 {
			a.Text = `{"pass":true}`
		}
		return a, nil
	}
	s.chatting(t, chatBody("agent/review/critic", "")).want(200)
	var from, messages []int
	for _, r := range m.asked {
		from, messages = append(from, r.From), append(messages, len(r.Ask.Messages))
	}
	if d := cmp.Diff([]int{0, 0, 0, 1}, from) + cmp.Diff([]int{2, 4, 6, 2}, messages); d != "" {
		t.Error(d)
	}
}

// An answer that was cut is not sent back.
func TestChatWithAgentIsCut(t *testing.T) {
	s, m := reviewer(t, "")
	m.answer = func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
		r.Stream(told(provider.Delta{Text: `{"pass":`}))
		return gateway.Answer{}, &gateway.FailedError{Class: "output_truncated", Message: "cut", Calls: answering("").Calls}
	}
	var got chatCompletion
	if s.chatting(t, chatBody("agent/review/critic", "")).want(200).json(&got); got.Choices[0].FinishReason != "length" || *got.Choices[0].Message.Content != `{"pass":` || m.times() != 1 {
		t.Errorf("asked %d times: %+v", m.times(), got)
	}
}

// What failed after some turns were paid tells of all calls.
func TestChatTurnFails(t *testing.T) {
	s, m := reviewer(t, `nonsense`)
	m.answer = func(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
		if m.times() > 1 {
			return gateway.Answer{}, &gateway.FailedError{Class: "server", Message: "broken", Calls: answering("").Calls[:1]}
		}
		return answering("nonsense"), nil
	}
	if e := openAIErrorIn(t, s.chatting(t, chatBody("agent/review/critic", "")).want(502)); len(e.Fermata.Attempts) != 3 {
		t.Errorf("got %+v", e.Fermata.Attempts)
	}
}

// Calls of the caller's tools and answers in free text are given as they are.
func TestChatWithAgentOfFreeText(t *testing.T) {
	s, m := reviewer(t, "some\ntext")
	var got chatCompletion
	if s.chatting(t, chatBody("agent/review/writer", `,"response_format":{"type":"json_object"}`)).want(200).json(&got); *got.Choices[0].Message.Content != "some\ntext" {
		t.Errorf("got %+v", got)
	}
	if !m.last(t).Ask.JSON {
		t.Error("what the agent leaves open the request may say")
	}
	m.answer = func(context.Context, gateway.Request) (gateway.Answer, error) {
		a := answering("")
		a.ToolCalls = []agent.ToolCall{{ID: "c", Name: "f"}}
		return a, nil
	}
	if s.chatting(t, chatBody("agent/review/critic", "")).want(200).json(&got); got.Choices[0].FinishReason != "tool_calls" {
		t.Errorf("got %+v", got)
	}
}

// The gate of a chain's entry is held to, where the answer can say how sure it is.
func TestChatGate(t *testing.T) {
	s, m := reviewer(t, `{"pass":true}`)
	s.chatting(t, chatBody("agent/review/critic", "")).want(200)
	r := m.last(t)
	gated, open := &r.Chain.Entries[0], &r.Chain.Entries[1]
	for text, want := range map[string]bool{
		`{"pass":true,"confidence":29}`: false, `{"pass":true,"confidence":30}`: true, `{"pass":true}`: true, `nonsense`: true,
	} {
		if got := r.Judge(gateway.Judged{Entry: gated, Reply: provider.Reply{Text: text}, Latency: time.Second}) == nil; got != want {
			t.Errorf("%s: accepted %v, want %v", text, got, want)
		}
		if r.Judge(gateway.Judged{Entry: open, Reply: provider.Reply{Text: text}, Latency: time.Second}) != nil {
			t.Errorf("%s: an entry without a gate refuses", text)
		}
	}
	s.chatting(t, chatBody("gpt-4o", "")).want(200)
	if m.last(t).Judge != nil {
		t.Error("a bare model has a judge")
	}
	s.chatting(t, chatBody("chain/production", `,"response_format":{"type":"json_object"}`)).want(200)
	r = m.last(t)
	if refused := r.Judge(gateway.Judged{Entry: &r.Chain.Entries[0], Reply: provider.Reply{Text: `{"x":1,"confidence":10}`}, Latency: time.Second}); refused == nil || refused.Confidence != 10 {
		t.Errorf("got %+v", refused)
	}
}

// In a stream what was told cannot be taken back: nothing is sent back, and no gate is asked.
func TestChatStreamOfAgent(t *testing.T) {
	s, m := reviewer(t, `nonsense`)
	got, _ := s.streaming(t, chatBody("agent/review/critic", `,"stream":true`))
	if r := m.last(t); m.times() != 1 || r.Judge != nil || !strings.Contains(got, `"content":"nonse"`) {
		t.Errorf("asked %d times: %s", m.times(), got)
	}
}
