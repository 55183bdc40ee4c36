package workflow

import (
	"errors"
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// fields is a value that is looked into by name and never used as a whole: the compiler refuses an expression that
// does. The roots steps and run, and each step, are such values. It is a function, so that reading makes no maps.
type fields func(name string) (ref.Val, bool)

var (
	_ traits.Mapper = fields(nil)

	errNotWhole = errors.New("it can only be read by the name of a field")
)

// Find implements traits.Mapper.
func (f fields) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	return f(string(name))
}

// Get implements traits.Indexer.
func (f fields) Get(key ref.Val) ref.Val {
	v, ok := f.Find(key)
	if !ok {
		return types.NewErr("no such key: %v", key)
	}
	return v
}

// Contains implements traits.Container.
func (f fields) Contains(key ref.Val) ref.Val {
	_, ok := f.Find(key)
	return types.Bool(ok)
}

// ConvertToNative implements ref.Val.
func (fields) ConvertToNative(reflect.Type) (any, error) { return nil, errNotWhole }

// ConvertToType implements ref.Val.
func (fields) ConvertToType(ref.Type) ref.Val { return types.WrapErr(errNotWhole) }

// Equal implements ref.Val.
func (fields) Equal(ref.Val) ref.Val { return types.WrapErr(errNotWhole) }

// Type implements ref.Val.
func (fields) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (fields) Value() any { return nil }

// Size implements traits.Sizer.
func (fields) Size() ref.Val { return types.IntZero }

// Iterator implements traits.Iterable.
func (fields) Iterator() traits.Iterator {
	return types.NewDynamicList(types.DefaultTypeAdapter, []any{}).Iterator()
}

func (a *activation) step(id string) (ref.Val, bool) {
	v, ok := a.scope.Steps(id)
	if !ok {
		return nil, false
	}
	return fields(func(name string) (ref.Val, bool) { return found(v.Field(name)) }), true
}

func (a *activation) run(name string) (ref.Val, bool) {
	if name == "now" && !a.scope.Now.IsZero() {
		return types.Timestamp{Time: a.scope.Now}, true
	}
	return found(a.scope.Run(name))
}

func found(v any, ok bool) (ref.Val, bool) {
	if !ok {
		return nil, false
	}
	return asValue(v), true
}
