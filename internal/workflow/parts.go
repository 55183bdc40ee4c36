package workflow

import "encoding/json"

// TemplatePart is one node of a template, to be looked at. Exactly one of Const, Expr, Text, Items and Members is set;
// an empty list or object is a Const.
type TemplatePart struct {
	Const   json.RawMessage // a value that holds no expression
	Expr    *Expr           // a value that is one expression
	Text    []TextPiece     // a text with expressions in it
	Items   []TemplatePart
	Members []TemplateMember
}

// TextPiece is text, or an expression if that is set.
type TextPiece struct {
	Text string
	Expr *Expr
}

// TemplateMember is one name of an object.
type TemplateMember struct {
	Name string
	Part TemplatePart
}

// Parts takes the template apart.
func (t *Template) Parts() TemplatePart { return partsOf(t.root) }

func partsOf(p part) TemplatePart {
	var out TemplatePart
	switch p := p.(type) {
	case constPart:
		out.Const = p.raw
	case exprPart:
		out.Expr = p.expr
	case textPart:
		for _, piece := range p.pieces {
			out.Text = append(out.Text, TextPiece{piece.text, piece.expr})
		}
	case listPart:
		for _, item := range p.items {
			out.Items = append(out.Items, partsOf(item))
		}
	case objPart:
		for i, member := range p.parts {
			out.Members = append(out.Members, TemplateMember{p.names[i], partsOf(member)})
		}
	}
	return out
}
