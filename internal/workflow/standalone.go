package workflow

import (
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/fermata-run/fermata/internal/fault"
)

// ParseExpr compiles an expression that belongs to no definition. It reads these roots, of whose values nothing is known
// before they are there; they come in Scope.Extra. The error is a *fault.Error that says what is wrong with it.
func ParseExpr(source string, roots ...string) (*Expr, error) {
	source = strings.TrimSpace(source)
	refused := func(code, detail, edit string) error {
		e := fault.New(fault.KindInvalid, code, "%s", detail)
		e.Issues = []fault.Issue{{Code: code, Detail: detail, Suggest: edit}}
		return e
	}
	if source == "" || len(source) > ExpressionBytesMax {
		return nil, refused(codeLimit, "an expression has 1 to "+count(ExpressionBytesMax, "byte"), "")
	}
	d := &draftExpr{expr: &Expr{Source: source}}
	if d.parse(); d.ast == nil {
		return nil, refused(d.faults[0].code, d.faults[0].detail, "")
	}
	if d.reads.loops > ExpressionLoopsMax {
		return nil, refused(codeLimit, "the expression has more than "+count(ExpressionLoopsMax, "macro")+" (map, filter, all …)", "")
	}
	var declared []cel.EnvOption
	for _, name := range roots {
		declared = append(declared, cel.Variable(name, cel.DynType))
	}
	env, err := baseEnv().Extend(declared...)
	if err != nil { // a root that is no name: a defect of the caller
		return nil, err
	}
	checked, issues := env.Check(d.ast)
	if issues.Err() != nil {
		c := &compiler{objects: newObjects()}
		return nil, refused(c.explain(view{}, &environment{roots: roots}, issues.Errors()[0].Message))
	}
	dispatchByValue(checked.NativeRep())
	program, err := env.PlanProgram(checked.NativeRep(), programOptions(checked.NativeRep())...)
	if err != nil {
		return nil, refused(codeExprType, err.Error(), "")
	}
	d.expr.program, d.expr.out = program, checked.OutputType()
	return d.expr, nil
}
