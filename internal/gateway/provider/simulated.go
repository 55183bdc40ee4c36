package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// SimulatedMark stands in the text of every simulated answer that has room for it.
const SimulatedMark = "[simulated]"

// SimulatedConfig of a simulation. Zero values: named "simulated", answers at once, never fails.
type SimulatedConfig struct {
	Name          string
	Latency       time.Duration // of each call; the answer begins after half of it
	LatencyJitter time.Duration // up to so much more
	FailRate      float64       // share of the calls that end in a server error
	RateLimitRate float64       // share of the calls that are refused with a 429
	RequestsMax   int64         // a minute; what is more is refused with a 429; 0: no limit
	// Script answers in place of the simulation where a line of it fits; the first one that does.
	Script []ScriptLine
	// Respond answers in place of both where it gives anything but nil. It is given the context of the call.
	Respond func(context.Context, Call) *Scripted
}

// Simulated answers without a model: the same call with the same seed gets the same answer. It honours JSON Schemas
// and writes sentences out of the prompt's own words, about as many words as the prompt asks for, each answer marked as
// simulated. It is an optimist: a pass, a goal met, a decision to accept are given where they can be, scores are good,
// nothing stays open. A choice from a list depends on what was asked alone, not on the model, so that simulated judges
// agree. Where the choice of a tool is required it calls one; who may hand out tasks hands one to each delegate; who is
// shown an example of an answer gives that one, with its gaps filled in. Tokens are estimated from the texts, as they would
// be for the model of that name; long stable prompts are read from a simulated cache as the model's vendor would. A call
// that waits costs a timer and nothing else.
//
// Some model names have a way of their own: slow, flaky, fail, rate-limited, overloaded, timeout, truncated, refuse,
// prose (never JSON), fenced (JSON in a code fence with prose around it).
type Simulated struct {
	cfg   SimulatedConfig
	cache promptCache
	limit minuteLimit
}

// NewSimulated makes a simulation.
func NewSimulated(c SimulatedConfig) *Simulated {
	if c.Name == "" {
		c.Name = "simulated"
	}
	return &Simulated{cfg: c, limit: minuteLimit{max: c.RequestsMax}}
}

// Name is the provider's name in configuration, log and metrics.
func (s *Simulated) Name() string { return s.cfg.Name }

// manner is how a simulated model behaves.
type manner struct {
	latency  time.Duration // besides the configured one
	failRate float64
	fails    Class // every call
	hangs    bool  // until the caller gives up
	prose    bool
	fenced   bool
}

var manners = map[string]manner{
	"slow":         {latency: 10 * time.Second},
	"flaky":        {failRate: 0.5},
	"fail":         {fails: ClassServer},
	"rate-limited": {fails: ClassRateLimited},
	"overloaded":   {fails: ClassOverloaded},
	"timeout":      {hangs: true},
	"truncated":    {fails: ClassOutputTruncated},
	"refuse":       {fails: ClassContentPolicy},
	"prose":        {prose: true},
	"fenced":       {fenced: true},
}

// Complete answers one call.
func (s *Simulated) Complete(ctx context.Context, c Call) (Reply, error) {
	m := manners[c.Model]
	dice := draws(c)
	latency := s.cfg.Latency + m.latency
	if s.cfg.LatencyJitter > 0 {
		latency += time.Duration(dice.Int64N(int64(s.cfg.LatencyJitter)))
	}
	script := s.scripted(ctx, c)
	if script != nil {
		latency += script.Latency
		m.hangs = m.hangs || script.Hangs
	}
	fate := dice.Float64()
	limits, ok := s.limit.take(time.Now())
	if !ok {
		return Reply{}, &Error{
			Class: ClassRateLimited, Status: 429, Message: fmt.Sprintf("simulated: more than %d requests a minute", s.cfg.RequestsMax),
			RetryAfter: limits.Requests.Reset, Limits: limits,
		}
	}
	first := latency / 2
	if err := begin(ctx, c, first, m.hangs); err != nil {
		return Reply{}, err
	}
	reply, err := s.answer(c, m, dice, fate, script)
	if err == nil {
		err = speak(ctx, c, reply, latency-first)
	} else if wait(ctx, latency-first) != nil {
		err = brokenOff(ctx, c, "")
	}
	if err != nil {
		return Reply{}, err
	}
	reply.FirstToken, reply.Limits = first, limits
	return reply, nil
}

// answer makes the answer, or the failure, that a call will get.
func (s *Simulated) answer(c Call, m manner, dice *rand.Rand, fate float64, script *Scripted) (Reply, error) {
	switch {
	case script != nil && script.Class != "":
		e := failing(script.Class, c)
		if script.Text != "" {
			e.Message = script.Text
		}
		if script.Tokens != nil {
			e.Tokens = *script.Tokens
		}
		return Reply{}, e
	case script != nil && !script.Improvised:
		return s.reply(c, Reply{Text: script.Text, ToolCalls: script.calls(dice), RequestID: requestIDOf(dice)}, script.Tokens)
	}
	if err := s.fail(c, m, fate); err != nil {
		return Reply{}, err
	}
	if tool, ok := demanded(c.Ask); ok {
		return s.reply(c, Reply{ToolCalls: []agent.ToolCall{callTool(c, tool, dice)}, RequestID: requestIDOf(dice)}, nil)
	}
	if calls := handsOut(c, dice); len(calls) > 0 {
		return s.reply(c, Reply{ToolCalls: calls, RequestID: requestIDOf(dice)}, nil)
	}
	return s.reply(c, Reply{Text: simulate(c, dice, m), RequestID: requestIDOf(dice)}, nil)
}

func requestIDOf(dice *rand.Rand) string { return fmt.Sprintf("simulated-%016x", dice.Uint64()) }

// draws gives the randomness of a call: from what is asked and the seed, so that a replay is the same.
func draws(c Call) *rand.Rand {
	h := fnv.New64a()
	for _, m := range c.Ask.Messages {
		h.Write([]byte(m.Role))
		h.Write([]byte{0})
		h.Write([]byte(m.Content))
		h.Write([]byte{0})
	}
	h.Write([]byte(c.Model))
	asked := h.Sum64()
	h.Write([]byte(c.Seed))
	return rand.New(rand.NewPCG(asked, h.Sum64()))
}

// begin waits until the answer begins, or the call's own limit for that is over.
func begin(ctx context.Context, c Call, first time.Duration, never bool) error {
	late := c.FirstToken > 0 && (never || first > c.FirstToken)
	switch {
	case late:
		first = c.FirstToken
	case never:
		<-ctx.Done()
	}
	if wait(ctx, first) != nil {
		return brokenOff(ctx, c, "")
	}
	if late {
		return &Error{
			Class: ClassTimeout, Message: fmt.Sprintf("%v (%s), simulated", errFirstToken, c.FirstToken),
			Tokens: usage.Tokens{Input: CountAsk(c.Ask, c.Model)}, Estimated: true,
		}
	}
	return nil
}

// brokenOff is the end of a call that was given up after so much had been said.
func brokenOff(ctx context.Context, c Call, said string) *Error {
	return &Error{
		Class: givenUp(ctx), Message: "the simulated call was broken off", Begun: said != "",
		Tokens: usage.Tokens{Input: CountAsk(c.Ask, c.Model), Output: CountTokens(said, c.Model)}, Estimated: true,
	}
}

// partsMax is how many parts an answer is streamed in.
const partsMax = 32

// speak lets the answer come: at once where nobody listens, else in parts over the time that is left.
func speak(ctx context.Context, c Call, r Reply, d time.Duration) error {
	if c.Stream == nil {
		if wait(ctx, d) != nil {
			return brokenOff(ctx, c, "")
		}
		return nil
	}
	for i, call := range r.ToolCalls {
		c.Stream(Delta{ToolCalls: []ToolCallDelta{{Index: i, ID: call.ID, Name: call.Name, Arguments: call.Arguments}}})
	}
	list := partsOf(r.Text)
	for i, part := range list {
		c.Stream(Delta{Text: part})
		if wait(ctx, d/time.Duration(len(list))) != nil {
			return brokenOff(ctx, c, strings.Join(list[:i+1], ""))
		}
	}
	return nil
}

// partsOf cuts a text between words into at most partsMax parts.
func partsOf(text string) []string {
	words := strings.SplitAfter(text, " ")
	each := (len(words) + partsMax - 1) / partsMax
	var list []string
	for part := range slices.Chunk(words, each) {
		if part := strings.Join(part, ""); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// wait lets time pass by one timer.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func givenUp(ctx context.Context) Class {
	if ctx.Err() == context.DeadlineExceeded { //nolint:errorlint // Err gives one of two values
		return ClassTimeout
	}
	return ClassCancelled
}

// fail ends a call the way its model, or its draw, wants it.
func (s *Simulated) fail(c Call, m manner, fate float64) error {
	class := m.fails
	switch {
	case class != "":
	case fate < s.cfg.RateLimitRate:
		class = ClassRateLimited
	case fate < s.cfg.RateLimitRate+s.cfg.FailRate+m.failRate:
		class = ClassServer
	default:
		return nil
	}
	return failing(class, c)
}

// failing is a failure of a class as a server would report it.
func failing(class Class, c Call) *Error {
	e := &Error{Class: class, Message: "simulated: " + string(class)}
	switch class { //nolint:exhaustive // the others come without a status
	case ClassRateLimited:
		e.Status, e.RetryAfter = 429, time.Second
	case ClassOverloaded:
		e.Status = 529
	case ClassServer:
		e.Status = 500
	case ClassOutputTruncated, ClassContentPolicy:
		e.Tokens = usage.Tokens{Input: CountAsk(c.Ask, c.Model), Output: int64(c.MaxTokens)}
	}
	return e
}

// charsOfToken is about what a token of prose has.
const charsOfToken = 4

// reply counts an answer, unless its tokens are given, and cuts off one that is too long.
func (s *Simulated) reply(c Call, r Reply, given *usage.Tokens) (Reply, error) {
	r.FinishReason, r.Model = "stop", c.Model
	said := r.Text
	for _, call := range r.ToolCalls {
		r.FinishReason = "tool_calls"
		said += call.Name + call.Arguments
	}
	if given != nil {
		r.Tokens = *given
		return r, nil
	}
	r.Tokens = s.cache.input(c, time.Now())
	r.Tokens.Output = CountTokens(said, c.Model)
	if c.MaxTokens > 0 && r.Tokens.Output > int64(c.MaxTokens) {
		r.Tokens.Output = int64(c.MaxTokens)
		if c.Stream != nil && r.Text != "" { // as much as fits, as a real model would have said
			c.Stream(Delta{Text: string([]rune(r.Text)[:min(len([]rune(r.Text)), charsOfToken*c.MaxTokens)])})
		}
		return Reply{}, &Error{Class: ClassOutputTruncated, Begun: true, Message: "simulated: the answer reached its limit of tokens", Tokens: r.Tokens}
	}
	return r, nil
}

// simulate writes the answer.
func simulate(c Call, dice *rand.Rand, m manner) string {
	w := newWriter(c.Ask, dice)
	w.brief = c.MaxTokens > 0 && c.MaxTokens < briefBelow
	w.words = wordsOf(c.Ask, c.MaxTokens)
	if !c.Ask.JSON || m.prose {
		return w.body("")
	}
	if answer := afterExample(c.Ask, w); answer != "" {
		return answer
	}
	schema := c.Ask.Schema
	if len(schema) == 0 {
		schema = anyAnswer
		if len(c.Ask.Messages) > 0 && strings.Contains(c.Ask.Messages[0].Content, `"confidence"`) {
			schema = anySureAnswer
		}
	}
	answer := filled(schema, w, dice.Uint64())
	if m.fenced {
		return "Here is the answer:\n```json\n" + answer + "\n```\nLet me know if anything is missing."
	}
	return answer
}

// filled writes a value that meets a schema, marked as simulated where there is room.
func filled(schema json.RawMessage, w *writer, seed uint64) string {
	answer := fill(schema, w, seed)
	if !w.marked { // no text with room for the mark: put it on a short one
		w.markAll = true
		answer = fill(schema, w, seed)
	}
	return answer
}

// briefBelow is the token limit under which answers are kept short.
const briefBelow = 600

// What is answered where JSON is asked for without a schema.
var (
	anyAnswer     = []byte(`{"type":"object","properties":{"text":{"type":"string"}}}`)
	anySureAnswer = []byte(`{"type":"object","properties":{"text":{"type":"string"},"confidence":{"type":"number","minimum":0,"maximum":100},"unresolved":{"type":"array","items":{"type":"string"}}}}`)
)

// firstRequest is what the conversation is about: the first thing the user said.
func firstRequest(a agent.Ask) string {
	for _, m := range a.Messages {
		if m.Role == agent.RoleUser {
			return m.Content
		}
	}
	return ""
}
