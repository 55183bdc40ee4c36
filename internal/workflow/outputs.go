package workflow

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// stepType declares what can be read of a step. Its output is anything until it is known.
func (c *compiler) stepType(d *draftStep) *cel.Type {
	if d.shape != nil {
		return d.shape
	}
	t, fields := c.objects.define("step " + d.step.ID)
	d.shape, d.fields = t, fields
	attempt, inner := c.objects.define("an attempt of step " + d.step.ID)
	inner["class"], inner["message"] = cel.StringType, cel.StringType
	failure, inner := c.objects.define("the error of step " + d.step.ID)
	inner["class"], inner["message"], inner["attempts"] = cel.StringType, cel.StringType, cel.ListType(attempt)
	fields["status"], fields["error"] = cel.StringType, failure
	fields["duration_s"], fields["cost_usd"] = cel.DoubleType, cel.DoubleType
	fields["output"] = cel.DynType
	switch d.step.Kind {
	case KindAgent:
		fields["confidence"], fields["model"] = cel.DoubleType, cel.StringType
		fields["unresolved"] = cel.ListType(cel.StringType)
		usage, inner := c.objects.define("the usage of step " + d.step.ID)
		for _, name := range []string{"input", "cache_read", "cache_write", "output", "reasoning"} {
			inner[name] = cel.IntType
		}
		fields["usage"] = usage
	case KindSwitch:
		fields["case"] = cel.IntType
	default:
	}
	if d.output != nil {
		fields["output"] = d.output
	}
	return t
}

// typeOutput works out the type of a step's output, once everything inside it is typed.
func (c *compiler) typeOutput(d *draftStep) {
	t := c.outputType(d)
	d.output = t
	if d.fields != nil {
		d.fields["output"] = t
	}
}

func (c *compiler) outputType(d *draftStep) *cel.Type {
	s := d.step
	switch {
	case s.Agent != nil:
		return contractType(s.Agent.Agent.Output, cel.StringType)
	case s.Tool != nil:
		return contractType(s.Tool.Output, cel.DynType)
	case s.Set != nil:
		return c.partType(s.Set.root, "output of step "+s.ID)
	case s.Group != nil && s.Group.Output != nil:
		return c.partType(s.Group.Output.root, "output of step "+s.ID)
	case s.Group != nil:
		t, fields := c.objects.define("output of step " + s.ID)
		for _, in := range s.Group.Steps {
			fields[in.ID] = c.typeOf(in)
		}
		return t
	case s.Switch != nil:
		return c.switchType(d)
	}
	return cel.DynType
}

func contractType(k Contract, free *cel.Type) *cel.Type {
	switch {
	case k.Schema != nil && k.Schema.shape != nil:
		return k.Schema.shape
	case k.JSON:
		return cel.DynType
	}
	return free
}

func (c *compiler) typeOf(s *Step) *cel.Type {
	if t := c.drafts[s.Index].output; t != nil {
		return t
	}
	return cel.DynType
}

// switchType is the type all cases have in common, or anything.
func (c *compiler) switchType(d *draftStep) *cel.Type {
	var common *cel.Type
	for _, k := range d.step.Switch.Cases {
		t := cel.DynType
		switch {
		case k.Output != nil:
			t = c.partType(k.Output.root, "output of step "+d.step.ID)
		case len(k.Steps) > 0:
			t = c.typeOf(k.Steps[len(k.Steps)-1])
		}
		if common == nil {
			common = t
		}
		if !common.IsExactType(t) {
			return cel.DynType
		}
	}
	if common == nil || !d.hasElse && common.Kind() != types.StructKind {
		return cel.DynType // it may be null
	}
	return common
}

// partType is the type of what a template renders to.
func (c *compiler) partType(p part, name string) *cel.Type {
	switch p := p.(type) {
	case exprPart:
		return c.exprType(p.expr)
	case textPart:
		return cel.StringType
	case constPart:
		return constType(p.raw)
	case listPart:
		return cel.ListType(cel.DynType)
	case objPart:
		t, fields := c.objects.define(name)
		dropped := map[string]bool{}
		for i, inner := range p.parts {
			fields[p.names[i]] = c.partType(inner, name+" "+p.names[i])
			if e, ok := inner.(exprPart); ok && e.expr != nil && e.expr.out != nil && isOptional(e.expr.out) {
				dropped[p.names[i]] = true
			}
		}
		c.objects.dropped[t.TypeName()] = dropped
		return t
	}
	return cel.DynType
}

// exprType is the type of a whole expression in a template; an optional is what is in it, or the name is not there.
func (c *compiler) exprType(e *Expr) *cel.Type {
	if e == nil {
		return cel.DynType // it is reported already
	}
	if t := e.out; t != nil {
		return jsonType(unwrapped(t))
	}
	return cel.DynType
}

func isOptional(t *cel.Type) bool {
	return t.Kind() == types.OpaqueKind && t.TypeName() == "optional_type" && len(t.Parameters()) == 1
}

// unwrapped is the type of what an optional holds; any other type is itself.
func unwrapped(t *cel.Type) *cel.Type {
	if isOptional(t) {
		return t.Parameters()[0]
	}
	return t
}

// jsonType is a type after its values went through JSON: times are text, and so on.
func jsonType(t *cel.Type) *cel.Type {
	switch t.Kind() {
	case types.StringKind, types.BoolKind, types.IntKind, types.DoubleKind, types.StructKind:
		return t
	case types.BytesKind, types.TimestampKind, types.DurationKind:
		return cel.StringType
	case types.ListKind:
		return cel.ListType(jsonType(t.Parameters()[0]))
	case types.MapKind:
		if t.Parameters()[0].Kind() == types.StringKind {
			return cel.MapType(cel.StringType, jsonType(t.Parameters()[1]))
		}
	default:
	}
	return cel.DynType
}

func constType(raw []byte) *cel.Type {
	switch raw[0] {
	case '"':
		return cel.StringType
	case 't', 'f':
		return cel.BoolType
	}
	return cel.DynType
}
