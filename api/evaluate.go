package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// EvaluateExpression tries one expression or template against a run, or against values given by hand.
func (a *API) EvaluateExpression(ctx context.Context, req EvaluateExpressionRequestObject) (EvaluateExpressionResponseObject, error) {
	body := *req.Body
	if (body.Expression == "") == (body.Template == nil) {
		e := fault.New(fault.KindInvalid, "expression_or_template", "give either an expression or a template")
		e.Issues = []fault.Issue{{Pointer: "/expression", Code: e.Code, Detail: e.Detail}}
		return nil, e
	}
	t, err := a.trialOf(ctx, body)
	if err != nil {
		return nil, err
	}
	var value json.RawMessage
	at := "/expression"
	if body.Template != nil {
		at = "/template"
		value, err = workflow.EvaluateTemplate(body.Template, t.names(), t.scope())
	} else {
		value, err = workflow.Evaluate(body.Expression, t.names(), t.scope())
	}
	if err != nil {
		return nil, pointedAt(err, at)
	}
	return EvaluateExpression200JSONResponse(Evaluation{Value: value, Type: typeOf(value)}), nil
}

// trial is what an expression is tried against: a run, if there is one, and over it what was given by hand.
type trial struct {
	run   *workflow.Scope
	known workflow.Names // of the run, where the expression is meant to stand
	input any
	given bool // the input was
	steps map[string]givenStep
	roots map[string]any
}

// givenStep is a step as somebody described it.
type givenStep map[string]any

// Field implements workflow.StepValue.
func (s givenStep) Field(name string) (any, bool) { v, ok := s[name]; return v, ok }

func (a *API) trialOf(ctx context.Context, body EvaluateRequest) (*trial, error) {
	t := &trial{steps: map[string]givenStep{}, roots: map[string]any{}, given: body.Input != nil}
	var wrong []fault.Issue
	read := func(raw json.RawMessage, pointer string) any {
		v, err := workflow.Decode(raw)
		if err != nil {
			wrong = append(wrong, fault.Issue{Pointer: pointer, Code: "invalid_value", Detail: err.Error()})
		}
		return v
	}
	if t.given {
		t.input = read(body.Input, "/input")
	}
	for id, raw := range body.Steps {
		pointer := "/steps/" + pointerToken(clip(id))
		fields, ok := read(raw, pointer).(map[string]any)
		if !ok {
			wrong = append(wrong, fault.Issue{Pointer: pointer, Code: "wrong_type", Detail: `a step is an object, like {"output": …, "status": "succeeded"}`})
		}
		t.steps[id] = fields
	}
	for name, raw := range body.With {
		pointer := "/with/" + pointerToken(clip(name))
		if !workflow.RootName(name) {
			wrong = append(wrong, fault.Issue{Pointer: pointer, Code: "invalid_name", Detail: "no root can be called so"})
		}
		t.roots[name] = read(raw, pointer)
	}
	if len(wrong) > 0 {
		e := fault.New(fault.KindInvalid, "values_invalid", "the values to try it against cannot be taken")
		e.Issues = wrong
		return nil, e
	}
	return t, a.readRun(ctx, t, body.Run, body.At)
}

// readRun folds the run that an expression is tried against.
func (a *API) readRun(ctx context.Context, t *trial, id RunID, at StepPath) error {
	if id == "" {
		if at != "" {
			return malformed([]fault.Issue{{Pointer: "/at", Code: "run_missing", Detail: "a step is one of a run: give that, too"}})
		}
		return nil
	}
	row, err := a.runOf(ctx, exchangeOf(ctx).tenant, id)
	if err != nil {
		return err
	}
	run, err := a.folded(ctx, row)
	if err != nil {
		return err
	}
	var found bool
	if t.run, t.known, found = run.ScopeAt(at, time.Now()); !found {
		return missingAt(noStep("at", at, run.View().Steps), "/at")
	}
	return nil
}

func (t *trial) names() workflow.Names {
	return workflow.Names{
		Steps: slices.AppendSeq(slices.Clone(t.known.Steps), maps.Keys(t.steps)),
		Roots: slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(slices.Clone(t.known.Roots), maps.Keys(t.roots))))),
	}
}

func (t *trial) scope() *workflow.Scope {
	s := &workflow.Scope{Input: t.input, Now: time.Now(), Extra: t.roots, Run: func(string) (any, bool) { return nil, false }}
	if t.run != nil {
		s.Run, s.Now, s.Local = t.run.Run, t.run.Now, t.run.Local
		if !t.given {
			s.Input = t.run.Input
		}
	}
	s.Steps = func(id string) (workflow.StepValue, bool) {
		if given, ok := t.steps[id]; ok {
			return given, true
		}
		if t.run == nil {
			return nil, false
		}
		return t.run.Steps(id)
	}
	return s
}

// pointedAt puts where something stands in the request before the pointers of an error.
func pointedAt(err error, at string) error {
	var bad *fault.Error
	if !errors.As(err, &bad) {
		return fmt.Errorf("evaluate %s: %w", at, err)
	}
	moved := *bad
	moved.Issues = slices.Clone(bad.Issues)
	for i := range moved.Issues {
		moved.Issues[i].Pointer = at + moved.Issues[i].Pointer
	}
	return &moved
}

// typeOf names the JSON type of a value.
func typeOf(value json.RawMessage) EvaluationType {
	switch value[0] {
	case '{':
		return EvaluationTypeObject
	case '[':
		return EvaluationTypeArray
	case '"':
		return EvaluationTypeString
	case 't', 'f':
		return EvaluationTypeBoolean
	case 'n':
		return EvaluationTypeNull
	}
	return EvaluationTypeNumber
}
