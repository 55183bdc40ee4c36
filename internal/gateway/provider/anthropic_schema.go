package provider

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/agent"
)

// What Anthropic's servers enforce of a schema. Of the other keywords, those that only narrow a value are left out of
// what is sent: the prompt holds the whole schema, and the answer is checked against it. A schema that cannot be sent
// without these changing its meaning, one of open objects or one that refers to itself, is not sent.
var (
	anthropicKeywords = []string{
		"type", "required", "enum", "const", "description", "title", "default", "$ref",
	}
	anthropicNarrowing = []string{
		"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "maxItems",
		"uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties", "propertyNames", "dependentRequired",
		"$schema", "$id", "$comment", "examples", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType",
	}
	anthropicFormats = []string{"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)

const anthropicSchemaDepthMax = 20

// enforceable gives a schema as Anthropic's servers take it, in its own order: models write in the order they are
// shown. It answers nil for one that they cannot enforce.
func enforceable(schema json.RawMessage) json.RawMessage {
	var root struct {
		Type json.RawMessage `json:"type"`
	}
	if len(schema) == 0 || json.Unmarshal(schema, &root) != nil || string(root.Type) != `"object"` {
		return nil // answers are objects only
	}
	out, ok := enforce(schema, 0)
	if !ok || refersToItself(out) {
		return nil
	}
	return out
}

func enforce(schema json.RawMessage, depth int) (json.RawMessage, bool) {
	list, err := agent.Members(schema)
	if err != nil || depth > anthropicSchemaDepthMax {
		return nil, false
	}
	kept := list[:0]
	object, listed, closed, typed := false, false, false, false
	for _, m := range list {
		switch m.Name {
		case "type":
			typed, object = true, bytes.Contains(m.Value, []byte(`"object"`))
		case "enum", "const", "anyOf", "oneOf", "allOf", "$ref":
			typed = true
		case "properties":
			listed = true
		case "additionalProperties":
			closed = true
		}
		m, keep, ok := enforceKeyword(m, depth)
		switch {
		case !ok:
			return nil, false
		case keep:
			kept = append(kept, m)
		}
	}
	if !typed || object && !listed {
		return nil, false // anything, or an object of anything
	}
	if object && !closed {
		kept = append(kept, agent.Member{Name: "additionalProperties", Value: json.RawMessage("false")})
	}
	return agent.Object(kept), true
}

// enforceKeyword gives one keyword as it is sent. It is dropped unless keep; not ok: the schema cannot be sent.
func enforceKeyword(m agent.Member, depth int) (_ agent.Member, keep, ok bool) {
	keep, ok = true, true
	switch m.Name {
	case "additionalProperties":
		ok = string(m.Value) == "false"
	case "properties", "$defs":
		m.Value, ok = enforceEach(m.Value, depth)
	case "items":
		m.Value, ok = enforce(m.Value, depth+1)
	case "anyOf", "allOf":
		m.Value, ok = enforceList(m.Value, depth)
	case "oneOf":
		m.Name = "anyOf"
		m.Value, ok = enforceList(m.Value, depth)
	case "minItems":
		keep = string(m.Value) == "0" || string(m.Value) == "1"
	case "format":
		var name string
		keep = json.Unmarshal(m.Value, &name) == nil && slices.Contains(anthropicFormats, name)
	default:
		keep = !slices.Contains(anthropicNarrowing, m.Name)
		ok = !keep || slices.Contains(anthropicKeywords, m.Name)
	}
	return m, keep, ok
}

func enforceEach(of json.RawMessage, depth int) (json.RawMessage, bool) {
	list, err := agent.Members(of)
	if err != nil {
		return nil, false
	}
	for i := range list {
		inner, ok := enforce(list[i].Value, depth+1)
		if !ok {
			return nil, false
		}
		list[i].Value = inner
	}
	return agent.Object(list), true
}

func enforceList(of json.RawMessage, depth int) (json.RawMessage, bool) {
	var list []json.RawMessage
	if json.Unmarshal(of, &list) != nil {
		return nil, false
	}
	for i := range list {
		inner, ok := enforce(list[i], depth+1)
		if !ok {
			return nil, false
		}
		list[i] = inner
	}
	out, err := json.Marshal(list)
	return out, err == nil
}

// refersToItself reports whether following references comes back to where it was. A reference that leads nowhere
// known counts as one.
func refersToItself(schema json.RawMessage) bool {
	var root map[string]any
	if json.Unmarshal(schema, &root) != nil {
		return true
	}
	w := refWalk{seen: map[string]bool{}}
	w.defs, _ = root["$defs"].(map[string]any)
	return w.circles(root)
}

// refWalk follows the references of a schema, each once.
type refWalk struct {
	defs map[string]any
	seen map[string]bool // false: under way
}

func (w refWalk) circles(at any) bool {
	switch v := at.(type) {
	case []any:
		return slices.ContainsFunc(v, w.circles)
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && w.leadsBack(ref) {
			return true
		}
		for _, inner := range v {
			if w.circles(inner) {
				return true
			}
		}
	}
	return false
}

func (w refWalk) leadsBack(ref string) bool {
	name, local := strings.CutPrefix(ref, "#/$defs/")
	def, known := w.defs[name]
	if !local || !known {
		return true
	}
	done, begun := w.seen[name]
	if begun {
		return !done
	}
	w.seen[name] = false
	circle := w.circles(def)
	w.seen[name] = true
	return circle
}
