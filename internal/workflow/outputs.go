package workflow

import (
	"strconv"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// stepType declares what can be read of a step. Its output is anything until it is known.
func (c *compiler) stepType(d *draftStep) *cel.Type {
	if d.shape != nil {
		return d.shape
	}
	d.shape, d.fields = c.objects.define("step " + d.step.Path)
	fields := d.fields
	fields["status"], fields["error"] = cel.StringType, c.errorType()
	fields["duration_s"], fields["cost_usd"] = cel.DoubleType, cel.DoubleType
	fields["output"] = cel.DynType
	c.kindFields(d, fields)
	if d.output != nil {
		fields["output"] = d.output
	}
	return d.shape
}

func (c *compiler) errorType() *cel.Type {
	return c.object("the error of a step", func(fields map[string]*cel.Type) {
		fields["class"], fields["message"] = cel.StringType, cel.StringType
		fields["attempts"] = cel.ListType(c.object("an attempt of a step", func(fields map[string]*cel.Type) {
			fields["class"], fields["message"] = cel.StringType, cel.StringType
		}))
	})
}

// kindFields declares what only steps of one kind have.
func (c *compiler) kindFields(d *draftStep, fields map[string]*cel.Type) {
	switch d.step.Kind {
	case KindAgent:
		fields["confidence"], fields["model"], fields["summary"] = cel.DoubleType, cel.StringType, cel.StringType
		fields["unresolved"] = cel.ListType(cel.StringType)
		fields["gate"] = c.object("the gate of a step", func(fields map[string]*cel.Type) {
			fields["score"], fields["rounds"] = cel.DoubleType, cel.IntType
		})
		fields["usage"] = c.object("the usage of a step", func(fields map[string]*cel.Type) {
			for _, name := range []string{"input", "cache_read", "cache_write", "output", "reasoning"} {
				fields[name] = cel.IntType
			}
		})
	case KindMap:
		fields["errors"] = cel.ListType(c.object("the error of an item", func(fields map[string]*cel.Type) {
			fields["index"], fields["class"], fields["message"] = cel.IntType, cel.StringType, cel.StringType
		}))
	case KindLoop:
		fields["iterations"], fields["exhausted"] = cel.IntType, cel.BoolType
	case KindSwitch:
		fields["case"] = cel.IntType
	case KindMerge:
		fields["agreement"] = cel.DoubleType
		fields["dissent"] = cel.ListType(c.object("an output that was not taken", func(fields map[string]*cel.Type) {
			fields["step"], fields["output"] = cel.StringType, cel.DynType
		}))
	case KindPlan:
		fields["plan"] = cel.DynType
	case KindWorkflow:
		fields["run"] = cel.StringType
	case KindApproval:
		fields["choice"], fields["by"] = cel.StringType, cel.StringType
	case KindEmit:
		fields["event_id"] = cel.StringType
	case KindTool, KindGroup, KindWait, KindSet:
	}
}

// typeOutput works out the type of a step's output, once everything inside it is typed.
func (c *compiler) typeOutput(d *draftStep) {
	if d.output != nil {
		return
	}
	d.output = c.outputType(d)
	if d.fields != nil {
		d.fields["output"] = d.output
	}
}

func (c *compiler) outputType(d *draftStep) *cel.Type {
	s := d.step
	switch {
	case s.Agent != nil:
		c.choices(d)
		return c.agentType(s.Agent)
	case s.Tool != nil:
		return contractType(s.Tool.Output, cel.DynType)
	case s.Approval != nil:
		return schemaType(s.Approval.Form)
	case s.Plan != nil && s.Plan.Output != nil:
		return c.partType(s.Plan.Output.root, "output of step "+s.Path)
	case s.Workflow != nil:
		c.workflowChoices(d)
	case s.Set != nil:
		return c.partType(s.Set.root, "output of step "+s.Path)
	case s.Group != nil && s.Group.Output != nil:
		return c.partType(s.Group.Output.root, "output of step "+s.Path)
	case s.Group != nil:
		t, fields := c.objects.define("output of step " + s.Path)
		for _, in := range s.Group.Steps {
			fields[in.ID] = c.typeOf(in)
		}
		return t
	case s.Switch != nil:
		return c.switchType(d)
	case s.Map != nil:
		return c.mapType(d)
	case s.Loop != nil:
		return c.bodyType(s.Loop.Output, s.Loop.Body, "output of step "+s.Path)
	case s.Merge != nil:
		return c.mergeType(d)
	case s.Plan != nil && s.Plan.Output != nil:
		return c.partType(s.Plan.Output.root, "output of step "+s.Path)
	case s.Approval != nil && s.Approval.Form != nil && s.Approval.Form.shape != nil:
		return s.Approval.Form.shape
	}
	return cel.DynType
}

// agentType is the type of what an agent answers: of one that is chosen when it is called, the type all have in common.
func (c *compiler) agentType(a *AgentStep) *cel.Type {
	if a.By == nil {
		return contractType(a.Agent.Output, cel.StringType)
	}
	var common *cel.Type
	for _, choice := range a.Choices {
		common = commonType(common, contractType(choice.Output, cel.StringType))
	}
	return orDyn(common)
}

// commonType is the type of what is of one type or the other; nil: of neither yet.
func commonType(a, b *cel.Type) *cel.Type {
	if a == nil || a.IsExactType(b) {
		return b
	}
	return cel.DynType
}

func orDyn(t *cel.Type) *cel.Type {
	if t == nil {
		return cel.DynType
	}
	return t
}

// bodyType is the type of what one item or iteration gives.
func (c *compiler) bodyType(output *Template, b *Body, name string) *cel.Type {
	switch {
	case output != nil:
		return c.partType(output.root, name)
	case b == nil || len(b.Main) == 0:
		return cel.DynType
	}
	last := b.Main[len(b.Main)-1]
	if c.mayNotSucceed(c.drafts[last.Index]) != "" {
		return cel.DynType // it may be null
	}
	return c.typeOf(last)
}

func (c *compiler) mapType(d *draftStep) *cel.Type {
	m := d.step.Map
	if m.KeepErrors {
		return cel.ListType(cel.DynType) // some may be null
	}
	return cel.ListType(c.bodyType(m.Output, m.Body, "entry of the output of step "+d.step.Path))
}

// mergeType: a member that failed is null among those collected; the others take one that did not.
func (c *compiler) mergeType(d *draftStep) *cel.Type {
	switch m := d.step.Merge; m.Strategy {
	case StrategyCollect:
		return cel.ListType(cel.DynType)
	case StrategyJudge:
		if m.Agent != nil {
			return c.agentType(m.Agent)
		}
	case StrategyFirst, StrategyMajority, StrategyConsensus:
		return c.membersType(d)
	}
	return cel.DynType
}

// membersType is the type that the outputs of a merge's members have in common, or anything.
func (c *compiler) membersType(d *draftStep) *cel.Type {
	var common *cel.Type
	for _, slot := range d.step.Merge.Of {
		common = commonType(common, c.typeOf(d.body.drafts[slot].step))
	}
	return orDyn(common)
}

// judgedType is the type of the root output where the output of a step is looked at before it is taken.
func (c *compiler) judgedType(v view) *cel.Type {
	d := v.judged
	switch {
	case v.agent != nil:
		return contractType(v.agent.agent.Output, cel.StringType)
	case d == nil:
		return cel.DynType
	case d.step.Merge != nil:
		return c.membersType(d)
	case d.step.Plan != nil:
		return cel.DynType
	}
	c.typeOutput(d)
	return d.output
}

// itemType is the type of what a map's items are.
func (c *compiler) itemType(d *draftStep) *cel.Type {
	if d.item == nil {
		d.item = c.entryType(d)
	}
	return d.item
}

func (c *compiler) entryType(d *draftStep) *cel.Type {
	if d.step.Map.Items == nil {
		return cel.DynType
	}
	var common *cel.Type
	switch p := d.step.Map.Items.root.(type) {
	case exprPart:
		if t := c.exprType(p.expr); t.Kind() == types.ListKind {
			return t.Parameters()[0]
		}
	case listPart:
		for i, item := range p.items {
			common = commonType(common, c.partType(item, "item "+strconv.Itoa(i)+" of step "+d.step.Path))
		}
	case constPart:
		for _, item := range d.node.get("map").get("items").items {
			common = commonType(common, constType(item.canonical()))
		}
	}
	return orDyn(common)
}

// iterType declares what is known of an iteration within it. The output of the one before is typed by what contracts
// say of it: what is inside the loop is typed later than what reads it.
func (c *compiler) iterType(d *draftStep) *cel.Type {
	if d.iter == nil {
		t, fields := c.objects.define("the iteration of " + d.step.Path)
		d.iter = t
		fields["number"], fields["last"] = cel.IntType, c.promisedOutput(d)
	}
	return d.iter
}

func schemaType(s *Schema) *cel.Type {
	if s == nil {
		return cel.DynType
	}
	return orDyn(s.shape)
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
			t = c.partType(k.Output.root, "output of step "+d.step.Path)
		case len(k.Steps) > 0:
			t = c.typeOf(k.Steps[len(k.Steps)-1])
		}
		common = commonType(common, t)
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
			fields[p.names[i]] = c.partType(inner, nameInside(name, p.names[i]))
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
