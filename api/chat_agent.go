package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// agent fills in an agent of a published workflow, `<workflow>[@<version>]/<agent>`: its instructions stand before the
// messages of the request, its chain answers. What it leaves open the request may say.
func (c *chat) agent(k *call, ref string) error {
	at := max(strings.LastIndexByte(ref, '/'), 0)
	name := strings.TrimPrefix(ref[at:], "/")
	w, _, err := c.published(ref[:at])
	if err != nil {
		return err
	}
	a := w.Agents[name]
	if a == nil {
		missing := noModel("the workflow %s has no agent %q", w.Name, clip(name))
		fault.Of(missing).Issues[0].Suggest = fault.Nearest(name, slices.Collect(maps.Keys(w.Agents)))
		return missing
	}
	if len(a.Chain.Entries) == 0 && a.Route == "" {
		return noModel("the agent %s has no models of its own: its steps name them", a.Name)
	}
	r := &k.request
	r.Caller.Workflow, r.Caller.Agent = w.Name, a.Name
	r.Chain, r.Route, r.Baseline, r.ContextTokens, r.Overflow = a.Chain, a.Route, a.Baseline, a.ContextTokens, a.Overflow
	talk, opening := agent.Open(a, agent.Task{})
	k.talk, k.opening = &talk, len(opening.Messages)
	// The last message stands for those of the request.
	r.Ask.Messages = slices.Concat(opening.Messages[:k.opening-1], r.Ask.Messages)
	if opening.JSON {
		r.Ask.JSON, r.Ask.Schema = true, opening.Schema
	}
	if opening.Temperature != nil {
		r.Ask.Temperature = opening.Temperature
	}
	if most := opening.MaxTokens; most > 0 && (r.Ask.MaxTokens == 0 || most < r.Ask.MaxTokens) {
		r.Ask.MaxTokens = most
	}
	return nil
}

// converse asks until there is an answer that meets the contract; without one the first answer does. An answer that
// breaks it is sent back to who gave it; when that is of no use the next entry of the chain is asked afresh. One that was
// cut at its limit is given as it is, marked by its finish reason: sent back, it would be cut again.
func (c *chat) converse(ctx context.Context, k *call) (reply, error) {
	r := k.request
	r.Judge = judge(k)
	if k.talk == nil {
		return c.turn(ctx, r)
	}
	talk := *k.talk
	var calls []usage.Call
	var tokens usage.Tokens
	for turn := 0; ; turn++ {
		r.Seed, r.CallsMax = fmt.Sprintf("%s/%d", k.request.Seed, turn), gateway.CallsMax-len(calls)
		out, err := c.turn(ctx, r)
		if err != nil {
			return out, withCalls(calls, err)
		}
		calls, tokens = append(calls, out.calls...), tokens.Add(out.tokens)
		out.tokens = tokens
		out.account.pay(calls)
		if len(out.tools) > 0 || out.finish == finishLength {
			return out, nil
		}
		var step agent.Step
		switch talk, step = agent.Next(talk, out.text); s := step.(type) {
		case agent.Done:
			out.text = plain(s.Output)
			return out, nil
		case agent.Undecided: // whoever asked is the one to decide
			return out, nil
		case agent.Failed:
			next := out.account.Depth + 1
			if next >= len(r.Chain.Entries) {
				return out, outputFailed(s.Message, calls)
			}
			talk, r.Ask.Messages, r.From = *k.talk, k.request.Ask.Messages, next
		case agent.Ask:
			r.Ask.Messages, r.From = slices.Concat(k.request.Ask.Messages, s.Messages[k.opening:]), out.account.Depth
		}
		if len(calls) >= gateway.CallsMax {
			return out, outputFailed(fmt.Sprintf("no answer met the contract within %d calls", gateway.CallsMax), calls)
		}
	}
}

// turn makes one logical call. Its parts are gathered on the way: of an answer that was cut they are all there is.
func (c *chat) turn(ctx context.Context, r gateway.Request) (reply, error) {
	came := new(pieces)
	if !r.Chain.Hedge { // of two at once the parts would be mixed
		r.Stream, r.Restarts = came.add, true
	}
	answer, err := c.complete(ctx, r)
	if err == nil {
		out := replyOf(answer)
		out.reasoning = came.reasoning.String()
		return out, nil
	}
	if out, cut := cutOf(err, came); cut {
		return out, nil
	}
	return reply{}, callFailed(err)
}

// pay has the account hold all calls of a conversation.
func (acc *chatAccount) pay(calls []usage.Call) {
	all := accountOf(calls, acc.Rule, false)
	acc.Cost, acc.Baseline, acc.Unpriced, acc.Simulated, acc.Attempts = all.Cost, all.Baseline, all.Unpriced, all.Simulated, all.Attempts
}

// withCalls has an error list what was paid before it, too.
func withCalls(before []usage.Call, err error) error {
	var failed *modelError
	if errors.As(err, &failed) {
		failed.calls = slices.Concat(before, failed.calls)
	}
	return err
}

func outputFailed(message string, calls []usage.Call) error {
	ref := refuse(http.StatusBadGateway, agent.ClassInvalidOutput, "%s", message).with(headerShouldRetry, "false")
	return &modelError{refusal: ref, class: agent.ClassInvalidOutput, calls: calls}
}

// plain is an output as a text: a string's content, any other value as compact JSON.
func plain(output json.RawMessage) string {
	var s string
	switch {
	case len(output) == 0 || string(output) == "null":
		return ""
	case output[0] == '"' && json.Unmarshal(output, &s) == nil:
		return s
	}
	return string(output)
}

// judge holds answers against the accept of the chain's entries, or is nil where there are none. Only JSON says how sure
// it is.
func judge(k *call) func(gateway.Judged) *gateway.Rejection {
	gated := slices.ContainsFunc(k.request.Chain.Entries, func(e workflow.ChainEntry) bool { return e.Accept != nil })
	if !gated && k.request.Route == "" {
		return nil
	}
	talk := k.talk
	if talk == nil {
		opened, _ := agent.Open(&workflow.Agent{Output: workflow.Contract{JSON: k.request.Ask.JSON}}, agent.Task{})
		talk = &opened
	}
	return func(j gateway.Judged) *gateway.Rejection { return gateway.Accepts(*talk, j) }
}
