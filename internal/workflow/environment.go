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
	// TemplateCostMax bounds the evaluations of all expressions of one template together.
	TemplateCostMax = 10 * ExpressionCostMax
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
	placeAccept    // of a chain's entry: an answer is judged by itself
	placeAgentGate // of an agent's gate: it serves steps of whatever workflow part, and reads none of them
	placesMax
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

// inRun reports whether the steps of a run can be read at a place.
func (p place) inRun() bool { return p >= placeMain && p <= placeFinally }

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

// environment is what expressions of one view see.
type environment struct {
	env   *cel.Env
	roots []string
}

// envKey: views that see the same share an environment.
type envKey struct {
	view   view
	output *cel.Type // of the root output
}

// environment makes the environment of a view when it is first needed.
func (c *compiler) environment(v view) *environment {
	if e := c.envs[v]; e != nil {
		return e
	}
	key := envKey{view: v}
	if v.further == furtherAnswer || v.further == furtherOutput {
		key.view.judged, key.view.agent, key.output = nil, nil, c.judgedType(v)
	}
	e := c.sharedEnvs[key]
	if e == nil {
		e = c.newEnvironment(key)
		c.sharedEnvs[key] = e
	}
	c.envs[v] = e
	return e
}

func (c *compiler) newEnvironment(key envKey) *environment {
	e := &environment{}
	declared := []cel.EnvOption{cel.CustomTypeProvider(c.objects)}
	root := func(name string, t *cel.Type) {
		declared = append(declared, cel.Variable(name, t))
		e.roots = append(e.roots, name)
	}
	v := key.view
	switch v.place {
	case placeAccept:
		c.answerRoots(root, cel.DynType)
	case placeSubmission:
		root("input", c.inputType())
	case placeAgentGate:
		root("input", c.inputType())
		root("run", c.runType(placeMain))
		root("contracts", c.contractsType())
	default:
		c.ordinaryRoots(v, root)
	}
	c.furtherRoots(key, root)
	env, err := baseEnv().Extend(declared...)
	if err != nil { // a defect of this package
		panic(fmt.Errorf("declare the roots of expressions: %w", err))
	}
	e.env = env
	return e
}

// ordinaryRoots declares what every expression of a run reads. One that was planned reads nothing of the run.
func (c *compiler) ordinaryRoots(v view, root func(name string, t *cel.Type)) {
	root("input", c.inputType())
	if !c.planned {
		root("run", c.runType(v.place))
	}
	root("steps", c.stepsType(v.place, v.body))
	if !c.planned {
		root("contracts", c.contractsType())
	}
	inMap, inLoop := false, false
	for b := v.body; b.outer != nil; b = b.outer {
		if m := b.owner.step.Map; m != nil {
			if !inMap {
				root("item", c.itemType(b.owner))
				root("index", cel.IntType)
			}
			if b.as != "" {
				root(b.as, c.itemType(b.owner))
			}
			inMap = true
		} else if !inLoop {
			root("iter", c.iterType(b.owner))
			inLoop = true
		}
	}
}

// furtherRoots declares the roots that only some places have.
func (c *compiler) furtherRoots(key envKey, root func(name string, t *cel.Type)) {
	switch key.view.further {
	case furtherAnswer:
		c.answerRoots(root, key.output)
	case furtherOutput:
		root(rootOutput, key.output)
	case furtherEvent:
		root("event", c.object("the event", func(fields map[string]*cel.Type) {
			fields["name"], fields["data"] = cel.StringType, cel.DynType
		}))
	case furtherEstimate:
		root("estimate", c.object("the estimate", func(fields map[string]*cel.Type) {
			fields["usd_max"], fields["steps"], fields["tools"] = cel.DoubleType, cel.IntType, cel.ListType(cel.StringType)
		}))
	case furtherNone:
	}
}

// object defines an object type that is the same wherever it is needed.
func (c *compiler) object(name string, define func(fields map[string]*cel.Type)) *cel.Type {
	if c.objects.fields[name] != nil {
		return cel.ObjectType(name)
	}
	t, fields := c.objects.define(name)
	define(fields)
	return t
}

func (c *compiler) inputType() *cel.Type {
	if c.w.Input == nil || c.w.Input.shape == nil {
		return cel.DynType
	}
	return c.w.Input.shape
}

func (c *compiler) runType(p place) *cel.Type {
	return c.object([...]string{"", "the run", "the failed run", "the ended run"}[p], func(fields map[string]*cel.Type) {
		for _, name := range []string{"id", "workflow", "stakes", "mode"} {
			fields[name] = cel.StringType
		}
		fields["version"] = cel.IntType
		fields["labels"] = cel.MapType(cel.StringType, cel.StringType)
		fields["started_at"], fields["now"] = cel.TimestampType, cel.TimestampType
		fields["time_left_s"], fields["cost_usd"] = cel.DoubleType, cel.DoubleType
		fields["quality"] = c.object("the quality of the run", func(fields map[string]*cel.Type) {
			fields["level"], fields["name"] = cel.IntType, cel.StringType
			fields["omitted"], fields["reasons"] = cel.ListType(cel.StringType), cel.ListType(cel.StringType)
		})
		if p == placeMain {
			return
		}
		fields["status"] = cel.StringType
		fields["error"] = c.object("the error of the run", func(fields map[string]*cel.Type) {
			fields["step"], fields["class"], fields["message"] = cel.StringType, cel.StringType, cel.StringType
		})
	})
}

// contractsType declares the contracts: each is a JSON Schema.
func (c *compiler) contractsType() *cel.Type {
	return c.object(objectContracts, func(fields map[string]*cel.Type) {
		for name := range c.w.Contracts {
			fields[name] = cel.DynType
		}
	})
}

// stepsType declares the steps an expression of the place may read: those of its body and the ones around it, of its
// own section and of the ones before.
func (c *compiler) stepsType(p place, b *draftBody) *cel.Type {
	if b.shapes[p] != nil {
		return b.shapes[p]
	}
	name := [...]string{"", "the steps of ", "the steps up to on_failure of ", "the steps up to finally of "}[p]
	t, fields := c.objects.define(name + b.prefix)
	b.shapes[p] = t
	for _, d := range b.drafts {
		if d.step.ID != "" && placeOf(d.step.Section) <= p {
			fields[d.step.ID] = c.stepType(d)
		}
	}
	if b.outer != nil {
		c.objects.outer[t.TypeName()] = c.stepsType(p, b.outer).TypeName()
	}
	return t
}
