package provider

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/agent"
)

// A simulated reviewer lets what it is shown pass, whatever the seed, so that workflows come to their end.
func TestSimulatedIsAnOptimist(t *testing.T) {
	ask := prompt(brief)
	ask.JSON, ask.Schema = true, json.RawMessage(`{"type":"object","properties":{
		"pass":{"type":"boolean"},"goal_met":{"type":"boolean"},"works_together_ok":{"type":"boolean"},"is_invalid":{"type":"boolean"},"failed":{"type":"boolean"},
		"decision":{"enum":["fail","accept","redo"]},"score":{"type":"number","minimum":0,"maximum":10},"open":{"type":"array","items":{"type":"string"}},
		"notes":{"type":"array","items":{"type":"string"}}}}`)
	below := false
	for seed := range 100 {
		var v struct {
			Pass     bool
			GoalMet  bool `json:"goal_met"`
			Together bool `json:"works_together_ok"`
			Invalid  bool `json:"is_invalid"`
			Failed   bool
			Decision string
			Score    float64
			Open     []string
			Notes    []string
		}
		if err := json.Unmarshal([]byte(answer(t, Call{Model: "gpt-4o", Ask: ask, MaxTokens: 4096, Seed: fmt.Sprint(seed)})), &v); err != nil {
			t.Fatal(err)
		}
		if !v.Pass || !v.GoalMet || !v.Together || v.Invalid || v.Failed || v.Decision != "accept" || v.Score < 7.5 || len(v.Open) > 0 || len(v.Notes) == 0 {
			t.Fatalf("seed %d: %+v", seed, v)
		}
		below = below || v.Score < 9
	}
	if !below {
		t.Error("no score is ever below 9: loops for a high one never go round")
	}
}

// Who is asked the same chooses the same, whichever model it is; who is asked something else may choose otherwise.
func TestSimulatedChoicesDependOnTheQuestion(t *testing.T) {
	choose := func(question, model, seed string) string {
		ask := prompt(question)
		ask.JSON, ask.Schema = true, json.RawMessage(`{"type":"object","properties":{"expert":{"enum":["react","database","security","performance"]}}}`)
		return answer(t, Call{Model: model, Ask: ask, MaxTokens: 100, Seed: seed})
	}
	seen := map[string]bool{}
	for i := range 20 {
		question := fmt.Sprintf("Question %d", i)
		first := choose(question, "gpt-4o", "a")
		if other := choose(question, "claude-sonnet-4-6", "b"); other != first {
			t.Errorf("%s: %s and %s", question, first, other)
		}
		seen[first] = true
	}
	if len(seen) < 3 {
		t.Errorf("twenty questions went to %v only", seen)
	}
}

// A text has about as many words as were asked for, but never more than its limit of tokens has room for.
func TestSimulatedLength(t *testing.T) {
	for _, c := range []struct {
		asked               string
		tokens, least, most int
	}{
		{"An episode of about 450 words on tides and moons.", 4096, 420, 451},
		{"In at most 60 words: why the sea breathes.", 4096, 40, 61},
		{"A 5000-word essay on tides.", 900, 250, 301},
		{"Explain the tides.", 4096, 80, 250},
	} {
		text := answer(t, Call{Model: "gpt-4o", Ask: prompt(c.asked), MaxTokens: c.tokens, Seed: "a"})
		if n := len(strings.Fields(text)); n < c.least || n > c.most {
			t.Errorf("%s: %d words, want %d to %d", c.asked, n, c.least, c.most)
		}
	}
}

// Who is shown an example of an answer gives it, about the goal, and marked where a gap was filled.
func TestSimulatedFollowsAnExample(t *testing.T) {
	ask := prompt(`Plan.

EXAMPLE of an answer
{"steps": [{"id": "facts", "agent": "researcher", "prompt": "Collect the facts about ..."}], "output": "${{ steps.facts.output }}"}

GOAL
tides`)
	ask.JSON, ask.Schema = true, json.RawMessage(`{"type":"object","properties":{"steps":{"type":"array","items":{"type":"object"}}}}`)
	const want = `{"output":"${{ steps.facts.output }}","steps":[{"agent":"researcher","id":"facts","prompt":"[simulated] Collect the facts about tides"}]}`
	if got := answer(t, Call{Model: "gpt-4o", Ask: ask, MaxTokens: 4096, Seed: "a"}); got != want {
		t.Errorf("got %s", got)
	}
}

// Who may hand out tasks hands one to each delegate, and answers when it was told what came of them.
func TestSimulatedHandsOutTasks(t *testing.T) {
	ask := prompt(brief)
	ask.Tools = []agent.Tool{{Name: "delegate", Parameters: json.RawMessage(`{"properties":{"agent":{"type":"string","enum":["explore","implement"]},"task":{"type":"string"}}}`)}}
	s := NewSimulated(SimulatedConfig{})
	r, err := s.Complete(t.Context(), Call{Model: "gpt-4o", Ask: ask, MaxTokens: 4096})
	if err != nil || len(r.ToolCalls) != 2 || r.FinishReason != "tool_calls" {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, to := range []string{"explore", "implement"} {
		var said struct{ Agent, Task string }
		if err := json.Unmarshal([]byte(r.ToolCalls[i].Arguments), &said); err != nil || said.Agent != to || !strings.HasPrefix(said.Task, SimulatedMark) {
			t.Errorf("%v: %s", err, r.ToolCalls[i].Arguments)
		}
	}
	ask.Messages = append(ask.Messages, agent.Message{Role: agent.RoleAssistant, ToolCalls: r.ToolCalls}, agent.Message{Role: agent.RoleTool, Content: "done"})
	if r, err := s.Complete(t.Context(), Call{Model: "gpt-4o", Ask: ask, MaxTokens: 4096}); err != nil || len(r.ToolCalls) > 0 || r.Text == "" {
		t.Errorf("%+v, %v", r, err)
	}
}
