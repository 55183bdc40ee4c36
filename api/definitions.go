package api

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// definitionsMax bounds the compiled definitions kept, definitionsBytesMax their sources together.
const (
	definitionsMax      = 512
	definitionsBytesMax = 64 << 20
)

// definitions keeps compiled definitions by the hash of what was compiled, least recently used last. What it keeps
// never changes, so nothing is ever stale.
type definitions struct {
	mu    sync.Mutex
	by    map[[32]byte]*list.Element
	order list.List
	bytes int
}

type compiled struct {
	key      [32]byte
	size     int
	workflow *workflow.Workflow
	stored   map[uuid.UUID]bool // tenants whose definition rows are known to exist

	// names are the workflows that a text names: then workflow is nil, and what the text means stands under the key that
	// it has together with them.
	names []string
}

func (d *definitions) get(key [32]byte) *compiled {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.by[key]
	if e == nil {
		return nil
	}
	d.order.MoveToFront(e)
	return e.Value.(*compiled)
}

func (d *definitions) put(c *compiled) *compiled {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.by[c.key]; e != nil { // compiled twice at once
		return e.Value.(*compiled)
	}
	if d.by == nil {
		d.by = map[[32]byte]*list.Element{}
	}
	c.stored = map[uuid.UUID]bool{}
	d.by[c.key] = d.order.PushFront(c)
	d.bytes += c.size
	for d.order.Len() > definitionsMax || d.bytes > definitionsBytesMax && d.order.Len() > 1 {
		oldest := d.order.Remove(d.order.Back()).(*compiled)
		delete(d.by, oldest.key)
		d.bytes -= oldest.size
	}
	return c
}

func (d *definitions) isStored(c *compiled, tenant uuid.UUID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return c.stored[tenant]
}

func (d *definitions) setStored(c *compiled, tenant uuid.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.stored[tenant] = true
}

// compile compiles a definition with the published workflows that it names, or finds it compiled.
func (a *API) compile(ctx context.Context, tenant uuid.UUID, source []byte) (*compiled, error) {
	key := sha256.Sum256(source)
	c := a.definitions.get(key)
	switch {
	case c != nil && c.workflow != nil:
		return c, nil
	case c == nil:
		c = &compiled{key: key, size: len(source), names: workflow.NamesOf(source)}
	}
	lib, err := a.libraryFor(ctx, tenant, c.names)
	if err != nil {
		return nil, err
	}
	if len(c.names) > 0 {
		a.definitions.put(c)
		key = keyWith(source, lib)
		if c := a.definitions.get(key); c != nil {
			return c, nil
		}
	}
	w, err := workflow.CompileWith(source, lib)
	if err != nil {
		return nil, err
	}
	return a.definitions.put(&compiled{key: key, size: len(w.Source), workflow: w}), nil
}

// stored gives the compiled definition of a hash from the store.
func (a *API) stored(ctx context.Context, tenant uuid.UUID, hash workflow.Hash) (*workflow.Workflow, error) {
	if c := a.definitions.get(hash); c != nil && c.means(hash) {
		return c.workflow, nil
	}
	body, err := a.library.Definition(ctx, tenant, hash)
	if err != nil {
		return nil, fmt.Errorf("read definition %s: %w", hash, err)
	}
	w, err := workflow.Load(body)
	if err != nil {
		return nil, fmt.Errorf("compile stored definition %s: %w", hash, unkind{err})
	}
	// The same text may have been compiled as it was sent, under another hash: that one is not stored by this.
	if c := a.definitions.put(&compiled{key: hash, size: len(body), workflow: w}); c.means(hash) {
		a.definitions.setStored(c, tenant)
	}
	return w, nil
}

func (c *compiled) means(hash workflow.Hash) bool {
	return c.workflow != nil && c.workflow.Hash == hash
}

// unkind hides the kind of an error: what is wrong with a stored definition is no fault of this request.
type unkind struct{ err error }

func (u unkind) Error() string { return u.err.Error() }

// keep stores an inline definition, once per tenant as far as this node remembers.
func (a *API) keep(ctx context.Context, tenant uuid.UUID, c *compiled) error {
	if a.definitions.isStored(c, tenant) {
		return nil
	}
	if err := a.put(ctx, tenant, c.workflow); err != nil {
		return fmt.Errorf("store definition: %w", err)
	}
	a.definitions.setStored(c, tenant)
	return nil
}

// put stores a definition, and before it those that its steps may run: each run is pinned to one.
func (a *API) put(ctx context.Context, tenant uuid.UUID, w *workflow.Workflow) error {
	for _, child := range w.Children {
		if err := a.put(ctx, tenant, child); err != nil {
			return err
		}
	}
	return a.library.PutDefinition(ctx, tenant, w.Hash, w.Source)
}

// sourceOf gives the text of a definition that came inside JSON: the object itself, or the string's content.
func sourceOf(definition json.RawMessage) ([]byte, error) {
	definition = bytes.TrimSpace(definition)
	if len(definition) == 0 || definition[0] != '"' {
		return definition, nil
	}
	var s string
	if err := json.Unmarshal(definition, &s); err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	return []byte(s), nil
}

// compileIn compiles the definition that stands at /definition of a JSON body. Issues point into that body.
func (a *API) compileIn(ctx context.Context, x *exchange, definition json.RawMessage) (*compiled, error) {
	source, err := sourceOf(definition)
	if err != nil {
		return nil, err
	}
	c, err := a.compile(ctx, x.tenant, source)
	var bad *fault.Error
	if err == nil || !errors.As(err, &bad) || len(bad.Issues) == 0 {
		return c, err
	}
	moved := *bad
	moved.Issues = slices.Clone(bad.Issues)
	at := placeIn(x.body, definition)
	for i := range moved.Issues {
		at.move(&moved.Issues[i])
	}
	return nil, &moved
}

// placed is where a definition stands in the body of a request.
type placed struct{ line, col int }

// placeIn finds the definition at /definition of a body. One that came as a string has lines of its own.
func placeIn(body []byte, definition json.RawMessage) *placed {
	isText := len(definition) > 0 && definition[0] == '"'
	if at := locate(body, "/definition"); at >= 0 && !isText {
		line, col := position(body, at)
		return &placed{line, col}
	}
	return &placed{1, 1}
}

// move makes an issue with a definition one with the body around it.
func (p *placed) move(issue *fault.Issue) {
	issue.Pointer = "/definition" + issue.Pointer
	if issue.Line == 1 {
		issue.Col += p.col - 1
	}
	if issue.Line > 0 {
		issue.Line += p.line - 1
	}
}
