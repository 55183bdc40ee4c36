package api

import (
	"context"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

// expandedShownMax bounds the steps inside maps and loops that the list of a run's steps shows; `under` has the others.
const expandedShownMax = 200

// shownSteps are the steps that a list shows: all of the definition, and the first of those inside maps and loops.
func shownSteps(all []flow.StepView) (list []flow.StepView, truncated bool) {
	expanded := 0
	for _, s := range all {
		if isExpanded(s.Path) {
			if expanded++; expanded > expandedShownMax {
				truncated = true
				continue
			}
		}
		list = append(list, s)
	}
	return list, truncated
}

// isExpanded reports whether a path is of a step inside a map or loop: it has the number of an item or iteration in it,
// which no id begins with.
func isExpanded(path flow.Path) bool {
	for i := 1; i < len(path); i++ {
		if path[i-1] == '.' && path[i] >= '0' && path[i] <= '9' {
			return true
		}
	}
	return false
}

// stepsUnder gives a page of what is inside a map or loop, or inside one item or iteration of it, behind a path.
func stepsUnder(all []flow.StepView, under, after flow.Path, limit int) (page []flow.StepView, more bool, err error) {
	var inside []flow.StepView
	known := false
	for _, s := range all {
		known = known || s.Path == under
		if strings.HasPrefix(s.Path, under+".") {
			inside = append(inside, s)
		}
	}
	if !known && len(inside) == 0 {
		return nil, false, noStep("under", under, all)
	}
	from := 0
	if after != "" {
		from = 1 + slices.IndexFunc(inside, func(s flow.StepView) bool { return s.Path == after })
	}
	inside = inside[from:]
	return inside[:min(limit, len(inside))], len(inside) > limit, nil
}

// noStep says that a run has no step of that path, and which of the shown ones may be meant.
func noStep(parameter, path string, all []flow.StepView) error {
	shown, _ := shownSteps(all)
	paths := make([]string, len(shown))
	for i, s := range shown {
		paths[i] = s.Path
	}
	e := fault.New(fault.KindNotFound, "step_not_found", "the run has no step %s", clip(path))
	e.Issues = []fault.Issue{{Parameter: parameter, Code: e.Code, Detail: e.Detail, Suggest: fault.Nearest(path, paths)}}
	return e
}

// ListSteps lists the steps of a run, in the order of the definition.
func (a *API) ListSteps(ctx context.Context, req ListStepsRequestObject) (ListStepsResponseObject, error) {
	all, err := a.stepsOf(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	under, after := orZero(req.Params.Under), ""
	if c := req.Params.Cursor; c != nil {
		if err := parseCursor("steps/"+under, *c, &after); err != nil {
			return nil, err
		}
	}
	var shown []flow.StepView
	page := StepPage{Data: []Step{}}
	if under == "" {
		shown, page.Truncated = shownSteps(all)
	} else {
		var more bool
		if shown, more, err = stepsUnder(all, under, after, limitOf(req.Params.Limit)); err != nil {
			return nil, err
		}
		if more {
			page.NextCursor = formatCursor("steps/"+under, shown[len(shown)-1].Path)
		}
	}
	for _, s := range shown {
		page.Data = append(page.Data, stepOf(s, false))
	}
	return ListSteps200JSONResponse(page), nil
}

// GetStep shows one step with its model calls.
func (a *API) GetStep(ctx context.Context, req GetStepRequestObject) (GetStepResponseObject, error) {
	all, err := a.stepsOf(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Path == req.Step {
			return GetStep200JSONResponse(stepOf(s, true)), nil
		}
	}
	return nil, noStep("step", req.Step, all)
}
