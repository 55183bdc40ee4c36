package workflow

import (
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
)

// ParseExpr compiles an expression that belongs to no definition. It reads these roots, of whose values nothing is known
// before they are there; they come in Scope.Extra. The error is a *fault.Error that says what is wrong with it.
func ParseExpr(source string, roots ...string) (*Expr, error) {
	source = strings.TrimSpace(source)
	refused := func(code, detail, edit string) error {
		f := fault.New(fault.KindInvalid, code, "%s", detail)
		f.Issues = []fault.Issue{{Code: code, Detail: detail, Suggest: edit}}
		return f
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
	e := looseEnvironment(roots)
	checked, issues := e.env.Check(d.ast)
	if issues.Err() != nil {
		c := &compiler{objects: newObjects()}
		return nil, refused(c.explain(view{}, e, issues.Errors()[0].Message))
	}
	dispatchByValue(checked.NativeRep())
	program, err := e.env.PlanProgram(checked.NativeRep(), programOptions(checked.NativeRep())...)
	if err != nil {
		return nil, refused(codeExprType, err.Error(), "")
	}
	d.expr.program, d.expr.out = program, checked.OutputType()
	return d.expr, nil
}
