package workflow

import (
	"errors"
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// Expr is one compiled CEL expression. It is safe for concurrent use.
type Expr struct {
	Source  string
	program cel.Program
	out     *cel.Type
	refs    []Ref
	plain   bool
}

// Bool evaluates a condition. Anything but true and false is an error.
func (e *Expr) Bool(s *Scope) (bool, error) {
	v, err := e.eval(&activation{scope: s})
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, e.fail(fmt.Errorf("it gives %s, not true or false", v.Type().TypeName()))
	}
	return bool(b), nil
}

// Eval evaluates an expression to plain decoded JSON (see Scope); an empty optional is nil.
func (e *Expr) Eval(s *Scope) (any, error) {
	v, err := e.eval(&activation{scope: s})
	if err != nil {
		return nil, err
	}
	value, err := native(v)
	if err != nil {
		return nil, e.fail(err)
	}
	return value, nil
}

func (e *Expr) eval(a *activation) (ref.Val, error) {
	v, details, err := e.program.Eval(a)
	if cost := details.ActualCost(); cost != nil {
		a.spend(*cost)
	}
	if err == nil && a.cost > TemplateCostMax {
		err = fmt.Errorf("the expressions of the template cost more than %d together", TemplateCostMax)
	}
	if err == nil {
		return v, nil
	}
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) {
		err = fmt.Errorf("the evaluation costs more than %d and was stopped", ExpressionCostMax)
	}
	return nil, e.fail(err)
}

// activation resolves the roots of the expressions of one template.
type activation struct {
	scope *Scope
	cost  uint64 // of those evaluated so far
}

func (a *activation) spend(cost uint64) {
	a.cost += cost
	if a.scope.Cost != nil {
		*a.scope.Cost += cost
	}
}

// ResolveName implements interpreter.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "input":
		return a.scope.Input, true
	case "steps":
		if a.scope.Steps != nil {
			return fields(a.step), true
		}
	case "run":
		return fields(a.run), a.scope.Run != nil
	}
	if v, ok := a.scope.Extra[name]; ok || a.scope.Local == nil {
		return v, ok
	}
	return a.scope.Local(name)
}

// Parent implements interpreter.Activation.
func (a *activation) Parent() interpreter.Activation { return nil }

// asValue is a plain value as CEL sees it.
func asValue(v any) ref.Val {
	switch v := v.(type) {
	case string:
		return types.String(v)
	case int64:
		return types.Int(v)
	case float64:
		return types.Double(v)
	case bool:
		return types.Bool(v)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}
