package provider

import (
	"encoding/json"
	"slices"

	"github.com/fermata-run/fermata/internal/agent"
)

// shape is what OpenAI-compatible servers can enforce of a schema.
type shape struct {
	object bool // the root is an object: nothing else can be asked for
	// strict: every property of every object is required and all keywords are known to strict mode. Then the server
	// guarantees the shape. Other schemas are sent as guidance.
	strict bool
	closed json.RawMessage // the schema with its objects closed, as strict mode wants them
}

// keywords that strict mode takes. Others are not dropped behind the author's back: such a schema is not sent as strict.
var strictKeywords = []string{
	"type", "properties", "required", "additionalProperties", "items", "enum", "const", "description", "title", "$defs", "$ref",
	"anyOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "pattern", "format",
	"$schema", "$id",
}

// strictFormats are the string formats strict mode knows.
var strictFormats = []string{"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}

const shapeDepthMax = 10

func readShape(schema json.RawMessage) shape {
	var root map[string]any
	if len(schema) == 0 || json.Unmarshal(schema, &root) != nil || root["type"] != "object" {
		return shape{}
	}
	s := shape{object: true, strict: closes(root, 0)}
	if root["anyOf"] != nil {
		s.strict = false
	}
	if s.strict {
		s.closed = closed(schema)
	}
	return s
}

// closed forbids properties that are not listed, which strict mode wants said. The order of a schema is kept: models
// write in the order they are shown.
func closed(schema json.RawMessage) json.RawMessage {
	list, err := agent.Members(schema)
	if err != nil {
		return schema
	}
	kept, object, said := list[:0], false, false
	for _, m := range list {
		switch m.Name {
		case "$schema", "$id":
			continue
		case "type":
			object = string(m.Value) == `"object"`
		case "additionalProperties":
			said = true
		case "items":
			m.Value = closed(m.Value)
		case "properties", "$defs":
			inner, err := agent.Members(m.Value)
			if err != nil {
				break
			}
			for i := range inner {
				inner[i].Value = closed(inner[i].Value)
			}
			m.Value = agent.Object(inner)
		case "anyOf":
			var inner []json.RawMessage
			if json.Unmarshal(m.Value, &inner) != nil {
				break
			}
			for i := range inner {
				inner[i] = closed(inner[i])
			}
			m.Value, _ = json.Marshal(inner) //nolint:errcheck // a list of JSON values
		}
		kept = append(kept, m)
	}
	if object && !said {
		kept = append(kept, agent.Member{Name: "additionalProperties", Value: json.RawMessage("false")})
	}
	return agent.Object(kept)
}

// closes reports whether strict mode can take a schema.
func closes(schema map[string]any, depth int) bool {
	if depth > shapeDepthMax {
		return false
	}
	for keyword := range schema {
		if !slices.Contains(strictKeywords, keyword) {
			return false
		}
	}
	if f, ok := schema["format"].(string); ok && !slices.Contains(strictFormats, f) {
		return false
	}
	if _, typed := schema["type"]; !typed && schema["$ref"] == nil && schema["anyOf"] == nil && schema["enum"] == nil && schema["const"] == nil {
		return false
	}
	return closesObject(schema, depth) && closesArray(schema, depth) && closesEach(schema["$defs"], depth) && closesAny(schema["anyOf"], depth)
}

func closesObject(schema map[string]any, depth int) bool {
	properties, _ := schema["properties"].(map[string]any)
	if schema["type"] != "object" {
		return properties == nil && schema["additionalProperties"] == nil
	}
	if properties == nil {
		return false // an object of anything
	}
	if open, ok := schema["additionalProperties"]; ok && open != false {
		return false
	}
	required, _ := schema["required"].([]any)
	for name := range properties {
		if !slices.Contains(required, any(name)) {
			return false
		}
	}
	return closesEach(schema["properties"], depth)
}

func closesArray(schema map[string]any, depth int) bool {
	items, ok := schema["items"].(map[string]any)
	if schema["type"] == "array" {
		return ok && closes(items, depth+1)
	}
	return schema["items"] == nil
}

func closesEach(of any, depth int) bool {
	list, _ := of.(map[string]any)
	for _, inner := range list {
		if s, ok := inner.(map[string]any); !ok || !closes(s, depth+1) {
			return false
		}
	}
	return true
}

func closesAny(of any, depth int) bool {
	list, _ := of.([]any)
	for _, inner := range list {
		if s, ok := inner.(map[string]any); !ok || !closes(s, depth+1) {
			return false
		}
	}
	return true
}
