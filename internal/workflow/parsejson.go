package workflow

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

type jsonReader struct {
	d     *jsontext.Decoder
	lines *lineIndex
	p     *problems
	most  int // depth
}

func parseJSON(source []byte, p *problems) (*node, error) { return parseDeep(source, p, DepthMax) }

// parseStored reads a canonical definition: the workflows that it carries stand inside it.
func parseStored(source []byte, p *problems) (*node, error) {
	const carriedDepth = 3 // carried, workflows, and the name
	return parseDeep(source, p, DepthMax+carriedDepth*ChildrenDepthMax)
}

func parseDeep(source []byte, p *problems, most int) (*node, error) {
	// Names that stand twice are reported by us, with both places.
	d := jsontext.NewDecoder(bytes.NewBuffer(source), jsontext.AllowDuplicateNames(true))
	r := &jsonReader{d, newLineIndex(source), p, most}
	root, err := r.value(0)
	if err != nil {
		return nil, r.malformed(err)
	}
	switch _, err := d.ReadToken(); {
	case errors.Is(err, io.EOF):
		return root, nil
	case err != nil:
		return nil, r.malformed(err)
	}
	return nil, malformed(jsonSyntax, r.here(), "trailing_text", "something follows the end of the definition")
}

// here is the place of the next token.
func (r *jsonReader) here() spot {
	i := int(r.d.InputOffset())
	for i < len(r.lines.source) && strings.IndexByte(" \t\r\n,:", r.lines.source[i]) >= 0 {
		i++
	}
	return r.lines.spot(i)
}

func (r *jsonReader) malformed(err error) error {
	at := r.here()
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		at = r.lines.spot(int(syntax.ByteOffset))
		err = syntax.Err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return malformed(jsonSyntax, at, jsonSyntax, "the JSON ends too early")
	}
	return malformed(jsonSyntax, at, jsonSyntax, "%s", strings.TrimPrefix(err.Error(), "jsontext: "))
}

func (r *jsonReader) value(depth int) (*node, error) {
	at := r.here()
	n := &node{line: at.line, col: at.col}
	if depth > r.most {
		r.p.add(n.spot(), codeDepth, "values stand more than %d deep inside each other", r.most)
		return n, r.d.SkipValue()
	}
	token, err := r.d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case 'n':
		n.kind = nodeNull
	case 't', 'f':
		n.kind, n.text = nodeBool, token.String()
	case '0':
		n.kind, n.text = nodeNumber, token.String()
	case '"':
		n.kind, n.text, n.escaped = nodeText, token.String(), true
		n.checkText(at, r.p)
	case '[':
		return r.list(n, depth)
	case '{':
		return r.object(n, depth)
	}
	return n, nil
}

func (r *jsonReader) list(n *node, depth int) (*node, error) {
	n.kind = nodeList
	for r.d.PeekKind() != ']' {
		item, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, item)
	}
	if _, err := r.d.ReadToken(); err != nil {
		return nil, err
	}
	return n.finish(r.p), nil
}

func (r *jsonReader) object(n *node, depth int) (*node, error) {
	n.kind = nodeObject
	for r.d.PeekKind() != '}' {
		at := r.here()
		token, err := r.d.ReadToken()
		if err != nil {
			return nil, err
		}
		m := member{name: token.String(), line: at.line, col: at.col}
		if strings.IndexByte(m.name, 0) >= 0 {
			r.p.add(spot{n, at.line, at.col}, codeNUL, "a name may not hold a NUL character")
		}
		if m.value, err = r.value(depth + 1); err != nil {
			return nil, err
		}
		n.members = append(n.members, m)
	}
	if _, err := r.d.ReadToken(); err != nil {
		return nil, err
	}
	return n.finish(r.p), nil
}
