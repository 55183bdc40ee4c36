package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/store"
)

const pageDefault = 50

func limitOf(limit *Limit) int {
	if limit == nil {
		return pageDefault
	}
	return *limit
}

// definitionOf compiles the definition of a request: the body itself as YAML, or what stands at its /definition.
func (a *API) definitionOf(ctx context.Context, x *exchange, body *DefinitionRequest) (*compiled, error) {
	if body == nil {
		return a.compile(ctx, x.tenant, x.body)
	}
	return a.compileIn(ctx, x, body.Definition)
}

// PublishWorkflow makes version 1 of a new workflow.
func (a *API) PublishWorkflow(ctx context.Context, req PublishWorkflowRequestObject) (PublishWorkflowResponseObject, error) {
	x := exchangeOf(ctx)
	c, err := a.definitionOf(ctx, x, req.JSONBody)
	if err != nil {
		return nil, err
	}
	w := c.workflow
	warnings, err := a.lint(w, req.Params.Strict, sentAt(x, req.JSONBody))
	if err != nil {
		return nil, err
	}
	row, created, err := a.shelf.Publish(ctx, x.tenant, w.Name, w.Hash, w.Source, 0)
	if fault.Is(err, fault.KindConflict) {
		return nil, fault.New(fault.KindConflict, "workflow_exists",
			"there is a workflow %s with another definition; PUT /v1/workflows/%s makes a new version of it", w.Name, w.Name)
	}
	if err != nil {
		return nil, err
	}
	a.definitions.setStored(c, x.tenant)
	if !created {
		return PublishWorkflow200JSONResponse{Body: withWarnings(row, warnings), Headers: PublishWorkflow200ResponseHeaders{ETag: etagOf(row)}}, nil
	}
	return PublishWorkflow201JSONResponse{
		Body: withWarnings(row, warnings), Headers: PublishWorkflow201ResponseHeaders{ETag: etagOf(row), Location: versionLink(row)},
	}, nil
}

// PutWorkflow makes the next version of a workflow, or the first.
func (a *API) PutWorkflow(ctx context.Context, req PutWorkflowRequestObject) (PutWorkflowResponseObject, error) {
	x := exchangeOf(ctx)
	c, err := a.definitionOf(ctx, x, req.JSONBody)
	if err != nil {
		return nil, err
	}
	if c.workflow.Name != req.Name {
		return nil, nameMismatch(c.workflow.Name, req)
	}
	expect, err := a.expectation(ctx, x, req)
	if err != nil {
		return nil, err
	}
	w := c.workflow
	warnings, err := a.lint(w, req.Params.Strict, sentAt(x, req.JSONBody))
	if err != nil {
		return nil, err
	}
	row, _, err := a.shelf.Publish(ctx, x.tenant, w.Name, w.Hash, w.Source, expect)
	if fault.Is(err, fault.KindConflict) { // somebody was faster
		return nil, refuse(http.StatusPreconditionFailed, "precondition_failed", "%s", fault.Of(err).Detail)
	}
	if err != nil {
		return nil, err
	}
	a.definitions.setStored(c, x.tenant)
	if expect == 0 {
		return PutWorkflow201JSONResponse{
			Body: withWarnings(row, warnings), Headers: PutWorkflow201ResponseHeaders{ETag: etagOf(row), Location: versionLink(row)},
		}, nil
	}
	return PutWorkflow200JSONResponse{Body: withWarnings(row, warnings), Headers: PutWorkflow200ResponseHeaders{ETag: etagOf(row)}}, nil
}

func nameMismatch(name string, req PutWorkflowRequestObject) error {
	e := fault.New(fault.KindInvalid, "name_mismatch", "the definition is named %q, the path names %q", name, req.Name)
	pointer := "/name"
	if req.JSONBody != nil {
		pointer = "/definition/name"
	}
	e.Issues = []fault.Issue{{Pointer: pointer, Code: e.Code, Detail: e.Detail, Suggest: req.Name}}
	return e
}

// expectation is the version that a PUT may replace; 0: there must be none.
func (a *API) expectation(ctx context.Context, x *exchange, req PutWorkflowRequestObject) (int, error) {
	latest, err := a.shelf.Workflow(ctx, x.tenant, req.Name, 0)
	given := req.Params.IfMatch
	switch {
	case fault.Is(err, fault.KindNotFound) && given == nil:
		return 0, nil
	case fault.Is(err, fault.KindNotFound):
		return 0, refuse(http.StatusPreconditionFailed, "precondition_failed", "there is no workflow %s yet", req.Name)
	case err != nil:
		return 0, err
	case given == nil:
		return 0, refuse(http.StatusPreconditionRequired, "precondition_required",
			"to replace a workflow, send If-Match with the ETag of its newest version, %d", latest.Version)
	case !matches(*given, etagOf(latest)):
		return 0, refuse(http.StatusPreconditionFailed, "precondition_failed", "the newest version is %d", latest.Version)
	}
	return latest.Version, nil
}

// ValidateWorkflow checks a definition and stores nothing.
func (a *API) ValidateWorkflow(ctx context.Context, req ValidateWorkflowRequestObject) (ValidateWorkflowResponseObject, error) {
	x := exchangeOf(ctx)
	c, err := a.definitionOf(ctx, x, req.JSONBody)
	if err != nil {
		return nil, err
	}
	w := c.workflow
	warnings, err := a.lint(w, req.Params.Strict, sentAt(x, req.JSONBody))
	if err != nil {
		return nil, err
	}
	return ValidateWorkflow200JSONResponse{
		Valid: true, Name: w.Name, Hash: w.Hash.String(), Steps: len(w.Steps), Issues: []Issue{}, Warnings: warnings,
		Estimate: estimateOf(preview.Estimate(w, a.facts(), nil), req.Params.PerDay),
	}, nil
}

// GetWorkflow shows the newest version.
func (a *API) GetWorkflow(ctx context.Context, req GetWorkflowRequestObject) (GetWorkflowResponseObject, error) {
	x := exchangeOf(ctx)
	row, err := a.shelf.Workflow(ctx, x.tenant, req.Name, 0)
	if err != nil {
		return nil, err
	}
	etag := etagOf(row)
	x.w.Header().Set("Cache-Control", cacheRevalidate)
	if req.Params.IfNoneMatch != nil && matches(*req.Params.IfNoneMatch, etag) {
		return GetWorkflow304Response{Headers: NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	return GetWorkflow200JSONResponse{Body: workflowOf(row), Headers: GetWorkflow200ResponseHeaders{ETag: etag}}, nil
}

// GetWorkflowVersion shows one version.
func (a *API) GetWorkflowVersion(ctx context.Context, req GetWorkflowVersionRequestObject) (GetWorkflowVersionResponseObject, error) {
	x := exchangeOf(ctx)
	row, err := a.shelf.Workflow(ctx, x.tenant, req.Name, int(req.Version))
	if err != nil {
		return nil, err
	}
	etag := etagOf(row)
	x.w.Header().Set("Cache-Control", cacheRevalidate)
	if req.Params.IfNoneMatch != nil && matches(*req.Params.IfNoneMatch, etag) {
		return GetWorkflowVersion304Response{Headers: NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	return GetWorkflowVersion200JSONResponse{Body: workflowOf(row), Headers: GetWorkflowVersion200ResponseHeaders{ETag: etag}}, nil
}

// ListWorkflows lists the newest version of each, by name.
func (a *API) ListWorkflows(ctx context.Context, req ListWorkflowsRequestObject) (ListWorkflowsResponseObject, error) {
	var after string
	if c := req.Params.Cursor; c != nil {
		if err := parseCursor("workflows", *c, &after); err != nil {
			return nil, err
		}
	}
	limit := limitOf(req.Params.Limit)
	rows, err := a.shelf.Workflows(ctx, exchangeOf(ctx).tenant, after, limit+1)
	if err != nil {
		return nil, err
	}
	page := workflowPage(rows, limit)
	if len(rows) > limit {
		page.NextCursor = formatCursor("workflows", rows[limit-1].Name)
	}
	return ListWorkflows200JSONResponse(page), nil
}

// ListWorkflowVersions lists the versions of one workflow, newest first.
func (a *API) ListWorkflowVersions(ctx context.Context, req ListWorkflowVersionsRequestObject) (ListWorkflowVersionsResponseObject, error) {
	var before int
	kind := "versions/" + req.Name
	if c := req.Params.Cursor; c != nil {
		if err := parseCursor(kind, *c, &before); err != nil {
			return nil, err
		}
	}
	limit := limitOf(req.Params.Limit)
	rows, err := a.shelf.WorkflowVersions(ctx, exchangeOf(ctx).tenant, req.Name, before, limit+1)
	if err != nil {
		return nil, err
	}
	page := workflowPage(rows, limit)
	if len(rows) > limit {
		page.NextCursor = formatCursor(kind, rows[limit-1].Version)
	}
	return ListWorkflowVersions200JSONResponse(page), nil
}

func workflowPage(rows []store.WorkflowRow, limit int) WorkflowPage {
	page := WorkflowPage{Data: []WorkflowSummary{}}
	for _, row := range rows[:min(limit, len(rows))] {
		page.Data = append(page.Data, WorkflowSummary{
			Name: row.Name, Version: int32(row.Version), Hash: row.Hash.String(), CreatedAt: row.CreatedAt.UTC(), Links: workflowLinks(row),
		})
	}
	return page
}

func workflowOf(row store.WorkflowRow) Workflow {
	return Workflow{
		Name: row.Name, Version: int32(row.Version), Hash: row.Hash.String(), CreatedAt: row.CreatedAt.UTC(),
		Definition: bytes.TrimSpace(row.Body), Links: workflowLinks(row),
	}
}

// withWarnings shows a version that was just published, with what the lint has to say of it.
func withWarnings(row store.WorkflowRow, warnings []Issue) Workflow {
	w := workflowOf(row)
	w.Warnings = warnings
	return w
}

func workflowLinks(row store.WorkflowRow) WorkflowLinks {
	return WorkflowLinks{Self: versionLink(row), Versions: "/v1/workflows/" + row.Name + "/versions", Graph: graphLink(row)}
}

func versionLink(row store.WorkflowRow) string {
	return fmt.Sprintf("/v1/workflows/%s/versions/%d", row.Name, row.Version)
}

func graphLink(row store.WorkflowRow) string {
	return fmt.Sprintf("/v1/workflows/%s/graph?version=%d", row.Name, row.Version)
}

// etagOf names a version and its content.
func etagOf(row store.WorkflowRow) string {
	return fmt.Sprintf(`"%d-%s"`, row.Version, row.Hash.String()[:16])
}
