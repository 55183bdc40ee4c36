package client

import "context"

// Approvals lists what people are asked, newest first.
func (c *Client) Approvals(ctx context.Context, params ListApprovalsParams) (*ApprovalPage, error) {
	return read[ApprovalPage](c.raw.ListApprovals(ctx, &params))
}

// Approval shows what a person is asked.
func (c *Client) Approval(ctx context.Context, id string) (*Approval, error) {
	return read[Approval](c.raw.GetApproval(ctx, id))
}

// Answer answers an approval, if nobody has before.
func (c *Client) Answer(ctx context.Context, id string, answer ApprovalAnswerRequest) (*Approval, error) {
	return read[Approval](c.raw.AnswerApproval(ctx, id, nil, answer))
}

// Signal sends a signal to a run.
func (c *Client) Signal(ctx context.Context, run, name string, signal SignalRequest) (*RunAccepted, error) {
	return read[RunAccepted](c.raw.SignalRun(ctx, run, name, nil, signal))
}

// SignalAll sends a signal to every run that waits for its name.
func (c *Client) SignalAll(ctx context.Context, name string, signal SignalRequest) (*SignalSent, error) {
	return read[SignalSent](c.raw.SignalAll(ctx, name, nil, signal))
}
