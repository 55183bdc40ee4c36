package workflow

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// promisedOutput is the type of a loop's output as far as schemas say it, without an expression of it being checked.
func (c *compiler) promisedOutput(d *draftStep) *cel.Type {
	l := d.step.Loop
	switch {
	case l.Output != nil:
		t, _ := c.promisedPart(d, l.Output.root, "the last output of "+d.step.Path)
		return t
	case l.Body != nil && len(l.Body.Main) > 0:
		return c.promisedStep(l.Body.Main[len(l.Body.Main)-1])
	}
	return cel.DynType
}

// promisedStep is the type of an output that follows from a contract alone.
func (c *compiler) promisedStep(s *Step) *cel.Type {
	d := c.drafts[s.Index]
	if (s.Agent != nil || s.Tool != nil) && c.mayNotSucceed(d) == "" {
		return c.outputType(d)
	}
	return orDyn(d.output)
}

// promisedPart is partType before the expressions are checked. maybe: it may be left out.
func (c *compiler) promisedPart(d *draftStep, p part, name string) (t *cel.Type, maybe bool) {
	switch p := p.(type) {
	case exprPart:
		key := exprKey{owner{place: placeOf(d.step.Section), body: d.own}.view(), ""}
		if p.expr != nil {
			key.source = p.expr.Source
		}
		if e := c.exprs[key]; e != nil && e.ast != nil {
			return c.promisedExpr(e.view.body, e.ast.NativeRep().Expr())
		}
	case objPart:
		t, fields := c.objects.define(name)
		dropped := map[string]bool{}
		for i, inner := range p.parts {
			fields[p.names[i]], dropped[p.names[i]] = c.promisedPart(d, inner, nameInside(name, p.names[i]))
		}
		c.objects.dropped[t.TypeName()] = dropped
		return t, false
	case textPart, constPart:
		return c.partType(p, name), false
	}
	return cel.DynType, false
}

// promisedExpr follows steps.x.output.y: what it selects is in the schemas. Anything else is not promised.
func (c *compiler) promisedExpr(b *draftBody, e ast.Expr) (t *cel.Type, maybe bool) {
	operand, field, strict, ok := selection(e)
	if !ok || e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly() {
		return cel.DynType, false
	}
	if steps, id, _, isStep := selection(operand); isStep && steps.Kind() == ast.IdentKind && steps.AsIdent() == "steps" {
		read := c.seen(b, id)
		if read == nil || field != "output" {
			return cel.DynType, !strict
		}
		return c.promisedStep(read.step), !strict
	}
	of, maybe := c.promisedExpr(b, operand)
	if of.Kind() == types.StructKind && !maybe {
		if f, known := c.objects.FindStructFieldType(of.TypeName(), field); known {
			return jsonType(f.Type), !strict
		}
	}
	return cel.DynType, maybe || !strict
}
