package workflow

import (
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// helpers are our own functions.
func helpers() []cel.EnvOption {
	text, number := cel.StringType, cel.IntType
	unary := func(name string, result *cel.Type, op func(ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(name+"_dyn", []*cel.Type{cel.DynType}, result, cel.UnaryBinding(op)))
	}
	return []cel.EnvOption{
		unary("json", text, toJSON),
		unary("num", cel.DynType, toNumber),
		unary("tokens", number, tokens),
		cel.Function("truncate",
			cel.Overload("truncate_dyn_int", []*cel.Type{cel.DynType, number}, text, cel.BinaryBinding(truncate)),
			cel.MemberOverload("string_truncate_int", []*cel.Type{text, number}, text, cel.BinaryBinding(truncate))),
		cel.Function(overloads.Matches,
			cel.Overload("matches_text", []*cel.Type{text, text}, cel.BoolType, cel.BinaryBinding(matches)),
			cel.MemberOverload("matches_string", []*cel.Type{text, text}, cel.BoolType, cel.BinaryBinding(matches))),
		wholeNumbers(),
	}
}

// wholeNumbers lets the functions on doubles take integers: which of the two a number is, JSON does not say.
func wholeNumbers() cel.EnvOption {
	never := func(ref.Val) ref.Val { return types.False }
	always := func(ref.Val) ref.Val { return types.True }
	of := func(name string, result *cel.Type, op func(ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(strings.ReplaceAll(name, ".", "_")+"_of_int", []*cel.Type{cel.IntType}, result, cel.UnaryBinding(op)))
	}
	return func(e *cel.Env) (*cel.Env, error) {
		var err error
		for _, o := range []cel.EnvOption{
			of("math.ceil", cel.DoubleType, asDoubleVal), of("math.floor", cel.DoubleType, asDoubleVal),
			of("math.round", cel.DoubleType, asDoubleVal), of("math.trunc", cel.DoubleType, asDoubleVal),
			of("math.isNaN", cel.BoolType, never), of("math.isInf", cel.BoolType, never), of("math.isFinite", cel.BoolType, always),
		} {
			if e, err = o(e); err != nil {
				return nil, err
			}
		}
		return e, nil
	}
}

func asDoubleVal(v ref.Val) ref.Val {
	f, ok := asDouble(v)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	return types.Double(f)
}

// toJSON writes any value as compact JSON.
func toJSON(v ref.Val) ref.Val {
	out, err := appendValue(nil, v, 0)
	if err != nil {
		return types.NewErr("json: %v", err)
	}
	return types.String(out)
}

// toNumber reads a number from text; numbers stay what they are.
func toNumber(v ref.Val) ref.Val {
	switch v := v.(type) {
	case types.Int, types.Double:
		return v
	case types.Uint:
		return types.Int(v)
	case types.String:
		d := decoder{raw: []byte(strings.TrimSpace(string(v)))}
		n, err := d.number()
		if err != nil || d.i < len(d.raw) || len(d.raw) > numberDigitsMax {
			return types.NewErr("num: %q is not a number", clip(string(v)))
		}
		return types.DefaultTypeAdapter.NativeToValue(n)
	}
	return types.MaybeNoSuchOverloadErr(v)
}

// tokens estimates how many tokens a value takes as text: four characters make one.
func tokens(v ref.Val) ref.Val {
	out, err := appendText(nil, v)
	if err != nil {
		return types.NewErr("tokens: %v", err)
	}
	return types.Int((utf8.RuneCount(out) + 3) / 4)
}

// truncate cuts a value's text to at most n characters; what was cut off is marked by an ellipsis in the last.
func truncate(v, n ref.Val) ref.Val {
	limit, ok := n.(types.Int)
	if !ok {
		return types.MaybeNoSuchOverloadErr(n)
	}
	if limit < 0 {
		return types.NewErr("truncate: %d is no length", limit)
	}
	out, err := appendText(nil, v)
	if err != nil {
		return types.NewErr("truncate: %v", err)
	}
	s := string(out)
	if int64(len(s)) <= int64(limit) || int64(utf8.RuneCountInString(s)) <= int64(limit) {
		return types.String(s)
	}
	if limit == 0 {
		return types.String("")
	}
	kept := 0
	for i := range s {
		if kept == int(limit)-1 {
			return types.String(s[:i] + "…")
		}
		kept++
	}
	return types.String(s)
}
