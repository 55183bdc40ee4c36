package preview

import (
	"fmt"
	"math"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// What a conversation adds to what is asked, in tokens.
const (
	wrapTokens   = 11    // around the messages of a call
	formatBytes  = 160   // "Answer with one JSON value …"
	flagBytes    = 400   // confidence and unresolved are asked for
	flagTokens   = 200   // and given
	issuesTokens = 1_600 // what a gate or a delegate answers with
	judgedTokens = 400   // a score with its issues

	answerTokensDefault = 4_096 // where nothing is known of the model
)

// How long a model takes to begin an answer, in seconds, and how fast it writes where that is not known.
const (
	firstTokenLow     = 0.3
	firstTokenHigh    = 5.0
	tokensPerSDefault = 50.0
)

// work is what one attempt of something uses and how long it takes.
type work struct {
	amount  Amount
	seconds Seconds
}

func (w work) then(v work) work {
	return work{w.amount.plus(v.amount), Seconds{w.seconds.Low + v.seconds.Low, w.seconds.High + v.seconds.High}}
}

func (w work) either(v work) work {
	return work{w.amount.either(v.amount), w.seconds.either(v.seconds)}
}

func (w work) maybe() work { return w.either(work{}) }

// desk estimates what agents do.
type desk struct {
	*reader
	unpriced map[string]bool // models that are asked at the step at hand and have no price
	tasks    map[task]work   // of delegates at the step at hand: many may hand out the same
}

// task is what a delegate is asked.
type task struct {
	agent *workflow.Agent
	asked Span
}

// answer are the tokens of an answer of an agent. One that meets a schema may carry more than it asks for.
func (d *desk) answer(a *workflow.Agent) Span {
	answer := d.answered(a).tokens
	if a.Output.Schema != nil {
		answer.High = min(plus(answer.High, flagTokens), d.answerMax(a))
	}
	return answer
}

// told are the tokens of what an agent is told in each call, before it is asked anything.
func told(a *workflow.Agent) Span {
	bytes := exactly(len(a.Instructions))
	if a.Output.JSON || a.Output.Schema != nil {
		bytes = bytes.plus(exactly(formatBytes))
	}
	if a.Output.Schema != nil { // as text, and beside it for models that keep to it by themselves
		n := int64(len(a.Output.Schema.Raw))
		bytes = bytes.plus(Span{n, 2 * n})
	}
	if a.Role == "grinder" || a.Role == "validator" {
		bytes = bytes.plus(Span{0, flagBytes})
	}
	return textTokens(bytes).plus(exactly(wrapTokens))
}

// call is one answered call: at least by the first model of the chain, at most by the dearest. Input is all that is sent.
func (d *desk) call(a *workflow.Agent, input, answer Span) work {
	var w work
	w.amount.Calls = Span{1, 1}
	window := int64(0)
	for i, e := range a.Chain.Entries {
		f := d.model(e.Model)
		if !f.Priced {
			d.unpriced[e.Model] = true
		}
		window = max(window, f.ContextTokens)
		speed := f.TokensPerS
		if speed == 0 {
			speed = tokensPerSDefault
		}
		took := Seconds{firstTokenLow + float64(answer.Low)/speed, firstTokenHigh + float64(answer.High)/speed}
		bound := input.atMost(d.window(a, f.ContextTokens))
		cost := Cost{price(f, bound.Low, answer.Low), price(f, bound.High, answer.High)}
		if i == 0 {
			w.seconds, w.amount.Cost = took, cost
			continue
		}
		w.seconds.High = max(w.seconds.High, took.High)
		w.amount.Cost.High = max(w.amount.Cost.High, cost.High)
	}
	if len(a.Chain.Entries) == 0 { // its route chooses when it is called
		d.unpriced["route "+a.Route] = true
		d.assume(a.Name, "the models of the route "+a.Route+" are chosen when it is called; what they cost is not counted")
		w.seconds = Seconds{firstTokenLow, firstTokenHigh + float64(answer.High)/tokensPerSDefault}
	}
	w.amount.Input, w.amount.Output = input.atMost(d.window(a, window)), answer
	return w
}

// window is how long a prompt may be.
func (d *desk) window(a *workflow.Agent, model int64) int64 {
	switch {
	case model == 0 && a.ContextTokens == 0:
		return math.MaxInt64
	case model == 0:
		return a.ContextTokens
	case a.ContextTokens == 0:
		return model
	}
	return min(model, a.ContextTokens)
}

// price is what tokens cost. What is not priced is told apart: see desk.unpriced.
func price(f workflow.ModelFacts, input, output int64) usage.Money {
	cost := float64(input)*f.Input + float64(output)*f.Output
	return usage.Money(min(math.Ceil(cost), math.MaxInt64/2))
}

// talk is a conversation of an agent that is asked something: at least one call; at most all turns with delegates and all
// revisions. Each call is sent what was said before.
func (d *desk) talk(a *workflow.Agent, asked Span, revise int) work {
	input, answer := told(a).plus(asked), d.answer(a)
	w := d.call(a, input, answer)
	turns := 0
	if len(a.Delegates) > 0 {
		turns = a.MaxTurns
	}
	for k := range int64(turns + revise) {
		grown := input.plus(Span{0, product(k+1, answer.High+issuesTokens)})
		w = w.then(d.call(a, grown, answer).maybe())
	}
	if turns > 0 {
		w = w.then(d.delegated(a, turns))
	}
	if a.Summary != nil {
		w = w.then(d.summarized(a, answer).maybe())
	}
	return w
}

// delegated is what the delegates of an agent do: nothing, or in each turn one task, by the dearest of them.
func (d *desk) delegated(a *workflow.Agent, turns int) work {
	d.assume(a.Name, fmt.Sprintf("at most %d turns; one task for a delegate in each is assumed", turns))
	var dearest work
	for _, to := range a.Delegates {
		t := task{to, d.answer(a).maybe()}
		w, known := d.tasks[t]
		if !known {
			w = d.talk(to, t.asked, 0)
			d.tasks[t] = w
		}
		dearest = dearest.either(w)
	}
	var w work
	for range turns {
		w = w.then(dearest)
	}
	return w
}

// summarized is a short form of an answer.
func (d *desk) summarized(a *workflow.Agent, answer Span) work {
	by := &workflow.Agent{Chain: a.Chain, Route: a.Route, MaxTokens: a.Summary.MaxTokens}
	if a.Summary.Model != "" {
		by = &workflow.Agent{Chain: workflow.Chain{Entries: []workflow.ChainEntry{{Model: a.Summary.Model}}}, MaxTokens: a.Summary.MaxTokens}
	}
	return d.call(by, answer.plus(Span{wrapTokens, 2 * wrapTokens * tokenBytesHigh}), Span{1, max(1, int64(a.Summary.MaxTokens))})
}

// judged is what the judges of a gate do with an answer: once, and after each revision.
func (d *desk) judged(g *workflow.Gate, asked, answer Span) work {
	var once work
	for _, c := range g.Checks {
		if c.Judge == nil {
			continue
		}
		rubric := 0
		for _, line := range c.Rubric {
			rubric += len(line.Name) + len(line.Text)
		}
		seen := answer.plus(asked.maybe()).plus(textTokens(exactly(rubric)))
		once = once.then(d.call(c.Judge, told(c.Judge).plus(seen), Span{1, min(judgedTokens, d.answerMax(c.Judge))}))
	}
	w := once
	for range g.Revise {
		w = w.then(once.maybe())
	}
	return w
}

// gateOf is the gate that the work of an agent at a step must pass; nil: none.
func gateOf(s *workflow.Step, a *workflow.Agent) *workflow.Gate {
	if s.Gate != nil {
		return s.Gate
	}
	return a.Gate
}

// worked is one agent at a step, with its gate.
func (d *desk) worked(s *workflow.Step, a *workflow.Agent, asked Span) work {
	g := gateOf(s, a)
	if g == nil {
		w := d.talk(a, asked, 0)
		w.amount.CallsMax = callsMax(s, a, nil)
		return w
	}
	w := d.talk(a, asked, g.Revise).then(d.judged(g, asked, d.answer(a)))
	w.amount.CallsMax = callsMax(s, a, g)
	return w
}

// atWork is an agent step, whoever works at it.
func (d *desk) atWork(s *workflow.Step, a *workflow.AgentStep, more Span) work {
	asked := d.template(a.Prompt, s.Body).tokens.plus(d.template(a.Input, s.Body).tokens).plus(more)
	if a.By == nil {
		return d.worked(s, &a.Agent, asked)
	}
	var w work
	for i, name := range sortedKeys(a.Choices) {
		one := d.worked(s, a.Choices[name], asked)
		if i == 0 {
			w = one
		} else {
			w = w.either(one)
		}
	}
	return w
}

// callsMax counts the calls of a step at worst. The repeated ones of an agent (chain, asking again, revising, retrying)
// stop at workflow.AttemptsMax; turns, judges and delegates come besides.
func callsMax(s *workflow.Step, a *workflow.Agent, g *workflow.Gate) int64 {
	attempts, rounds := int64(max(s.Retry.MaxAttempts, 1)), int64(1)
	if g != nil {
		rounds = int64(1 + g.Revise)
	}
	n := repeated(a, attempts*rounds)
	if g != nil {
		for _, c := range g.Checks {
			if c.Judge != nil {
				n += repeated(c.Judge, attempts*rounds)
			}
		}
	}
	return n + summaries(a) + handled(s, a) + attempts*delegatedMax(a)
}

// delegatedMax is how many calls an attempt makes for its tasks at worst, with the answers that hand them out.
func delegatedMax(a *workflow.Agent) int64 {
	if len(a.Delegates) == 0 {
		return 0
	}
	most := int64(0)
	for _, to := range a.Delegates {
		calls := repeated(to, 1) + summaries(to)
		if len(to.Delegates) > 0 {
			calls = workflow.DelegateCallsMax
		}
		most = max(most, calls)
	}
	turns := int64(a.MaxTurns)
	return turns + min(turns*workflow.DelegateTasksMax*most, workflow.DelegateCallsMax)
}

// repeated is how often one agent is asked the same at worst.
func repeated(a *workflow.Agent, times int64) int64 {
	n := int64(0)
	for _, e := range a.Chain.Entries {
		n += int64(1 + e.Retries)
		if a.Chain.LongerOnce {
			n++
		}
	}
	if n == 0 { // its route chooses
		n = workflow.AttemptsMax
	}
	return min(n*(1+workflow.AsksAgainMax)*times, workflow.AttemptsMax)
}

func summaries(a *workflow.Agent) int64 {
	if a.Summary == nil {
		return 0
	}
	return 1
}

// handled is what is asked after a failure, at worst: who does it instead, or who decides and then the agent again.
func handled(s *workflow.Step, a *workflow.Agent) int64 {
	most := int64(0)
	for _, h := range s.OnError {
		n := int64(0)
		switch {
		case h.Do == workflow.ActionFallback && h.Agent != nil:
			n = repeated(h.Agent, 1)
		case h.Do == workflow.ActionFallback && h.Chain != nil:
			n = repeated(&workflow.Agent{Chain: *h.Chain}, 1)
		case h.Do == workflow.ActionEscalate && h.To != nil:
			n = repeated(h.To, 1) + repeated(a, 1)
		}
		most = max(most, n)
	}
	return most
}
