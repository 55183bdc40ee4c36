package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/fermata-run/fermata/api/client"
)

type modelsCommand struct {
	remoteFlags
	All bool `help:"Also models that nobody serves here, and chains, workflows and agents."`
}

// Run lists the models with what they cost and how they fare.
func (c *modelsCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	models, err := remote.Models(ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(models)
	}
	var rows [][]string
	hidden := 0
	for _, m := range models {
		if !c.All && (m.Kind != client.ModelKindModel || m.Provider == "") {
			hidden++
			continue
		}
		rows = append(rows, modelRow(m))
	}
	if err := s.table([]string{"MODEL", "PROVIDER", "TIER", "SPEED", "CONTEXT", "$/MTOK IN", "OUT", "PRICE OF", "HEALTH"}, rows); err != nil {
		return err
	}
	if hidden > 0 {
		s.say("%d more are not models, or served by nobody here: --all", hidden)
	}
	return nil
}

func modelRow(m client.Model) []string {
	if m.Kind != client.ModelKindModel {
		return []string{m.ID, "", "", "", "", "", "", "", oneLine(strings.Join(m.Chain, " → "))}
	}
	provider := m.Provider
	if provider == "" {
		provider = "–"
	}
	row := []string{m.ID, provider, "", m.Speed, "", "", "", "not known", health(m.Health)}
	if m.Tier > 0 {
		row[2] = fmt.Sprint(m.Tier)
	}
	if m.ContextTokens > 0 {
		row[4] = thousands(m.ContextTokens)
	}
	if len(m.Price.Tiers) > 0 {
		row[5], row[6] = m.Price.Tiers[0].Input, m.Price.Tiers[0].Output
		row[7] = m.Price.Checked
	}
	return row
}

// thousands shows a number of tokens short: 200k, 1.05M.
func thousands(n int64) string {
	if n >= 1_000_000 {
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", float64(n)/1e6), "0"), ".") + "M"
	}
	return fmt.Sprintf("%dk", n/1000)
}

func health(h client.Health) string {
	switch h.State {
	case "", client.HealthStateUnused:
		return ""
	case client.HealthStateOk:
		return "ok"
	case client.HealthStateHeld, client.HealthStateOpen, client.HealthStateDisabled, client.HealthStateThrottled, client.HealthStateProbing:
	}
	text := string(h.State)
	if !h.Until.IsZero() {
		text += " until " + h.Until.Local().Format("15:04:05")
	}
	if h.Reason != "" {
		text += ": " + oneLine(h.Reason)
	}
	return text
}
