package api

import (
	"context"
	"strings"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// GetWorkflowGraph shows a published workflow as a graph.
func (a *API) GetWorkflowGraph(ctx context.Context, req GetWorkflowGraphRequestObject) (GetWorkflowGraphResponseObject, error) {
	x := exchangeOf(ctx)
	row, err := a.shelf.Workflow(ctx, x.tenant, req.Name, int(orZero(req.Params.Version)))
	if err != nil {
		return nil, err
	}
	w, err := a.stored(ctx, x.tenant, row.Hash)
	if err != nil {
		return nil, err
	}
	return GetWorkflowGraph200JSONResponse(graphOf(w, row.Version)), nil
}

// GetRunGraph shows the graph of a run's definition, with where its steps stand.
func (a *API) GetRunGraph(ctx context.Context, req GetRunGraphRequestObject) (GetRunGraphResponseObject, error) {
	row, err := a.runOf(ctx, exchangeOf(ctx).tenant, req.ID)
	if err != nil {
		return nil, err
	}
	w, err := a.stored(ctx, row.Tenant, row.Hash)
	if err != nil {
		return nil, err
	}
	run, err := a.folded(ctx, row)
	if err != nil {
		return nil, err
	}
	graph := graphOf(w, row.Version)
	stand(graph.Nodes, run.View().Steps)
	return GetRunGraph200JSONResponse(graph), nil
}

func graphOf(w *workflow.Workflow, version int) Graph {
	g := preview.GraphOf(w)
	out := Graph{Workflow: w.Name, Version: int32(version), Nodes: make([]GraphNode, len(g.Nodes)), Edges: make([]GraphEdge, len(g.Edges))}
	for i, n := range g.Nodes {
		out.Nodes[i] = GraphNode{
			Path: n.Path, ID: n.ID, Kind: string(n.Kind), Label: n.Label, Container: n.Container, Case: n.Case, Section: n.Section, Level: n.Level,
			Agent: n.Agent, Tool: n.Tool, Models: n.Models, When: n.When, Flags: n.Flags,
		}
	}
	for i, e := range g.Edges {
		out.Edges[i] = GraphEdge{From: e.From, To: e.To, Why: e.Why, Fields: e.Fields}
	}
	return out
}

// stand puts where the steps of a run stand into the nodes of its definition.
func stand(nodes []GraphNode, steps []flow.StepView) {
	byPath := make(map[string]*GraphNode, len(nodes))
	for i := range nodes {
		byPath[nodes[i].Path] = &nodes[i]
	}
	sums := map[*GraphNode]*usage.Sum{}
	for _, s := range steps {
		n := byPath[definitionPath(s.Path)]
		if n == nil { // every step of a run is one of its definition
			continue
		}
		if sums[n] == nil {
			sums[n] = &usage.Sum{}
		}
		sums[n].Cost, sums[n].Unpriced = sums[n].Cost+s.Sum.Cost, sums[n].Unpriced+s.Sum.Unpriced
		if isExpanded(s.Path) {
			if n.Counts == nil {
				n.Counts = map[string]int{}
			}
			n.Counts[string(s.Status)]++
			continue
		}
		n.Status, n.Attempt, n.Inside, n.Waiting = StepStatus(s.Status), int(s.Attempt), insideOf(s.Inside), stepWaitingOf(s.Waiting)
		n.StartedAt, n.EndedAt = s.StartedAt.UTC(), s.EndedAt.UTC()
		if s.Agent != "" {
			n.Agent = s.Agent
		}
	}
	for n, sum := range sums {
		n.Cost = costOf(sum.Cost, sum.Unpriced)
	}
}

// definitionPath is the path in the definition of a step of a run: without the numbers of items and iterations.
func definitionPath(path flow.Path) string {
	if !isExpanded(path) {
		return path
	}
	var ids []string
	for part := range strings.SplitSeq(path, ".") {
		if part[0] < '0' || part[0] > '9' {
			ids = append(ids, part)
		}
	}
	return strings.Join(ids, ".")
}
