package workflow

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	celenv "cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/ext"
)

// Limits of one expression.
const (
	// ExpressionCostMax bounds one evaluation, in units of about 100 ns.
	ExpressionCostMax = 200_000
	// ExpressionLoopsMax bounds the macros (map, filter, all …) of one expression: the types of nested results grow
	// with each.
	ExpressionLoopsMax = 32
	// ExpressionsMax and ExpressionBytesTotalMax bound the expressions of one definition.
	ExpressionsMax          = 10_000
	ExpressionBytesTotalMax = 256 << 10

	expressionDepthMax = 100
	expressionNodesMax = 10_000
	rangeMax           = 10_000
	precisionMax       = 100
)

// place is where an expression stands; it decides what can be read there.
type place uint8

const (
	placeSubmission place = iota // stakes, mode: before the run is there
	placeMain
	placeOnFailure
	placeFinally
	placeAccept // of a chain's entry: an answer is judged by itself
)

// further says which roots are there beside those of the place.
type further uint8

const (
	furtherNone     further = iota
	furtherAnswer           // gate: output, confidence, usage, latency_ms
	furtherOutput           // until, best_by, merge.by, plan.output: output
	furtherEvent            // signal.match: event{name, data}
	furtherEstimate         // plan.approval.when: estimate{usd_max, steps, tools}
)

func placeOf(s Section) place { return placeMain + place(s) }

// baseEnv is CEL as it is everywhere here: its standard library with our arithmetic, and functions that stay bounded.
var baseEnv = sync.OnceValue(func() *cel.Env {
	subset := celenv.NewLibrarySubset().AddExcludedFunctions(
		celenv.NewFunction(operators.Add), celenv.NewFunction(operators.Subtract),
		celenv.NewFunction(operators.Multiply), celenv.NewFunction(operators.Divide),
		celenv.NewFunction(overloads.Matches),
	)
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(subset)),
		cel.OptionalTypes(),
		ext.Strings(ext.StringsMaxPrecision(precisionMax)),
		ext.Lists(ext.ListsMaxRangeSize(rangeMax)),
		ext.Math(),
		ext.Sets(),
		cel.CrossTypeNumericComparisons(true),
		cel.EnableIdentifierEscapeSyntax(),
		cel.ParserExpressionSizeLimit(ExpressionBytesMax),
		cel.ParserRecursionLimit(expressionDepthMax),
		cel.ExpressionNodeLimit(expressionNodesMax),
	}
	options = append(options, arithmetic()...)
	options = append(options, helpers()...)
	env, err := cel.NewCustomEnv(options...)
	if err == nil {
		env, err = env.Extend(guards(env.Functions())...)
	}
	if err != nil { // a defect of this package, seen by every test
		panic(fmt.Errorf("make the expression language: %w", err))
	}
	return env
})

// environment is what expressions of one place of a definition see.
type environment struct {
	env   *cel.Env
	roots []string
	steps map[string]bool
}

// environment makes the environment of a view when it is first needed.
func (c *compiler) environment(v view) *environment {
	if e := c.envs[v]; e != nil {
		return e
	}
	p := v.place
	e := &environment{steps: map[string]bool{}}
	declared := []cel.EnvOption{cel.CustomTypeProvider(c.objects)}
	root := func(name string, t *cel.Type) {
		declared = append(declared, cel.Variable(name, t))
		e.roots = append(e.roots, name)
	}
	if p == placeAccept {
		c.answerRoots(root, cel.DynType)
	} else {
		root("input", c.inputType())
	}
	if p != placeSubmission && p != placeAccept {
		root("run", c.runType(p))
		root("steps", c.stepsType(p, e))
	}
	c.furtherRoots(v, root)
	env, err := baseEnv().Extend(declared...)
	if err != nil { // a defect of this package
		panic(fmt.Errorf("declare the roots of expressions: %w", err))
	}
	e.env = env
	c.envs[v] = e
	return e
}

// furtherRoots declares the roots that only some places have.
func (c *compiler) furtherRoots(v view, root func(name string, t *cel.Type)) {
	switch v.further {
	case furtherAnswer:
		c.answerRoots(root, c.judgedType(v.judged))
	case furtherOutput:
		root(rootOutput, c.judgedType(v.judged))
	case furtherEvent:
		event, fields := c.objects.define("the event")
		fields["name"], fields["data"] = cel.StringType, cel.DynType
		root("event", event)
	case furtherEstimate:
		estimate, fields := c.objects.define("the estimate")
		fields["usd_max"], fields["steps"], fields["tools"] = cel.DoubleType, cel.IntType, cel.ListType(cel.StringType)
		root("estimate", estimate)
	case furtherNone:
	}
}

// judgedType is the type of the root output where a step's own output is judged.
func (c *compiler) judgedType(d *draftStep) *cel.Type {
	if d.step.Agent != nil || d.step.Tool != nil {
		return c.outputType(d)
	}
	return cel.DynType
}

func (c *compiler) inputType() *cel.Type {
	if c.w.Input == nil || c.w.Input.shape == nil {
		return cel.DynType
	}
	return c.w.Input.shape
}

func (c *compiler) runType(p place) *cel.Type {
	t, fields := c.objects.define([...]string{"", "the run", "the failed run", "the ended run"}[p])
	for _, name := range []string{"id", "workflow", "stakes", "mode"} {
		fields[name] = cel.StringType
	}
	fields["version"] = cel.IntType
	fields["labels"] = cel.MapType(cel.StringType, cel.StringType)
	fields["started_at"], fields["now"] = cel.TimestampType, cel.TimestampType
	fields["time_left_s"], fields["cost_usd"] = cel.DoubleType, cel.DoubleType
	quality, inner := c.objects.define("the quality of the run")
	inner["level"], inner["name"] = cel.IntType, cel.StringType
	inner["omitted"], inner["reasons"] = cel.ListType(cel.StringType), cel.ListType(cel.StringType)
	fields["quality"] = quality
	if p != placeMain {
		fields["status"] = cel.StringType
		failure, inner := c.objects.define("the error of the run")
		inner["step"], inner["class"], inner["message"] = cel.StringType, cel.StringType, cel.StringType
		fields["error"] = failure
	}
	return t
}

// stepsType declares the steps an expression of the place may read: those of its own section and of the ones before.
func (c *compiler) stepsType(p place, e *environment) *cel.Type {
	t, fields := c.objects.define([...]string{"", "the steps", "the steps up to on_failure", "the steps up to finally"}[p])
	for _, d := range c.drafts {
		if d.step.ID != "" && placeOf(d.step.Section) <= p {
			fields[d.step.ID] = c.stepType(d)
			e.steps[d.step.ID] = true
		}
	}
	return t
}
