package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/preview"
)

// dryRun says what a submission would run, and stores nothing.
func (a *API) dryRun(x *exchange, body *RunRequest, sub *flow.Submission, perDay *PerDay) (SubmitRunResponseObject, error) {
	run, _, err := flow.Open(*sub, time.Now())
	if err != nil {
		return nil, err
	}
	var at *placed
	if body.Definition != nil {
		at = placeIn(x.body, body.Definition)
	}
	warnings, err := a.lint(sub.Workflow, nil, at)
	if err != nil {
		return nil, err
	}
	input := run.Submitted().Input
	return dryRunResponse{DryRun{
		Input: input, Warnings: warnings, Graph: graphOf(sub.Workflow, sub.WorkflowVersion),
		Estimate: estimateOf(preview.Estimate(sub.Workflow, a.facts(), input), perDay),
	}}, nil
}

// dryRunResponse is the other 200 of a submission.
type dryRunResponse struct{ body DryRun }

// VisitSubmitRunResponse writes it.
func (d dryRunResponse) VisitSubmitRunResponse(w http.ResponseWriter) error {
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(d.body); err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaJSON)
	_, err := buf.WriteTo(w)
	return err
}
