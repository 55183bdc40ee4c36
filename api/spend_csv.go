package api

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strconv"
	"strings"
)

// spendCSV is the rows of a report as a table for spreadsheets.
func spendCSV(s Spend) []byte {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.Write(append(slices.Clone(s.GroupBy), csvColumns...)) // a buffer takes everything
	for _, g := range s.Data {
		_ = w.Write(csvRecord(s.GroupBy, g))
	}
	w.Flush()
	return out.Bytes()
}

// harmless keeps a spreadsheet from taking a name that somebody chose for a formula.
func harmless(cell string) string {
	if strings.IndexAny(cell, "=+-@\t\r") == 0 {
		return "'" + cell
	}
	return cell
}

// csvColumns stand behind the keys of the groups.
var csvColumns = []string{
	"simulated", "calls", "unpriced_calls", "input", "cache_read", "cache_write", "output", "reasoning",
	"cost_usd", "baseline_usd", "saved_usd", "cache_saved_usd", "share_percent", "runs_finished", "runs_succeeded",
}

func csvRecord(keys []string, g SpendGroup) []string {
	record := make([]string, 0, len(keys)+len(csvColumns))
	for _, key := range keys {
		record = append(record, harmless(g.Keys[key]))
	}
	record = append(record, strconv.FormatBool(g.Simulated))
	t := g.Tokens
	for _, n := range []int64{g.Calls, g.UnpricedCalls, t.Input, t.CacheRead, t.CacheWrite, t.Output, t.Reasoning} {
		record = append(record, strconv.FormatInt(n, 10))
	}
	record = append(record, g.Cost.USD, g.Baseline.USD, g.Saved.USD, g.CacheSaved.USD, "")
	if g.SharePercent != nil {
		record[len(record)-1] = strconv.FormatFloat(*g.SharePercent, 'f', -1, 64)
	}
	return append(record, strconv.FormatInt(g.RunsFinished, 10), strconv.FormatInt(g.RunsSucceeded, 10))
}
