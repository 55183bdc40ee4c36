package workflow

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// locate finds where in the source a place within a node's text is: characters after the byte at start. Escapes and
// the folding of YAML make the way back inexact; the `${{` of an expression is found for certain, what follows it on
// the same line, too.
func (c *compiler) locate(n *node, start, characters int) spot {
	at := n.spot()
	i := c.lines.offset(n.line, n.col)
	source := c.lines.source
	anchor := start - len(exprOpen) - (start - len(strings.TrimRight(n.text[:start], " \t\r\n")))
	if anchor >= 0 && strings.HasPrefix(n.text[anchor:], exprOpen) {
		for k := strings.Count(n.text[:anchor], exprOpen); k >= 0; k-- {
			next := bytes.Index(source[min(i, len(source)):], []byte(exprOpen))
			if next < 0 {
				return at
			}
			i += next + len(exprOpen)
		}
		characters += utf8.RuneCountInString(n.text[anchor+len(exprOpen) : start])
	} else {
		characters += utf8.RuneCountInString(n.text[:start])
		if strings.HasPrefix(n.text[start:], exprOpen) { // the bracket itself is meant
			for k := strings.Count(n.text[:start], exprOpen); k >= 0; k-- {
				next := bytes.Index(source[min(i, len(source)):], []byte(exprOpen))
				if next < 0 {
					return at
				}
				i += next
				if k > 0 {
					i += len(exprOpen)
				}
			}
			characters = 0
		} else if i < len(source) && strings.IndexByte(`"'`, source[i]) >= 0 {
			i++
		} else if i < len(source) && strings.IndexByte("|>", source[i]) >= 0 {
			i = nextContent(source, i)
		}
	}
	found := c.lines.spot(advance(source, i, characters, n.escaped))
	at.line, at.col = found.line, found.col
	return at
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
