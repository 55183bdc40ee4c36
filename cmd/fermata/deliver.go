package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fermata-run/fermata/api/client"
	"github.com/fermata-run/fermata/internal/usage"
)

// showDelivery shows the result of the QC example as the client would want it: the text, how sure the makers are, who
// they were, and what it cost.
func showDelivery(s *screen, run *client.Run) error {
	var result struct {
		Deliverable    string   `json:"deliverable"`
		Confidence     *float64 `json:"confidence"`
		Unresolved     []string `json:"unresolved"`
		StepsCompleted int      `json:"steps_completed"`
	}
	if err := json.Unmarshal(run.Output, &result); err != nil {
		return fmt.Errorf("read the result: %w", err)
	}
	s.print("\n%s", s.paint(colorBold, "DELIVERABLE"))
	s.print("%s", indent(visible(result.Deliverable)))
	s.print("\n%s", s.paint(colorBold, "CONFIDENCE"))
	if result.Confidence == nil {
		s.print("  none given")
	} else {
		s.print("  %g of 100, after %s", *result.Confidence, counted(result.StepsCompleted, "step"))
	}
	for _, u := range result.Unresolved {
		s.print("  unresolved: %s", oneLine(u))
	}
	s.print("\n%s", s.paint(colorBold, "PROVENANCE"))
	if err := showProvenance(s, run.Provenance); err != nil {
		return err
	}
	showSpending(s, run)
	return nil
}

func showProvenance(s *screen, made []client.Provenance) error {
	rows := make([][]string, len(made))
	for i, p := range made {
		from := p.Provider
		if p.Simulated {
			from = "simulated"
		}
		cost := "$" + p.Cost.USD
		if p.Cost.UnpricedCalls > 0 {
			cost = "unpriced"
		}
		rows[i] = []string{"  " + p.Step, p.Agent, p.Role, p.Model, from, fmt.Sprint(p.Attempt), fmt.Sprint(p.FallbackDepth), cost, cut(p.PromptHash, 13)}
	}
	return s.table([]string{"  STEP", "AGENT", "ROLE", "MODEL", "PROVIDER", "TRY", "FALLBACK", "COST", "PROMPT"}, rows)
}

func showSpending(s *screen, run *client.Run) {
	t := run.Usage.Tokens
	s.print("\n%s", s.paint(colorBold, "TOKENS AND MONEY"))
	s.print("  %s tokens: %s input, %s cache read, %s cache write, %s output, %s reasoning",
		grouped(totalTokens(t)), grouped(t.Input), grouped(t.CacheRead), grouped(t.CacheWrite), grouped(t.Output), grouped(t.Reasoning))
	s.print("  %s for %s", money(usage.Money(run.Cost.NanoUSD), run.Cost.UnpricedCalls, run.Usage.Calls), counted(run.Usage.Calls, "model call"))
	if run.Simulated {
		s.print("  %s", s.paint(colorYellow, "simulated: no model was called and nothing was charged; this is what the real ones would have cost"))
	}
}

// visible makes a text of many lines safe to show: line by line, without what would move a terminal's cursor.
func visible(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lead := len(line) - len(strings.TrimLeft(line, " "))
		lines[i] = line[:lead] + oneLine(line)
	}
	return strings.Join(lines, "\n")
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}
