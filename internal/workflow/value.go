package workflow

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// appendValue writes what an expression gave as JSON.
func appendValue(out []byte, v ref.Val, depth int) ([]byte, error) {
	if len(out) > RenderBytesMax {
		return out, errRenderTooLarge
	}
	if depth > decodeDepthMax {
		return out, errRenderTooDeep
	}
	switch v := v.(type) {
	case types.String:
		return appendQuoted(out, string(v)), nil
	case types.Null:
		return append(out, "null"...), nil
	case types.Bool:
		return appendNative(out, bool(v), depth)
	case types.Int:
		return appendNative(out, int64(v), depth)
	case types.Uint:
		return appendNative(out, uint64(v), depth)
	case types.Double:
		return appendFloat(out, float64(v))
	case types.Bytes:
		return appendNative(out, []byte(v), depth)
	case types.Timestamp:
		return appendNative(out, v.Time, depth)
	case types.Duration:
		return appendNative(out, v.Duration, depth)
	case *types.Optional:
		if !v.HasValue() {
			return append(out, "null"...), nil
		}
		return appendValue(out, v.GetValue(), depth)
	case *types.Type:
		return appendQuoted(out, v.TypeName()), nil
	case traits.Mapper:
		return appendMapper(out, v, depth)
	case traits.Lister:
		return appendLister(out, v, depth)
	}
	return out, fmt.Errorf("a %s cannot be written as JSON", v.Type().TypeName())
}

func appendMapper(out []byte, m traits.Mapper, depth int) ([]byte, error) {
	if native, ok := m.Value().(map[string]any); ok {
		return appendNativeMap(out, native, depth)
	}
	values := map[string]ref.Val{}
	var names []string
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, err := keyText(key)
		if err != nil {
			return out, err
		}
		value, _ := m.Find(key)
		if o, ok := value.(*types.Optional); ok && !o.HasValue() {
			continue
		}
		if _, twice := values[name]; !twice {
			names = append(names, name)
		}
		values[name] = value
	}
	slices.Sort(names)
	out = append(out, '{')
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendQuoted(out, name), ':')
		var err error
		if out, err = appendValue(out, values[name], depth+1); err != nil {
			return out, err
		}
	}
	return append(out, '}'), nil
}

// keyText is the name a key gets in JSON.
func keyText(key ref.Val) (string, error) {
	switch k := key.(type) {
	case types.String:
		return string(k), nil
	case types.Bool, types.Int, types.Uint:
		return fmt.Sprint(k.Value()), nil
	}
	return "", fmt.Errorf("a %s cannot be a name in JSON", key.Type().TypeName())
}

func appendLister(out []byte, l traits.Lister, depth int) ([]byte, error) {
	if native, ok := l.Value().([]any); ok {
		return appendNative(out, native, depth)
	}
	out = append(out, '[')
	first := true
	for it := l.Iterator(); it.HasNext() == types.True; {
		v := it.Next()
		if o, ok := v.(*types.Optional); ok && !o.HasValue() {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		var err error
		if out, err = appendValue(out, v, depth+1); err != nil {
			return out, err
		}
	}
	return append(out, ']'), nil
}

// native turns what an expression gave into plain decoded JSON (see Scope). An empty optional is nil.
func native(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.String:
		return string(v), nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Double:
		return float64(v), nil
	case types.Null:
		return nil, nil
	}
	raw, err := appendValue(nil, v, 0)
	if err != nil {
		return nil, err
	}
	return Decode(raw)
}
