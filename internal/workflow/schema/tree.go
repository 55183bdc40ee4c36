package schema

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
)

// tree is one value of the schema; the keys of an object stand in the order they are written.
type tree struct {
	keys   []string
	fields map[string]*tree
	items  []*tree
	value  any // of what is neither
}

// root is the whole schema.
var root = sync.OnceValue(func() *tree {
	d := json.NewDecoder(bytes.NewReader(source))
	d.UseNumber()
	t, err := readTree(d)
	if err != nil { // a defect of this package, seen by every test
		panic(err)
	}
	return t
})

func readTree(d *json.Decoder) (*tree, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	t := &tree{}
	switch token {
	case json.Delim('['):
		t.items = []*tree{}
		for d.More() {
			item, err := readTree(d)
			if err != nil {
				return nil, err
			}
			t.items = append(t.items, item)
		}
	case json.Delim('{'):
		t.fields = map[string]*tree{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, _ := key.(string) //nolint:errcheck // a key is text
			value, err := readTree(d)
			if err != nil {
				return nil, err
			}
			t.keys, t.fields[name] = append(t.keys, name), value
		}
	default:
		t.value = token
		return t, nil
	}
	_, err = d.Token()
	return t, err
}

// MarshalJSON writes the value as it was read.
func (t *tree) MarshalJSON() ([]byte, error) {
	switch {
	case t.items != nil:
		return json.Marshal(t.items)
	case t.fields == nil:
		return json.Marshal(t.value)
	}
	out := []byte{'{'}
	for i, key := range t.keys {
		if i > 0 {
			out = append(out, ',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		value, err := t.fields[key].MarshalJSON()
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}'), nil
}

// get finds a key of an object, or nil.
func (t *tree) get(key string) *tree {
	if t == nil {
		return nil
	}
	return t.fields[key]
}

// text is a text, or empty.
func (t *tree) text() string {
	if t == nil {
		return ""
	}
	text, _ := t.value.(string) //nolint:errcheck // what is none is empty
	return text
}

// target is what $ref means: the schema refers to itself only.
func (t *tree) target() *tree {
	at := root()
	for _, name := range strings.Split(t.get("$ref").text(), "/")[1:] {
		at = at.get(name)
	}
	return at
}
