package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// namedWorkflowsMax bounds the workflows that one definition names.
const namedWorkflowsMax = 100

// libraryFor fetches published workflows. One that is not there is the compiler's to report.
func (a *API) libraryFor(ctx context.Context, tenant uuid.UUID, names []string) (workflow.Fetched, error) {
	if len(names) > namedWorkflowsMax {
		return nil, fault.New(fault.KindInvalid, "limit", "the definition names %d workflows; the limit is %d", len(names), namedWorkflowsMax)
	}
	lib := workflow.Fetched{}
	for _, ref := range names {
		name, version, ok := workflow.SplitRef(ref)
		if !ok {
			continue
		}
		row, err := a.shelf.Workflow(ctx, tenant, name, version)
		switch {
		case fault.Is(err, fault.KindNotFound):
		case err != nil:
			return nil, fmt.Errorf("read workflow %s: %w", ref, err)
		default:
			lib[ref] = workflow.Published{Ref: workflow.Versioned(row.Name, row.Version), Source: row.Body}
		}
	}
	return lib, nil
}

// keyWith names what is compiled: a definition together with what its names mean now.
func keyWith(source []byte, lib workflow.Fetched) [32]byte {
	h := sha256.New()
	h.Write([]byte("with others\x00")) // never the key of the text by itself
	h.Write(source)
	for _, name := range slices.Sorted(maps.Keys(lib)) {
		fmt.Fprintf(h, "\x00%s\x00%s\x00%x", name, lib[name].Ref, sha256.Sum256(lib[name].Source))
	}
	return [32]byte(h.Sum(nil))
}
