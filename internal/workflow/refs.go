package workflow

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Ref is one thing an expression reads: a root and the names behind it, as far as they are written out.
// steps.draft.?output.facts[0].claim has the root steps and the names draft, output, facts, RefEntry and claim.
type Ref struct {
	Root  string
	Names []string
}

// RefEntry stands among the names of a Ref for an entry of a list.
const RefEntry = "[]"

// Refs are what the expression reads, in the order it is written. They are shared and must not be changed.
func (e *Expr) Refs() []Ref { return e.refs }

// Plain reports whether the expression is nothing but its one Ref: its value is the value that is read.
func (e *Expr) Plain() bool { return e.plain }

// Small reports whether the expression gives a number, a truth value or a time.
func (e *Expr) Small() bool {
	if e.out == nil {
		return false
	}
	switch unwrapped(e.out).Kind() {
	case types.BoolKind, types.IntKind, types.UintKind, types.DoubleKind, types.DurationKind, types.TimestampKind, types.NullTypeKind:
		return true
	default:
		return false
	}
}

// refsOf finds what an expression reads. The variables of macros are no roots.
func refsOf(e ast.Expr) (refs []Ref, plain bool) {
	var bound []string
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.ComprehensionKind {
			c := e.AsComprehension()
			bound = append(bound, c.IterVar(), c.IterVar2(), c.AccuVar())
		}
	}))
	inside := map[int64]bool{} // what a Ref was found around
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(at ast.Expr) {
		if inside[at.ID()] {
			return
		}
		r, ok := refOf(at, inside)
		if !ok || slices.Contains(bound, r.Root) {
			return
		}
		refs = append(refs, r)
		plain = plain || at.ID() == e.ID() && !testsOnly(at)
	}))
	return refs, plain
}

func testsOnly(e ast.Expr) bool { return e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly() }

// refOf reads x.f, x.?f, x[0] and x["f"] down to their root, and notes the nodes it went through.
func refOf(e ast.Expr, inside map[int64]bool) (Ref, bool) {
	if e.Kind() == ast.IdentKind {
		return Ref{Root: e.AsIdent()}, true
	}
	operand, name, _, ok := selection(e)
	if !ok {
		operand, name, ok = entry(e)
	}
	if !ok {
		return Ref{}, false
	}
	r, ok := refOf(operand, inside)
	if !ok {
		return Ref{}, false
	}
	inside[operand.ID()] = true
	return Ref{Root: r.Root, Names: append(r.Names, name)}, true
}

// entry takes apart x[0], x[?0] and x["f"].
func entry(e ast.Expr) (operand ast.Expr, name string, ok bool) {
	if e.Kind() != ast.CallKind {
		return nil, "", false
	}
	call := e.AsCall()
	if f := call.FunctionName(); f != operators.Index && f != operators.OptIndex || len(call.Args()) != 2 || call.Args()[1].Kind() != ast.LiteralKind {
		return nil, "", false
	}
	switch key := call.Args()[1].AsLiteral().(type) {
	case types.Int:
		return call.Args()[0], RefEntry, true
	case types.String:
		return call.Args()[0], string(key), true
	}
	return nil, "", false
}
