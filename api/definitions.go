package api

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
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

func (d *definitions) put(key [32]byte, size int, w *workflow.Workflow) *compiled {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.by[key]; e != nil { // compiled twice at once
		return e.Value.(*compiled)
	}
	if d.by == nil {
		d.by = map[[32]byte]*list.Element{}
	}
	c := &compiled{key: key, size: size, workflow: w, stored: map[uuid.UUID]bool{}}
	d.by[key] = d.order.PushFront(c)
	d.bytes += size
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

// compile compiles a definition, or finds it compiled.
func (a *API) compile(source []byte) (*compiled, error) {
	key := sha256.Sum256(source)
	if c := a.definitions.get(key); c != nil {
		return c, nil
	}
	w, err := workflow.Compile(source)
	if err != nil {
		return nil, err
	}
	return a.definitions.put(key, len(source), w), nil
}

// stored gives the compiled definition of a hash from the store.
func (a *API) stored(ctx context.Context, tenant uuid.UUID, hash workflow.Hash) (*workflow.Workflow, error) {
	if c := a.definitions.get(hash); c != nil && c.workflow.Hash == hash {
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
	if c := a.definitions.put(hash, len(body), w); c.workflow.Hash == hash {
		a.definitions.setStored(c, tenant)
	}
	return w, nil
}

// unkind hides the kind of an error: what is wrong with a stored definition is no fault of this request.
type unkind struct{ err error }

func (u unkind) Error() string { return u.err.Error() }

// keep stores an inline definition, once per tenant as far as this node remembers.
func (a *API) keep(ctx context.Context, tenant uuid.UUID, c *compiled) error {
	if a.definitions.isStored(c, tenant) {
		return nil
	}
	if err := a.library.PutDefinition(ctx, tenant, c.workflow.Hash, c.workflow.Source); err != nil {
		return fmt.Errorf("store definition: %w", err)
	}
	a.definitions.setStored(c, tenant)
	return nil
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
func (a *API) compileIn(body []byte, definition json.RawMessage) (*compiled, error) {
	source, err := sourceOf(definition)
	if err != nil {
		return nil, err
	}
	c, err := a.compile(source)
	var bad *fault.Error
	if err == nil || !errors.As(err, &bad) || len(bad.Issues) == 0 {
		return c, err
	}
	line, col := 1, 1
	isText := len(definition) > 0 && definition[0] == '"'
	if at := locate(body, "/definition"); at >= 0 && !isText {
		line, col = position(body, at)
	}
	moved := *bad
	moved.Issues = make([]fault.Issue, len(bad.Issues))
	for i, issue := range bad.Issues {
		issue.Pointer = "/definition" + issue.Pointer
		if issue.Line == 1 {
			issue.Col += col - 1
		}
		if issue.Line > 0 {
			issue.Line += line - 1
		}
		moved.Issues[i] = issue
	}
	return nil, &moved
}
