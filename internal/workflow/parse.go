package workflow

import (
	"bytes"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// Limits of the source.
const (
	// DepthMax bounds how deep values may stand inside each other.
	DepthMax = 64
	// AliasesMax bounds how often YAML aliases may be expanded, those inside expansions counted.
	AliasesMax = 1_000
)

const (
	jsonSyntax = "json_syntax"
	yamlSyntax = "yaml_syntax"
)

// parse reads a definition into a tree. The error says why it cannot be read at all; what can be read but is not
// allowed goes to the problems.
func parse(source []byte, p *problems) (*node, error) {
	syntax := yamlSyntax
	if isJSON(source) {
		syntax = jsonSyntax
	}
	if err := checkEncoding(source, syntax); err != nil {
		return nil, err
	}
	if syntax == jsonSyntax {
		return parseJSON(source, p)
	}
	return parseYAML(source, p)
}

// isJSON reports whether a source is meant to be JSON: an object whose first name is quoted, or a list. Everything
// else is YAML, a flow mapping with bare names included.
func isJSON(source []byte) bool {
	rest := bytes.TrimLeft(source, " \t\r\n")
	if len(rest) == 0 {
		return false
	}
	if rest[0] == '[' {
		return true
	}
	after := bytes.TrimLeft(rest[1:], " \t\r\n")
	return rest[0] == '{' && (len(after) == 0 || after[0] == '"' || after[0] == '}')
}

func checkEncoding(source []byte, syntax string) error {
	for _, bom := range []string{"\xef\xbb\xbf", "\xfe\xff", "\xff\xfe"} {
		if bytes.HasPrefix(source, []byte(bom)) {
			return malformed(syntax, spot{nil, 1, 1}, "byte_order_mark", "the definition starts with a byte order mark; save it as UTF-8 without one")
		}
	}
	lines := newLineIndex(source)
	if i := bytes.IndexByte(source, 0); i >= 0 {
		return malformed(syntax, lines.spot(i), codeNUL, "the definition holds a NUL character")
	}
	for i := 0; i < len(source); {
		r, size := utf8.DecodeRune(source[i:])
		if r == utf8.RuneError && size == 1 {
			return malformed(syntax, lines.spot(i), "invalid_utf8", "the definition is not valid UTF-8 here")
		}
		i += size
	}
	if len(bytes.TrimSpace(source)) == 0 {
		return malformed(syntax, spot{nil, 1, 1}, "empty", "the definition is empty")
	}
	return nil
}

// lineIndex turns byte offsets into lines and columns, and back.
type lineIndex struct {
	source []byte
	starts []int  // byte offset of each line
	marks  []mark // one every markStep bytes, so that no line is long
}

// mark is the start of a character, and its column.
type mark struct{ offset, col int }

const markStep = 512

func newLineIndex(source []byte) *lineIndex {
	l := &lineIndex{source: source, starts: []int{0}}
	for i, b := range source {
		if b == '\n' {
			l.starts = append(l.starts, i+1)
		}
	}
	last := mark{0, 1}
	for at := 0; at < len(source); at += markStep {
		for at < len(source) && !utf8.RuneStart(source[at]) {
			at++
		}
		if start := l.starts[l.line(at)-1]; start > last.offset {
			last = mark{start, 1}
		}
		last = mark{at, last.col + utf8.RuneCount(source[last.offset:at])}
		l.marks = append(l.marks, last)
	}
	return l
}

// line is the line an offset is in.
func (l *lineIndex) line(offset int) int { return sort.SearchInts(l.starts, offset+1) }

// spot is the place of a byte offset.
func (l *lineIndex) spot(offset int) spot {
	offset = min(max(offset, 0), len(l.source))
	line := l.line(offset)
	near := mark{l.starts[line-1], 1}
	if k := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].offset > offset }); k > 0 && l.marks[k-1].offset > near.offset {
		near = l.marks[k-1]
	}
	return spot{nil, line, near.col + utf8.RuneCount(l.source[near.offset:offset])}
}

// offset is the byte offset of a line and column.
func (l *lineIndex) offset(line, col int) int {
	if line < 1 || line > len(l.starts) {
		return len(l.source)
	}
	start, end := l.starts[line-1], len(l.source)
	if line < len(l.starts) {
		end = l.starts[line]
	}
	near := mark{start, 1}
	if k := sort.Search(len(l.marks), func(i int) bool {
		m := l.marks[i]
		return m.offset >= end || m.offset > start && m.col > col
	}); k > 0 && l.marks[k-1].offset > start {
		near = l.marks[k-1]
	}
	i := near.offset
	for at := near.col; at < col && i < len(l.source); at++ {
		_, size := utf8.DecodeRune(l.source[i:])
		i += size
	}
	return i
}

// finish sorts an object's members, which makes rendering independent of the order they were written in, and reports
// names that stand twice. The first of them counts.
func (n *node) finish(p *problems) *node {
	slices.SortStableFunc(n.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	n.adopt()
	kept := n.members[:0]
	for i, m := range n.members {
		if i > 0 && m.name == kept[len(kept)-1].name {
			if p.full() {
				continue
			}
			first := kept[len(kept)-1]
			at := first.spot()
			at.line, at.col = m.line, m.col
			p.add(at, codeDuplicateKey, "%q stands here twice; it is also at line %d", m.name, first.line)
			continue
		}
		kept = append(kept, m)
	}
	n.members = kept
	return n
}

// checkText refuses what Postgres and many JSON readers cannot hold.
func (n *node) checkText(at spot, p *problems) {
	if strings.IndexByte(n.text, 0) >= 0 {
		at.node = n
		p.add(at, codeNUL, "text may not hold a NUL character")
		n.kind = nodeBad
	}
}
