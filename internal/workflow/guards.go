package workflow

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/decls"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// A single call of these may do work, or make a value, that is a product of its arguments. The cost of an evaluation
// is counted after each call, so they are asked before.
var guarded = map[string]func(args []ref.Val) error{
	"replace":  guardReplace,
	"join":     guardJoin,
	"format":   guardFormat,
	"distinct": guardPairs, "sets.contains": guardPairs, "sets.equivalent": guardPairs, "sets.intersects": guardPairs,
	"hasOnly": guardPairs, "hasAny": guardPairs, "hasAll": guardPairs, "hasExactly": guardPairs,
}

// guards redefines the guarded functions on top of what they were.
func guards(all map[string]*decls.FunctionDecl) []cel.EnvOption {
	var options []cel.EnvOption
	for _, name := range slices.Sorted(slices.Values(keysOf(guarded))) {
		fn, guard := all[name], guarded[name]
		bindings, err := fn.Bindings()
		if err != nil {
			panic(fmt.Errorf("guard %s: %w", name, err))
		}
		original := map[string]*functions.Overload{}
		for _, b := range bindings {
			original[b.Operator] = b
		}
		var redefined []cel.FunctionOpt
		for _, o := range fn.OverloadDecls() {
			binding := cel.FunctionBinding(guardedOp(guard, original[o.ID()]))
			switch {
			case len(o.ArgTypes()) == 1:
				op := guardedOp(guard, original[o.ID()])
				binding = cel.UnaryBinding(func(v ref.Val) ref.Val { return op(v) })
			case len(o.ArgTypes()) == 2:
				op := guardedOp(guard, original[o.ID()])
				binding = cel.BinaryBinding(func(l, r ref.Val) ref.Val { return op(l, r) })
			}
			if o.IsMemberFunction() {
				redefined = append(redefined, cel.MemberOverload(o.ID(), o.ArgTypes(), o.ResultType(), binding))
			} else {
				redefined = append(redefined, cel.Overload(o.ID(), o.ArgTypes(), o.ResultType(), binding))
			}
		}
		options = append(options, cel.Function(name, redefined...))
	}
	return options
}

func guardedOp(guard func([]ref.Val) error, o *functions.Overload) functions.FunctionOp {
	return func(args ...ref.Val) ref.Val {
		if err := guard(args); err != nil {
			return types.WrapErr(err)
		}
		switch {
		case len(args) == 1 && o.Unary != nil:
			return o.Unary(args[0])
		case len(args) == 2 && o.Binary != nil:
			return o.Binary(args[0], args[1])
		}
		return o.Function(args...)
	}
}

func guardReplace(args []ref.Val) error {
	s, _ := args[0].(types.String)
	old, _ := args[1].(types.String)
	fresh, _ := args[2].(types.String)
	if len(s)+strings.Count(string(s), string(old))*max(len(fresh)-len(old), 0) > valueBytesMax {
		return errTextTooLong
	}
	return nil
}

func guardJoin(args []ref.Val) error {
	list, ok := args[0].(traits.Lister)
	if !ok {
		return nil
	}
	size := weigh(list).bytes
	if len(args) == 2 {
		separator, _ := args[1].(types.String)
		size += sizeOf(list) * len(separator)
	}
	if size > valueBytesMax {
		return errTextTooLong
	}
	return nil
}

func guardFormat(args []ref.Val) error {
	if w := weigh(args[1]); w.bytes+w.nodes+w.plain > valueBytesMax {
		return errTextTooLong
	}
	return nil
}

// pairsMax bounds the comparisons of functions that compare each entry with each.
const pairsMax = 1_000_000

func guardPairs(args []ref.Val) error {
	left := weigh(args[0])
	right := left
	if len(args) == 2 {
		right = weigh(args[1])
	}
	if left.units()*right.units() > pairsMax {
		return fmt.Errorf("the lists are too long to compare each entry with each")
	}
	return nil
}

// weight is how much there is to walk through in a value: what expressions made, what came from outside, text.
type weight struct{ nodes, plain, bytes int }

// units are what the walk costs, compared with one step of an evaluation.
func (w weight) units() int { return 1 + w.nodes/2 + w.plain/8 + w.bytes/128 }

// weighMax ends a weighing: what weighs more costs too much. A value may hold the same part many times.
const weighMax = 2*ExpressionCostMax + 1

func weigh(v ref.Val) weight {
	var w weight
	w.add(v)
	return w
}

func (w *weight) add(v ref.Val) {
	w.nodes++
	if w.nodes > weighMax {
		return
	}
	switch v := v.(type) {
	case types.String:
		w.bytes += len(v)
	case types.Bytes:
		w.bytes += len(v)
	case *types.Optional:
		if v.HasValue() {
			w.add(v.GetValue())
		}
	case traits.Mapper:
		if m, ok := v.Value().(map[string]any); ok {
			w.native(m)
			return
		}
		for it := v.Iterator(); it.HasNext() == types.True && w.nodes <= weighMax; {
			key := it.Next()
			value, _ := v.Find(key)
			w.add(key)
			w.add(value)
		}
	case traits.Lister:
		if l, ok := v.Value().([]any); ok {
			w.native(l)
			return
		}
		for it := v.Iterator(); it.HasNext() == types.True && w.nodes <= weighMax; {
			w.add(it.Next())
		}
	}
}

func (w *weight) native(v any) {
	w.plain++
	switch v := v.(type) {
	case string:
		w.bytes += len(v)
	case map[string]any:
		for name, value := range v {
			w.bytes += len(name)
			w.native(value)
		}
	case []any:
		for _, value := range v {
			w.native(value)
		}
	}
}

// prices counts what calls cost. It knows them by name, because a call on values of unknown type has no overload.
type prices struct{}

// costZone is what a call costs that may look up a time zone.
const costZone = 500

// constructed is the call that stands for the making of a list or map.
const constructed = "@constructed"

// CallCost implements cost.ActualCostEstimator.
func (prices) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	total := 1
	if types.IsUnknownOrError(result) {
		function = operators.Index // refused before it did anything
	}
	switch function {
	case operators.Add:
		switch r := result.(type) {
		case types.String:
			total += len(r) / 128
		case traits.Lister:
			if l, ok := args[1].(traits.Lister); ok {
				total += sizeOf(l) / 8
			}
		}
	case operators.Index, operators.OptIndex, operators.OptSelect, operators.LogicalNot, operators.NotStrictlyFalse,
		operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate, "size", "type", "dyn",
		"optional.of", "optional.none", "hasValue", "value", "or", "orValue":
	case "distinct", "sets.contains", "sets.equivalent", "sets.intersects", "hasOnly", "hasAny", "hasAll", "hasExactly":
		total += weigh(args[0]).units() * weigh(args[len(args)-1]).units() / 8
	case constructed:
		total += weigh(result).units()
	default:
		for _, a := range args {
			total += weigh(a).units() - 1
		}
		total += weigh(result).units() - 1
		if len(args) == 2 && strings.HasPrefix(function, "get") {
			total += costZone
		}
	}
	price := uint64(total)
	return &price
}

// constructor weighs the lists and maps an expression makes: without it, a value that holds another twice, nested,
// would grow without limit while each making of it cost the same.
type constructor struct {
	interpreter.InterpretableConstructor
}

// Function implements cost.Call.
func (constructor) Function() string { return constructed }

// OverloadID implements cost.Call.
func (constructor) OverloadID() string { return "" }

// Exec implements interpreter.InterpretableV2.
func (c constructor) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	v := c.InterpretableConstructor.Exec(frame)
	if t := frame.CostTracker(); t != nil {
		t.EvalVarArgs(nil, c.ID(), c, nil, v)
	}
	return v
}

// Eval implements interpreter.Interpretable.
func (c constructor) Eval(a interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(a, c.Exec)
}

func weighConstructors(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if k, ok := i.(interpreter.InterpretableConstructor); ok {
		return constructor{k}, nil
	}
	return i, nil
}

var _ cost.ActualCostEstimator = prices{}

// Limits of regular expressions. They are RE2: the time is the product of both.
const (
	regexSizeMax  = 2_000
	regexStepsMax = 50_000_000
)

// compileRegex compiles a pattern that is not too large.
func compileRegex(pattern string) (*regexp.Regexp, int, error) {
	if len(pattern) > 4*regexSizeMax {
		return nil, 0, fmt.Errorf("the regular expression is too large (%d bytes; the limit is %d)", len(pattern), 4*regexSizeMax)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, 0, err
	}
	size := regexSize(parsed)
	if size > regexSizeMax {
		return nil, 0, fmt.Errorf("the regular expression is too large (%d instructions; the limit is %d)", size, regexSizeMax)
	}
	re, err := regexp.Compile(pattern)
	return re, size, err
}

// regexSize counts what a pattern expands to: x{100} is a hundred x.
func regexSize(re *syntax.Regexp) int {
	size := 1 + len(re.Rune)/4
	for _, sub := range re.Sub {
		size = min(size+regexSize(sub), 1<<20)
	}
	if re.Op == syntax.OpRepeat {
		size = min(size*max(re.Max, re.Min, 1), 1<<20)
	}
	return size
}

func matchRegex(re *regexp.Regexp, size int, s ref.Val) ref.Val {
	text, ok := s.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(s)
	}
	if len(text)*size > regexStepsMax {
		return types.NewErr("the text is too long (%d bytes) for this regular expression", len(text))
	}
	return types.Bool(re.MatchString(string(text)))
}

// matches is the call with a pattern that is only known when it is made.
func matches(s, pattern ref.Val) ref.Val {
	p, ok := pattern.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(pattern)
	}
	re, size, err := compileRegex(string(p))
	if err != nil {
		return types.WrapErr(err)
	}
	return matchRegex(re, size, s)
}

// constantRegex compiles a pattern that is written in the expression once, with the expression.
func constantRegex() *interpreter.RegexOptimization {
	return &interpreter.RegexOptimization{
		Function: "matches", RegexIndex: 1,
		Factory: func(call interpreter.InterpretableCall, pattern string) (interpreter.InterpretableCall, error) {
			re, size, err := compileRegex(pattern)
			if err != nil {
				return nil, err
			}
			match := func(args ...ref.Val) ref.Val { return matchRegex(re, size, args[0]) }
			return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), match), nil
		},
	}
}
