package workflow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

type yamlReader struct {
	p         *problems
	aliases   int
	expanded  int // bytes of text that came from aliases
	expanding map[*yaml.Node]bool
}

func parseYAML(source []byte, p *problems) (root *node, err error) {
	d := yaml.NewDecoder(bytes.NewReader(source))
	doc, err := nextDocument(d)
	if err != nil {
		return nil, yamlMalformed(source, err)
	}
	if doc == nil || len(doc.Content) == 0 {
		return nil, malformed(yamlSyntax, spot{nil, 1, 1}, "empty", "the definition is empty")
	}
	switch second, err := nextDocument(d); {
	case err != nil:
		return nil, yamlMalformed(source, err)
	case second != nil:
		return nil, malformed(yamlSyntax, spot{nil, second.Line, second.Column}, "several_documents",
			"a second YAML document starts here; one file is one workflow")
	}
	r := &yamlReader{p: p, expanding: map[*yaml.Node]bool{}}
	root, err = r.value(doc.Content[0], 0)
	if err != nil {
		return nil, err
	}
	return root, nil
}

// nextDocument answers nil at the end. The library panics on a few inputs that it cannot scan.
func nextDocument(d *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			doc, err = nil, fmt.Errorf("yaml: %v", r)
		}
	}()
	doc = &yaml.Node{}
	if err := d.Decode(doc); errors.Is(err, io.EOF) {
		return nil, nil //nolint:nilnil // the end is no error, and there is no document
	} else if err != nil {
		return nil, err
	}
	return doc, nil
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s*)?(?:line (\d+): )?`)

var yamlUnknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)

func yamlMalformed(source []byte, err error) error {
	text := err.Error()
	at := spot{}
	m := yamlErrorLine.FindStringSubmatch(text)
	if m != nil {
		at.line, _ = strconv.Atoi(m[1]) //nolint:errcheck // no line: 0
		text = text[len(m[0]):]
	}
	if strings.HasPrefix(text, "did not find expected") {
		at.line++ // of its grammar's errors the library counts lines from 0
	}
	if at.line > 0 {
		at.col = 1
	}
	if m := yamlUnknownAnchor.FindStringSubmatch(text); m != nil {
		if i := bytes.Index(source, []byte("*"+m[1])); i >= 0 {
			at = newLineIndex(source).spot(i)
		}
	}
	if strings.Contains(text, "did not find expected ',' or") {
		text += "; inside { } and [ ], quote expressions, and texts that hold a question mark"
	}
	form := yamlGoesOn
	if strings.Contains(text, "mapping values are not allowed") {
		text += "; quote a text that holds \": \""
		form = yamlHoldsColon
	}
	where, edit := unquoted(source, at.line, form)
	if edit != "" {
		at = where
	}
	if edit != "" && form == yamlGoesOn {
		text += "; quote a text that starts with ' \" [ or {"
	}
	e := malformed(yamlSyntax, at, yamlSyntax, "%s", text)
	e.Issues[0].Suggest = edit
	return e
}

// Values that were meant as text: what goes on behind a closing quote or bracket, and what holds a colon and a space. YAML
// itself notices later, or says where the block around it begins.
var (
	yamlGoesOn     = regexp.MustCompile(`(?m)^ *(?:- +)*[A-Za-z_][A-Za-z0-9_.-]*: +((?:'[^'\n]*'|"[^"\n]*"|\[[^\]\n]*\]|\{[^}\n]*\}) *[^ #'"\r\n].*?)[ \r]*$`)
	yamlHoldsColon = regexp.MustCompile(`(?m)^ *(?:- +)*[A-Za-z_][A-Za-z0-9_.-]*: +([^ '"\[{|>&*!#%@\r\n][^\r\n]*?: .*?)[ \r]*$`)
)

// unquoted finds the first value of a form from a line on, and writes it with quotes; empty: there is none.
func unquoted(source []byte, line int, form *regexp.Regexp) (at spot, edit string) {
	lines := newLineIndex(source)
	from := lines.offset(max(line, 1), 1)
	m := form.FindSubmatchIndex(source[from:])
	if m == nil {
		return spot{}, ""
	}
	return lines.spot(from + m[2]), strconv.Quote(string(source[from+m[2] : from+m[3]]))
}

// errTooLarge stops the reading of a document whose aliases multiply.
func (r *yamlReader) tooMany(n *yaml.Node, format string, args ...any) error {
	r.p.add(spot{nil, n.Line, n.Column}, codeYAMLAlias, format, args...)
	return r.p.err()
}

func (r *yamlReader) value(y *yaml.Node, depth int) (*node, error) {
	n := &node{line: y.Line, col: y.Column}
	if depth > DepthMax {
		r.p.add(n.spot(), codeDepth, "values stand more than %d deep inside each other", DepthMax)
		return n, nil
	}
	if y.Kind == yaml.AliasNode {
		return r.alias(y, depth)
	}
	if y.Style&yaml.TaggedStyle != 0 {
		r.tagged(n.spot(), y)
		return n, nil
	}
	if r.aliases > 0 && len(r.expanding) > 0 {
		if r.expanded += len(y.Value) + 1; r.expanded > DefinitionBytesMax {
			return nil, r.tooMany(y, "the aliases expand to more than %d bytes", DefinitionBytesMax)
		}
	}
	switch y.Kind {
	case yaml.SequenceNode:
		return r.list(n, y, depth)
	case yaml.MappingNode:
		return r.object(n, y, depth)
	default:
		r.scalar(n, y)
		return n, nil
	}
}

func (r *yamlReader) tagged(at spot, y *yaml.Node) {
	if y.Kind == yaml.ScalarNode && !strings.HasPrefix(y.Tag, "!!") {
		text := strings.TrimSpace(y.Tag + " " + y.Value)
		r.p.suggest(at, strconv.Quote(text), codeYAMLTag,
			"%s without quotes is a YAML tag, and tags are not allowed; a text that starts with ! must be quoted: quote it", y.Tag)
		return
	}
	r.p.add(at, codeYAMLTag, "the YAML tag %s is not allowed; quote a text that starts with !", y.Tag)
}

func (r *yamlReader) alias(y *yaml.Node, depth int) (*node, error) {
	if r.aliases++; r.aliases > AliasesMax {
		return nil, r.tooMany(y, "the aliases expand more than %d times", AliasesMax)
	}
	if r.expanding[y.Alias] {
		return nil, r.tooMany(y, "the anchor &%s holds itself", y.Value)
	}
	r.expanding[y.Alias] = true
	defer delete(r.expanding, y.Alias)
	return r.value(y.Alias, depth)
}

func (r *yamlReader) list(n *node, y *yaml.Node, depth int) (*node, error) {
	n.kind = nodeList
	for _, c := range y.Content {
		item, err := r.value(c, depth+1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, item)
	}
	return n.finish(r.p), nil
}

func (r *yamlReader) object(n *node, y *yaml.Node, depth int) (*node, error) {
	n.kind = nodeObject
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		at := spot{n, key.Line, key.Column}
		switch {
		case key.Kind != yaml.ScalarNode:
			r.p.add(at, codeType, "a name must be text, not a list or an object; quote what starts with { or [")
			continue
		case key.Style&yaml.TaggedStyle != 0:
			r.tagged(at, key)
			continue
		case key.Tag == "!!merge":
			r.p.add(at, codeYAMLMerge, "merge keys (<<) are not allowed; write the members out")
			continue
		}
		value, err := r.value(y.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		if strings.IndexByte(key.Value, 0) >= 0 {
			r.p.add(at, codeNUL, "a name may not hold a NUL character")
		}
		n.members = append(n.members, member{key.Value, key.Line, key.Column, value})
	}
	return n.finish(r.p), nil
}

func (r *yamlReader) scalar(n *node, y *yaml.Node) {
	n.text, n.escaped = y.Value, y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0
	switch y.Tag {
	case "!!null":
		n.kind, n.text = nodeNull, ""
	case "!!bool":
		n.kind, n.text = nodeBool, strings.ToLower(y.Value)
	case "!!int", "!!float":
		if text, ok := yamlNumber(y); ok {
			n.kind, n.text = nodeNumber, text
			return
		}
		r.p.add(n.spot(), codeNumber, "%s is not a number that JSON knows", y.Value)
	default: // text, and what YAML takes for a time: JSON has no such thing
		n.kind = nodeText
		n.checkText(n.spot(), r.p)
	}
}

// yamlNumber spells a number as JSON does: unchanged where JSON knows the spelling (1.50, 1e3), else its value
// (0x1F, 1_000, .5).
func yamlNumber(y *yaml.Node) (string, bool) {
	if json.Valid([]byte(y.Value)) {
		return y.Value, true
	}
	var v any
	if err := y.Decode(&v); err != nil {
		return "", false
	}
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'g', -1, 64), !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	return fmt.Sprint(v), true
}
