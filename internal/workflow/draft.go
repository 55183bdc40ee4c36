package workflow

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
)

// owner says whose expression one is and from where it reads.
type owner struct {
	place    place
	further  further
	body     *draftBody  // whose names it reads, and those of the ones around it
	step     *draftStep  // nil: of the workflow itself
	agent    *draftAgent // whose gate it belongs to; nil: no agent's
	inside   *draftStep  // the container whose contents are its neighbours; nil: the top
	kase     int         // the case of that container
	closing  bool        // evaluated when the owner is done: its output
	volatile bool        // part of the input of an attempt
}

// view is what can be read at a place.
type view struct {
	place   place
	body    *draftBody
	further further
	judged  *draftStep  // whose output the root output is
	agent   *draftAgent // likewise
}

func (o owner) view() view {
	v := view{place: o.place, body: o.body, further: o.further, agent: o.agent}
	if o.further == furtherOutput || o.further == furtherAnswer {
		v.judged = o.step
	}
	return v
}

// exprKey: an expression that is written several times in one view is compiled once.
type exprKey struct {
	view   view
	source string
}

// draftExpr is an expression while the definition is compiled.
type draftExpr struct {
	expr    *Expr
	view    view
	source  common.Source
	ast     *cel.Ast // nil: it could not be parsed
	typed   *ast.AST // nil: it is not checked yet, or refused
	reads   *reads
	faults  []exprFault
	checked bool
}

// exprFault is something wrong in an expression, at an offset in characters.
type exprFault struct {
	offset       int
	code         string
	detail, edit string
}

// site is one place where an expression is written.
type site struct {
	draft *draftExpr
	owner owner
	node  *node
	start int // byte offset of the source in the node's text
	want  want
}

// want is what an expression must give where it stands.
type want uint8

const (
	wantAny want = iota
	wantBool
	wantNumber
	wantList
	wantTime // or text that is one
)

func (c *compiler) condition(n *node, o owner) *Expr { return c.bare(n, o, wantBool) }

// bare reads an expression that stands without ${{ }}, or as a whole one with it.
func (c *compiler) bare(n *node, o owner, w want) *Expr {
	switch {
	case n == nil:
		return nil
	case n.kind == nodeNull:
		c.p.add(n.spot(), codeExprSyntax, "%s", emptyExpression)
		return nil
	case n.kind == nodeList || n.kind == nodeObject:
		c.p.add(n.spot(), codeType, "must be an expression, not %s; in YAML, quote one that starts with [ or {", n.kind)
		return nil
	case !c.p.kind(n, nodeText):
		return nil
	}
	start, source := 0, n.text
	if pieces, bad := splitTemplate(n.text); bad == nil && len(pieces) == 1 && pieces[0].start >= 0 {
		start, source = pieces[0].start, pieces[0].text
	}
	e := c.expression(n, start, source, o)
	if e != nil {
		c.sites[len(c.sites)-1].want = w
	}
	return e
}

// emptyExpression says why there is none where one should be.
const emptyExpression = "the expression is empty; in YAML, quote what starts with ! or #"

// expression registers an expression that is written in a node's text.
func (c *compiler) expression(n *node, start int, source string, o owner) *Expr {
	trimmed := strings.TrimSpace(source)
	start += strings.Index(source, trimmed)
	at := func() spot { return c.locate(n, start, 0) }
	switch {
	case trimmed == "" && start > 0:
		c.p.add(at(), codeExprSyntax, "the expression is empty; between ${{ and }} there must be one")
		return nil
	case trimmed == "":
		c.p.add(at(), codeExprSyntax, "%s", emptyExpression)
		return nil
	case len(trimmed) > ExpressionBytesMax:
		c.p.add(at(), codeLimit, "the expression has %d bytes; the limit is %d", len(trimmed), ExpressionBytesMax)
		return nil
	case len(c.sites) >= ExpressionsMax || c.exprBytes+len(trimmed) > ExpressionBytesTotalMax:
		if !c.exprsOver {
			c.p.add(at(), codeLimit, "there are more than %d expressions, or more than %d bytes of them", ExpressionsMax, ExpressionBytesTotalMax)
		}
		c.exprsOver = true
		return nil
	}
	c.exprBytes += len(trimmed)
	key := exprKey{o.view(), trimmed}
	d := c.exprs[key]
	if d == nil {
		d = &draftExpr{expr: &Expr{Source: trimmed}, view: key.view}
		d.parse()
		c.exprs[key] = d
	}
	c.sites = append(c.sites, &site{draft: d, owner: o, node: n, start: start})
	return d.expr
}

func (d *draftExpr) parse() {
	d.source = common.NewTextSource(d.expr.Source)
	parsed, issues := baseEnv().ParseSource(d.source)
	if issues.Err() != nil {
		d.reads = &reads{}
		first := issues.Errors()[0]
		d.fault(d.offset(first.Location), codeExprSyntax, syntaxMessage(first.Message), "")
		return
	}
	d.ast = parsed
	d.reads = readsOf(parsed.NativeRep().Expr())
	d.expr.refs, d.expr.plain = refsOf(parsed.NativeRep().Expr())
	if d.reads.loops > ExpressionLoopsMax {
		d.fault(0, codeLimit, fmt.Sprintf("the expression has %d macros (map, filter, all …); the limit is %d", d.reads.loops, ExpressionLoopsMax), "")
	}
	for _, m := range d.reads.misuse {
		d.fault(d.offsetOf(m.at), codeExprPlace, m.detail, m.edit)
	}
}

func (d *draftExpr) fault(offset int, code, detail, edit string) {
	d.faults = append(d.faults, exprFault{offset, code, detail, edit})
}

// misspelled are what people write who think of another language, and what is meant.
var misspelled = map[string]string{"&": "&&", "|": "||", "=": "==", "and": "&&", "or": "||"}

// syntaxMessage says shortly what the parser says at length: what it expected instead is a list of everything.
func syntaxMessage(message string) string {
	message = strings.TrimPrefix(message, "Syntax error: ")
	if name, ok := strings.CutPrefix(message, "reserved identifier: "); ok {
		message = fmt.Sprintf("%q is a reserved word", name)
		if name == "loop" {
			message += "; the iteration of a loop is read as iter"
		}
		return message
	}
	message, _, _ = strings.Cut(message, " expecting ")
	message = strings.NewReplacer("mismatched input '<EOF>'", "it ends too early", "at '<EOF>'", "at its end", "token recognition error at:", "unexpected",
		"extraneous input", "unexpected", "mismatched input", "unexpected").Replace(message)
	quoted, found := strings.CutPrefix(message, "unexpected '")
	quoted = strings.TrimSpace(strings.TrimSuffix(quoted, "'"))
	switch {
	case found && misspelled[quoted] != "":
		return fmt.Sprintf("unexpected '%s'; write %s", quoted, misspelled[quoted])
	case found && strings.HasPrefix(quoted, "$"):
		return "unexpected '$': ${{ }} stands around a whole expression, not in one"
	case found && strings.IndexAny(quoted, `'"`) == 0:
		return `a text in the expression is not closed; in YAML, quote an expression that holds " #"`
	}
	return clip(strings.ReplaceAll(message, "\n", " "))
}

// offset turns a place in the expression into an offset in characters.
func (d *draftExpr) offset(l common.Location) int {
	if o, ok := d.source.LocationOffset(l); ok {
		return int(o)
	}
	return 0
}

// offsetOf is where a node of the expression starts.
func (d *draftExpr) offsetOf(id int64) int {
	if r, ok := d.ast.NativeRep().SourceInfo().GetOffsetRange(id); ok {
		return int(r.Start)
	}
	return 0
}

// find finds a node by its id.
func (d *draftExpr) find(id int64) ast.Expr {
	var found ast.Expr
	ast.PreOrderVisit(d.ast.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.ID() == id && found == nil {
			found = e
		}
	}))
	return found
}

// report shows the faults of an expression where it is written.
func (c *compiler) report(s *site) {
	if c.p.full() {
		return
	}
	for _, f := range s.draft.faults {
		c.p.suggest(c.locate(s.node, s.start, f.offset), f.edit, f.code, "%s", f.detail)
	}
}
