package flow

import (
	"encoding/json"
	"math"
	"slices"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// The bodies that belong to a run's budget.
type (
	// RunBudget is what a run may spend. It stands in the body of run_submitted.
	RunBudget struct {
		Cost       usage.Money         `json:"cost_nano,omitempty"` // 0: no limit in money
		Tokens     int64               `json:"tokens,omitempty"`    // of all types; 0: no limit in tokens
		WarnAt     float64             `json:"warn_at"`             // share of either at which budget_warned is recorded
		OnExceeded workflow.OnExceeded `json:"on_exceeded"`
	}
	// BudgetWarned is the body of budget_warned: what was spent, of which limits.
	BudgetWarned struct {
		Cost        usage.Money `json:"cost_nano"`
		LimitCost   usage.Money `json:"limit_cost_nano,omitempty"`
		Tokens      int64       `json:"tokens"`
		LimitTokens int64       `json:"limit_tokens,omitempty"`
	}
	// BudgetRaise is the body of a budget message, of run_budget_raised and of outer_budget_raised: the limits that hold
	// from now on. 0: as before. A message without either lets held attempts look again whether there is money. Runs that
	// steps have started are told as well.
	BudgetRaise struct {
		Budget uuid.UUID   `json:"budget,omitzero"` // of a run around; zero: the run's own
		Cost   usage.Money `json:"cost_nano,omitempty"`
		Tokens int64       `json:"tokens,omitempty"`
		Reason string      `json:"reason,omitempty"`
		Actor  string      `json:"actor,omitempty"`
	}
)

// budgetOf is what a submitted run may spend: what the submission says, key by key, else what the definition says. A
// submission may lower a limit and set one where there is none; it raises none.
func budgetOf(s Submission) *RunBudget {
	w := s.Workflow.Budget
	if w == nil && s.Budget == nil {
		return nil
	}
	b := RunBudget{WarnAt: workflow.WarnAtDefault, OnExceeded: workflow.OnExceededPause}
	for _, from := range []*workflow.Budget{w, s.Budget} {
		if from == nil {
			continue
		}
		b.Cost, b.Tokens = lower(b.Cost, from.Cost), lower(b.Tokens, from.Tokens)
		if from.WarnAt > 0 {
			b.WarnAt = from.WarnAt
		}
		if from.OnExceeded != "" {
			b.OnExceeded = from.OnExceeded
		}
	}
	return &b
}

// lower of two limits; 0 is none.
func lower[N int64 | usage.Money](a, b N) N {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// CanRaise says why a run that has not ended cannot be given these limits, as a *fault.Error, or nil.
func (r *Run) CanRaise(b BudgetRaise) error {
	if r.status.Ended() {
		return fault.New(fault.KindConflict, "run_terminal", "the run is %s: it spends nothing any more", r.status)
	}
	return r.CheckRaise(b)
}

// CheckRaise says why these limits would raise nothing, as a *fault.Error, or nil.
func (r *Run) CheckRaise(b BudgetRaise) error {
	var issues []fault.Issue
	issue := func(pointer, code, detail string) {
		issues = append(issues, fault.Issue{Pointer: pointer, Code: code, Detail: detail})
	}
	switch limit := r.limits(); {
	case b.Cost == 0:
	case limit.Cost == 0:
		issue("/budget/usd", "no_budget", "the run has no limit in money")
	case b.Cost <= limit.Cost:
		issue("/budget/usd", "not_raised", "the limit is $"+limit.Cost.String()+" already; name a higher one")
	}
	switch limit := r.limits(); {
	case b.Tokens == 0:
	case limit.Tokens == 0:
		issue("/budget/tokens", "no_budget", "the run has no limit in tokens")
	case b.Tokens <= limit.Tokens:
		issue("/budget/tokens", "not_raised", "the limit is as high already; name a higher one")
	}
	if len(issues) == 0 {
		return nil
	}
	e := fault.New(fault.KindInvalid, "budget_not_raised", "the budget cannot be raised to that")
	e.Issues = issues
	return e
}

func (r *Run) limits() RunBudget {
	if r.budget == nil {
		return RunBudget{}
	}
	return *r.budget
}

// toldBudget applies a budget message: what it raises, and that held attempts ask again at once.
func (r *Run) toldBudget(t Told) {
	var b BudgetRaise
	if len(t.Body) > 0 && json.Unmarshal(t.Body, &b) != nil || r.status.Ended() {
		return
	}
	if b.Budget == uuid.Nil {
		r.raise(b)
	} else {
		r.raiseOuter(b)
	}
	r.lookAgain(HeldBudget)
	r.tellChildren(b)
}

// tellChildren lets the runs that steps have started know of a limit that counts them too, or look again.
func (r *Run) tellChildren(b BudgetRaise) {
	if b.Budget == uuid.Nil && b.raises() {
		b.Budget = r.ID
	}
	for _, s := range r.waiting {
		if c := s.waits.Child; c != nil {
			r.tell(c.Run, ToldBudget, &b)
		}
	}
}

// raise records what of the limits is higher than before. Two who raise at once do not lower each other's.
func (r *Run) raise(b BudgetRaise) {
	if b = b.above(r.limits().Cost, r.limits().Tokens); b.raises() {
		r.emit(KindRunBudgetRaised, nil, &b)
	}
}

// above is what of it is higher than the limits there are.
func (b BudgetRaise) above(cost usage.Money, tokens int64) BudgetRaise {
	if cost == 0 || b.Cost <= cost {
		b.Cost = 0
	}
	if tokens == 0 || b.Tokens <= tokens {
		b.Tokens = 0
	}
	return b
}

func (b BudgetRaise) raises() bool { return b.Cost != 0 || b.Tokens != 0 }

// raiseOuter records what of the limits of a run around is higher than was known.
func (r *Run) raiseOuter(b BudgetRaise) {
	at := slices.IndexFunc(r.around, func(o Budget) bool { return o.ID == b.Budget })
	if at < 0 {
		return
	}
	if b = b.above(r.around[at].Cost, r.around[at].Tokens); b.raises() {
		r.emit(KindOuterRaised, nil, &b)
	}
}

func (r *Run) applyOuterRaised(e Event, b *BudgetRaise) {
	for i := range r.around {
		if o := &r.around[i]; o.ID == b.Budget {
			o.Cost, o.Tokens = max(o.Cost, b.Cost), max(o.Tokens, b.Tokens)
		}
	}
	r.askAgain(e)
}

// applyRaised sets the limits; what is held may ask again at once, and there is something new to be warned of.
func (r *Run) applyRaised(e Event, b *BudgetRaise) {
	limit := r.limits()
	if b.Cost != 0 {
		limit.Cost = b.Cost
	}
	if b.Tokens != 0 {
		limit.Tokens = b.Tokens
	}
	r.budget, r.warned = &limit, false
	r.askAgain(e)
}

// askAgain ends the waiting for money.
func (r *Run) askAgain(e Event) {
	for _, s := range r.retrying {
		if s.held == HeldBudget {
			s.retryAt = e.At
		}
	}
}

// warn records, once for each limit, that most of it is spent.
func (r *Run) warn() {
	b := r.budget
	if b == nil || r.warned || r.status.Ended() {
		return
	}
	tokens := r.sum.Tokens.Total()
	if passed(int64(r.sum.Cost), int64(b.Cost), b.WarnAt) || passed(tokens, b.Tokens, b.WarnAt) {
		r.emit(KindBudgetWarned, nil, &BudgetWarned{Cost: r.sum.Cost, LimitCost: b.Cost, Tokens: tokens, LimitTokens: b.Tokens})
	}
}

func passed(spent, limit int64, share float64) bool {
	return limit > 0 && float64(spent) >= share*float64(limit)
}

func (r *Run) charge(s *step, calls []usage.Call) {
	if len(calls) == 0 {
		return
	}
	agent := ""
	if a := s.worker(); a != nil {
		agent = a.Name
	}
	var sum usage.Sum
	for _, c := range calls {
		sum.Add(c)
		s.calls = append(s.calls, c)
		r.charged = append(r.charged, Charge{Agent: agent, Call: c})
	}
	r.spend(s, sum)
}

// spend counts a cost in the run, in the step and in all that is around it.
func (r *Run) spend(s *step, sum usage.Sum) {
	r.sum = r.sum.Plus(sum)
	for p := s; p != nil; p = p.around() {
		p.sum = p.sum.Plus(sum)
	}
}

// chargeChild counts what a run has cost that the step started: its lines of the bill are its own.
func (r *Run) chargeChild(s *step, c *ChildResult) {
	if c == nil {
		return
	}
	delete(r.owed, c.Run)
	r.spend(s, c.Sum)
}

// attemptBudget is the budget as it stands, for an attempt.
func (r *Run) attemptBudget() *Budget {
	if r.budget == nil {
		return nil
	}
	return &Budget{ID: r.ID, Run: r.ID, Cost: r.budget.Cost, Tokens: r.budget.Tokens, Spent: r.sum, OnExceeded: r.budget.OnExceeded}
}

// stepLimits are what a step may spend; 0: no limit in it.
type stepLimits struct {
	cost   usage.Money
	tokens int64
}

func (l stepLimits) none() bool { return l.cost == 0 && l.tokens == 0 }

// budgetsAround are the budgets that count what a step spends besides the run's own, the nearest first: of the steps that
// have one, and of what is around the run.
func (r *Run) budgetsAround(s *step) []Budget {
	return append(r.budgetsInside(s), r.budgetsOutside()...)
}

// budgetsFor are all that count what a run spends that the step starts, the nearest first.
func (r *Run) budgetsFor(s *step) []Budget {
	list := r.budgetsInside(s)
	if own := r.attemptBudget(); own != nil {
		list = append(list, *own)
	}
	return append(list, r.budgetsOutside()...)
}

func (r *Run) budgetsInside(s *step) (list []Budget) {
	for c := s; c != nil; c = c.around() {
		if c.def.Budget != nil {
			limit := r.limitOf(c)
			list = append(list, Budget{
				ID: uuid.NewSHA1(r.ID, []byte(c.path())), Run: r.ID, Name: c.path(), Cost: limit.cost, Tokens: limit.tokens, Spent: c.sum,
			})
		}
	}
	return list
}

// budgetsOutside are those around the run. At least what it has spent itself is spent there since it began.
func (r *Run) budgetsOutside() (list []Budget) {
	for _, b := range r.around {
		b.Spent = b.Spent.Plus(r.sum)
		list = append(list, b)
	}
	return list
}

// fixLimit keeps what a step may spend as it is when the step first starts.
func (r *Run) fixLimit(s *step) {
	if s.def.Budget != nil && s.limit == nil {
		limit := r.limitOf(s)
		s.limit = &limit
	}
}

// limitOf is what a step, and all inside it, may spend. A share is one of the nearest limit around it; where there is
// none, it is none.
func (r *Run) limitOf(s *step) stepLimits {
	b := s.def.Budget
	switch {
	case s.limit != nil:
		return *s.limit
	case b.Share == 0:
		return stepLimits{cost: b.Cost}
	}
	around := r.limitAround(s)
	return stepLimits{cost: usage.Money(part(int64(around.cost), b.Share)), tokens: part(around.tokens, b.Share)}
}

func (r *Run) limitAround(s *step) stepLimits {
	for c := s.around(); c != nil; c = c.around() {
		if c.def.Budget != nil {
			return r.limitOf(c)
		}
	}
	limit := stepLimits{r.limits().Cost, r.limits().Tokens}
	for i := 0; limit.none() && i < len(r.around); i++ {
		limit = stepLimits{r.around[i].Cost, r.around[i].Tokens}
	}
	return limit
}

// part of a limit: something is left of one, or it would be none.
func part(n int64, share float64) int64 {
	if n == 0 {
		return 0
	}
	return max(1, int64(math.Round(share*float64(n))))
}

// savings is what the run cost beside what it would have; nil where that is not known.
func (r *Run) savings() *Savings {
	if r.sum.Baseline == 0 {
		return nil
	}
	return &Savings{Baseline: r.sum.Baseline, Cost: r.sum.Cost, CacheSaved: r.sum.CacheSaved}
}
