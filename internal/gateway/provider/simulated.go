package provider

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
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
	Latency       time.Duration // of each call
	LatencyJitter time.Duration // up to so much more
	FailRate      float64       // share of the calls that end in a server error
	RateLimitRate float64       // share of the calls that are refused with a 429
	// Script answers in place of the simulation where it gives anything but nil: for tests and demonstrations.
	Script func(Call) *Scripted
}

// Scripted is one scripted answer.
type Scripted struct {
	Latency time.Duration
	Text    string
	Error   *Error // instead of Text
}

// Simulated answers without a model: the same call with the same seed gets the same answer. It honours JSON Schemas
// and writes sentences out of the prompt's own words, each answer marked as simulated. Tokens are counted from the text
// (one for four characters). A call that waits costs a timer and nothing else.
//
// Some model names have a way of their own: slow, flaky, fail, rate-limited, overloaded, timeout, truncated, refuse,
// prose (never JSON), fenced (JSON in a code fence with prose around it).
type Simulated struct{ cfg SimulatedConfig }

// NewSimulated makes a simulation.
func NewSimulated(c SimulatedConfig) *Simulated {
	if c.Name == "" {
		c.Name = "simulated"
	}
	return &Simulated{c}
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
	var script *Scripted
	if s.cfg.Script != nil {
		if script = s.cfg.Script(c); script != nil {
			latency += script.Latency
		}
	}
	fate := dice.Float64()
	if err := wait(ctx, latency, m.hangs); err != nil {
		return Reply{}, &Error{
			Class: givenUp(ctx), Message: "the simulated call was broken off",
			Tokens: usage.Tokens{Input: CountAsk(c.Ask)}, Estimated: true,
		}
	}
	switch {
	case script != nil && script.Error != nil:
		return Reply{}, script.Error
	case script != nil:
		return s.reply(c, script.Text)
	}
	if err := s.fail(c, m, fate); err != nil {
		return Reply{}, err
	}
	return s.reply(c, simulate(c, dice, m))
}

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

// wait lets time pass by one timer.
func wait(ctx context.Context, d time.Duration, forever bool) error {
	if forever {
		<-ctx.Done()
		return ctx.Err()
	}
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
	e := &Error{Class: class, Message: "simulated: " + string(class)}
	switch class { //nolint:exhaustive // only the classes of the manners
	case ClassRateLimited:
		e.Status, e.RetryAfter = 429, time.Second
	case ClassOverloaded:
		e.Status = 529
	case ClassServer:
		e.Status = 500
	case ClassOutputTruncated, ClassContentPolicy:
		e.Tokens = usage.Tokens{Input: CountAsk(c.Ask), Output: int64(c.MaxTokens)}
	}
	return e
}

func (s *Simulated) reply(c Call, text string) (Reply, error) {
	t := usage.Tokens{Input: CountAsk(c.Ask), Output: CountTokens(text)}
	if c.MaxTokens > 0 && t.Output > int64(c.MaxTokens) {
		t.Output = int64(c.MaxTokens)
		return Reply{}, &Error{Class: ClassOutputTruncated, Message: "simulated: the answer reached its limit of tokens", Tokens: t}
	}
	return Reply{Text: text, FinishReason: "stop", Model: c.Model, Tokens: t}, nil
}

// simulate writes the answer.
func simulate(c Call, dice *rand.Rand, m manner) string {
	w := newWriter(c.Ask, dice)
	w.brief = c.MaxTokens > 0 && c.MaxTokens < briefBelow
	if !c.Ask.JSON || m.prose {
		return w.body("")
	}
	schema := c.Ask.Schema
	if len(schema) == 0 {
		schema = anyAnswer
		if len(c.Ask.Messages) > 0 && strings.Contains(c.Ask.Messages[0].Content, `"confidence"`) {
			schema = anySureAnswer
		}
	}
	seed := dice.Uint64()
	answer := fill(schema, w, seed)
	if !w.marked { // no text with room for the mark: put it on a short one
		w.markAll = true
		answer = fill(schema, w, seed)
	}
	if m.fenced {
		return "Here is the answer:\n```json\n" + answer + "\n```\nLet me know if anything is missing."
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
