package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow/schema"
)

// readyTimeout bounds what /readyz asks of others.
const readyTimeout = 2 * time.Second

// mountOperations serves what is for machines and for clients of other APIs: plain handlers, outside of the generated code.
func (a *API) mountOperations(r chi.Router) {
	r.Get("/", a.index)
	r.Get("/livez", alive)
	r.Get("/healthz", alive)
	r.Get("/readyz", a.readyz)
	r.Method(http.MethodGet, "/metrics", a.metrics.Handler())
	r.Get("/openapi.yaml", document(specSource, mediaYAML))
	r.Get("/schemas/workflow-v1.json", document(schema.JSON(), mediaJSON))
	r.Post("/v1/chat/completions", a.chatCompletions)
}

func (a *API) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", mediaJSON)
	body, err := json.Marshal(map[string]any{"name": "fermata", "version": a.version, "links": map[string]string{
		"runs": "/v1/runs", "workflows": "/v1/workflows", "models": "/v1/models", "spend": "/v1/spend", "budgets": "/v1/budgets", "openapi": "/openapi.yaml", "metrics": "/metrics", "ready": "/readyz?verbose",
	}})
	if err != nil { // strings only
		panic(err)
	}
	_, _ = w.Write(append(body, '\n'))
}

func alive(w http.ResponseWriter, _ *http.Request) { text(w, "ok\n") }

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(s))
}

// document serves a text that is part of the program.
func document(content []byte, media string) http.HandlerFunc {
	sum := sha256.Sum256(content)
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Cache-Control", cacheRevalidate)
		if matches(r.Header.Get("If-None-Match"), etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(content)
	}
}

// readyz says whether requests should be sent here.
func (a *API) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	checks := []struct {
		name string
		ask  func(context.Context) error
	}{
		{"database", a.health.Ping},
		{"schema", a.migrated},
		{"engine", func(context.Context) error { return a.engine.Ready() }},
		{"not_draining", a.notDraining},
	}
	var report strings.Builder
	down := fault.New(fault.KindUnavailable, "not_ready", "this node should not be sent requests now")
	for _, c := range checks {
		err := c.ask(ctx)
		if err == nil {
			fmt.Fprintf(&report, "[+]%s ok\n", c.name)
			continue
		}
		a.log.WarnContext(r.Context(), "not_ready", "check", c.name, "error", err)
		down.Issues = append(down.Issues, fault.Issue{Code: "check_failed", Detail: c.name + ": " + excuse(err)})
	}
	if len(down.Issues) > 0 {
		a.fail(w, r, down)
		return
	}
	if verbose := r.URL.Query(); verbose.Has("verbose") && verbose.Get("verbose") != "false" && verbose.Get("verbose") != "0" {
		text(w, report.String()+"ok\n")
		return
	}
	text(w, "ok\n")
}

// migrated: an older schema is not enough; a newer one is the work of a newer node, and fine.
func (a *API) migrated(ctx context.Context) error {
	current, want, err := a.health.Migrated(ctx)
	if err == nil && current < want {
		err = fault.New(fault.KindUnavailable, "schema_outdated", "the schema is at version %d and must be at %d: run fermata migrate", current, want)
	}
	return err
}

func (a *API) notDraining(context.Context) error {
	if a.isDraining() {
		return fault.New(fault.KindUnavailable, "draining", "this node is shutting down")
	}
	return nil
}

// excuse is what may be shown of an error: the text of faults, nothing of others.
func excuse(err error) string {
	if f := fault.Of(err); f != nil && f.Kind != fault.KindInternal {
		return f.Detail
	}
	return "failed; the log has the details"
}
