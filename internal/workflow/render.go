package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// renderings are buffers between uses, so that a rendering is allocated once, in its exact size.
var renderings = sync.Pool{New: func() any { return new([]byte) }}

// keptBytesMax bounds the buffers that are kept.
const keptBytesMax = 64 << 10

// Render evaluates the template's expressions. A template without any answers its constant bytes: they are shared and
// must not be changed. The error names the expression.
func (t *Template) Render(s *Scope) (json.RawMessage, error) {
	if t.constant != nil {
		return t.constant, nil
	}
	buffer := renderings.Get().(*[]byte) //nolint:errcheck // it holds nothing else
	r := renderer{out: (*buffer)[:0], activation: activation{scope: s}}
	dropped, err := r.part(t.root)
	if dropped {
		r.out = append(r.out[:0], "null"...)
	}
	var out json.RawMessage
	if err == nil {
		out = bytes.Clone(r.out)
	}
	if cap(r.out) <= keptBytesMax {
		*buffer = r.out
		renderings.Put(buffer)
	}
	return out, err
}

// Text renders a template that is a text: a value in it becomes text as it does beside other text.
func (t *Template) Text(s *Scope) (string, error) {
	if t.constant != nil {
		return t.text, nil
	}
	r := renderer{activation: activation{scope: s}}
	switch p := t.root.(type) {
	case textPart:
		if err := r.pieces(p.pieces); err != nil {
			return "", err
		}
	case exprPart:
		if err := r.pieces([]piece{{expr: p.expr}}); err != nil {
			return "", err
		}
	default:
		if _, err := r.part(t.root); err != nil {
			return "", err
		}
	}
	if !utf8.Valid(r.out) {
		return strings.ToValidUTF8(string(r.out), "\uFFFD"), nil
	}
	return string(r.out), nil
}

type renderer struct {
	out        []byte
	activation activation
}

// part appends a part; dropped says that it is an empty optional, and nothing was appended.
func (r *renderer) part(p part) (dropped bool, err error) {
	if len(r.out) > RenderBytesMax {
		return false, errRenderTooLarge
	}
	switch p := p.(type) {
	case constPart:
		r.out = append(r.out, p.raw...)
	case exprPart:
		return r.value(p.expr)
	case textPart:
		return false, r.text(p)
	case listPart:
		return false, r.list(p)
	case objPart:
		return false, r.object(p)
	}
	return false, nil
}

func (r *renderer) list(p listPart) error {
	r.out = append(r.out, '[')
	first := true
	for _, item := range p.items {
		mark := len(r.out)
		if !first {
			r.out = append(r.out, ',')
		}
		dropped, err := r.part(item)
		if err != nil {
			return err
		}
		if dropped {
			r.out = r.out[:mark]
			continue
		}
		first = false
	}
	r.out = append(r.out, ']')
	return nil
}

func (r *renderer) object(p objPart) error {
	r.out = append(r.out, '{')
	first := true
	for i, value := range p.parts {
		mark := len(r.out)
		if !first {
			r.out = append(r.out, ',')
		}
		r.out = append(r.out, p.keys[i]...)
		dropped, err := r.part(value)
		if err != nil {
			return err
		}
		if dropped {
			r.out = r.out[:mark]
			continue
		}
		first = false
	}
	r.out = append(r.out, '}')
	return nil
}

func (r *renderer) value(e *Expr) (dropped bool, err error) {
	v, err := e.eval(&r.activation)
	if err != nil {
		return false, err
	}
	if o, ok := v.(*types.Optional); ok {
		if !o.HasValue() {
			return true, nil
		}
		v = o.GetValue()
	}
	if r.out, err = appendValue(r.out, v, 0); err != nil {
		return false, e.fail(err)
	}
	return false, nil
}

// text appends a JSON string made of text and expressions.
func (r *renderer) text(p textPart) error {
	r.out = append(r.out, '"')
	for _, piece := range p.pieces {
		if piece.expr == nil {
			r.out = append(r.out, piece.raw...)
			continue
		}
		v, err := piece.expr.eval(&r.activation)
		if err != nil {
			return err
		}
		if s, ok := v.(types.String); ok {
			r.out = appendEscaped(r.out, string(s))
		} else {
			mark := len(r.out)
			if r.out, err = appendText(r.out, v); err != nil {
				return piece.expr.fail(err)
			}
			r.out = appendEscaped(r.out[:mark], string(r.out[mark:]))
		}
		if len(r.out) > RenderBytesMax {
			return piece.expr.fail(errRenderTooLarge)
		}
	}
	r.out = append(r.out, '"')
	return nil
}

// pieces appends plain text.
func (r *renderer) pieces(pieces []piece) error {
	for _, p := range pieces {
		if p.expr == nil {
			r.out = append(r.out, p.text...)
			continue
		}
		v, err := p.expr.eval(&r.activation)
		if err != nil {
			return err
		}
		if r.out, err = appendText(r.out, v); err != nil {
			return p.expr.fail(err)
		}
		if len(r.out) > RenderBytesMax {
			return p.expr.fail(errRenderTooLarge)
		}
	}
	return nil
}

// appendText writes a value as text: strings as they are, null and empty optionals as nothing, the rest as JSON.
func appendText(out []byte, v ref.Val) ([]byte, error) {
	if o, ok := v.(*types.Optional); ok {
		if !o.HasValue() {
			return out, nil
		}
		v = o.GetValue()
	}
	switch v := v.(type) {
	case types.String:
		return append(out, v...), nil
	case types.Null:
		return out, nil
	case types.Bytes, types.Timestamp, types.Duration, *types.Type:
		quoted, err := appendValue(nil, v, 0)
		if err != nil {
			return out, err
		}
		return append(out, quoted[1:len(quoted)-1]...), nil // nothing in it needs an escape
	}
	return appendValue(out, v, 0)
}

// fail names the expression that went wrong.
func (e *Expr) fail(err error) error { return fmt.Errorf("${{ %s }}: %w", clip(e.Source), err) }
