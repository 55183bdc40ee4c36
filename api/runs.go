package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

const (
	waitMax       = time.Minute
	submitTimeout = 20 * time.Second
	labelKeyMax   = 64
)

// SubmitRun starts a run.
func (a *API) SubmitRun(ctx context.Context, req SubmitRunRequestObject) (SubmitRunResponseObject, error) {
	x := exchangeOf(ctx)
	wait, err := preferredWait(req.Params.Prefer)
	if err != nil {
		return nil, err
	}
	sub, brought, err := a.submission(ctx, x, req.Body)
	if err != nil {
		return nil, err
	}
	if orZero(req.Params.DryRun) {
		return a.dryRun(x, req.Body, sub, req.Params.PerDay)
	}
	if err := a.submit(ctx, x, sub, brought); err != nil {
		return nil, err
	}
	self := "/v1/runs/" + formatRunID(sub.ID)
	if wait > 0 {
		x.w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait.Seconds())))
		allow(x.w, wait)
		run, err := a.awaitEnd(ctx, x.tenant, sub.ID, wait, nil)
		if err != nil { // the run is durable: that is the answer, whatever happened after
			a.log.WarnContext(ctx, "wait_failed", "run_id", formatRunID(sub.ID), "request_id", x.requestID, "error", err)
		}
		if err == nil && run != nil {
			return SubmitRun200JSONResponse{Body: run.wire(), Headers: SubmitRun200ResponseHeaders{ETag: run.etag(), Location: self}}, nil
		}
	}
	return SubmitRun202JSONResponse{
		Body:    RunAccepted{ID: formatRunID(sub.ID), Status: RunStatusQueued, Links: linksOf(sub.ID, flow.RunStatusQueued, "")},
		Headers: SubmitRun202ResponseHeaders{Location: self},
	}, nil
}

// submission is what the request asks to be run, and the definition that came along with it, or comes with the service:
// that one has to be stored before the run is made.
func (a *API) submission(ctx context.Context, x *exchange, body *RunRequest) (*flow.Submission, *compiled, error) {
	sub := &flow.Submission{
		ID: x.run, Tenant: x.tenant, Input: body.Input, Labels: body.Labels,
		Stakes: string(body.Stakes), Mode: string(body.Mode), Priority: -1,
	}
	if body.Priority != nil {
		sub.Priority = *body.Priority
	}
	if err := checkLabels(body.Labels); err != nil {
		return nil, nil, err
	}
	brought, err := a.choose(ctx, x, body, sub)
	if err != nil {
		return nil, nil, err
	}
	if sub.Budget, err = submittedBudget(body.Budget, sub.Workflow); err != nil {
		return nil, nil, err
	}
	if sub.ID == uuid.Nil {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, nil, fmt.Errorf("make run id: %w", err)
		}
		sub.ID = id
	}
	return sub, brought, nil
}

// choose finds the definition: a published one by name, one that comes with the service, or the one that came along. It
// gives the last two back: they may not be stored yet.
func (a *API) choose(ctx context.Context, x *exchange, body *RunRequest, sub *flow.Submission) (*compiled, error) {
	if given := count(body.Workflow != "") + count(body.Definition != nil) + count(body.Template != ""); given != 1 {
		e := fault.New(fault.KindInvalid, "workflow_or_definition", "give either a workflow's name, a definition or a template's name")
		e.Issues = []fault.Issue{{Pointer: "/workflow", Code: e.Code, Detail: e.Detail}}
		return nil, e
	}
	switch {
	case body.Workflow != "":
		return nil, a.choosePublished(ctx, x, body.Workflow, sub)
	case body.Template != "":
		t, err := a.template(body.Template)
		if err != nil {
			return nil, missingAt(err, "/template")
		}
		sub.Workflow = t.compiled.workflow
		return t.compiled, nil
	}
	c, err := a.compileIn(ctx, x, body.Definition)
	if err != nil {
		return nil, err
	}
	sub.Workflow = c.workflow
	return c, nil
}

func (a *API) choosePublished(ctx context.Context, x *exchange, ref string, sub *flow.Submission) error {
	name, version, ok := workflow.SplitRef(ref)
	if !ok { // the spec's pattern has seen it
		return fmt.Errorf("read the reference %q", clip(ref))
	}
	row, err := a.shelf.Workflow(ctx, x.tenant, name, version)
	if err != nil {
		return missingAt(err, "/workflow")
	}
	sub.WorkflowVersion = row.Version
	sub.Workflow, err = a.stored(ctx, x.tenant, row.Hash)
	return err
}

// missingAt points into the body from an error that says that what is named there does not exist.
func missingAt(err error, pointer string) error {
	f := fault.Of(err)
	if f == nil || f.Kind != fault.KindNotFound {
		return err
	}
	missing := *f
	missing.Issues = []fault.Issue{{Pointer: pointer, Code: f.Code, Detail: f.Detail}}
	if len(f.Issues) > 0 {
		missing.Issues[0].Suggest = f.Issues[0].Suggest
	}
	return &missing
}

func checkLabels(labels Labels) error {
	var list []fault.Issue
	for key := range labels {
		if key == "" || len(key) > labelKeyMax {
			list = append(list, fault.Issue{
				Pointer: "/labels/" + pointerToken(clip(key)), Code: "invalid_label", Detail: fmt.Sprintf("a label's name has 1 to %d bytes", labelKeyMax),
			})
		}
	}
	return malformed(list)
}

// submit hands the run to the engine, after the definition that was brought along with it is stored; nil: it is. Whoever
// repeats a request whose first answer was lost is given the run that the first one made, if it did.
func (a *API) submit(ctx context.Context, x *exchange, sub *flow.Submission, brought *compiled) error {
	if brought != nil {
		if err := a.keep(ctx, x.tenant, brought); err != nil {
			return err
		}
	}
	if x.again {
		_, err := a.runs.Run(ctx, x.tenant, sub.ID)
		if err == nil || !fault.Is(err, fault.KindNotFound) {
			return err
		}
	}
	bounded, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	err := a.engine.Submit(bounded, sub)
	switch {
	case err == nil:
		return nil
	case fault.Of(err) != nil || ctx.Err() != nil:
		return err
	}
	open := refuse(500, "outcome_unknown",
		"it is not known whether the run was made: if it was, it is %s. Repeat the request only with the Idempotency-Key it had", formatRunID(sub.ID))
	open.fault.Err = err
	return open
}

// preferredWait reads Prefer: wait=<seconds>. Other preferences are none of ours.
func preferredWait(prefer *string) (time.Duration, error) {
	if prefer == nil {
		return 0, nil
	}
	for part := range strings.FieldsFuncSeq(*prefer, func(r rune) bool { return r == ',' || r == ';' }) {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		seconds, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
		if err != nil || seconds < 0 {
			return 0, malformed([]fault.Issue{{Parameter: "Prefer", Code: "invalid_parameter", Detail: "wait takes a number of seconds"}})
		}
		return min(time.Duration(min(seconds, 3600))*time.Second, waitMax), nil
	}
	return 0, nil
}

// awaitEnd waits until a run has ended, and shows it then; nil: the time was over before. leave, if not nil, may end the
// wait with an error for a row that has not ended.
func (a *API) awaitEnd(ctx context.Context, tenant, id uuid.UUID, wait time.Duration, leave func(store.RunRow) error) (*shown, error) {
	t := &tail{a: a, tenant: tenant, run: id}
	changed, stop := a.engine.Watch(id)
	defer stop()
	for until := time.Now().Add(wait); ; {
		row, err := a.runs.Run(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		if row.Status.Ended() {
			return a.show(ctx, row, nil)
		}
		if leave != nil {
			if err := leave(row); err != nil {
				return nil, err
			}
		}
		left := time.Until(until)
		if left <= 0 || a.isDraining() {
			return nil, nil
		}
		t.wait(ctx, changed, left)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// ListRuns lists runs, newest first.
func (a *API) ListRuns(ctx context.Context, req ListRunsRequestObject) (ListRunsResponseObject, error) {
	filter := store.RunFilter{}
	if s := req.Params.Status; s != nil {
		filter.Status = []flow.RunStatus{flow.RunStatus(*s)}
	}
	if w := req.Params.Workflow; w != nil {
		filter.Workflow = *w
	}
	place := &filter.Before
	if p := req.Params.Parent; p != nil {
		parent, err := parseRunID(*p)
		if err != nil {
			return nil, err
		}
		filter.Parent, place = &parent, &filter.After // oldest first
	}
	filter.Roots = filter.Parent == nil && !orZero(req.Params.Children)
	if c := req.Params.Cursor; c != nil {
		if err := parseCursor("runs", *c, place); err != nil {
			return nil, err
		}
	}
	limit := limitOf(req.Params.Limit)
	filter.Limit = limit + 1
	rows, err := a.runs.Runs(ctx, exchangeOf(ctx).tenant, filter)
	if err != nil {
		return nil, err
	}
	page := RunPage{Data: []RunSummary{}}
	for _, row := range rows[:min(limit, len(rows))] {
		page.Data = append(page.Data, summaryOf(row))
	}
	if len(rows) > limit {
		page.NextCursor = formatCursor("runs", rows[limit-1].ID)
	}
	return ListRuns200JSONResponse(page), nil
}

func summaryOf(row store.RunRow) RunSummary {
	return RunSummary{
		ID: formatRunID(row.ID), Workflow: row.Workflow, Version: int32(row.Version), Status: RunStatus(row.Status),
		Stage: row.Stage, Preview: row.Preview, Labels: row.Labels, CreatedAt: row.CreatedAt.UTC(),
		StartedAt: orZero(row.StartedAt).UTC(), EndedAt: orZero(row.FinishedAt).UTC(),
		Progress: Progress{Settled: row.StepsDone, Total: row.StepsTotal},
		Cost:     costOf(row.Sum.Cost, row.Sum.Unpriced), Simulated: row.Sum.Simulated > 0, Error: failureOf(row.Error),
		Links: linksOf(row.ID, row.Status, row.WaitingFor),
	}
}

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// GetRun shows a run.
func (a *API) GetRun(ctx context.Context, req GetRunRequestObject) (GetRunResponseObject, error) {
	x := exchangeOf(ctx)
	id, err := parseRunID(req.ID)
	if err != nil {
		return nil, err
	}
	row, err := a.runs.Run(ctx, x.tenant, id)
	if err != nil {
		return nil, err
	}
	run := &shown{row: row, include: orZero(req.Params.Include)}
	if run.last, err = a.lastEvent(ctx, row); err != nil {
		return nil, err
	}
	x.w.Header().Set("Cache-Control", cacheRevalidate)
	if req.Params.IfNoneMatch != nil && matches(*req.Params.IfNoneMatch, run.etag()) {
		return GetRun304Response{Headers: NotModifiedResponseHeaders{ETag: run.etag()}}, nil
	}
	if err := a.fill(ctx, run); err != nil {
		return nil, err
	}
	return GetRun200JSONResponse{Body: run.wire(), Headers: GetRun200ResponseHeaders{ETag: run.etag()}}, nil
}

// shown is a run to be shown: its row, its last event, and its state as far as that was needed.
type shown struct {
	row     store.RunRow
	last    flow.Event // zero: the log is past its retention
	include []GetRunParamsInclude
	view    *flow.View   // nil: row and last event say it all
	result  *flow.Result // of a run that has ended
	input   json.RawMessage
}

func (s *shown) with(what GetRunParamsInclude) bool { return slices.Contains(s.include, what) }

// etag changes with every event, and with what only the row knows.
func (s *shown) etag() string {
	names := make([]string, len(s.include))
	for i, name := range s.include {
		names[i] = string(name[:2])
	}
	slices.Sort(names)
	return fmt.Sprintf(`"%d-%s%s"`, s.last.Seq, s.row.Status, strings.Join(names, ""))
}

// show gathers what is to be shown of a run.
func (a *API) show(ctx context.Context, row store.RunRow, include []GetRunParamsInclude) (*shown, error) {
	s := &shown{row: row, include: include}
	var err error
	if s.last, err = a.lastEvent(ctx, row); err != nil {
		return nil, err
	}
	return s, a.fill(ctx, s)
}

// lastEvent is zero where the log is past its retention but the row is left.
func (a *API) lastEvent(ctx context.Context, row store.RunRow) (flow.Event, error) {
	last, err := a.events.LastEvent(ctx, row.Tenant, row.ID)
	if f := fault.Of(err); f != nil && f.Code == "events_not_found" && row.Status.Ended() {
		return flow.Event{}, nil
	}
	return last, err
}

// fill reads what the row does not hold. Of a run that has ended, the last event has it; any other is folded.
func (a *API) fill(ctx context.Context, s *shown) error {
	ended := s.row.Status.Ended() && (s.last.Seq == 0 || endOf[s.last.Kind] == s.row.Status)
	if s.last.Seq > 0 && (!ended || s.with(GetRunParamsIncludeSteps)) {
		return a.fold(ctx, s)
	}
	if s.last.Seq == 0 {
		return nil
	}
	s.result = new(flow.Result)
	if err := json.Unmarshal(s.last.Body, s.result); err != nil {
		return fmt.Errorf("read event %d of run %s: %w", s.last.Seq, s.row.ID, err)
	}
	if s.result.OutputOf != "" { // the output stands in the log where it was made
		return a.fold(ctx, s)
	}
	if !s.with(GetRunParamsIncludeInput) {
		return nil
	}
	first, err := a.events.Events(ctx, s.row.Tenant, s.row.ID, 0, 1)
	if err != nil || len(first) == 0 {
		return err
	}
	var submitted flow.Submitted
	if err := json.Unmarshal(first[0].Body, &submitted); err != nil {
		return fmt.Errorf("read event 1 of run %s: %w", s.row.ID, err)
	}
	s.input = submitted.Input
	return nil
}

func (a *API) fold(ctx context.Context, s *shown) error {
	run, err := a.folded(ctx, s.row)
	if err != nil {
		return err
	}
	view := run.View()
	s.view, s.result, s.input, s.last.Seq = &view, view.Result, view.Submitted.Input, run.Seq()
	return nil
}

// A log of more events than this is long. Few of those are folded at a time: the longest take a second and a hundred megabytes,
// and whoever looks at such a run looks again.
const (
	longLogEvents = 2_000
	foldingMax    = 2
)

// folded reads the whole log of a run and folds it.
func (a *API) folded(ctx context.Context, row store.RunRow) (*flow.Run, error) {
	w, err := a.stored(ctx, row.Tenant, row.Hash)
	if err != nil {
		return nil, err
	}
	var log []flow.Event
	placed := false
	for after := int32(0); ; {
		page, err := a.events.Events(ctx, row.Tenant, row.ID, after, logPageMax)
		if err != nil {
			return nil, err
		}
		log = append(log, page...)
		if len(page) < logPageMax {
			break
		}
		after = page[len(page)-1].Seq
		if len(log) >= longLogEvents && !placed {
			select {
			case a.folding <- struct{}{}:
				defer func() { <-a.folding }()
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			placed = true
		}
	}
	if len(log) == 0 {
		return nil, fault.New(fault.KindNotFound, "events_not_found", "the run's events are past their retention")
	}
	run, err := flow.Fold(row.ID, row.Tenant, w, log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fold run %s", row.ID), err)
	}
	return run, nil
}

const logPageMax = 1_000 // events read at once to be folded
