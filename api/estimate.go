package api

import (
	"github.com/fermata-run/fermata/internal/preview"
)

// estimateOf shows an estimate; with runs a day, also what a month of them costs.
func estimateOf(e preview.Estimated, perDay *PerDay) Estimate {
	out := Estimate{
		Calls: rangeOf(e.Calls), CallsMax: e.CallsMax, InputTokens: rangeOf(e.Input), OutputTokens: rangeOf(e.Output), Cost: moneyRangeOf(e.Cost),
		Steps: []StepEstimate{}, Unpriced: orEmpty(e.Unpriced), Tools: orEmpty(e.Tools), Assumptions: orEmpty(e.Assumptions),
	}
	out.CriticalPath.Steps, out.CriticalPath.Seconds = rangeOf(e.Path.Steps), secondsOf(e.Path.Seconds)
	out.CriticalPath.Names = orEmpty(e.Path.Names)
	for _, s := range e.Steps {
		out.Steps = append(out.Steps, StepEstimate{
			Path: s.Path, Kind: string(s.Kind), Times: rangeOf(s.Times), Calls: rangeOf(s.Calls), CallsMax: s.CallsMax,
			InputTokens: rangeOf(s.Input), OutputTokens: rangeOf(s.Output), Cost: moneyRangeOf(s.Cost), Seconds: secondsOf(s.Seconds), Unpriced: s.Unpriced,
		})
	}
	if perDay != nil {
		out.Month.PerDay, out.Month.Cost = *perDay, moneyRangeOf(e.PerMonth(*perDay))
	}
	return out
}

func rangeOf(s preview.Span) Range { return Range{Low: s.Low, High: s.High} }

func secondsOf(s preview.Seconds) SecondsRange { return SecondsRange{Low: s.Low, High: s.High} }

func moneyRangeOf(c preview.Cost) MoneyRange {
	return MoneyRange{Low: moneyOf(c.Low), High: moneyOf(c.High)}
}

// orEmpty is a list that is always there.
func orEmpty(list []string) []string { return append([]string{}, list...) }
