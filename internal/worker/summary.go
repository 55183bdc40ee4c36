package worker

import (
	"encoding/json"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/workflow"
)

// summary is the short form of an agent's answer: the answer itself where that is short, else one that a model makes, where
// the agent asks for it. Where none can be made it is the beginning of the answer, and it is noted why.
func (d *dialogue) summary(output json.RawMessage) (string, *noAnswer) {
	text, short := agent.Short(d.spec, output)
	switch {
	case short:
		return text, nil
	case d.spec.Summary == nil:
		return agent.Clipped(d.spec, text), nil
	}
	by := *d.spec
	by.Overflow = workflow.OverflowTrim
	if model := d.spec.Summary.Model; model != "" {
		by.Chain, by.Route = workflow.Chain{Entries: []workflow.ChainEntry{{Model: model}}}, ""
	}
	talk, first := agent.OpenSummary(d.spec, output)
	done, b := d.within(whoSummary, &by, talk, first).answer()
	switch {
	case b == nil:
		return agent.Clipped(d.spec, agent.Plain(done.Output)), nil
	case b.whole && (d.helper || b.outcome.Failure.Class == classCancelled):
		return "", b
	}
	d.job.note("the summary of " + d.spec.Name + " is the beginning of its output: " + told(*b.outcome.Failure))
	return agent.Clipped(d.spec, text), nil
}
