package workflow

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// typed checks and compiles every expression, in an order in which the outputs it reads are typed already.
func (c *compiler) typed() {
	c.omitted = c.omittedSteps()
	byOwner := make([][]*site, 2*len(c.drafts)+2)
	for _, s := range c.sites {
		n := len(byOwner) - 2
		if s.owner.step != nil {
			n = opening(s.owner.step.step.Index)
		}
		if s.owner.closing {
			n++
		}
		byOwner[n] = append(byOwner[n], s)
	}
	nodes := append(c.inOrder(), len(byOwner)-2, len(byOwner)-1)
	for _, n := range nodes {
		for _, s := range byOwner[n] {
			if !c.p.full() {
				c.checkSite(s)
			}
		}
		if n < len(byOwner)-2 && n%2 == 1 {
			c.typeOutput(c.drafts[n/2])
		}
	}
}

// checkSite checks an expression where it is written: what it means once, what it may read at each place.
func (c *compiler) checkSite(s *site) {
	d := s.draft
	if !d.checked {
		d.checked = true
		d.expr.out = types.DynType
		c.check(d)
	}
	c.report(s)
	c.checkMissing(s)
	if len(d.faults) == 0 {
		c.checkWanted(s)
	}
}

// wanted says what an expression must give, and what can be put in the place of a value that is missing.
var wanted = [...]struct {
	text, instead string
	kinds         []types.Kind
}{
	wantBool:   {"a condition must be true or false", "false", []types.Kind{types.BoolKind}},
	wantNumber: {"it must give a number", "0", []types.Kind{types.IntKind, types.UintKind, types.DoubleKind}},
	wantList:   {"it must give a list", "[]", []types.Kind{types.ListKind}},
	wantTime:   {"it must give a time", "", []types.Kind{types.TimestampKind, types.StringKind}},
}

// checkWanted refuses an expression that gives what its place has no use for. What is not known is looked at when it
// is there.
func (c *compiler) checkWanted(s *site) {
	w, out := wanted[s.want], s.draft.expr.out
	if s.want == wantAny || slices.Contains(w.kinds, out.Kind()) || out.Kind() == types.DynKind || out.Kind() == types.TypeParamKind {
		return
	}
	hint := ""
	if isOptional(out) && w.instead != "" {
		hint = "; end it with .orValue(" + w.instead + ")"
	}
	c.p.add(c.locate(s.node, s.start, 0), codeExprType, "%s; this is %s%s", w.text, typeText(out), hint)
}

func (c *compiler) check(d *draftExpr) {
	if !c.checkNames(d) || len(d.faults) > 0 {
		return
	}
	e := c.environment(d.view)
	checked := c.checkTypes(d, e)
	if checked == nil {
		return
	}
	dispatchByValue(checked.NativeRep())
	program, err := e.env.PlanProgram(checked.NativeRep(), programOptions(checked.NativeRep())...)
	if err != nil {
		d.fault(0, codeExprType, err.Error(), "")
		return
	}
	d.expr.program = program
	d.expr.out, d.typed = checked.OutputType(), checked.NativeRep()
}

// checkNames looks up the steps and the fields of the run that are read. False: something is wrong that is reported
// already where it is written.
func (c *compiler) checkNames(d *draftExpr) bool {
	ok := true
	for _, r := range d.reads.steps {
		if !d.view.place.inRun() {
			break
		}
		ok = c.checkStepName(d, r) && ok
	}
	for _, r := range d.reads.run {
		if d.view.place == placeMain && (r.field == "status" || r.field == "error") {
			d.fault(d.offsetOf(r.at), codeUnknownField, fmt.Sprintf("run.%s is there only in on_failure and finally", r.field), "")
		} else if d.view.place == placeFinally && r.field == "error" && r.strict {
			d.fault(d.offsetOf(r.at), codeMaybeMissing, "run.error is missing after a run without error; read it with ?", "run.?error")
		}
	}
	for _, r := range d.reads.iter {
		if r.field == "last" && r.strict && d.view.body.inLoop() {
			d.fault(d.offsetOf(r.at), codeMaybeMissing, "iter.last is missing in the first iteration; read it with ?: iter.?last", "iter.?last")
		}
	}
	return ok
}

func (c *compiler) checkStepName(d *draftExpr, r stepRead) bool {
	other := c.seen(d.view.body, r.id)
	switch {
	case other != nil && placeOf(other.step.Section) > d.view.place:
		d.fault(d.offsetOf(r.at), codeSection, fmt.Sprintf("%q is listed under %s, which has not run yet here", r.id, sectionKey(other.step.Section)), "")
	case other != nil && r.field == "artifacts":
		d.fault(d.offsetOf(r.at), codeNotSupported, "artifacts are part of the format but this version does not make them", "")
	case other != nil:
	default:
		if _, container := c.hidden(d.view.body, r.id); container != nil {
			return false
		}
		tail, edit := didYouMean(r.id, c.seenNames(d.view.body, d.view.place))
		d.fault(d.offsetOf(r.at), codeUnknownStep, fmt.Sprintf("there is no step %q%s", r.id, tail), edit)
	}
	return true
}

// checkTypes runs the checker. Where it refuses only because JSON knows fewer kinds of values than CEL does, the
// values in question are checked when they are there, at run time.
func (c *compiler) checkTypes(d *draftExpr, e *environment) *cel.Ast {
	const roundsMax = 20
	for round := 0; ; round++ {
		checked, issues := e.env.Check(d.ast)
		if issues.Err() == nil {
			if round < roundsMax && c.soften(d, checked.NativeRep()) {
				continue
			}
			return checked
		}
		loosened := false
		for _, err := range issues.Errors() {
			if round < roundsMax && c.loosen(d, err) {
				loosened = true
			}
		}
		if loosened {
			continue
		}
		for _, err := range issues.Errors() {
			code, detail, edit := c.explain(d.view, e, err.Message)
			d.fault(d.offset(err.Location), code, detail, edit)
		}
		return nil
	}
}

var (
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
	noRange    = regexp.MustCompile(`^expression of type '(.*)' cannot be range of a comprehension`)
	// optionalCalls are the calls that take an optional as such; for any other it is a value that may be missing.
	optionalCalls = []string{"or", "orValue", "hasValue", operators.Conditional}
	otherTypes    = regexp.MustCompile(`\b(string|bytes|timestamp|duration|google)\b`)
)

// loosen wraps what a refused call works on into dyn(), if it is refused for one of these reasons only: an object
// whose names are known is a map, too; an integer is a number, too; null may stand for anything.
func (c *compiler) loosen(d *draftExpr, err *cel.Error) bool {
	e := d.find(err.ExprID)
	if e == nil {
		return false
	}
	if m := noRange.FindStringSubmatch(err.Message); m != nil && c.objects.namedIn(m[1]) {
		if e.Kind() == ast.ComprehensionKind {
			e = e.AsComprehension().IterRange()
		}
		return d.wrap(e)
	}
	m := noOverload.FindStringSubmatch(err.Message)
	if m == nil || e.Kind() != ast.CallKind {
		return false
	}
	applied := m[2]
	if strings.Contains(applied, "optional_type") && !slices.Contains(optionalCalls, m[1]) {
		return false
	}
	numbers := strings.Contains(applied, "int") && strings.Contains(applied, "double") && !otherTypes.MatchString(applied)
	if !numbers && !strings.Contains(applied, "null") && !c.objects.namedIn(applied) {
		return false
	}
	call, wrapped := e.AsCall(), false
	args := slices.Clone(call.Args())
	if call.IsMemberFunction() {
		args = append(args, call.Target())
	}
	for _, a := range args {
		if a.Kind() != ast.LiteralKind {
			wrapped = d.wrap(a) || wrapped
		}
	}
	if !wrapped && len(args) > 0 { // literals all of them
		wrapped = d.wrap(args[0])
	}
	return wrapped
}

// soften makes reads of names that a set may leave out optional: standing alone such a value is left out in turn, and
// where one is computed with, the checker demands what to take instead.
func (c *compiler) soften(d *draftExpr, checked *ast.AST) bool {
	var soft []ast.Expr
	ast.PreOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() {
			return
		}
		t := unwrapped(checked.GetType(e.AsSelect().Operand().ID()))
		if t.Kind() == types.StructKind && c.objects.dropped[t.TypeName()][e.AsSelect().FieldName()] {
			soft = append(soft, e)
		}
	}))
	factory := ast.NewExprFactory()
	for _, e := range soft {
		s := e.AsSelect()
		name := factory.NewLiteral(d.fresh(e), types.String(s.FieldName()))
		e.SetKindCase(factory.NewCall(e.ID(), operators.OptSelect, s.Operand(), name))
	}
	return len(soft) > 0
}

// fresh is an unused id for a node that stands where e does.
func (d *draftExpr) fresh(e ast.Expr) int64 {
	tree := d.ast.NativeRep()
	id := ast.MaxID(tree) + 1
	if r, ok := tree.SourceInfo().GetOffsetRange(e.ID()); ok {
		tree.SourceInfo().SetOffsetRange(id, r)
	}
	return id
}

// wrap makes x into dyn(x), in place.
func (d *draftExpr) wrap(e ast.Expr) bool {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "dyn" {
		return false
	}
	fresh := d.fresh(e)
	factory := ast.NewExprFactory()
	inner := factory.CopyExpr(e)
	inner.RenumberIDs(func(id int64) int64 {
		if id == e.ID() {
			return fresh
		}
		return id
	})
	e.SetKindCase(factory.NewCall(e.ID(), "dyn", inner))
	return true
}

// dispatchByValue has calls on numbers find their implementation by the values: a number that a schema calls an
// integer may be spelled 8.0, and one that is a double 8.
func dispatchByValue(checked *ast.AST) {
	number := func(e ast.Expr) bool {
		t := checked.GetType(e.ID())
		return t.Kind() == types.IntKind || t.Kind() == types.DoubleKind
	}
	ast.PreOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		ids := checked.GetOverloadIDs(e.ID())
		if len(ids) == 1 && (slices.ContainsFunc(call.Args(), number) || call.IsMemberFunction() && number(call.Target())) {
			checked.SetReference(e.ID(), ast.NewFunctionReference(ids[0], ids[0]+"_by_value"))
		}
	}))
}

// programOptions: an expression that is sure to be cheap is evaluated without counting.
func programOptions(checked *ast.AST) []cel.ProgramOption {
	if cheap(checked.Expr()) {
		return nil
	}
	return []cel.ProgramOption{
		cel.CostTracking(prices{}), cel.CostLimit(ExpressionCostMax),
		cel.CustomDecoratorV2(weighConstructors), cel.OptimizeRegex(constantRegex()),
	}
}

// cheapCallsMax bounds the calls of an expression that is not counted.
const cheapCallsMax = 16

var cheapCalls = []string{
	"_&&_", "_||_", "!_", "_?:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_[_]", "_[?_]", "_?._", "-_",
	"_-_", "_*_", "_/_", "_%_", "or", "orValue", "hasValue", "value", "dyn", "size",
}

func cheap(e ast.Expr) bool {
	calls, ok := 0, true
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.CallKind:
			calls++
			ok = ok && slices.Contains(cheapCalls, e.AsCall().FunctionName())
		case ast.IdentKind, ast.LiteralKind, ast.SelectKind:
		default:
			ok = false
		}
	}))
	return ok && calls <= cheapCallsMax
}

var (
	noField     = regexp.MustCompile(`^undefined field '([^']*)'`)
	noReference = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noSelection = regexp.MustCompile(`^type '(.*)' does not support field selection`)
)

// explain says in our words what the checker refused.
func (c *compiler) explain(v view, e *environment, message string) (code, detail, edit string) {
	if m := noField.FindStringSubmatch(message); m != nil {
		owner := c.objects.missed[m[1]]
		tail, edit := didYouMean(m[1], c.objects.known(types.NewObjectType(owner)))
		if owner == objectContracts {
			return codeUnknownSchema, fmt.Sprintf("there is no contract %q%s", m[1], tail), edit
		}
		return codeUnknownField, fmt.Sprintf("%s has no field %q%s", owner, m[1], tail), edit
	}
	if m := noReference.FindStringSubmatch(message); m != nil {
		return c.explainName(v, e, m[1])
	}
	if m := noOverload.FindStringSubmatch(message); m != nil {
		hint := ""
		if strings.Contains(m[2], "optional_type") {
			hint = "; say what to take where a value is missing, with .orValue(…)"
		}
		return codeExprType, fmt.Sprintf("%s cannot be applied to %s%s", operatorText(m[1]), m[2], hint), ""
	}
	if m := noSelection.FindStringSubmatch(message); m != nil {
		return codeExprType, fmt.Sprintf("%s has no fields", m[1]), ""
	}
	return codeExprType, message, ""
}

// rootsElsewhere are roots that not every place has.
var rootsElsewhere = map[string]string{
	"item": "inside a map", "index": "inside a map", "iter": "inside a loop",
	"event": "in signal.match", "estimate": "in approval.when of a plan",
}

// explainName says what is wrong with a name that nothing has.
func (c *compiler) explainName(v view, e *environment, name string) (code, detail, edit string) {
	if slices.Contains([]string{"steps", "run", "contracts"}, name) && slices.Equal(e.roots, []string{"input"}) {
		return codeUnknownName, "only the input can be read here: the run is not there yet", ""
	}
	if v.body != nil {
		if d := c.seen(v.body, name); d != nil && placeOf(d.step.Section) <= v.place {
			return codeUnknownName, fmt.Sprintf("%q is a step; read it as steps.%s.output", name, name), "steps." + name + ".output"
		}
	}
	if name == "steps" && v.place == placeAgentGate {
		return codeUnknownName, "the gate of an agent reads no steps: it goes wherever the agent works; write it as the gate of the step", ""
	}
	if where := rootsElsewhere[name]; where != "" {
		return codeUnknownName, fmt.Sprintf("%q is there only %s", name, where), ""
	}
	if name == "secrets" {
		return codeNotSupported, "secrets are part of the format but this version has none", ""
	}
	known := slices.Concat(e.roots, functionNames())
	if edit := fault.Nearest(name, known); edit != "" {
		return codeUnknownName, fmt.Sprintf("there is no %q here; did you mean %q?", name, edit), edit
	}
	return codeUnknownName, fmt.Sprintf("there is no %q here; an expression reads %s", name, strings.Join(e.roots, ", ")), ""
}

func operatorText(name string) string {
	if name == operators.Conditional {
		return "?:"
	}
	return strings.Trim(name, "_@")
}

func functionNames() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(baseEnv().Functions())), func(name string) bool { return strings.ContainsAny(name, "_@") })
}

func typeText(t *cel.Type) string { return cel.FormatCELType(t) }
