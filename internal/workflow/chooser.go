package workflow

import (
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// ChoicesMax bounds what an expression may choose from.
const ChoicesMax = 50

// chooser reads a name that is chosen by an expression while the workflow runs: the whole text is one expression.
func (c *compiler) chooser(d *draftStep, n *node) *Template {
	o := d.owner()
	o.volatile = true
	t := c.template(n, o)
	if _, ok := t.root.(exprPart); !ok {
		c.p.add(n.spot(), codeExprPlace, "a name is chosen by one expression, with no text around it")
		return nil
	}
	d.chooses = c.sites[len(c.sites)-1]
	return t
}

// chosen are all the names that an expression may give. That is known of a property whose schema has an enum, of text
// that is written out, and of a choice between such; of anything else it is reported that it is not.
func (c *compiler) chosen(s *site, what string) []string {
	if s == nil || s.draft.typed == nil { // it is reported already
		return nil
	}
	tree := s.draft.typed
	e := tree.Expr()
	if isOptional(tree.GetType(e.ID())) {
		c.p.add(c.locate(s.node, s.start, 0), codeExprType, "%s must be named for certain; end the expression with .orValue(…)", what)
		return nil
	}
	names, ok := c.values(tree, e)
	switch {
	case !ok || len(names) == 0:
		c.p.add(c.locate(s.node, s.start, 0), codeExprType,
			"it cannot be known which %s this may name; choose by a property that is an enum of names in the schema of the input or in a contract", what)
		return nil
	case len(names) > ChoicesMax:
		c.p.add(c.locate(s.node, s.start, 0), codeLimit, "the expression chooses from %d; the limit is %d", len(names), ChoicesMax)
		return nil
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// values are all texts that an expression can give, where that is known.
func (c *compiler) values(tree *ast.AST, e ast.Expr) ([]string, bool) {
	switch e.Kind() {
	case ast.LiteralKind:
		text, ok := e.AsLiteral().(types.String)
		return []string{string(text)}, ok
	case ast.SelectKind, ast.CallKind:
	default:
		return nil, false
	}
	if operand, field, _, ok := selection(e); ok {
		names := c.objects.enums[unwrapped(tree.GetType(operand.ID())).TypeName()][field]
		return names, len(names) > 0
	}
	if e.Kind() != ast.CallKind {
		return nil, false
	}
	call := e.AsCall()
	switch call.FunctionName() {
	case operators.Conditional:
		return c.eitherOf(tree, call.Args()[1:])
	case "orValue", "or":
		return c.eitherOf(tree, append([]ast.Expr{call.Target()}, call.Args()...))
	}
	return nil, false
}

func (c *compiler) eitherOf(tree *ast.AST, all []ast.Expr) ([]string, bool) {
	var names []string
	for _, e := range all {
		more, ok := c.values(tree, e)
		if !ok {
			return nil, false
		}
		names = slices.Concat(names, more)
	}
	return names, true
}

// choices settles who may work at a step whose agent is chosen by an expression, once that is typed.
func (c *compiler) choices(d *draftStep) {
	a := d.step.Agent
	if a.By == nil || d.settled {
		return
	}
	d.settled = true
	at := d.node.get("agent")
	for _, name := range c.chosen(d.chooses, "agent") {
		draft, ok := c.agents[name]
		if !ok {
			c.unknownAgent(at, name, "the expression may give %q, and there is no agent of that name")
			continue
		}
		agent := c.laidOver(d, draft)
		c.gateOf(d, &agent)
		c.chainFits(d, &agent)
		if a.Choices == nil {
			a.Choices = map[string]*Agent{}
		}
		a.Choices[name] = &agent
	}
	a.Agent.Output = c.commonOutput(a)
	for _, e := range d.step.OnError {
		if e.Agent != nil {
			e.Agent.Output = a.Agent.Output
		}
	}
	for _, r := range c.w.Degrade {
		if set := r.Set[d.step.Index]; set.Agent != nil {
			set.Agent.Output = a.Agent.Output
		}
	}
}

// commonOutput is the contract of all who may work at a step; where they differ, nothing is known of it.
func (c *compiler) commonOutput(a *AgentStep) Contract {
	var common *Contract
	for _, name := range slices.Sorted(slices.Values(keysOf(a.Choices))) {
		k := a.Choices[name].Output
		switch {
		case common == nil:
			common = &k
		case !common.same(k):
			return Contract{}
		}
	}
	if common == nil {
		return Contract{}
	}
	return *common
}

func (k Contract) same(other Contract) bool {
	if (k.Schema == nil) != (other.Schema == nil) || k.JSON != other.JSON {
		return false
	}
	return k.Schema == nil || string(k.Schema.Raw) == string(other.Schema.Raw)
}

// agentType is the type of what an agent step gives.
func (c *compiler) agentType(d *draftStep) *cel.Type {
	a := d.step.Agent
	if a.By == nil {
		return contractType(a.Agent.Output, cel.StringType)
	}
	c.choices(d)
	for _, choice := range a.Choices {
		if !choice.Output.same(a.Agent.Output) {
			return cel.DynType
		}
	}
	return contractType(a.Agent.Output, cel.StringType)
}

// laidOver is an agent with the step's own keys laid over it.
func (c *compiler) laidOver(d *draftStep, draft *draftAgent) Agent {
	a := draft.agent
	draft.used = true
	c.overlay(&a, d.node, "output of step "+d.step.ID)
	c.delegates(&a, d.node)
	if draft.bare && !namesAnswerer(d.node) {
		c.reportBare(draft)
	}
	if way := a.reaches(a.Name, map[*Agent]bool{}); way != nil && d.node.get("delegates") != nil {
		c.reportDelegates(d.node.get("delegates"), append([]string{a.Name}, way...))
	}
	return a
}
