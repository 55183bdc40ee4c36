package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

const (
	streamsMax     = 2_000 // open at once, on this node
	eventsPageMax  = 200   // read at once
	heartbeatEvery = 15 * time.Second
	pollEvery      = time.Second // another node may own the run: nobody tells us then
	reconnectAfter = 2 * time.Second
)

// tail follows the log of one run.
type tail struct {
	a      *API
	tenant uuid.UUID
	run    uuid.UUID
	seq    int32     // of the last event read
	kind   flow.Kind // of the last event read; empty: not known yet
}

// ended reports whether the log has ended where the tail stands. A failed run that is resumed goes on after its end.
func (t *tail) ended() bool {
	return t.kind == flow.KindRunSucceeded || t.kind == flow.KindRunFailed || t.kind == flow.KindRunCancelled
}

// next reads what is there now, up to limit. No events and t.ended() is the end of the log.
func (t *tail) next(ctx context.Context, limit int) ([]flow.Event, error) {
	events, err := t.a.events.Events(ctx, t.tenant, t.run, t.seq, limit)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if len(events) > 0 {
		last := events[len(events)-1]
		t.seq, t.kind = last.Seq, last.Kind
		return events, nil
	}
	if t.kind != "" {
		return nil, nil
	}
	last, err := t.a.events.LastEvent(ctx, t.tenant, t.run)
	if err != nil {
		return nil, fmt.Errorf("read last event: %w", err)
	}
	if last.Seq <= t.seq {
		t.kind = last.Kind
	}
	return nil, nil
}

// wait returns when there may be more to read: at a hint, after the poll's time, or when d is over.
func (t *tail) wait(ctx context.Context, changed <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(min(d, t.a.poll))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-t.a.draining:
	case <-ctx.Done():
	}
}

// page reads events; with none there, it waits for some.
func (t *tail) page(ctx context.Context, limit int, wait time.Duration) ([]flow.Event, error) {
	changed, stop := t.a.engine.Watch(t.run)
	defer stop()
	for until := time.Now().Add(wait); ; {
		events, err := t.next(ctx, limit)
		left := time.Until(until)
		if err != nil || len(events) > 0 || t.ended() || left <= 0 || t.a.isDraining() {
			return events, err
		}
		t.wait(ctx, changed, left)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// stream answers with events as they come.
type stream struct {
	ctx  context.Context
	tail *tail
}

// VisitListEventsResponse writes the stream until the run has ended, the caller leaves or the node drains.
func (s *stream) VisitListEventsResponse(w http.ResponseWriter) error {
	a := s.tail.a
	if a.streams.Add(1) > streamsMax {
		a.streams.Add(-1)
		return fault.New(fault.KindLimited, "too_many_streams", "%d streams are open here, which is the limit", streamsMax)
	}
	defer a.streams.Add(-1)
	a.metrics.StreamsOpen(streamKindOfRuns, 1)
	defer a.metrics.StreamsOpen(streamKindOfRuns, -1)

	h := w.Header()
	h.Set("Content-Type", mediaEventStream)
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	out := &lines{w: w, c: http.NewResponseController(w)}
	fmt.Fprintf(&out.buf, "retry: %d\n\n", reconnectAfter.Milliseconds())
	if err := out.flush(); err != nil {
		return nil // the caller left
	}
	if err := s.follow(out); err != nil && s.ctx.Err() == nil {
		// The answer has begun: what is wrong can only be logged. The caller comes back with Last-Event-ID.
		a.log.WarnContext(s.ctx, "stream_broken", "run_id", formatRunID(s.tail.run), "request_id", exchangeOf(s.ctx).requestID, "error", err)
	}
	return nil
}

func (s *stream) follow(out *lines) error {
	changed, stop := s.tail.a.engine.Watch(s.tail.run)
	defer stop()
	quiet := time.Now()
	for s.ctx.Err() == nil && !s.tail.a.isDraining() {
		events, err := s.tail.next(s.ctx, eventsPageMax)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := out.event(s.tail.run, e); err != nil {
				return err
			}
		}
		switch {
		case len(events) > 0:
		case s.tail.ended():
			return out.end(s.tail)
		case time.Since(quiet) >= s.tail.a.beat:
			out.buf.WriteString(": still here\n\n")
		default:
			s.tail.wait(s.ctx, changed, s.tail.a.beat-time.Since(quiet))
			continue
		}
		if err := out.flush(); err != nil {
			return err
		}
		quiet = time.Now()
	}
	return nil
}

// lines writes server-sent events.
type lines struct {
	w   http.ResponseWriter
	c   *http.ResponseController
	buf bytes.Buffer
}

func (l *lines) event(run uuid.UUID, e flow.Event) error {
	raw, err := json.Marshal(eventOf(run, e))
	if err != nil {
		return fmt.Errorf("encode event %d: %w", e.Seq, err)
	}
	fmt.Fprintf(&l.buf, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, raw)
	return nil
}

// endOf are the statuses that the last events leave a run in.
var endOf = map[flow.Kind]flow.RunStatus{
	flow.KindRunSucceeded: flow.RunStatusSucceeded, flow.KindRunFailed: flow.RunStatusFailed, flow.KindRunCancelled: flow.RunStatusCancelled,
}

func (l *lines) end(t *tail) error {
	fmt.Fprintf(&l.buf, "event: end\ndata: {\"run_id\":%q,\"status\":%q,\"last_seq\":%d}\n\n", formatRunID(t.run), endOf[t.kind], t.seq)
	return l.flush()
}

func (l *lines) flush() error {
	_ = l.c.SetReadDeadline(time.Time{})
	_ = l.c.SetWriteDeadline(time.Now().Add(heartbeatEvery + writeSlack))
	if _, err := l.buf.WriteTo(l.w); err != nil {
		return err
	}
	return l.c.Flush()
}
