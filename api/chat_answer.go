package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// The reasons that an answer ends for.
const (
	finishStop      = "stop"
	finishLength    = "length"
	finishToolCalls = "tool_calls"
)

// chatCompletion is a whole answer, in OpenAI's shape.
type chatCompletion struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Choices []chatChoice `json:"choices"`
	Usage   chatUsage    `json:"usage"`
	Fermata chatAccount  `json:"fermata"`
}

type chatChoice struct {
	Index        int        `json:"index"`
	Message      chatAnswer `json:"message"`
	Logprobs     *struct{}  `json:"logprobs"`
	FinishReason string     `json:"finish_reason"`
}

type chatAnswer struct {
	Role      string         `json:"role"`
	Content   *string        `json:"content"` // null beside tool calls without a text
	Refusal   *string        `json:"refusal"`
	Reasoning string         `json:"reasoning_content,omitempty"`
	ToolCalls []chatToolCall `json:"tool_calls,omitempty"`
}

// chatUsage counts as OpenAI does: what was cached is part of the prompt, what was thought part of the completion.
type chatUsage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Total      int64 `json:"total_tokens"`
	PromptOf   struct {
		Cached int64 `json:"cached_tokens"`
		Audio  int64 `json:"audio_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionOf struct {
		Reasoning int64 `json:"reasoning_tokens"`
		Audio     int64 `json:"audio_tokens"`
	} `json:"completion_tokens_details"`
}

func chatUsageOf(t usage.Tokens) chatUsage {
	u := chatUsage{Prompt: t.InputTotal(), Completion: t.OutputTotal(), Total: t.Total()}
	u.PromptOf.Cached, u.PromptOf.Audio = t.CacheRead, t.AudioInput
	u.CompletionOf.Reasoning, u.CompletionOf.Audio = t.Reasoning, t.AudioOutput
	return u
}

// chatAccount is what OpenAI's shape has no place for: who answered, and what it cost.
type chatAccount struct {
	Model     string `json:"model,omitempty"`
	Provider  string `json:"provider,omitempty"`
	Run       RunID  `json:"run,omitempty"`
	Depth     int    `json:"depth"`
	Attempt   int    `json:"attempt,omitempty"`
	Degraded  bool   `json:"degraded"`
	Simulated bool   `json:"simulated"`
	Cost      string `json:"cost_usd"`
	Baseline  string `json:"baseline_usd,omitempty"`
	Unpriced  int    `json:"unpriced_calls,omitempty"`
	Rule      string `json:"rule,omitempty"`
	Attempts  []Call `json:"attempts,omitempty"`
}

// reply is what a chat comes to.
type reply struct {
	model     string // as it names itself
	text      string
	reasoning string
	tools     []agent.ToolCall
	finish    string
	tokens    usage.Tokens // of what answered; the account has all
	calls     []usage.Call
	account   chatAccount
}

// accountOf works out what calls came to. The last one is what answered.
func accountOf(calls []usage.Call, rule string, belowGate bool) chatAccount {
	acc := chatAccount{Rule: rule}
	var sum usage.Sum
	for _, c := range calls {
		sum.Add(c)
		acc.Attempts = append(acc.Attempts, callOf(c))
	}
	acc.Cost, acc.Baseline, acc.Unpriced, acc.Simulated = sum.Cost.String(), sum.Baseline.String(), sum.Unpriced, sum.Simulated > 0
	if n := len(calls); n > 0 {
		last := calls[n-1]
		acc.Model, acc.Provider, acc.Depth, acc.Attempt = last.Model, last.Provider, last.Depth, last.Try
	}
	acc.Degraded = acc.Depth > 0 || belowGate
	return acc
}

func replyOf(a gateway.Answer) reply {
	out := reply{model: a.Model, text: a.Text, tools: a.ToolCalls, finish: finishStop, tokens: a.Tokens, calls: a.Calls, account: accountOf(a.Calls, a.Rule, a.BelowGate)}
	out.account.Model, out.account.Provider, out.account.Depth, out.account.Attempt = a.Asked, a.Provider, a.Depth, a.Try
	out.account.Degraded = a.Depth > 0 || a.BelowGate
	if out.model == "" {
		out.model = a.Asked
	}
	if len(a.ToolCalls) > 0 {
		out.finish = finishToolCalls
	}
	return out
}

// cutOf is the reply of a model that reached the limit of its answer: for OpenAI's clients that is one, with all that
// came. False: it failed for another reason.
func cutOf(err error, came *pieces) (reply, bool) {
	var failed *gateway.FailedError
	if !errors.As(err, &failed) || failed.Class != string(provider.ClassOutputTruncated) || len(failed.Calls) == 0 {
		return reply{}, false
	}
	last := failed.Calls[len(failed.Calls)-1]
	return reply{
		model: last.Model, text: came.text.String(), reasoning: came.reasoning.String(), tools: came.tools, finish: finishLength,
		tokens: last.Tokens, calls: failed.Calls, account: accountOf(failed.Calls, failed.Rule, false),
	}, true
}

// pieces gathers an answer as it comes.
type pieces struct {
	text, reasoning strings.Builder
	tools           []agent.ToolCall
}

func (p *pieces) add(d gateway.Delta) {
	if d.Restart {
		*p = pieces{}
	}
	p.text.WriteString(d.Text)
	p.reasoning.WriteString(d.Reasoning)
	for _, t := range d.ToolCalls {
		for len(p.tools) <= t.Index && t.Index < toolsMax {
			p.tools = append(p.tools, agent.ToolCall{})
		}
		if t.Index < 0 || t.Index >= len(p.tools) {
			continue
		}
		of := &p.tools[t.Index]
		of.ID, of.Name, of.Arguments = of.ID+t.ID, of.Name+t.Name, of.Arguments+t.Arguments
	}
}

// whole answers at once.
func (c *chat) whole(k *call) error {
	allow(c.w, chatTimeMax)
	ctx, cancel := context.WithTimeout(c.r.Context(), chatTimeMax)
	defer cancel()
	out, err := c.converse(ctx, k)
	if err != nil {
		return err
	}
	c.write(out)
	return nil
}

// write writes a whole answer.
func (c *chat) write(out reply) {
	message := chatAnswer{Role: agent.RoleAssistant, Content: &out.text, Reasoning: out.reasoning}
	for _, t := range out.tools {
		message.ToolCalls = append(message.ToolCalls, toolCallOf(t))
	}
	if out.text == "" && len(out.tools) > 0 {
		message.Content = nil
	}
	body := encode(chatCompletion{
		ID: c.id, Object: "chat.completion", Created: c.from.Unix(), Model: out.model,
		Choices: []chatChoice{{Message: message, FinishReason: out.finish}},
		Usage:   chatUsageOf(out.tokens), Fermata: out.account,
	})
	h := c.w.Header()
	out.account.head(h)
	if !slices.ContainsFunc(out.calls, func(c usage.Call) bool { return c.Unpriced }) {
		h.Set(headerCost, out.account.Cost)
	}
	h.Set("Content-Type", mediaJSON)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = c.w.Write(body) // a caller who left cannot be told so
}

// head says in headers who answered.
func (acc *chatAccount) head(h http.Header) {
	if acc.Model != "" {
		h.Set(headerModel, modelName(acc.Provider, acc.Model))
		h.Set(headerDepth, strconv.Itoa(acc.Depth))
	}
	if acc.Simulated {
		h.Set(headerSim, "true")
	}
}

func toolCallOf(t agent.ToolCall) chatToolCall {
	out := chatToolCall{ID: t.ID, Type: toolTypeFunction}
	out.Function.Name, out.Function.Arguments = t.Name, t.Arguments
	return out
}
