package api

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// levelStore tells what of a run's budget is spent and set aside as its calls, and those of the runs inside, are made.
type levelStore interface {
	RunLevel(ctx context.Context, tenant, run uuid.UUID) (store.RunLevel, error)
}

// submittedBudget is the budget that a submission brings along; nil: none. It may set a limit and lower one. To let a
// caller believe that he had raised one would be worse than to refuse him.
func submittedBudget(body RunBudgetRequest, w *workflow.Workflow) (*workflow.Budget, error) {
	if body == (RunBudgetRequest{}) {
		return nil, nil
	}
	limits, err := limitsOf(body, "/budget")
	if err != nil {
		return nil, err
	}
	e := fault.New(fault.KindInvalid, "budget_above_workflow", "a submission may lower its workflow's budget, not raise it; a run under way can be given more by a resume")
	if w.Budget != nil && w.Budget.Cost > 0 && limits.Cost > w.Budget.Cost {
		e.Issues = append(e.Issues, fault.Issue{Pointer: "/budget/usd", Code: e.Code, Detail: "the workflow allows $" + w.Budget.Cost.String()})
	}
	if w.Budget != nil && w.Budget.Tokens > 0 && limits.Tokens > w.Budget.Tokens {
		e.Issues = append(e.Issues, fault.Issue{Pointer: "/budget/tokens", Code: e.Code, Detail: fmt.Sprintf("the workflow allows %d tokens", w.Budget.Tokens)})
	}
	if len(e.Issues) > 0 {
		return nil, e
	}
	return &workflow.Budget{Cost: limits.Cost, Tokens: limits.Tokens}, nil
}

// raiseOf is what a resume raises a run's budget to; nil: it stays.
func raiseOf(body RunBudgetRequest) (*flow.BudgetRaise, error) {
	if body == (RunBudgetRequest{}) {
		return nil, nil
	}
	limits, err := limitsOf(body, "/budget")
	if err != nil {
		return nil, err
	}
	return &flow.BudgetRaise{Cost: limits.Cost, Tokens: limits.Tokens}, nil
}

// standing is the budget of a bill as it stands now. Its row knows of calls before the log does: of a run that a step
// started, the log is told when that has ended.
func (b *costBill) standing(at store.RunLevel) RunBudget {
	if b.limits == nil {
		return RunBudget{}
	}
	out := runBudgetOf(*b.limits, b.total, b.warned)
	out.Spent = amountOf(max(b.total.Cost, at.Spent), max(b.total.Tokens.Total(), at.SpentTokens), true, true)
	return out
}

func runBudgetOf(b flow.RunBudget, spent usage.Sum, warned bool) RunBudget {
	return RunBudget{
		Limit: amountOf(b.Cost, b.Tokens, b.Cost > 0, b.Tokens > 0), Spent: amountOf(spent.Cost, spent.Tokens.Total(), true, true), Warned: warned,
	}
}
