package workflow

import (
	"slices"

	"cel.dev/cel-go/cel"
)

// shaper makes the types of expressions from schemas. What a schema leaves open is dyn: looked at when it is there.
type shaper struct {
	objects *objects
	root    *node
	name    string
	known   map[*node]*cel.Type // objects; a schema may refer to itself
	depth   int
}

// shapeDepthMax ends the typing of lists of lists: a schema may refer to itself without an object between.
const shapeDepthMax = 2 * SchemaDepthMax

// openKeys may let more names in than a schema's properties say.
var openKeys = []string{
	"allOf", "anyOf", "oneOf", "if", "not", "patternProperties", "dependentSchemas", "$dynamicRef", "unevaluatedProperties",
}

func (s *shaper) of(n *node, path string) *cel.Type {
	if n == nil || n.kind != nodeObject || s.depth > shapeDepthMax {
		return cel.DynType
	}
	s.depth++
	defer func() { s.depth-- }()
	if ref := n.get("$ref"); ref != nil {
		target := s.target(ref)
		if target == nil || len(n.members) > 1 && n.get("default") == nil && n.get("description") == nil {
			return cel.DynType
		}
		return s.of(target, path)
	}
	kind, nullable := s.kind(n)
	switch {
	case kind == "object":
		return s.object(n, path)
	case nullable:
		return cel.DynType
	case kind == "array":
		if n.get("prefixItems") != nil {
			return cel.ListType(cel.DynType)
		}
		return cel.ListType(s.of(n.get("items"), nameInside(path, "entry")))
	}
	if t, ok := scalarShapes[kind]; ok {
		return t
	}
	return cel.DynType
}

var scalarShapes = map[string]*cel.Type{
	"string": cel.StringType, "integer": cel.IntType, "number": cel.DoubleType, "boolean": cel.BoolType,
}

// target finds what a reference within the schema means. References that lead in a circle without an object between
// mean nothing.
func (s *shaper) target(ref *node) *node {
	for range 16 {
		path, ok := refPath(ref.text)
		if !ok {
			return nil
		}
		target := s.root.at(path)
		if target.kind != nodeObject {
			return nil
		}
		if ref = target.get("$ref"); ref == nil {
			return target
		}
	}
	return nil
}

// kind is the one JSON type a schema allows besides null, or empty.
func (s *shaper) kind(n *node) (kind string, nullable bool) {
	t := n.get("type")
	if t == nil {
		return s.kindOfValues(n), false
	}
	if t.kind == nodeText {
		return t.text, false
	}
	for _, item := range t.items {
		switch {
		case item.text == "null":
			nullable = true
		case kind == "":
			kind = item.text
		default:
			return "", true
		}
	}
	return kind, nullable
}

// kindOfValues is the type of all values of enum or const, or that of properties.
func (s *shaper) kindOfValues(n *node) string {
	if n.get("properties") != nil {
		return "object"
	}
	values := []*node{n.get("const")}
	if e := n.get("enum"); e != nil {
		values = e.items
	}
	for _, v := range values {
		if v == nil || v.kind != nodeText {
			return ""
		}
	}
	if len(values) == 0 {
		return ""
	}
	return "string"
}

func (s *shaper) object(n *node, path string) *cel.Type {
	if t := s.known[n]; t != nil {
		return t
	}
	properties, more := n.get("properties"), n.get("additionalProperties")
	open := slices.ContainsFunc(openKeys, func(k string) bool { return n.get(k) != nil })
	if more != nil && (more.kind != nodeBool || more.text == "true") {
		open = true
	}
	switch {
	case properties == nil && !open || properties == nil && more != nil && more.kind == nodeBool:
		return cel.MapType(cel.StringType, cel.DynType)
	case open || properties.kind != nodeObject:
		return cel.DynType
	}
	name := s.name
	if path != "" {
		name += "," + path
	}
	t, fields := s.objects.define(name)
	s.known[n] = t
	for _, m := range properties.members {
		fields[m.name] = s.of(m.value, nameInside(path, m.name))
		if texts := s.enum(m.value); len(texts) > 0 {
			if s.objects.enums[t.TypeName()] == nil {
				s.objects.enums[t.TypeName()] = map[string][]string{}
			}
			s.objects.enums[t.TypeName()][m.name] = texts
		}
	}
	return t
}

// enum are the texts that a schema allows, or none where it does not list them.
func (s *shaper) enum(n *node) []string {
	if ref := n.get("$ref"); ref != nil {
		n = s.target(ref)
	}
	if k := n.get("const"); k != nil && k.kind == nodeText {
		return []string{k.text}
	}
	var texts []string
	if e := n.get("enum"); e != nil {
		for _, item := range e.items {
			if item.kind != nodeText {
				return nil
			}
			texts = append(texts, item.text)
		}
	}
	return texts
}
