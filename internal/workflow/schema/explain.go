package schema

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
)

// Topic is what there is to say of one key of the format.
type Topic struct {
	Path        string            `json:"path"` // steps.map.concurrency; empty: the whole
	Type        string            `json:"type"`
	Form        string            `json:"form,omitempty"` // what all values of the type look like
	Required    bool              `json:"required"`
	Description string            `json:"description"`
	Default     json.RawMessage   `json:"default,omitempty"`
	Values      []json.RawMessage `json:"values,omitempty"` // it is one of them; none: anything of the type
	Limits      string            `json:"limits,omitempty"`
	Examples    []json.RawMessage `json:"examples,omitempty"`
	NotRun      string            `json:"not_run,omitempty"` // this version does not run it
	Keys        []Topic           `json:"keys,omitempty"`    // one level of them
}

// Explain finds a key by its path, the names that lead to it with dots between: lists and names that are given freely
// are passed through (steps.map.concurrency, agents.model). The error is a *fault.Error and says what may have been meant.
func Explain(path string) (*Topic, error) {
	at, topic := key{schema: root()}, Topic{}
	if path = strings.Trim(path, "."); path != "" {
		for _, name := range strings.Split(path, ".") {
			inside := at.inside()
			i := slices.IndexFunc(inside, func(k key) bool { return k.name == name })
			if i < 0 {
				return nil, unknown(at, name)
			}
			at = inside[i]
		}
	}
	topic = at.topic()
	for _, k := range at.inside() {
		topic.Keys = append(topic.Keys, k.topic())
	}
	return &topic, nil
}

// key is one key, and the schema it has there.
type key struct {
	path, name string
	schema     *tree
	required   bool
}

// unknown says that there is no key of a name.
func unknown(at key, name string) error {
	var known []string
	for _, k := range at.inside() {
		known = append(known, k.name)
	}
	where := "the format"
	if at.path != "" {
		where = at.path
	}
	e := fault.New(fault.KindNotFound, "unknown_key", "%s has no key %q", where, name)
	switch near := fault.Nearest(name, known); {
	case near != "":
		e.Detail += fmt.Sprintf("; did you mean %s?", at.join(near))
	case len(elsewhere(name)) > 0:
		e.Detail += "; it stands at " + strings.Join(elsewhere(name), ", ")
	case len(known) == 0:
		e.Detail += "; it has no keys at all"
	default:
		e.Detail += "; known: " + strings.Join(known, ", ")
	}
	return e
}

// elsewhereDepth bounds how deep a key is looked for: steps stand in steps.
const elsewhereDepth = 3

// elsewhere are paths that end with a name.
func elsewhere(name string) []string {
	var found []string
	level := []key{{schema: root()}}
	for range elsewhereDepth {
		var next []key
		for _, k := range level {
			for _, in := range k.inside() {
				if in.name == name {
					found = append(found, in.path)
				}
				next = append(next, in)
			}
		}
		if len(found) > 0 {
			break
		}
		level = next
	}
	return found
}

func (k key) join(name string) string {
	if k.path == "" {
		return name
	}
	return k.path + "." + name
}

// inside are the keys of the objects that stand here: itself, in a list, or under free names.
func (k key) inside() []key {
	var keys []key
	for _, schema := range objects(k.schema, 0) {
		var required []string
		if list := schema.get("required"); list != nil {
			for _, name := range list.items {
				required = append(required, name.text())
			}
		}
		properties := schema.get("properties")
		for _, name := range properties.keys {
			if !slices.ContainsFunc(keys, func(k key) bool { return k.name == name }) {
				keys = append(keys, key{k.join(name), name, properties.get(name), slices.Contains(required, name)})
			}
		}
	}
	return keys
}

// objectsDepth bounds what stands for something else.
const objectsDepth = 12

// objects are the schemas with properties that a schema stands for.
func objects(t *tree, depth int) []*tree {
	if t == nil || depth > objectsDepth {
		return nil
	}
	if t.get("properties") != nil {
		return []*tree{t}
	}
	var found []*tree
	inner := []*tree{t.get("items"), t.get("additionalProperties")}
	if t.get("$ref") != nil {
		inner = append(inner, t.target())
	}
	for _, key := range []string{"anyOf", "allOf"} {
		if list := t.get(key); list != nil {
			inner = append(inner, list.items...)
		}
	}
	for _, schema := range inner {
		found = append(found, objects(schema, depth+1)...)
	}
	return found
}

// topic is what there is to say of a key, without those inside it.
func (k key) topic() Topic {
	own := chain(k.schema)
	t := Topic{Path: k.path, Required: k.required, Type: typeOf(own), Limits: limits(own)}
	t.Description = first(own, "description").text()
	t.NotRun = first(own, "deprecationMessage").text()
	for _, schema := range own[1:] {
		if form := schema.get("description").text(); form != "" && form != t.Description && t.Form == "" {
			t.Form = form
		}
	}
	t.Default = raw(first(own, "default"))
	t.Values = list(own, "enum")
	t.Examples = list(own, "examples")
	return t
}

// chain is a schema and what it refers to, the nearest first.
func chain(t *tree) []*tree {
	all := []*tree{t}
	if t.get("$ref") != nil {
		all = append(all, chain(t.target())...)
	}
	if list := t.get("allOf"); list != nil && list.items[0].get("$ref") != nil && t.get("properties") == nil {
		all = append(all, chain(list.items[0])...)
	}
	return all
}

// first is the nearest value of a key.
func first(all []*tree, key string) *tree {
	for _, t := range all {
		if v := t.get(key); v != nil {
			return v
		}
	}
	return nil
}

func list(all []*tree, key string) []json.RawMessage {
	var values []json.RawMessage
	if v := first(all, key); v != nil {
		for _, item := range v.items {
			values = append(values, raw(item))
		}
	}
	return values
}

// raw is a value as JSON; of none it is nothing.
func raw(t *tree) json.RawMessage {
	if t == nil {
		return nil
	}
	out, err := t.MarshalJSON()
	if err != nil { // it was read from JSON
		panic(err)
	}
	return out
}

var typeNames = map[string]string{
	"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "array": "list", "object": "object",
}

// typeBytesMax is how long a list of words may be to stand for their type.
const typeBytesMax = 24

// typeOf is what people call the type.
func typeOf(all []*tree) string {
	if title := first(all, "title").text(); title != "" {
		return title
	}
	if name := typeNames[first(all, "type").text()]; name != "" {
		return name
	}
	if k := first(all, "const"); k != nil {
		return strings.Trim(string(raw(k)), `"`)
	}
	var words []string
	if values := first(all, "enum"); values != nil {
		for _, v := range values.items {
			words = append(words, v.text())
		}
	}
	if text := strings.Join(words, " | "); len(text) <= typeBytesMax {
		return text
	}
	return "word"
}

// limits says in words between which bounds a value is.
func limits(all []*tree) string {
	bound := func(key string) string { return string(raw(first(all, key))) }
	var parts []string
	for _, range_ := range []struct{ low, high, what string }{
		{"minimum", "maximum", ""}, {"minItems", "maxItems", " entries"}, {"minProperties", "maxProperties", " keys"}, {"minLength", "maxLength", " characters"},
	} {
		low, high := bound(range_.low), bound(range_.high)
		switch {
		case low != "" && low == high:
			parts = append(parts, "exactly "+low+range_.what)
		case low != "" && high != "":
			parts = append(parts, low+" to "+high+range_.what)
		case low != "":
			parts = append(parts, "at least "+low+range_.what)
		case high != "":
			parts = append(parts, "at most "+high+range_.what)
		}
	}
	return strings.Join(parts, ", ")
}
