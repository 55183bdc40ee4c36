package workflow

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/fermata-run/fermata/internal/fault"
)

// Schema is a JSON Schema (2020-12; formats are asserted, only references within the schema itself are followed). It
// is safe for concurrent use.
type Schema struct {
	Raw json.RawMessage // canonical JSON

	compiled *jsonschema.Schema
	defaults bool // somewhere in it a default is given
	root     any  // decoded, for filling in defaults
	shape    *cel.Type

	mu    sync.Mutex
	meter *meter
}

// Limits of schemas.
const (
	SchemaBytesMax = 64 << 10
	SchemaDepthMax = 32

	// What is visited in one check is bounded by the size of the value: nested alternatives that refer back to
	// themselves take time that grows with a power of its depth.
	checkStepsMin     = 20_000
	checkStepsPerNode = 100
	checkStepsMax     = 1_000_000
)

// schemaURL names a schema to the library; it shows nowhere.
const schemaURL = "fermata:///schema"

// ParseSchema compiles a JSON Schema that stands alone. The error is a *fault.Error with every problem.
func ParseSchema(raw json.RawMessage) (*Schema, error) {
	p := &problems{}
	n, err := parse(raw, p)
	if err != nil {
		return nil, err
	}
	c := &compiler{p: p, objects: newObjects()}
	s := c.schema(n, "the schema")
	if err := p.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// schema compiles a schema of the definition; name is what its objects are called in messages about expressions.
func (c *compiler) schema(n *node, name string) *Schema {
	if n == nil || n.kind == nodeBad {
		return nil
	}
	if n.kind != nodeObject && n.kind != nodeBool {
		c.p.add(n.spot(), codeType, "must be a JSON Schema (an object, true or false), not %s", n.kind)
		return nil
	}
	s := &Schema{Raw: n.canonical()}
	if len(s.Raw) > SchemaBytesMax {
		c.p.add(n.spot(), codeLimit, "the schema has %d bytes; the limit is %d", len(s.Raw), SchemaBytesMax)
		return s
	}
	if !c.schemaNumbers(n, 0) {
		return s
	}
	root, err := decodeExact(s.Raw)
	if err != nil {
		c.p.add(n.spot(), codeSchema, "%v", err)
		return s
	}
	s.root = root
	if err := s.compile(); err != nil {
		c.schemaProblem(n, err)
		return s
	}
	s.defaults = hasDefaults(root)
	shaper := &shaper{objects: c.objects, root: n, name: name, known: map[*node]*cel.Type{}}
	s.shape = shaper.of(n, "")
	return s
}

func (s *Schema) compile() error {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	compiler.UseLoader(noLoader{})
	compiler.UseRegexpEngine(func(pattern string) (jsonschema.Regexp, error) {
		re, _, err := compileRegex(pattern)
		return re, err
	})
	if err := compiler.AddResource(schemaURL, s.root); err != nil {
		return err
	}
	compiled, err := compiler.Compile(schemaURL)
	if err != nil {
		return err
	}
	s.compiled, s.meter = compiled, &meter{}
	s.meter.attach(compiled, map[*jsonschema.Schema]bool{})
	return nil
}

// schemaNumbers refuses numbers that cannot be compared exactly, and nesting that is too deep.
func (c *compiler) schemaNumbers(n *node, depth int) bool {
	if depth > SchemaDepthMax {
		c.p.add(n.spot(), codeDepth, "the schema is nested more than %d deep", SchemaDepthMax)
		return false
	}
	if n.kind == nodeNumber && !numberFits(n.text) {
		c.p.add(n.spot(), codeNumber, "the number is out of range")
		return false
	}
	ok := true
	for _, v := range n.items {
		ok = c.schemaNumbers(v, depth+1) && ok
	}
	for _, m := range n.members {
		ok = c.schemaNumbers(m.value, depth+1) && ok
	}
	return ok
}

type noLoader struct{}

var errRemoteRef = errors.New("a schema can only refer to itself (#/…)")

// Load implements jsonschema.URLLoader.
func (noLoader) Load(string) (any, error) { return nil, errRemoteRef }

// schemaProblem reports what is wrong with a schema, at the place in it.
func (c *compiler) schemaProblem(n *node, err error) {
	var invalid *jsonschema.SchemaValidationError
	var violation *jsonschema.ValidationError
	if errors.As(err, &invalid) && errors.As(invalid.Err, &violation) {
		for _, v := range violations(violation) {
			c.p.add(n.at(v.path).spot(), codeSchema, "this is no valid JSON Schema: %s", v.issue.Detail)
		}
		return
	}
	var regex *jsonschema.InvalidRegexError
	var load *jsonschema.LoadURLError
	var anchor *jsonschema.AnchorNotFoundError
	switch {
	case errors.As(err, &regex):
		at := n.search(func(v *node) bool { return v.kind == nodeText && v.text == regex.Regex })
		c.p.add(at.spot(), codeSchema, "the pattern %q is not a regular expression (RE2): %v", clip(regex.Regex), regex.Err)
	case errors.As(err, &load):
		at := n.search(func(v *node) bool {
			return v.kind == nodeText && (v.name == "$ref" || v.name == "$dynamicRef" || v.name == "$schema") && !strings.HasPrefix(v.text, "#")
		})
		c.p.add(at.spot(), codeSchema, "%v", errRemoteRef)
	case errors.As(err, &anchor):
		_, name, _ := strings.Cut(anchor.Reference, "#")
		at := n.search(func(v *node) bool { return v.kind == nodeText && v.text == "#"+name })
		c.p.add(at.spot(), codeSchema, "there is nothing at #%s", clip(name))
	default:
		text := strings.ReplaceAll(err.Error(), schemaURL, "")
		at := n.search(func(v *node) bool { return v.name == "$ref" && v.kind == nodeText && strings.Contains(text, v.text) })
		c.p.add(at.spot(), codeSchema, "this is no valid JSON Schema: %s", clip(text))
	}
}

// search finds the first value inside that is meant, or answers the node itself.
func (n *node) search(meant func(*node) bool) *node {
	if found := n.searchInside(meant); found != nil {
		return found
	}
	return n
}

func (n *node) searchInside(meant func(*node) bool) *node {
	if meant(n) {
		return n
	}
	for _, v := range n.items {
		if found := v.searchInside(meant); found != nil {
			return found
		}
	}
	for _, m := range n.members {
		if found := m.value.searchInside(meant); found != nil {
			return found
		}
	}
	return nil
}

// Check answers every violation of the schema, with pointers into the value; none: the value meets it.
func (s *Schema) Check(value json.RawMessage) []fault.Issue {
	v, err := decodeExact(value)
	if err != nil {
		return []fault.Issue{{Code: "json", Detail: err.Error()}}
	}
	err = s.validate(v)
	if err == nil {
		return nil
	}
	var violation *jsonschema.ValidationError
	if !errors.As(err, &violation) {
		return []fault.Issue{{Code: "too_complex", Detail: err.Error()}}
	}
	var issues []fault.Issue
	for _, v := range violations(violation) {
		if len(issues) == fault.IssuesMax {
			break
		}
		issues = append(issues, v.issue)
	}
	return issues
}

func (s *Schema) validate(v any) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			stopped, ok := r.(tooComplex)
			if !ok {
				panic(r)
			}
			err = stopped
		}
	}()
	var w weight
	w.native(v)
	s.meter.left = min(checkStepsMin+checkStepsPerNode*w.plain, checkStepsMax)
	return s.compiled.Validate(v)
}

type tooComplex struct{}

// Error implements error.
func (tooComplex) Error() string {
	return "checking the value takes too many steps: the schema refers to itself too often"
}

// meter counts the subschemas visited in one check and stops it when there are too many.
type meter struct{ left int }

// Validate implements jsonschema.SchemaExt.
func (m *meter) Validate(*jsonschema.ValidatorContext, any) {
	if m.left--; m.left < 0 {
		panic(tooComplex{})
	}
}

// attach sets the meter on a schema and everything it consists of.
func (m *meter) attach(s *jsonschema.Schema, seen map[*jsonschema.Schema]bool) {
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	s.Extensions = append(s.Extensions, m)
	for _, sub := range []*jsonschema.Schema{
		s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else, s.PropertyNames, s.UnevaluatedProperties, s.Contains, s.Items2020, s.UnevaluatedItems, s.ContentSchema,
	} {
		m.attach(sub, seen)
	}
	for _, list := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf, s.PrefixItems} {
		for _, sub := range list {
			m.attach(sub, seen)
		}
	}
	for _, sub := range s.Properties {
		m.attach(sub, seen)
	}
	for _, sub := range s.PatternProperties {
		m.attach(sub, seen)
	}
	for _, sub := range s.DependentSchemas {
		m.attach(sub, seen)
	}
	for _, v := range []any{s.AdditionalProperties, s.Items, s.AdditionalItems} {
		switch v := v.(type) {
		case *jsonschema.Schema:
			m.attach(v, seen)
		case []*jsonschema.Schema:
			for _, sub := range v {
				m.attach(sub, seen)
			}
		}
	}
}
