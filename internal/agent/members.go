package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Member is one name and value of a JSON object, in its written order: models write in the order they are shown.
type Member struct {
	Name  string
	Value json.RawMessage
}

var errNoObject = errors.New("not a JSON object")

// Members reads a JSON object without losing its order. Of a repeated name the last value counts.
func Members(raw []byte) ([]Member, error) {
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, errNoObject
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var list []Member
	at := map[string]int{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok {
			return nil, errNoObject
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		if i, ok := at[name]; ok {
			list[i].Value = value
			continue
		}
		at[name] = len(list)
		list = append(list, Member{name, value})
	}
	_, err := d.Token() // the end of the object
	return list, err
}

func find(list []Member, name string) (json.RawMessage, bool) {
	for _, m := range list {
		if m.Name == name {
			return m.Value, true
		}
	}
	return nil, false
}

// Object writes members as one JSON object; the values must be JSON.
func Object(list []Member) json.RawMessage {
	out := []byte{'{'}
	for i, m := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendQuoted(out, cleanText(m.Name)), ':')
		out = append(out, m.Value...)
	}
	return append(out, '}')
}

// declared is what a contract says of the two fields that are otherwise lifted from the answer.
type declared struct {
	confidence, unresolved bool
	share                  bool // confidence is declared on a scale that ends at 1
	decision               bool // the answer has a needs_decision of its own
	notObject              bool // the answer cannot be an object
	onlyString             bool // the answer can only be a string
}

func declarations(c workflow.Contract) declared {
	if c.Schema == nil {
		return declared{}
	}
	schema, err := Members(c.Schema.Raw)
	if err != nil { // true or false as a schema
		return declared{}
	}
	var d declared
	if raw, ok := find(schema, "type"); ok {
		d.notObject = !strings.Contains(string(raw), `"object"`)
		d.onlyString = string(bytes.TrimSpace(raw)) == `"string"`
	}
	raw, _ := find(schema, "properties")
	properties, err := Members(raw)
	if err != nil {
		return d
	}
	if own, ok := find(properties, "confidence"); ok {
		d.confidence, d.share = true, endsAtOne(own)
	}
	_, d.unresolved = find(properties, "unresolved")
	_, d.decision = find(properties, needsDecision)
	return d
}

func endsAtOne(schema json.RawMessage) bool {
	var s struct {
		Maximum *float64 `json:"maximum"`
	}
	return json.Unmarshal(schema, &s) == nil && s.Maximum != nil && *s.Maximum <= 1
}

// extended adds to a contract's schema what the answer is asked to carry besides, last: a score given after the work
// is a score of it. A schema that does not list its properties is left alone; the prompt asks for them anyway.
func extended(raw json.RawMessage, asked wanted) json.RawMessage {
	schema, err := Members(raw)
	if err != nil || !asked.any() {
		return raw
	}
	inner, ok := find(schema, "properties")
	if !ok {
		return raw
	}
	properties, err := Members(inner)
	if err != nil {
		return raw
	}
	var names []string
	if list, ok := find(schema, "required"); ok && json.Unmarshal(list, &names) != nil {
		return raw
	}
	if asked.confidence {
		properties = append(properties, Member{"confidence", json.RawMessage(`{"type":"number","minimum":0,"maximum":100}`)})
		names = append(names, "confidence")
	}
	if asked.unresolved {
		properties = append(properties, Member{"unresolved", json.RawMessage(`{"type":"array","items":{"type":"string"}}`)})
		names = append(names, "unresolved")
	}
	required := []byte{'['}
	for i, n := range names {
		if i > 0 {
			required = append(required, ',')
		}
		required = appendQuoted(required, n)
	}
	return Object(set(set(schema, "properties", Object(properties)), "required", append(required, ']')))
}

func set(list []Member, name string, value json.RawMessage) []Member {
	for i := range list {
		if list[i].Name == name {
			list[i].Value = value
			return list
		}
	}
	return append(list, Member{name, value})
}
