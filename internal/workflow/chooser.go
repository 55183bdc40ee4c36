package workflow

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// ChoicesMax bounds what an expression may choose from.
const ChoicesMax = 50

// isChosen reports whether a name is chosen by an expression.
func isChosen(n *node) bool {
	return n != nil && n.kind == nodeText && strings.Contains(n.text, exprOpen)
}

// chooser reads a name that is chosen by an expression while the workflow runs: the whole text is one expression.
func (c *compiler) chooser(d *draftStep, n *node) *Template {
	o := d.owner()
	o.volatile = true
	t := c.template(n, o)
	p, ok := t.root.(exprPart)
	switch {
	case !ok:
		c.p.add(n.spot(), codeExprPlace, "a name is chosen by one expression, with no text around it")
		return nil
	case p.expr != nil:
		d.chooses = c.sites[len(c.sites)-1]
	}
	return t
}

// chosen are all the names that an expression may give. That is known of a property whose schema has an enum, of text
// that is written out, and of a choice between such; of anything else it is reported that it is not.
func (c *compiler) chosen(s *site, what string) []string {
	tree := s.draft.typed
	e := tree.Expr()
	if isOptional(tree.GetType(e.ID())) {
		c.p.add(c.locate(s.node, s.start, 0), codeExprType, "the %s must be named for certain; end the expression with .orValue(…)", what)
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
	if a.By == nil || d.settled || d.chooses == nil || d.chooses.draft.typed == nil {
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
		c.chainFits(d, &agent, at)
		if a.Choices == nil {
			a.Choices = map[string]*Agent{}
		}
		a.Choices[name] = &agent
	}
	c.commonOutput(d)
}

// commonOutput: where all who may work at a step have the same contract, it is that of the step, and of who stands in for
// them. Where they differ, nothing is known of it.
func (c *compiler) commonOutput(d *draftStep) {
	a := d.step.Agent
	names := slices.Sorted(slices.Values(keysOf(a.Choices)))
	for _, name := range names {
		if !a.Choices[name].Output.same(a.Choices[names[0]].Output) {
			return
		}
	}
	if len(names) > 0 {
		a.Agent.Output = a.Choices[names[0]].Output
	}
	for _, choice := range a.Choices {
		choice.Output = a.Agent.Output
	}
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

func (k Contract) same(other Contract) bool {
	if (k.Schema == nil) != (other.Schema == nil) || k.JSON != other.JSON {
		return false
	}
	return k.Schema == nil || string(k.Schema.Raw) == string(other.Schema.Raw)
}

// laidOver is an agent with the step's own keys laid over it.
func (c *compiler) laidOver(d *draftStep, draft *draftAgent) Agent {
	a := draft.agent
	draft.used = true
	c.overlay(&a, d.node, "output of step "+d.step.Path)
	c.delegates(&a, d.node)
	if draft.bare && !namesAnswerer(d.node) {
		c.reportBare(draft)
	}
	if way := a.reaches(a.Name, map[*Agent]bool{}); way != nil && d.node.get("delegates") != nil {
		c.reportDelegates(d.node.get("delegates"), append([]string{a.Name}, way...))
	}
	return a
}
