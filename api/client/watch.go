package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

const (
	eventBytesMax = 16 << 20
	silenceMax    = 45 * time.Second // three heartbeats: the connection is dead
	pauseFirst    = 200 * time.Millisecond
	pauseMax      = 10 * time.Second
)

// Watch yields the events of a run with a greater seq than after, as they come, until the run has ended. A broken
// stream is taken up again after the last event seen, for as long as ctx allows. The error, always the last thing
// yielded, is a *Problem the service will not change its mind about, or ctx's.
func (c *Client) Watch(ctx context.Context, id string, after int32) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		pause := pauseFirst
		for {
			s := &sitting{c: c, id: id, after: after, yield: yield}
			err := s.follow(ctx)
			if s.done {
				return
			}
			if s.after > after {
				after, pause = s.after, pauseFirst
			}
			var final *Problem
			if errors.As(err, &final) && !final.Retryable && final.Status < http.StatusInternalServerError {
				yield(Event{}, err)
				return
			}
			wait := pause/2 + rand.N(pause/2)
			if c.retrying != nil && err != nil {
				c.retrying(err, wait)
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				yield(Event{}, ctx.Err())
				return
			}
			pause = min(2*pause, pauseMax)
		}
	}
}

// sitting is one connection's worth of a stream.
type sitting struct {
	c     *Client
	id    string
	after int32 // seq of the last event yielded
	yield func(Event, error) bool
	done  bool // the run has ended, or nobody listens any more
}

func (s *sitting) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceMax, func() { cancel(errSilence) })
	defer silence.Stop()
	resp, err := s.c.raw.ListEvents(ctx, s.id, &ListEventsParams{After: &s.after}, accept("text/event-stream"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		_, err := read[Event](resp, nil)
		return err
	}
	body := &pulse{r: resp.Body, silence: silence}
	for message, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: eventBytesMax}) {
		if err != nil {
			return fmt.Errorf("read events of %s: %w", s.id, err)
		}
		if message.Type == "end" {
			s.done = true
			return nil
		}
		var e Event
		if err := json.Unmarshal([]byte(message.Data), &e); err != nil {
			return fmt.Errorf("decode an event of %s: %w", s.id, err)
		}
		if e.Seq <= s.after {
			continue
		}
		s.after = e.Seq
		if !s.yield(e, nil) {
			s.done = true
			return nil
		}
	}
	return nil
}

var errSilence = errors.New("nothing came for too long, not even a heartbeat")

// pulse puts off the verdict of silence with every byte that comes.
type pulse struct {
	r       io.Reader
	silence *time.Timer
}

func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.silence.Reset(silenceMax)
	}
	return n, err
}
