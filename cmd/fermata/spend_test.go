package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fermata-run/fermata/api/client"
)

func TestSince(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"7d": now.AddDate(0, 0, -7), "24h": now.Add(-24 * time.Hour), "2026-03-01": time.Date(2026, 3, 1, 0, 0, 0, 0, time.Local),
	} {
		if got, err := since(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-3d", "0h", "week", "2026-13-01"} {
		if _, err := since(text, now); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// The tables fit into 100 columns with names of usual length, and never show simulated money as real.
func TestMoneyTables(t *testing.T) {
	share, cents := 75.0, client.Money{USD: "6.1575", NanoUSD: 6_157_500_000}
	var out bytes.Buffer
	s := newScreen(nil, &out, &bytes.Buffer{})
	report := &client.Spend{
		GroupBy: []string{"workflow", "model"},
		Data: []client.SpendGroup{
			{Keys: map[string]string{"workflow": "qc_deliverable", "model": "claude-sonnet-4-6"}, Calls: 1200, Cost: cents, Saved: cents, SharePercent: &share},
			{Keys: map[string]string{"workflow": "demo", "model": "gpt-5-mini"}, Simulated: true, Cost: cents, UnpricedCalls: 2},
		},
		Totals:    client.SpendTotals{Total: cents, Unpriced: []client.UnpricedModel{{Provider: "local", Model: "llama", Calls: 1}}},
		Simulated: client.SpendTotals{Calls: 3, Total: cents},
	}
	if err := showSpend(s, report); err != nil {
		t.Fatal(err)
	}
	breakers := []client.Breaker{{ID: "anthropic/claude-sonnet-4-6", State: "open", Recent: strings.Split(strings.Repeat("ok server ", 10), " ")[:20], Samples: 12, Failures: 7}}
	if err := showBreakers(s, breakers); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"simulated, + 2 unpriced", "simulated total $6.1575", "price not known: llama of local", "75.0%", "✓✕"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
