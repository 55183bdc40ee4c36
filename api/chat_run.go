package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/workflow"
)

const (
	// runAnswerMax is how long a whole answer waits for its run; the run goes on after it.
	runAnswerMax = 10 * time.Minute
	// runStreamMax is how long a stream follows its run.
	runStreamMax = 24 * time.Hour

	inputOfMessages = "messages"
	progressOfSteps = "steps"
)

// workflowRef is how a workflow is named, as in RunRequest.
var workflowRef = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(@[1-9][0-9]{0,8})?$`)

func isWorkflowRef(ref string) bool { return workflowRef.MatchString(ref) }

// workflow runs a published workflow, and answers with its output.
func (c *chat) workflow(ref string) error {
	if !isWorkflowRef(ref) {
		return noModel("%q is not the name of a workflow: it is name, or name@version", clip(ref))
	}
	if c.a.streams.Add(1) > streamsMax {
		c.a.streams.Add(-1)
		return fault.New(fault.KindLimited, "too_many_streams", "%d runs are followed here, which is the limit", streamsMax)
	}
	defer c.a.streams.Add(-1)
	run, err := c.submitOnce(ref)
	if err != nil {
		return err
	}
	c.id = chatID(run)
	c.w.Header().Set(headerRun, formatRunID(run))
	if c.req.Stream {
		return c.streamRun(run)
	}
	allow(c.w, runAnswerMax)
	out, err := c.runReply(c.r.Context(), run, runAnswerMax)
	if err != nil {
		return err
	}
	c.write(out)
	return nil
}

// submitOnce makes the run, or with an Idempotency-Key finds the one that was made under it. The key is settled as soon
// as the run is durable: whoever repeats the request follows the same run.
func (c *chat) submitOnce(ref string) (uuid.UUID, error) {
	ctx := c.r.Context()
	if len(c.r.Header.Values(headerIdempotencyKey)) == 0 {
		return c.submit(ctx, ref)
	}
	key, claim, err := c.a.claim(c.r, c.x)
	switch {
	case err != nil:
		return uuid.UUID{}, err
	case !claim.Fresh:
		c.w.Header().Set(headerReplayed, "true")
		return claim.Run, nil
	}
	ctx = context.WithoutCancel(ctx)
	run, err := c.submit(ctx, ref)
	kept := &recorder{header: http.Header{}, status: http.StatusAccepted}
	_, _ = kept.Write([]byte("{}")) // the run is all there is to keep; a recorder takes everything
	if err != nil {
		p, _ := explain(c.r, err)
		kept.status = p.Status
	}
	c.a.settle(ctx, key, kept)
	return run, err
}

// submit makes the run as POST /v1/runs does.
func (c *chat) submit(ctx context.Context, ref string) (uuid.UUID, error) {
	sub, brought, err := c.a.submission(ctx, c.x, &RunRequest{Workflow: ref, Labels: c.labels, Mode: Mode(c.mode)})
	if f := fault.Of(err); f != nil && f.Kind == fault.KindNotFound {
		return uuid.UUID{}, noModel("%s", f.Detail)
	}
	if err != nil {
		return uuid.UUID{}, err
	}
	if sub.Mode == "" && sub.Workflow.Mode == nil { // somebody waits for the answer
		sub.Mode = modeInteractive
	}
	if sub.Input, err = c.req.input(sub.Workflow.Input); err != nil {
		return uuid.UUID{}, err
	}
	return sub.ID, c.a.submit(ctx, c.x, sub, brought)
}

// input makes the input of a run out of a chat: as metadata gives it, else by what the schema has a place for.
func (req *chatRequest) input(schema *workflow.Schema) (json.RawMessage, error) {
	if raw := req.Metadata[metadataOfInput]; given(raw) {
		return inputGiven(json.RawMessage(raw))
	}
	said, err := req.lastSaid()
	if err != nil {
		return nil, err
	}
	var shape struct {
		Properties map[string]struct {
			Type any `json:"type"`
		} `json:"properties"`
		Required []string `json:"required"`
	}
	if schema != nil && json.Unmarshal(schema.Raw, &shape) != nil {
		shape.Properties = nil // true, or of a strange shape: the message itself must meet it
	}
	if _, ok := shape.Properties[inputOfMessages]; ok || schema == nil && !isObject(said) {
		return json.Marshal(map[string]json.RawMessage{inputOfMessages: json.RawMessage(req.Messages)})
	}
	var texts []string
	for _, name := range shape.Required {
		if shape.Properties[name].Type == "string" {
			texts = append(texts, name)
		}
	}
	switch {
	case len(texts) == 1:
		return json.Marshal(map[string]string{texts[0]: said})
	case isObject(said):
		return json.RawMessage(said), nil
	}
	slices.Sort(texts)
	return nil, wrong("messages", "the last message must be a JSON object, the workflow's input: its schema has no property messages, and its required strings are %q, not one. Or give the input in metadata.input", texts)
}

// inputGiven takes an input as it stands, or inside a string: OpenAI's clients put only strings into metadata.
func inputGiven(raw json.RawMessage) (json.RawMessage, error) {
	if raw[0] != '"' {
		return raw, nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil || !json.Valid([]byte(text)) {
		return nil, wrong("metadata.input", "metadata.input must be JSON, or a string of JSON")
	}
	return json.RawMessage(text), nil
}

func isObject(text string) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal([]byte(text), &members) == nil && members != nil
}

// runReply waits for the end of a run. A caller who leaves does not stop it.
func (c *chat) runReply(ctx context.Context, run uuid.UUID, wait time.Duration) (reply, error) {
	s, err := c.a.awaitEnd(ctx, c.x.tenant, run, wait, heldUp)
	if err != nil {
		return reply{}, err
	}
	id := formatRunID(run)
	if s == nil {
		return reply{}, c.unfinished(id, wait)
	}
	sum := s.row.Sum
	out := reply{model: fmt.Sprintf("%s%s@%d", prefixWorkflow, s.row.Workflow, s.row.Version), finish: finishStop, tokens: sum.Tokens, account: chatAccount{
		Run: id, Simulated: sum.Simulated > 0, Cost: sum.Cost.String(), Baseline: sum.Baseline.String(), Unpriced: sum.Unpriced,
	}}
	switch {
	case s.row.Status != flow.RunStatusSucceeded:
		return out, runFailed(s)
	case s.result == nil:
		return out, fault.New(fault.KindNotFound, "events_not_found", "the run's events are past their retention, and its output with them")
	}
	out.text = plain(s.result.Output)
	return out, nil
}

// heldUp is told when the run waits for what may take days: nobody who asks a model waits for that.
func heldUp(row store.RunRow) error {
	if row.Status != flow.RunStatusWaiting || waitingForHeld[row.WaitingFor] == "" {
		return nil
	}
	id := formatRunID(row.ID)
	status, code := http.StatusServiceUnavailable, "run_waiting"
	if row.WaitingFor == flow.HeldBudget {
		status, code = http.StatusForbidden, codeBudgetExhausted
	}
	ref := refuse(status, code, "the run %s waits for its %s, and goes on by itself when it may: /v1/runs/%s says more", id, row.WaitingFor, id).
		with(headerShouldRetry, "false")
	if status == http.StatusServiceUnavailable {
		ref.fault.Kind = fault.KindUnavailable
	}
	return &modelError{refusal: ref, class: code, run: id, err: errors.New("the run waits for its " + row.WaitingFor)}
}

// unfinished is told when the wait is over before the run is.
func (c *chat) unfinished(id RunID, wait time.Duration) error {
	status, code, why := http.StatusGatewayTimeout, "timeout", "the run has not ended within "+wait.String()
	if c.a.isDraining() {
		status, code, why = http.StatusServiceUnavailable, "draining", "this node is shutting down"
	}
	ref := refuse(status, code, "%s; it goes on: see /v1/runs/%s, or repeat the request with the Idempotency-Key it had", why, id)
	if len(c.r.Header.Values(headerIdempotencyKey)) == 0 { // a repetition would be another run
		ref = ref.with(headerShouldRetry, "false")
	}
	if status == http.StatusServiceUnavailable {
		ref.fault.Kind = fault.KindUnavailable
	}
	return &modelError{refusal: ref, class: code, run: id, err: errors.New(why)}
}

// runFailed tells of a run that ended without an output. Whoever repeats the request gets another run, or with its
// Idempotency-Key the same answer: it should not happen by itself.
func runFailed(s *shown) error {
	id, f := formatRunID(s.row.ID), s.row.Error
	if s.result != nil && s.result.Error != nil {
		f = s.result.Error
	}
	status, code := http.StatusBadGateway, "run_"+string(s.row.Status)
	message := fmt.Sprintf("the run %s has %s", id, s.row.Status)
	class := code
	if f != nil {
		class, message = f.Class, fmt.Sprintf("%s: %s", message, f.Message)
		if f.Step != "" {
			message = fmt.Sprintf("the run %s has %s at step %s: %s", id, s.row.Status, f.Step, f.Message)
		}
	}
	if out, ok := classAnswers[provider.Class(class)]; ok && out.status == http.StatusForbidden {
		status, code = out.status, out.code
	}
	ref := refuse(status, code, "%s", message).with(headerShouldRetry, "false")
	return &modelError{refusal: ref, class: class, run: id, err: errors.New(message)}
}

// progress is what a stream tells of its run on the way.
type progress struct {
	Run   RunID  `json:"run"`
	Seq   int32  `json:"seq"`
	Event string `json:"event"`
	Step  string `json:"step,omitempty"`
}

// streamRun follows a run: heartbeats, its steps if they were asked for, its output.
func (c *chat) streamRun(run uuid.UUID) error {
	allow(c.w, writeSlack)
	ctx, cancel := context.WithTimeout(c.r.Context(), runStreamMax)
	defer cancel()
	c.a.metrics.StreamsOpen(streamKindOfChats, 1)
	defer c.a.metrics.StreamsOpen(streamKindOfChats, -1)
	out := c.chunks(cancel)
	defer out.end()
	out.start() // so that the caller knows the run
	if c.r.Header.Get(headerProgress) == progressOfSteps {
		if err := c.followSteps(ctx, run, out); err != nil {
			return c.broken(out, err)
		}
	}
	answer, err := c.runReply(ctx, run, runStreamMax)
	if err != nil {
		return c.broken(out, err)
	}
	out.finish(answer)
	return nil
}

// followSteps tells of the steps' events until the run has ended.
func (c *chat) followSteps(ctx context.Context, run uuid.UUID, out *chunks) error {
	changed, stop := c.a.engine.Watch(run)
	defer stop()
	for t := (&tail{a: c.a, tenant: c.x.tenant, run: run}); ctx.Err() == nil && !c.a.isDraining(); {
		events, err := t.next(ctx, eventsPageMax)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Step != "" {
				out.note(progress{Run: formatRunID(run), Seq: e.Seq, Event: string(e.Kind), Step: e.Step})
			}
		}
		switch {
		case len(events) > 0:
		case t.ended():
			return nil
		default:
			t.wait(ctx, changed, c.a.poll)
		}
	}
	return nil
}
