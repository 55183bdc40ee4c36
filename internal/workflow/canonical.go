package workflow

import (
	"crypto/sha256"
	"encoding/json"
)

// canonical writes a value as JSON with sorted names, without space, numbers as they were spelled.
func (n *node) canonical() json.RawMessage { return n.appendCanonical(nil) }

func (n *node) appendCanonical(out []byte) []byte {
	switch n.kind {
	case nodeBool, nodeNumber:
		return append(out, n.text...)
	case nodeText:
		return appendQuoted(out, n.text)
	case nodeList:
		out = append(out, '[')
		for i, v := range n.items {
			if i > 0 {
				out = append(out, ',')
			}
			out = v.appendCanonical(out)
		}
		return append(out, ']')
	case nodeObject:
		out = append(out, '{')
		for i, m := range n.members {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(appendQuoted(out, m.name), ':')
			out = m.value.appendCanonical(out)
		}
		return append(out, '}')
	default:
		return append(out, "null"...)
	}
}

func hashOf(canonical []byte) Hash { return sha256.Sum256(canonical) }
