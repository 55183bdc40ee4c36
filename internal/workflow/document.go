package workflow

import (
	"encoding/json"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
)

// Document is a JSON or YAML text read as one value, with the places of what stands in it: for files beside the
// definitions that are written by hand as well.
type Document struct{ root *node }

// ReadDocument reads a text as strictly as a definition: what name stands twice, tags and endless aliases are refused. The
// error is a *fault.Error with every problem and its place.
func ReadDocument(source []byte) (*Document, error) {
	p := &problems{}
	root, err := parse(source, p)
	if err != nil {
		return nil, err
	}
	if err := p.err(); err != nil {
		f := fault.Of(err)
		f.Code, f.Detail = "document_invalid", strings.Replace(f.Detail, "the definition", "the file", 1)
		return nil, f
	}
	return &Document{root}, nil
}

// JSON is the value as canonical JSON.
func (d *Document) JSON() json.RawMessage { return d.root.canonical() }

// Position is where a value stands, by its JSON pointer: its name, if it has one. Of what is not there it is the place of
// what is nearest around it.
func (d *Document) Position(pointer string) Position {
	path, _ := refPath("#" + pointer)
	n := d.root.at(path)
	at := Position{Pointer: n.pointer(), Line: n.line, Col: n.col}
	if n.parent != nil && n.parent.kind == nodeObject {
		for _, m := range n.parent.members {
			if m.value == n {
				at.Line, at.Col = m.line, m.col
			}
		}
	}
	return at
}
