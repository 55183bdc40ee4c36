package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// costLinesMax bounds the lines that are listed; sums are over all of them.
const costLinesMax = 10_000

// GetRunCost shows every request of a run to a model, and their sums.
func (a *API) GetRunCost(ctx context.Context, req GetRunCostRequestObject) (GetRunCostResponseObject, error) {
	row, err := a.runOf(ctx, exchangeOf(ctx).tenant, req.ID)
	if err != nil {
		return nil, err
	}
	w, err := a.stored(ctx, row.Tenant, row.Hash)
	if err != nil {
		return nil, err
	}
	bill := &costBill{w: w, lines: []CostLine{}}
	if err := a.readBill(ctx, row, bill); err != nil {
		return nil, err
	}
	out := RunCost{
		ID: formatRunID(row.ID), Workflow: row.Workflow, Status: RunStatus(row.Status), Simulated: bill.total.Simulated > 0,
		Totals: sumOf(bill.total), ByStep: bill.steps.wire(), ByAttempt: bill.attempts.wire(), ByModel: bill.models.wire(),
		Lines: bill.lines, LinesLeftOut: bill.leftOut,
	}
	level, err := a.levels.RunLevel(ctx, row.Tenant, row.ID)
	if err != nil {
		return nil, err
	}
	out.Budget = bill.standing(level)
	out.Reserved = amountOf(level.Reserved, level.ReservedTokens, level.Reserved > 0, level.ReservedTokens > 0)
	return GetRunCost200JSONResponse(out), nil
}

// readBill goes through the log once, without folding it: a bill must be had also where a run cannot be folded.
func (a *API) readBill(ctx context.Context, row store.RunRow, bill *costBill) error {
	for after := int32(0); ; {
		page, err := a.events.Events(ctx, row.Tenant, row.ID, after, logPageMax)
		if err != nil {
			return fmt.Errorf("read the bill of %s: %w", formatRunID(row.ID), err)
		}
		for _, e := range page {
			if err := bill.take(e); err != nil {
				return fmt.Errorf("read event %d of run %s: %w", e.Seq, row.ID, err)
			}
		}
		if len(page) < logPageMax {
			return nil
		}
		after = page[len(page)-1].Seq
	}
}

// costBill adds up the calls of a log.
type costBill struct {
	w       *workflow.Workflow
	limits  *flow.RunBudget // as the log says; nil: none
	warned  bool
	total   usage.Sum
	lines   []CostLine
	leftOut int

	steps, attempts, models sums
}

func (b *costBill) take(e flow.Event) error {
	switch e.Kind {
	case flow.KindRunSubmitted:
		var body flow.Submitted
		err := json.Unmarshal(e.Body, &body)
		b.limits = body.Budget
		return err
	case flow.KindRunBudgetRaised:
		var body flow.BudgetRaise
		err := json.Unmarshal(e.Body, &body)
		b.raise(body)
		return err
	case flow.KindBudgetWarned:
		b.warned = true
		return nil
	default:
	}
	if !billed[e.Kind] {
		return nil
	}
	var body struct {
		Calls []usage.Call      `json:"calls"`
		Child *flow.ChildResult `json:"child"`
	}
	if err := json.Unmarshal(e.Body, &body); err != nil {
		return err
	}
	for _, c := range body.Calls {
		b.add(e, c)
	}
	if e.Kind != flow.KindStepWaiting && body.Child != nil { // the lines are on its own bill
		b.sum(e, func(s *usage.Sum) { *s = s.Plus(body.Child.Sum) })
	}
	return nil
}

func (b *costBill) raise(body flow.BudgetRaise) {
	limits := flow.RunBudget{}
	if b.limits != nil {
		limits = *b.limits
	}
	if body.Cost != 0 {
		limits.Cost = body.Cost
	}
	if body.Tokens != 0 {
		limits.Tokens = body.Tokens
	}
	b.limits, b.warned = &limits, false
}

func (b *costBill) add(e flow.Event, c usage.Call) {
	agent := b.sum(e, func(s *usage.Sum) { s.Add(c) })
	b.models.of(CostSum{Provider: c.Provider, Model: c.Model}, c.Provider, c.Model).Add(c)
	if len(b.lines) == costLinesMax {
		b.leftOut++
		return
	}
	b.attempts.of(CostSum{Step: e.Step, Agent: agent, Gen: int(e.Gen), Attempt: int(e.Attempt)},
		e.Step, strconv.Itoa(int(e.Gen)), strconv.Itoa(int(e.Attempt))).Add(c)
	line := costLineOf(c)
	line.Seq, line.At, line.Step, line.Agent, line.Gen, line.Attempt = e.Seq, e.At.UTC(), e.Step, agent, int(e.Gen), int(e.Attempt)
	b.lines = append(b.lines, line)
}

// sum adds to the run, and to the step that an event is of; it says whose attempt that was.
func (b *costBill) sum(e flow.Event, add func(*usage.Sum)) (agent string) {
	agent = b.agentOf(e.Step)
	step := definitionPath(e.Step)
	add(&b.total)
	add(b.steps.of(CostSum{Step: step, Agent: agent}, step))
	return agent
}

func (b *costBill) agentOf(path flow.Path) string {
	if step := b.w.Step(definitionPath(path)); step != nil && step.Agent != nil {
		return step.Agent.Agent.Name
	}
	return ""
}

// sums are totals by some names, in the order in which they came up.
type sums struct {
	at   map[string]int
	what []CostSum
	sums []*usage.Sum
}

// of finds the sum of some names, or begins one.
func (s *sums) of(what CostSum, names ...string) *usage.Sum {
	key := strings.Join(names, "\x00")
	i, ok := s.at[key]
	if !ok {
		if s.at == nil {
			s.at = map[string]int{}
		}
		i = len(s.what)
		s.at[key] = i
		s.what, s.sums = append(s.what, what), append(s.sums, &usage.Sum{})
	}
	return s.sums[i]
}

func (s *sums) wire() []CostSum {
	list := make([]CostSum, len(s.what))
	for i, of := range s.what {
		list[i] = sumOf(*s.sums[i])
		list[i].Step, list[i].Agent, list[i].Gen, list[i].Attempt = of.Step, of.Agent, of.Gen, of.Attempt
		list[i].Provider, list[i].Model = of.Provider, of.Model
		list[i].Savings.Formula = "" // once is enough
	}
	return list
}

func sumOf(s usage.Sum) CostSum {
	return CostSum{
		Calls: s.Calls, SimulatedCalls: s.Simulated, Tokens: tokensOf(s.Tokens.Coarse()), Cost: costOf(s.Cost, s.Unpriced),
		Savings: savingsOf(s.Cost, s.Baseline, s.CacheSaved),
	}
}

func costLineOf(c usage.Call) CostLine {
	t := c.Tokens
	out := CostLine{
		Provider: c.Provider, Model: c.Model, Simulated: c.Simulated, Outcome: "ok", Message: c.Message, Depth: c.Depth, Try: c.Try,
		Ms: c.Millis, FirstTokenMs: c.FirstMillis, Tokens: tokensOf(t.Coarse()),
		TokensApart: TokensApart{CacheWrite1H: t.CacheWrite1h, AudioInput: t.AudioInput, AudioOutput: t.AudioOutput, ImageInput: t.ImageInput},
		Cost:        costOf(c.Cost, count(c.Unpriced)), Estimated: c.Estimated, Price: c.Price, Baseline: moneyOf(c.Baseline),
		Saved: moneyOf(c.Baseline - c.Cost), Subscription: c.Subscription, Rule: c.Rule, RequestID: c.RequestID, Hedged: c.Hedged,
	}
	if c.Class != "" {
		out.Outcome = c.Class
	}
	if c.CacheSaved != 0 {
		out.CacheSaved = moneyOf(c.CacheSaved)
	}
	if c.Hold != uuid.Nil {
		out.Reservation = c.Hold.String()
	}
	if r := c.Rates; r != nil {
		out.Rates = Rates{
			Input: rateOf(r.Input), CacheRead: rateOf(r.CacheRead), CacheWrite: rateOf(r.CacheWrite), CacheWrite1H: rateOf(r.CacheWrite1h),
			Output: rateOf(r.Output), Reasoning: rateOf(r.Reasoning),
		}
	}
	return out
}

// rateOf shows pico-dollars per token as dollars for a million tokens.
func rateOf(pico int64) string { return gateway.Rate(pico).String() }
