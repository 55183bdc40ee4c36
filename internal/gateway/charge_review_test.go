package gateway

import (
	"context"
	"slices"
	"testing"

	"github.com/fermata-run/fermata/internal/workflow"
)

// charges notes what is asked for, and bounds nothing.
type charges struct {
	unlimited
	seen []Charge
}

func (c *charges) Applies(Charge) bool { return true }

func (c *charges) Reserve(_ context.Context, charge Charge) (Hold, error) {
	c.seen = append(c.seen, charge)
	return Hold{}, nil
}

// A model is charged under the name that budgets know it by, whatever name it is asked for by.
func TestModelIsChargedByItsName(t *testing.T) {
	for _, model := range []string{"claude-sonnet-4-6", "claude-sonnet-4-6-20260217", "p/anthropic/claude-sonnet-4-6"} {
		budgets := &charges{}
		p := &scripted{name: "p", scripts: map[string][]string{model: {"ok"}, "anthropic/claude-sonnet-4-6": {"ok"}}}
		g := newGateway(t, Config{Providers: []Provider{{Provider: p}}, Budgets: budgets})
		if _, err := g.Complete(t.Context(), Request{Ask: question(), Chain: chain(workflow.ChainEntry{Model: model})}); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(budgets.seen, func(c Charge) bool { return c.Known == "claude-sonnet-4-6" }) {
			t.Errorf("%s is charged as %+v", model, budgets.seen)
		}
	}
}
