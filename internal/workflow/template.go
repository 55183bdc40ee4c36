package workflow

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Template is a JSON value whose strings may hold `${{ expr }}`. Values are put in once and never evaluated again.
type Template struct {
	Source json.RawMessage // canonical JSON

	constant json.RawMessage // what it renders to where it holds no expression
	text     string          // the constant as text
	root     part
	size     int // of the constant parts
}

// part is one node of a template: a constant, a whole expression, a text with expressions in it, a list or an object.
type part interface{ isPart() }

type (
	constPart struct{ raw []byte }
	exprPart  struct{ expr *Expr }
	textPart  struct{ pieces []piece }
	listPart  struct{ items []part }
	objPart   struct {
		names []string
		keys  [][]byte // `"name":`
		parts []part
	}
)

func (constPart) isPart() {}
func (exprPart) isPart()  {}
func (textPart) isPart()  {}
func (listPart) isPart()  {}
func (objPart) isPart()   {}

// piece is text, or an expression if that is set.
type piece struct {
	text  string
	start int // in the text it was found in: of an expression, behind its ${{
	expr  *Expr
	raw   []byte // the text as it stands in a JSON string
}

// template compiles a value. The node must not be bad.
func (c *compiler) template(n *node, o owner) *Template {
	t := &Template{Source: n.canonical()}
	t.root = c.part(n, o)
	if k, ok := t.root.(constPart); ok {
		t.constant = k.raw
		if n.kind == nodeText {
			t.text = unescapeTemplate(n.text)
		} else if n.kind != nodeNull {
			t.text = string(k.raw)
		}
	}
	t.size = len(t.Source)
	return t
}

func (c *compiler) part(n *node, o owner) part {
	switch n.kind {
	case nodeText:
		return c.textPart(n, o)
	case nodeList:
		var list listPart
		constant := true
		for _, item := range n.items {
			p := c.part(item, o)
			_, isConst := p.(constPart)
			constant = constant && isConst
			list.items = append(list.items, p)
		}
		if !constant {
			return list
		}
		return constPart{appendConstList(list)}
	case nodeObject:
		var obj objPart
		constant := true
		for _, m := range n.members {
			if strings.Contains(m.name, "${{") {
				c.p.add(m.spot(), codeExprPlace, "expressions stand in values, not in names")
			}
			p := c.part(m.value, o)
			_, isConst := p.(constPart)
			constant = constant && isConst
			obj.names = append(obj.names, m.name)
			obj.keys = append(obj.keys, append(appendQuoted(nil, m.name), ':'))
			obj.parts = append(obj.parts, p)
		}
		if !constant {
			return obj
		}
		return constPart{appendConstObject(obj)}
	default:
		return constPart{n.canonical()}
	}
}

func appendConstList(l listPart) []byte {
	out := []byte{'['}
	for i, p := range l.items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p.(constPart).raw...) //nolint:errcheck // all of them are constants
	}
	return append(out, ']')
}

func appendConstObject(o objPart) []byte {
	out := []byte{'{'}
	for i, p := range o.parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, o.keys[i]...)
		out = append(out, p.(constPart).raw...) //nolint:errcheck // all of them are constants
	}
	return append(out, '}')
}

func (c *compiler) textPart(n *node, o owner) part {
	pieces, bad := splitTemplate(n.text)
	if bad != nil {
		c.p.add(c.locate(n, bad.start, 0), codeExprSyntax, "%s", bad.text)
		return constPart{[]byte("null")}
	}
	found := false
	for i := range pieces {
		if source := pieces[i].text; pieces[i].start >= 0 {
			found = true
			pieces[i].expr = c.expression(n, pieces[i].start, source, o)
		}
	}
	if !found {
		text := ""
		if len(pieces) > 0 {
			text = pieces[0].text
		}
		return constPart{appendQuoted(nil, text)}
	}
	if len(pieces) == 1 {
		return exprPart{pieces[0].expr}
	}
	for i, p := range pieces {
		if p.expr == nil {
			quoted := appendQuoted(nil, p.text)
			pieces[i].raw = quoted[1 : len(quoted)-1]
		}
	}
	return textPart{pieces}
}

// unescapeTemplate is the text of a template without expressions.
func unescapeTemplate(s string) string {
	pieces, bad := splitTemplate(s)
	if bad != nil || len(pieces) == 0 {
		return ""
	}
	return pieces[0].text
}

const (
	exprOpen   = "${{"
	exprEscape = "$${{"
)

// splitTemplate finds the expressions in a text. Pieces of text have start -1, and neighbours of them are joined;
// pieces of expressions have their source and where it starts. The bad piece, if any, has a message as its text.
func splitTemplate(s string) (pieces []piece, bad *piece) {
	text := ""
	flush := func() {
		if text != "" {
			pieces = append(pieces, piece{text: text, start: -1})
			text = ""
		}
	}
	for i := 0; i < len(s); {
		next := strings.Index(s[i:], exprOpen)
		if next < 0 {
			text += s[i:]
			break
		}
		at := i + next
		if at > i && s[at-1] == '$' { // $${{ is a literal
			text += s[i:at-1] + exprOpen
			i = at + len(exprOpen)
			continue
		}
		text += s[i:at]
		start := at + len(exprOpen)
		end, why := exprEnd(s, start)
		if why != "" {
			return nil, &piece{text: why, start: at}
		}
		flush()
		pieces = append(pieces, piece{text: s[start:end], start: start})
		i = end + 2
	}
	flush()
	return pieces, nil
}

// exprEnd finds the }} that ends an expression by reading CEL: braces inside it, strings, quoted names and comments
// are stepped over. why says what is wrong when there is none.
func exprEnd(s string, i int) (end int, why string) {
	depth := 0
	for i < len(s) {
		switch b := s[i]; b {
		case '"', '\'':
			next := stringEnd(s, i)
			if next < 0 {
				return 0, "a string in this expression is not closed"
			}
			i = next
			continue
		case '`':
			next := strings.IndexByte(s[i+1:], '`')
			if next < 0 {
				return 0, "a quoted name in this expression is not closed"
			}
			i += next + 2
			continue
		case '/':
			if strings.HasPrefix(s[i:], "//") {
				line := strings.IndexByte(s[i:], '\n')
				if line < 0 {
					return 0, "a comment swallows the end of this expression"
				}
				i += line
			}
		case '{':
			depth++
		case '}':
			if depth == 0 && strings.HasPrefix(s[i:], "}}") {
				return i, ""
			}
			if depth == 0 {
				return 0, "a } in this expression closes nothing; an expression ends with }}"
			}
			depth--
		}
		i++
	}
	return 0, fmt.Sprintf("this expression has no end; it ends with %s", "}}")
}

// stringEnd is behind the CEL string that starts with the quote at i, or -1.
func stringEnd(s string, i int) int {
	quote := s[i : i+1]
	raw := isRawPrefix(s, i)
	if strings.HasPrefix(s[i:], quote+quote+quote) {
		quote = quote + quote + quote
	}
	for j := i + len(quote); j < len(s); j++ {
		switch {
		case s[j] == '\\' && !raw:
			j++
		case strings.HasPrefix(s[j:], quote):
			return j + len(quote)
		case len(quote) == 1 && s[j] == '\n':
			return -1
		}
	}
	return -1
}

// isRawPrefix reports whether the quote at i belongs to a raw string: r"", and with bytes br"" and rb"".
func isRawPrefix(s string, i int) bool {
	start := i
	for start > 0 && (isLetter(s[start-1]) || s[start-1] >= '0' && s[start-1] <= '9' || s[start-1] == '_') {
		start--
	}
	switch strings.ToLower(s[start:i]) {
	case "r", "br", "rb":
		return true
	}
	return false
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
