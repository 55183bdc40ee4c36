package workflow

import (
	"slices"
	"strconv"
	"strings"
)

// nodeKind is what a node of the tree is. nodeBad stands for what was refused while reading: it is reported already,
// and nobody complains about it again.
type nodeKind uint8

const (
	nodeBad nodeKind = iota
	nodeNull
	nodeBool
	nodeNumber
	nodeText
	nodeList
	nodeObject
)

var nodeKindNames = [...]string{"nothing", "null", "true or false", "a number", "text", "a list", "an object"}

func (k nodeKind) String() string { return nodeKindNames[k] }

// node is one value of a definition with its place in the source. JSON and YAML are read into the same tree.
type node struct {
	kind      nodeKind
	escaped   bool   // written with escapes: an offset in the text is not one in the source
	text      string // of text; of a number as JSON spells it; "true" or "false"
	items     []*node
	members   []member // sorted by name
	line, col int      // from 1; columns count characters

	parent *node
	name   string // in a parent object
	index  int    // in a parent list
}

// member is one name and value of an object, with the place of the name.
type member struct {
	name      string
	line, col int
	value     *node
}

// get finds a member by its name, or nil.
func (n *node) get(name string) *node {
	if n == nil || n.kind != nodeObject {
		return nil
	}
	i, ok := slices.BinarySearchFunc(n.members, name, func(m member, name string) int { return strings.Compare(m.name, name) })
	if !ok {
		return nil
	}
	return n.members[i].value
}

// at follows object names and list positions downwards; it answers the deepest node there is.
func (n *node) at(path []string) *node {
	for _, p := range path {
		next := n.get(p)
		if n.kind == nodeList {
			if i, err := strconv.Atoi(p); err == nil && i >= 0 && i < len(n.items) {
				next = n.items[i]
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return n
}

// adopt sets the parent links of what is directly inside.
func (n *node) adopt() {
	for i, v := range n.items {
		v.parent, v.index = n, i
	}
	for _, m := range n.members {
		m.value.parent, m.value.name = n, m.name
	}
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is the node's RFC 6901 pointer.
func (n *node) pointer() string {
	var path []*node // from the node upwards
	for ; n != nil && n.parent != nil; n = n.parent {
		path = append(path, n)
	}
	var b strings.Builder
	for _, at := range slices.Backward(path) {
		b.WriteByte('/')
		b.WriteString(at.step())
	}
	return b.String()
}

// step is the part of a pointer that leads to the node from the one around it.
func (n *node) step() string {
	if n.parent.kind == nodeList {
		return strconv.Itoa(n.index)
	}
	return pointerEscapes.Replace(n.name)
}
