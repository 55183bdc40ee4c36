package workflow

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// stepRead is one place where an expression reads a field of a step.
type stepRead struct {
	id, field string
	strict    bool  // without ?, and not only asked for by has()
	whole     bool  // the value is used as it is: no field of it, no entry, not only asked for by has()
	at        int64 // the expression node where it starts
	idAt      int64 // the node of the step's name
}

// rootRead is one place where an expression reads a field of another root.
type rootRead struct {
	field  string
	strict bool
	at     int64
}

// misuse is a root used in a way it cannot be.
type misuse struct {
	at           int64
	detail, edit string
}

// reads is what an expression reads of the steps, the run and the iteration.
type reads struct {
	steps  []stepRead
	run    []rootRead
	iter   []rootRead
	misuse []misuse
	loops  int
	bound  []string // variables of the macros around
	part   bool     // what is walked next is only looked into
}

func readsOf(e ast.Expr) *reads {
	r := &reads{}
	r.walk(e)
	return r
}

// root reports whether e is one of our roots.
func (r *reads) root(e ast.Expr, name string) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == name && !slices.Contains(r.bound, name)
}

// selection takes apart x.f, x.?f, has(x.f).
func selection(e ast.Expr) (operand ast.Expr, field string, strict, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		return s.Operand(), s.FieldName(), !s.IsTestOnly(), true
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.OptSelect || len(call.Args()) != 2 || call.Args()[1].Kind() != ast.LiteralKind {
			return nil, "", false, false
		}
		name, isText := call.Args()[1].AsLiteral().(types.String)
		return call.Args()[0], string(name), false, isText
	default:
		return nil, "", false, false
	}
}

func (r *reads) walk(e ast.Expr) {
	part := r.part
	r.part = false
	if operand, field, strict, ok := selection(e); ok {
		if r.root(operand, "run") {
			r.run = append(r.run, rootRead{field, strict, operand.ID()})
			return
		}
		if r.root(operand, "iter") {
			r.iter = append(r.iter, rootRead{field, strict, operand.ID()})
			return
		}
		if r.root(operand, "steps") {
			r.misuse = append(r.misuse, misuse{operand.ID(), "a step is not a value; read a field of it, like steps." + field + ".output", "steps." + field + ".output"})
			return
		}
		if steps, id, _, ok := selection(operand); ok && r.root(steps, "steps") {
			asked := e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly()
			r.steps = append(r.steps, stepRead{id, field, strict, !part && !asked, steps.ID(), operand.ID()})
			return
		}
	}
	r.walkInside(e)
}

// lookingInto are the operators that take a part of their first operand.
var lookingInto = []string{operators.OptSelect, operators.Index, operators.OptIndex}

func (r *reads) walkInside(e ast.Expr) {
	switch e.Kind() {
	case ast.IdentKind:
		for _, name := range []string{"steps", "run"} {
			if r.root(e, name) {
				r.misuse = append(r.misuse, misuse{e.ID(), name + " is not a value; read it by name, like " + map[string]string{"steps": "steps.draft.output", "run": "run.id"}[name], ""})
			}
		}
	case ast.SelectKind:
		r.part = true
		r.walk(e.AsSelect().Operand())
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			r.walk(call.Target())
		}
		for i, a := range call.Args() {
			r.part = i == 0 && slices.Contains(lookingInto, call.FunctionName())
			r.walk(a)
		}
	case ast.ListKind:
		for _, item := range e.AsList().Elements() {
			r.walk(item)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			r.walk(entry.AsMapEntry().Key())
			r.walk(entry.AsMapEntry().Value())
		}
	case ast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			r.walk(field.AsStructField().Value())
		}
	case ast.ComprehensionKind:
		r.comprehension(e)
	default: // a literal
	}
}

func (r *reads) comprehension(e ast.Expr) {
	c := e.AsComprehension()
	r.loops++
	r.walk(c.IterRange())
	r.walk(c.AccuInit())
	for _, name := range []string{c.IterVar(), c.IterVar2()} {
		if name == "steps" || name == "run" || name == "input" {
			r.misuse = append(r.misuse, misuse{e.ID(), "a variable cannot be called " + name + "; it would hide the root of that name", ""})
		}
	}
	outer := r.bound
	r.bound = append(slices.Clone(outer), c.IterVar(), c.IterVar2(), c.AccuVar())
	r.walk(c.LoopCondition())
	r.walk(c.LoopStep())
	r.walk(c.Result())
	r.bound = outer
}
