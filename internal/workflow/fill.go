package workflow

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Fill sets what is absent from a value to the schema's defaults: in objects, nested ones, entries of lists, and
// through references and allOf. A default is taken as it is, its own objects are filled as well. Where nothing is
// absent the value comes back unchanged. The error says that the value is not JSON, or that filling it
// takes too many steps.
func (s *Schema) Fill(value json.RawMessage) (json.RawMessage, error) {
	v, err := decodeExact(value)
	if err != nil {
		return nil, err
	}
	if !s.defaults {
		return value, nil
	}
	f := &filler{root: s.root, left: checkStepsMax}
	v = f.fill(s.root, v, 0)
	if f.left <= 0 {
		return nil, tooComplex{}
	}
	if !f.filled {
		return value, nil
	}
	out, err := appendNative(nil, v, 0)
	if err != nil {
		return nil, fmt.Errorf("fill in the defaults: %w", err)
	}
	return out, nil
}

func hasDefaults(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if name == "default" || hasDefaults(inner) {
				return true
			}
		}
	case []any:
		for _, inner := range v {
			if hasDefaults(inner) {
				return true
			}
		}
	}
	return false
}

type filler struct {
	root   any
	filled bool
	left   int // steps: what refers to itself twice takes a power of the depth
}

// fillDepthMax ends the filling of a value whose schema refers to itself.
const fillDepthMax = 64

func (f *filler) fill(schema, value any, depth int) any {
	s, ok := schema.(map[string]any)
	if f.left--; !ok || depth > fillDepthMax || f.left <= 0 {
		return value
	}
	if ref, ok := s["$ref"].(string); ok {
		value = f.fill(resolve(f.root, ref), value, depth+1)
	}
	if all, ok := s["allOf"].([]any); ok {
		for _, inner := range all {
			value = f.fill(inner, value, depth+1)
		}
	}
	switch v := value.(type) {
	case map[string]any:
		f.object(s, v, depth)
	case []any:
		for i, item := range v {
			v[i] = f.fill(s["items"], item, depth+1)
		}
	}
	return value
}

func (f *filler) object(s, value map[string]any, depth int) {
	properties, _ := s["properties"].(map[string]any)
	for name, inner := range properties {
		if _, there := value[name]; !there {
			fallback, ok := f.fallback(inner, depth)
			if !ok {
				continue
			}
			value[name], f.filled = clone(fallback), true
		}
		value[name] = f.fill(inner, value[name], depth+1)
	}
}

// fallback is the default of a property, its own or that of what it refers to.
func (f *filler) fallback(schema any, depth int) (any, bool) {
	s, ok := schema.(map[string]any)
	if !ok || depth > fillDepthMax {
		return nil, false
	}
	if d, ok := s["default"]; ok {
		return d, true
	}
	if ref, ok := s["$ref"].(string); ok {
		return f.fallback(resolve(f.root, ref), depth+1)
	}
	return nil, false
}

// clone copies a default, which is the schema's own.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, inner := range v {
			m[name] = clone(inner)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, inner := range v {
			list[i] = clone(inner)
		}
		return list
	}
	return v
}

// resolve follows a reference within a schema (#/$defs/x), or answers nil.
func resolve(root any, ref string) any {
	path, ok := refPath(ref)
	if !ok {
		return nil
	}
	for _, p := range path {
		switch v := root.(type) {
		case map[string]any:
			root = v[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(v) {
				return nil
			}
			root = v[i]
		default:
			return nil
		}
	}
	return root
}

var pointerUnescapes = strings.NewReplacer("~1", "/", "~0", "~")

// refPath takes apart a reference by pointer.
func refPath(ref string) ([]string, bool) {
	rest, ok := strings.CutPrefix(ref, "#")
	if !ok || rest != "" && rest[0] != '/' {
		return nil, false
	}
	var path []string
	for i, p := range strings.Split(rest, "/") {
		if i > 0 {
			path = append(path, pointerUnescapes.Replace(p))
		}
	}
	return path, true
}
