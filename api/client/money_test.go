package client

import (
	"errors"
	"io"
	"net/http"
	"testing"
)

// Each call goes to its operation, with what belongs into it; what is refused comes back as a *Problem.
func TestMoneyCalls(t *testing.T) {
	var seen string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Method + " " + r.URL.RequestURI()
		body, _ := io.ReadAll(r.Body)
		if len(body) > 0 {
			seen += " " + string(body)
		}
		switch {
		case r.URL.Query().Get("model") == "none":
			answer(w, http.StatusNotFound, Problem{Status: 404, Code: "price_not_found", Detail: "none"})
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case r.Header.Get("Accept") == "text/csv":
			w.Header().Set("Content-Type", "text/csv")
			_, _ = io.WriteString(w, "model,calls\n")
		default:
			answer(w, http.StatusOK, struct{}{})
		}
	})
	ctx := t.Context()
	groups := []string{"workflow", "model"}
	for want, call := range map[string]func() error{
		"GET /v1/runs/" + run + "/cost": func() error { _, err := c.Cost(ctx, run); return err },
		"GET /v1/spend?group_by=workflow,model": func() error {
			csv, err := c.SpendCSV(ctx, GetSpendParams{GroupBy: &groups})
			if string(csv) != "model,calls\n" {
				t.Errorf("got %q", csv)
			}
			return err
		},
		"GET /v1/models":                          func() error { _, err := c.Models(ctx); return err },
		"GET /v1/budgets":                         func() error { _, err := c.Budgets(ctx, ListBudgetsParams{}); return err },
		"DELETE /v1/budgets/team-a":               func() error { return c.DeleteBudget(ctx, "team-a") },
		"DELETE /v1/prices?model=openai%2Fgpt-4o": func() error { return c.DeletePrices(ctx, "openai/gpt-4o") },
		`PUT /v1/budgets/team-a {"limit":{"usd":"1.50"},"scope":"tenant"}`: func() error {
			_, err := c.PutBudget(ctx, "team-a", BudgetRequest{Scope: BudgetScopeTenant, Limit: RunBudgetRequest{USD: "1.50"}})
			return err
		},
		`POST /v1/breakers:hold {"id":"openai/gpt-4o","reason":"drift"}`: func() error { _, err := c.HoldBreaker(ctx, "openai/gpt-4o", "drift"); return err },
		`POST /v1/breakers:reset {"id":"openai/gpt-4o"}`:                 func() error { _, err := c.ResetBreaker(ctx, "openai/gpt-4o"); return err },
	} {
		if err := call(); err != nil || seen != want {
			t.Errorf("got %s (%v), want %s", seen, err, want)
		}
	}
	var p *Problem
	if err := c.DeletePrices(ctx, "none"); !errors.As(err, &p) || p.Code != "price_not_found" {
		t.Errorf("got %v", err)
	}
}
