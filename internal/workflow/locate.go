package workflow

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// locate finds where in the source a place within a node's text is: characters after the byte at start. Escapes and
// the folding of YAML make the way back inexact; the `${{` of an expression is found for certain, what follows it on
// the same line, too.
func (c *compiler) locate(n *node, start, characters int) spot {
	at, i, source := n.spot(), 0, c.lines.source
	anchor := start - len(exprOpen) - (start - len(strings.TrimRight(n.text[:start], " \t\r\n")))
	switch {
	case anchor >= 0 && strings.HasPrefix(n.text[anchor:], exprOpen):
		open, ok := c.opens(n).source(anchor)
		if !ok {
			return at
		}
		i = open + len(exprOpen)
		characters += utf8.RuneCountInString(n.text[anchor+len(exprOpen) : start])
	case strings.HasPrefix(n.text[start:], exprOpen): // the bracket itself is meant
		open, ok := c.opens(n).source(start)
		if !ok {
			return at
		}
		i, characters = open, 0
	default:
		i = c.lines.offset(n.line, n.col)
		characters += utf8.RuneCountInString(n.text[:start])
		if i < len(source) && strings.IndexByte(`"'`, source[i]) >= 0 {
			i++
		} else if i < len(source) && strings.IndexByte("|>", source[i]) >= 0 {
			i = nextContent(source, i)
		}
	}
	found := c.lines.spot(advance(source, i, characters, n.escaped))
	at.line, at.col = found.line, found.col
	return at
}

// openings are the places of every ${{ of a node: in its text, and in the source.
type openings struct{ inText, inSource []int }

// opens finds the openings of a node, once: a text may hold thousands.
func (c *compiler) opens(n *node) openings {
	if o, ok := c.opened[n]; ok {
		return o
	}
	o := openings{inText: indexAll([]byte(n.text), 0, len(n.text))}
	o.inSource = indexAll(c.lines.source, c.lines.offset(n.line, n.col), len(o.inText))
	if c.opened == nil {
		c.opened = map[*node]openings{}
	}
	c.opened[n] = o
	return o
}

// source is where in the source the opening at a place of the text is.
func (o openings) source(inText int) (int, bool) {
	k, _ := slices.BinarySearch(o.inText, inText)
	if k >= len(o.inSource) {
		return 0, false
	}
	return o.inSource[k], true
}

// indexAll finds up to n openings from a place on.
func indexAll(text []byte, from, n int) []int {
	var found []int
	for i := min(from, len(text)); len(found) < n; {
		next := bytes.Index(text[i:], []byte(exprOpen))
		if next < 0 {
			break
		}
		found = append(found, i+next)
		i += next + len(exprOpen)
	}
	return found
}

// nextContent is the first byte of a block scalar whose indicator is at i.
func nextContent(source []byte, i int) int {
	for i < len(source) && source[i] != '\n' {
		i++
	}
	for i < len(source) && strings.IndexByte(" \t\r\n", source[i]) >= 0 {
		i++
	}
	return i
}

// advance steps over characters of text; an escape is one of them, and so is a line break with the indent behind it.
func advance(source []byte, i, characters int, escaped bool) int {
	for ; characters > 0 && i < len(source); characters-- {
		switch {
		case escaped && source[i] == '\\':
			i += 2
			if i <= len(source) && source[i-1] == 'u' {
				i += 4
			}
		case escaped && bytes.HasPrefix(source[i:], []byte("''")):
			i += 2
		case source[i] == '\n':
			for i++; i < len(source) && (source[i] == ' ' || source[i] == '\t'); i++ {
			}
		default:
			_, size := utf8.DecodeRune(source[i:])
			i += size
		}
	}
	return min(i, len(source))
}
