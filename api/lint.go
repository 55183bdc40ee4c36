package api

import (
	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/workflow"
)

// facts is what this node knows of models before they are asked.
func (a *API) facts() workflow.Roster {
	if a.models == nil {
		return noFacts{}
	}
	return a.models
}

// noFacts knows no model.
type noFacts struct{}

// Model implements workflow.Roster.
func (noFacts) Model(string) (workflow.ModelFacts, bool) { return workflow.ModelFacts{}, false }

// lint looks for what is legal in a definition and seldom meant. Strict: finding something is an error. At is where the
// definition stands in the request; nil: nowhere, or it is the whole body.
func (a *API) lint(w *workflow.Workflow, strict *bool, at *placed) ([]Issue, error) {
	list := []fault.Issue{}
	for _, found := range preview.Lint(w, a.facts()) {
		issue := fault.Issue{
			Pointer: found.Pos.Pointer, Code: found.Code, Detail: found.Detail, Line: found.Pos.Line, Col: found.Pos.Col, Suggest: found.Suggest,
		}
		if at != nil {
			at.move(&issue)
		}
		list = append(list, issue)
	}
	if !orZero(strict) || len(list) == 0 {
		return issues(list), nil
	}
	e := fault.New(fault.KindInvalid, "lint_warnings", "the definition is valid, but the lint has warnings: %d", len(list))
	e.Issues = list
	return nil, e
}

// sentAt is where the definition of a request stands in its body; nil: it is the body.
func sentAt(x *exchange, body *DefinitionRequest) *placed {
	if body == nil {
		return nil
	}
	return placeIn(x.body, body.Definition)
}
