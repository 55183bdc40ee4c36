// Package client speaks with a Fermata service over HTTP. The types and the raw calls are generated from the service's
// OpenAPI document; Client puts typed errors and a stream that reconnects on top of them.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

//go:generate go tool oapi-codegen --config oapi-codegen.yaml ../openapi.yaml

// answerBytesMax bounds what is read of one answer.
const answerBytesMax = 64 << 20

// Config of a Client.
type Config struct {
	URL  string       // of the service: http://127.0.0.1:8080
	HTTP *http.Client // nil: one without an overall timeout
	// Retrying, if set, is told of every pause before a stream is taken up again.
	Retrying func(cause error, pause time.Duration)
}

// Client speaks with one service. It is safe for concurrent use.
type Client struct {
	raw      *Raw
	retrying func(error, time.Duration)
}

// New makes a Client. The error is of the URL.
func New(cfg Config) (*Client, error) {
	h := cfg.HTTP
	if h == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = 128
		h = &http.Client{Transport: transport}
	}
	if u, err := url.Parse(cfg.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the URL of the service must be http://host:port or https://host:port, not %q", cfg.URL)
	}
	raw, err := NewClient(cfg.URL, WithHTTPClient(h))
	if err != nil {
		return nil, fmt.Errorf("read the URL of the service: %w", err)
	}
	return &Client{raw: raw, retrying: cfg.Retrying}, nil
}

// Error says what the service objects to, with every issue. A *Problem is the error of every answer ≥ 400.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Code + ": " + p.Detail)
	for _, issue := range p.Errors {
		b.WriteString("\n  " + issue.String())
	}
	return b.String()
}

// String is one line: where, what, and what may have been meant.
func (i Issue) String() string {
	var where []string
	if i.Line > 0 {
		where = append(where, fmt.Sprintf("%d:%d", i.Line, i.Col))
	}
	if at := i.Pointer + i.Parameter; at != "" {
		where = append(where, at)
	}
	line := strings.Join(append(where, i.Detail), " ")
	if i.Suggest != "" {
		line += " (did you mean " + i.Suggest + "?)"
	}
	return line
}

// read takes an answer apart: a value, or a *Problem.
func read[T any](resp *http.Response, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", resp.Request.URL.Path, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, problem(resp, body)
	}
	value := new(T)
	if err := json.Unmarshal(body, value); err != nil {
		return nil, fmt.Errorf("decode the answer of %s: %w", resp.Request.URL.Path, err)
	}
	return value, nil
}

func problem(resp *http.Response, body []byte) error {
	p := &Problem{}
	if err := json.Unmarshal(body, p); err != nil || p.Code == "" { // something in between answered
		const excerptMax = 200
		p = &Problem{
			Status: resp.StatusCode, Title: resp.Status, Code: "not_fermata",
			Detail: fmt.Sprintf("%s answered %s: %.*q", resp.Request.URL.Host, resp.Status, excerptMax, body),
		}
	}
	return p
}

// SubmitOptions of one submission.
type SubmitOptions struct {
	Key  string        // Idempotency-Key: with it, a submission that got no answer is sent again
	Wait time.Duration // for the end of the run, at most a minute; 0: not at all
}

// submitTries bounds how often a submission with a key is sent.
const submitTries = 3

// Submit starts a run. The returned run is nil unless the run ended while the service waited for it.
func (c *Client) Submit(ctx context.Context, req RunRequest, opts SubmitOptions) (*RunAccepted, *Run, error) {
	params := &SubmitRunParams{}
	if opts.Key != "" {
		params.IdempotencyKey = &opts.Key
	}
	if opts.Wait > 0 {
		prefer := fmt.Sprintf("wait=%d", int(opts.Wait.Seconds()+0.999))
		params.Prefer = &prefer
	}
	var resp *http.Response
	for try := 1; ; try++ {
		var err error
		if resp, err = c.raw.SubmitRun(ctx, params, req); err == nil {
			break
		}
		if opts.Key == "" || try == submitTries || ctx.Err() != nil {
			return nil, nil, err
		}
	}
	if resp.StatusCode != http.StatusOK {
		accepted, err := read[RunAccepted](resp, nil)
		return accepted, nil, err
	}
	run, err := read[Run](resp, nil)
	if err != nil {
		return nil, nil, err
	}
	return &RunAccepted{ID: run.ID, Status: run.Status, Links: run.Links}, run, nil
}

// Run shows a run; include names what to show besides: steps, provenance, input.
func (c *Client) Run(ctx context.Context, id string, include ...GetRunParamsInclude) (*Run, error) {
	params := &GetRunParams{}
	if len(include) > 0 {
		params.Include = &include
	}
	return read[Run](c.raw.GetRun(ctx, id, params))
}

// Runs lists runs, newest first.
func (c *Client) Runs(ctx context.Context, params ListRunsParams) (*RunPage, error) {
	return read[RunPage](c.raw.ListRuns(ctx, &params))
}

// Steps lists the steps of a run; of those inside maps and loops, only the first.
func (c *Client) Steps(ctx context.Context, id string) ([]Step, error) {
	page, err := c.StepsPage(ctx, id, ListStepsParams{})
	if err != nil {
		return nil, err
	}
	return page.Data, nil
}

// StepsPage lists the steps of a run, or with Under a page of those inside a map or loop.
func (c *Client) StepsPage(ctx context.Context, id string, params ListStepsParams) (*StepPage, error) {
	return read[StepPage](c.raw.ListSteps(ctx, id, &params))
}

// Step shows one step with its model calls.
func (c *Client) Step(ctx context.Context, id, step string) (*Step, error) {
	return read[Step](c.raw.GetStep(ctx, id, step))
}

// Events reads a page of a run's log.
func (c *Client) Events(ctx context.Context, id string, params ListEventsParams) (*EventPage, error) {
	return read[EventPage](c.raw.ListEvents(ctx, id, &params, accept("application/json")))
}

// Cancel asks a run to stop.
func (c *Client) Cancel(ctx context.Context, id, reason string) (*RunAccepted, error) {
	return read[RunAccepted](c.raw.CancelRun(ctx, id, nil, CancelRequest{Reason: reason}))
}

// Resume lets a failed run go on.
func (c *Client) Resume(ctx context.Context, id string, req ResumeRequest) (*RunAccepted, error) {
	return read[RunAccepted](c.raw.ResumeRun(ctx, id, nil, req))
}

// Validate checks a definition, YAML or JSON. What is wrong with it is the *Problem.
func (c *Client) Validate(ctx context.Context, source []byte) (*Validation, error) {
	return read[Validation](c.raw.ValidateWorkflowWithBody(ctx, nil, "application/yaml", bytes.NewReader(source)))
}

// Publish publishes a definition, YAML or JSON, as a new workflow, or as the next version of the one it names.
func (c *Client) Publish(ctx context.Context, source []byte) (*Workflow, error) {
	w, err := read[Workflow](c.raw.PublishWorkflowWithBody(ctx, nil, "application/yaml", bytes.NewReader(source)))
	var exists *Problem
	if !errors.As(err, &exists) || exists.Code != "workflow_exists" {
		return w, err
	}
	valid, err := c.Validate(ctx, source)
	if err != nil {
		return nil, err
	}
	resp, err := c.raw.GetWorkflow(ctx, valid.Name, nil)
	if err != nil {
		return nil, err
	}
	etag := resp.Header.Get("ETag")
	if _, err := read[Workflow](resp, nil); err != nil {
		return nil, err
	}
	return read[Workflow](c.raw.PutWorkflowWithBody(ctx, valid.Name, &PutWorkflowParams{IfMatch: &etag}, "application/yaml", bytes.NewReader(source)))
}

// Workflows lists published workflows, by name.
func (c *Client) Workflows(ctx context.Context, params ListWorkflowsParams) (*WorkflowPage, error) {
	return read[WorkflowPage](c.raw.ListWorkflows(ctx, &params))
}

// Ready says why the service takes no requests now, or nil.
func (c *Client) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.raw.Server, "/")+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := c.raw.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return err
	}
	return problem(resp, body)
}

func accept(media string) RequestEditorFn {
	return func(_ context.Context, r *http.Request) error {
		r.Header.Set("Accept", media)
		return nil
	}
}
