package client

import "context"

// Workflow shows a version of a published workflow; 0: the newest.
func (c *Client) Workflow(ctx context.Context, name string, version int) (*Workflow, error) {
	if version == 0 {
		return read[Workflow](c.raw.GetWorkflow(ctx, name, nil))
	}
	return read[Workflow](c.raw.GetWorkflowVersion(ctx, name, int32(version), nil))
}

// Graph shows a version of a published workflow as a graph; 0: the newest.
func (c *Client) Graph(ctx context.Context, name string, version int) (*Graph, error) {
	params := &GetWorkflowGraphParams{}
	if version > 0 {
		v := int32(version)
		params.Version = &v
	}
	return read[Graph](c.raw.GetWorkflowGraph(ctx, name, params))
}

// RunGraph shows the graph of a run with where its steps stand.
func (c *Client) RunGraph(ctx context.Context, run string) (*Graph, error) {
	return read[Graph](c.raw.GetRunGraph(ctx, run))
}

// Templates lists the workflows that come with the service.
func (c *Client) Templates(ctx context.Context) ([]TemplateSummary, error) {
	page, err := read[TemplatePage](c.raw.ListTemplates(ctx))
	if err != nil {
		return nil, err
	}
	return page.Data, nil
}

// Template shows one of them with its definition.
func (c *Client) Template(ctx context.Context, name string) (*Template, error) {
	return read[Template](c.raw.GetTemplate(ctx, name))
}

// DryRun says what a submission would run, and runs nothing.
func (c *Client) DryRun(ctx context.Context, req RunRequest) (*DryRun, error) {
	dry := true
	return read[DryRun](c.raw.SubmitRun(ctx, &SubmitRunParams{DryRun: &dry}, req))
}

// Evaluate tries an expression or a template.
func (c *Client) Evaluate(ctx context.Context, req EvaluateRequest) (*Evaluation, error) {
	return read[Evaluation](c.raw.EvaluateExpression(ctx, nil, req))
}
