package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/usage"
)

// Budgets reserve what a call may cost before it is made and settle what it did cost. A call is made only under a
// reservation, where any budget applies to it: then no number of calls at once can pass a limit together.
type Budgets interface {
	// Applies reports whether any budget bounds such a call. It costs no round trip; where it is not known it is true.
	Applies(c Charge) bool
	// Reserve sets the amount aside in every budget that applies, or in none: then the error is a *BudgetError. Any
	// other error means that it is not known whether money is left, and the call must not be made. The zero Hold: no
	// budget applies, nothing was set aside.
	Reserve(ctx context.Context, c Charge) (Hold, error)
	// Settle replaces what was set aside by what was spent, and keeps the line in the ledger if the call belongs to no
	// run (a run's calls stand in its log). It does not block; what it was given is made durable soon, and by itself.
	Settle(s Settlement)
}

// Charge is what a call may cost at most.
type Charge struct {
	Caller   Caller
	Provider string
	Model    string      // as the provider calls it
	Known    string      // what the roster calls that model; empty: it is not in it
	Cost     usage.Money // 0: free, or its price is unknown
	Tokens   int64
	Unpriced bool // the price is unknown: refused where a hard budget in money applies
}

// Caller is who makes a logical call, as far as budgets, fairness and the ledger are concerned.
type Caller struct {
	Tenant   uuid.UUID
	Run      uuid.UUID // zero: none; the call came through the door for models
	Step     string    // with Gen and Attempt: whose call it is
	Gen      int16
	Attempt  int16
	Workflow string
	Agent    string
	Labels   map[string]string
	Mode     string     // interactive or batch
	Stakes   string     // low, normal or high
	Budget   *RunBudget // of the run; nil: none
	// Around are the budgets that count the call as the run's own does: of steps of it, then of what is around the run, the
	// nearest first.
	Around []RunBudget
}

// RunBudget is a limit that a run brings along: its own, that of a step with all inside it, or one of what started the run.
type RunBudget struct {
	ID     uuid.UUID   // of a run's: the run
	Run    uuid.UUID   // that it belongs to, or whose step it is of
	Step   string      // path of the step within Run; empty: it is the run's own
	Cost   usage.Money // 0: no limit in money
	Tokens int64       // 0: no limit in tokens
	// Spent is what the log holds. The budget begins with it if nothing was ever reserved under it.
	Spent       usage.Money
	SpentTokens int64
}

// Budgets are those that the caller's run brings along and that limit anything, the narrow ones first: of its steps, of the
// run, of what is around it.
func (c *Caller) Budgets() []RunBudget {
	if c.Run == uuid.Nil {
		return nil
	}
	var list []RunBudget
	add := func(b RunBudget) {
		if b.Cost > 0 || b.Tokens > 0 {
			list = append(list, b)
		}
	}
	steps := 0
	for ; steps < len(c.Around) && c.Around[steps].Run == c.Run; steps++ {
		add(c.Around[steps])
	}
	if c.Budget != nil {
		own := *c.Budget
		own.ID, own.Run = c.Run, c.Run
		add(own)
	}
	for _, b := range c.Around[steps:] {
		add(b)
	}
	return list
}

// Named is what the budget is called where it refuses a call of a run, and what it limits.
func (b *RunBudget) Named(run uuid.UUID) (name, scope string) {
	switch {
	case b.Step != "":
		return b.Step, "step"
	case b.Run == run:
		return "run", "run"
	default:
		return "run", "parent " + b.Run.String()
	}
}

// Hold is a reservation.
type Hold struct {
	ID     uuid.UUID
	Amount usage.Money
	Tokens int64
}

// Settlement ends a reservation.
type Settlement struct {
	Hold   Hold // zero: there was none
	Caller Caller
	Call   usage.Call // zero Try: no request was made; all of it is given back
}

// ClampMin is the shortest answer, in tokens, that a budget clamps a call to.
const ClampMin = 256

// OnHard says what becomes of a call that a budget has no money for.
type OnHard string

// What becomes of a call that a budget has no money for.
const (
	OnHardReject    OnHard = "reject"
	OnHardClamp     OnHard = "clamp"     // the answer is kept as short as what is left pays for, down to ClampMin tokens
	OnHardDowngrade OnHard = "downgrade" // the cheapest model that can do it and is paid for
	OnHardPause     OnHard = "pause"     // the run waits until the budget is raised or begins anew
)

// BudgetError refuses a call. Nothing was set aside.
type BudgetError struct {
	ID       uuid.UUID
	Budget   string // its name; "run" for a run's, the path for a step's
	Scope    string // what it limits: "tenant", "workflow qc_deliverable", "run", "step", "parent 0198…" (a run around), …
	OnHard   OnHard
	Unpriced bool // refused because what the model costs is not known

	Limit, Spent, Reserved, Need                         usage.Money
	LimitTokens, SpentTokens, ReservedTokens, NeedTokens int64
	InTokens                                             bool      // the limit in tokens refuses, not the one in money
	Resets                                               time.Time // zero: never by itself
}

// Left is what may still be set aside.
func (e *BudgetError) Left() usage.Money { return max(e.Limit-e.Spent-e.Reserved, 0) }

func (e *BudgetError) Error() string {
	name := fmt.Sprintf("budget %q (%s)", e.Budget, e.Scope)
	if e.Unpriced {
		return name + ": what this model costs is not known, so it cannot be kept to; give its price (prices in the configuration, or PUT /v1/prices)"
	}
	state := fmt.Sprintf("spent $%s + reserved $%s + this call's $%s are more than its $%s", e.Spent, e.Reserved, e.Need, e.Limit)
	if e.InTokens {
		state = fmt.Sprintf("%d tokens spent + %d reserved + this call's %d are more than its %d", e.SpentTokens, e.ReservedTokens, e.NeedTokens, e.LimitTokens)
	}
	if !e.Resets.IsZero() {
		state += "; it begins anew at " + e.Resets.UTC().Format(time.RFC3339)
	}
	return name + " is exhausted: " + state
}

// unlimited is what a gateway without budgets goes by.
type unlimited struct{}

func (unlimited) Applies(Charge) bool                           { return false }
func (unlimited) Reserve(context.Context, Charge) (Hold, error) { return Hold{}, nil }
func (unlimited) Settle(Settlement)                             {}
