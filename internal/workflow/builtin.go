package workflow

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// builtinNames are the chains that are there when a definition does not define chains of the same name.
var builtinNames = []string{"classification", "production", "reasoning"}

// builtinSource is what the built-in chains mean, as a definition would write them: an answer with a confidence below
// 30 is not taken, and a timeout is retried.
const builtinSource = `{
"reasoning": [
  {"model": "claude-opus-4-6", "timeout": "60s", "retries": 1, "retry_timeouts": true, "accept": "confidence >= 30"},
  {"model": "gpt-4o", "timeout": "45s", "retries": 1, "retry_timeouts": true, "accept": "confidence >= 30"},
  {"model": "claude-sonnet-4-6", "timeout": "30s", "retries": 2, "retry_timeouts": true, "accept": "confidence >= 30"},
  {"model": "gemini-2.5-pro", "timeout": "45s", "retries": 1, "retry_timeouts": true, "accept": "confidence >= 30"}],
"production": [
  {"model": "claude-sonnet-4-6", "timeout": "30s", "retries": 2, "retry_timeouts": true, "accept": "confidence >= 30"},
  {"model": "gpt-4o", "timeout": "30s", "retries": 1, "retry_timeouts": true, "accept": "confidence >= 30"},
  {"model": "grok-3", "timeout": "20s", "retries": 1, "retry_timeouts": true, "accept": "confidence >= 30"}],
"classification": [
  {"model": "claude-haiku-4-5", "timeout": "10s", "retries": 3, "retry_timeouts": true, "accept": "confidence >= 30"},
  {"model": "claude-sonnet-4-6", "timeout": "15s", "retries": 1, "retry_timeouts": true, "accept": "confidence >= 30"}]}`

// firstBuiltins is what the built-in chains meant before definitions carried those they name. It never changes: runs
// that were pinned then are still about.
const firstBuiltins = `{
"reasoning": [
  {"model": "claude-opus-4-6", "timeout": "60s", "retries": 1, "retry_timeouts": true},
  {"model": "gpt-4o", "timeout": "45s", "retries": 1, "retry_timeouts": true},
  {"model": "claude-sonnet-4-6", "timeout": "30s", "retries": 2, "retry_timeouts": true},
  {"model": "gemini-2.5-pro", "timeout": "45s", "retries": 1, "retry_timeouts": true}],
"production": [
  {"model": "claude-sonnet-4-6", "timeout": "30s", "retries": 2, "retry_timeouts": true},
  {"model": "gpt-4o", "timeout": "30s", "retries": 1, "retry_timeouts": true},
  {"model": "grok-3", "timeout": "20s", "retries": 1, "retry_timeouts": true}],
"classification": [
  {"model": "claude-haiku-4-5", "timeout": "10s", "retries": 3, "retry_timeouts": true},
  {"model": "claude-sonnet-4-6", "timeout": "15s", "retries": 1, "retry_timeouts": true}]}`

// BuiltinChains are the chains that a definition may name without defining them: reasoning, production and
// classification. They are the caller's own.
func BuiltinChains() map[string]*Chain {
	chains := map[string]*Chain{}
	for name, chain := range compiledBuiltins() {
		k := *chain
		k.Entries = slices.Clone(k.Entries)
		chains[name] = &k
	}
	return chains
}

var compiledBuiltins = sync.OnceValue(func() map[string]*Chain {
	c := newCompiler(nil, &problems{})
	c.root = &node{kind: nodeObject}
	for _, name := range builtinNames {
		c.builtin(name, c.root)
	}
	c.typed()
	if err := c.p.err(); err != nil { // a defect of this package, seen by every test
		panic(fmt.Errorf("compile the built-in chains: %w", err))
	}
	return c.w.Chains
})

// builtin compiles a built-in chain that is named at a node, or answers nil. The definition carries it from now on, as
// if its author had written it out: the hash pins it, and a later version may have other chains.
func (c *compiler) builtin(name string, at *node) *Chain {
	if !slices.Contains(builtinNames, name) {
		return nil
	}
	source := builtinSource
	if c.stored {
		source = firstBuiltins
	}
	all, err := parseJSON([]byte(source), c.p)
	if err != nil { // a defect of this package, seen by every test
		panic(fmt.Errorf("read the built-in chains: %w", err))
	}
	chain := all.get(name)
	chain.place(at.line, at.col)
	if !c.stored {
		c.root.set("chains", name, chain)
	}
	c.w.Chains[name] = c.chainOf(chain, name)
	return c.w.Chains[name]
}

// place has everything in n stand at one place of the source.
func (n *node) place(line, col int) {
	n.line, n.col = line, col
	for _, v := range n.items {
		v.place(line, col)
	}
	for i := range n.members {
		n.members[i].line, n.members[i].col = line, col
		n.members[i].value.place(line, col)
	}
}

// set puts a value under a name of an object that stands, or comes to stand, under a key. What stands there and is no
// object is left alone: it is reported already.
func (n *node) set(key, name string, value *node) {
	inner := n.get(key)
	if inner == nil {
		inner = &node{kind: nodeObject, line: value.line, col: value.col}
		n.insert(key, inner)
	}
	if inner.kind == nodeObject {
		inner.insert(name, value)
	}
}

// insert adds a member whose name is not there yet.
func (n *node) insert(name string, value *node) {
	n.put(name, value)
	n.adopt()
}

// put is insert for a value that keeps its place in the document.
func (n *node) put(name string, value *node) {
	i, _ := slices.BinarySearchFunc(n.members, name, func(m member, name string) int { return strings.Compare(m.name, name) })
	n.members = slices.Insert(n.members, i, member{name, value.line, value.col, value})
}
