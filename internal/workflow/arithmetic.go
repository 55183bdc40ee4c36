package workflow

import (
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// arithmetic is + - * / over JSON's one kind of number: integers and doubles mix, and / is always exact.
func arithmetic() []cel.EnvOption {
	i, u, d := cel.IntType, cel.UintType, cel.DoubleType
	span, at := cel.DurationType, cel.TimestampType
	list := cel.ListType(cel.TypeParamType("A"))
	numbers := func(name string, whole *cel.Type) []cel.FunctionOpt {
		return []cel.FunctionOpt{
			over(name, i, i, whole), over(name, u, u, unsigned(whole)), over(name, d, d, d), over(name, i, d, d), over(name, d, i, d),
		}
	}
	add := append(numbers("add", i), over("add", cel.StringType, cel.StringType, cel.StringType),
		over("add", cel.BytesType, cel.BytesType, cel.BytesType), over("add", list, list, list),
		over("add", span, span, span), over("add", span, at, at), over("add", at, span, at),
		cel.SingletonBinaryBinding(add))
	sub := append(numbers("subtract", i), over("subtract", span, span, span), over("subtract", at, at, span),
		over("subtract", at, span, at), cel.SingletonBinaryBinding(subtract))
	mul := append(numbers("multiply", i), cel.SingletonBinaryBinding(multiply))
	div := append(numbers("divide", d), cel.SingletonBinaryBinding(divide))
	return []cel.EnvOption{
		cel.Function(operators.Add, add...), cel.Function(operators.Subtract, sub...),
		cel.Function(operators.Multiply, mul...), cel.Function(operators.Divide, div...),
	}
}

// unsigned is the type of what two unsigned integers make, where two integers make whole.
func unsigned(whole *cel.Type) *cel.Type {
	if whole == cel.IntType {
		return cel.UintType
	}
	return whole
}

func over(name string, left, right, result *cel.Type) cel.FunctionOpt {
	id := fmt.Sprintf("%s_%s_%s", name, left.TypeName(), right.TypeName())
	return cel.Overload(id, []*cel.Type{left, right}, result)
}

// mixed brings an integer and a double to doubles; of anything else it changes nothing.
func mixed(l, r ref.Val) (ref.Val, ref.Val) {
	switch l := l.(type) {
	case types.Int:
		if r, ok := r.(types.Double); ok {
			return types.Double(l), r
		}
	case types.Double:
		if r, ok := r.(types.Int); ok {
			return l, types.Double(r)
		}
	}
	return l, r
}

// valueBytesMax and valueItemsMax bound a text and a list that an expression puts together.
const (
	valueBytesMax = 4 << 20
	valueItemsMax = 100_000
)

var (
	errTextTooLong = fmt.Errorf("the text would be longer than %d bytes", valueBytesMax)
	errListTooLong = fmt.Errorf("the list would be longer than %d entries", valueItemsMax)
)

func add(l, r ref.Val) ref.Val {
	l, r = mixed(l, r)
	switch l := l.(type) {
	case types.String:
		if r, ok := r.(types.String); ok && len(l)+len(r) > valueBytesMax {
			return types.WrapErr(errTextTooLong)
		}
	case types.Bytes:
		if r, ok := r.(types.Bytes); ok && len(l)+len(r) > valueBytesMax {
			return types.WrapErr(errTextTooLong)
		}
	case traits.Lister:
		if r, ok := r.(traits.Lister); ok && sizeOf(l)+sizeOf(r) > valueItemsMax {
			return types.WrapErr(errListTooLong)
		}
	}
	if a, ok := l.(traits.Adder); ok {
		return a.Add(r)
	}
	return types.MaybeNoSuchOverloadErr(l)
}

func sizeOf(v traits.Sizer) int {
	n, _ := v.Size().(types.Int)
	return int(n)
}

func subtract(l, r ref.Val) ref.Val {
	l, r = mixed(l, r)
	if s, ok := l.(traits.Subtractor); ok {
		return s.Subtract(r)
	}
	return types.MaybeNoSuchOverloadErr(l)
}

func multiply(l, r ref.Val) ref.Val {
	l, r = mixed(l, r)
	if m, ok := l.(traits.Multiplier); ok {
		return m.Multiply(r)
	}
	return types.MaybeNoSuchOverloadErr(l)
}

func divide(l, r ref.Val) ref.Val {
	a, ok := asDouble(l)
	if !ok {
		return types.MaybeNoSuchOverloadErr(l)
	}
	b, ok := asDouble(r)
	if !ok {
		return types.MaybeNoSuchOverloadErr(r)
	}
	if b == 0 {
		return types.NewErr("division by zero")
	}
	return types.Double(a / b)
}

func asDouble(v ref.Val) (float64, bool) {
	switch v := v.(type) {
	case types.Int:
		return float64(v), true
	case types.Uint:
		return float64(v), true
	case types.Double:
		return float64(v), true
	}
	return 0, false
}
