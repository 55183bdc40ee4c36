//go:build unix

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

const (
	submitLimit    = 90 * time.Second // for one submission with all its tries
	retryPause     = 100 * time.Millisecond
	submitParallel = 8
)

// client submits runs as a careful caller does: with an idempotency key, again under the same key when it was refused
// or heard nothing, at the next node if there is one. It remembers what it was promised.
type client struct {
	t    *testing.T
	http *http.Client

	mu       sync.Mutex
	promised map[int]promise

	refused  atomic.Int32 // answers that said "not now"
	unheard  atomic.Int32 // requests without an answer
	replayed atomic.Int32 // promises that had been made before
}

// promise is an acknowledged run.
type promise struct {
	id uuid.UUID
	at time.Time
}

func newClient(t *testing.T) *client {
	return &client{
		t: t, promised: map[int]promise{},
		http: &http.Client{Timeout: requestLimit, Transport: &http.Transport{MaxIdleConnsPerHost: submitParallel}},
	}
}

// submission is the body of a request for the run of that number.
type submission func(n int) map[string]any

// load submits the runs [from, from+count) in the background, to the nodes in turn. wait returns when all of them are
// acknowledged.
func (c *client) load(what submission, from, count int, nodes ...*node) (wait func()) {
	numbers := make(chan int)
	var group sync.WaitGroup
	group.Go(func() {
		defer close(numbers)
		for n := from; n < from+count; n++ {
			numbers <- n
		}
	})
	for range submitParallel {
		group.Go(func() {
			for n := range numbers {
				if err := c.submit(n, what(n), nodes); err != nil {
					c.t.Errorf("submit run %d: %v", n, err)
				}
			}
		})
	}
	c.t.Cleanup(group.Wait)
	return group.Wait
}

func (c *client) submit(n int, what map[string]any, nodes []*node) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	last, deadline := "", time.Now().Add(submitLimit)
	for try := n; time.Now().Before(deadline); try++ {
		target := nodes[try%len(nodes)]
		resp, text, err := c.post(target.url+"/v1/runs", "chaos-run-"+strconv.Itoa(n), body)
		switch {
		case err != nil:
			c.unheard.Add(1)
			last = err.Error()
		case resp.StatusCode == http.StatusAccepted:
			return c.remember(n, resp, text)
		case resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusConflict,
			resp.StatusCode == http.StatusTooManyRequests:
			c.refused.Add(1)
			last = resp.Status + " " + string(text)
			if resp.Header.Get("Retry-After") == "" {
				return fmt.Errorf("refused without Retry-After: %s", last)
			}
		default:
			return fmt.Errorf("%s: %s", resp.Status, text)
		}
		if c.t.Context().Err() != nil {
			return c.t.Context().Err()
		}
		pause(c.t.Context(), retryPause)
	}
	return fmt.Errorf("not acknowledged after %s: %s", submitLimit, last)
}

func (c *client) remember(n int, resp *http.Response, text []byte) error {
	var accepted struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(text, &accepted); err != nil {
		return fmt.Errorf("read the answer %q: %w", text, err)
	}
	id, err := uuid.Parse(strings.TrimPrefix(accepted.ID, "run_"))
	if err != nil {
		return fmt.Errorf("read the id of %q: %w", text, err)
	}
	if resp.Header.Get("Idempotent-Replayed") == "true" {
		c.replayed.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.promised[n] = promise{id: id, at: time.Now()}
	return nil
}

// post sends one request.
func (c *client) post(url, key string, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, text, err
}

// cancel asks a run to stop, and says how that was answered.
func (c *client) cancel(n *node, id uuid.UUID) (status int, err error) {
	resp, _, err := c.post(n.url+"/v1/runs/"+wireID(id)+"/cancel", "chaos-cancel-"+id.String(), []byte(`{}`))
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

func wireID(id uuid.UUID) string { return "run_" + strings.ReplaceAll(id.String(), "-", "") }

// promises is a copy of what was acknowledged, by number.
func (c *client) promises() map[int]promise {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make(map[int]promise, len(c.promised))
	for n, p := range c.promised {
		list[n] = p
	}
	return list
}

func (c *client) id(n int) uuid.UUID {
	c.t.Helper()
	p, ok := c.promises()[n]
	if !ok {
		c.t.Fatalf("run %d was never acknowledged", n)
	}
	return p.id
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// The steps of a chain, in order.
var chainSteps = []string{"one", "two", "three"}

// chain is a run of agents one after the other, each shown what the one before said.
func chain(n int) map[string]any {
	steps, before := []any{}, ""
	for _, id := range chainSteps {
		text := prompt(id)
		if before != "" {
			text += " after: ${{ steps." + before + ".output }}"
		}
		steps = append(steps, map[string]any{"id": id, "agent": "writer", "prompt": text})
		before = id
	}
	return map[string]any{
		"definition": map[string]any{
			"spec": "workflow/v1", "name": "chaos-chain",
			"agents": map[string]any{"writer": map[string]any{
				"model": providerName + "/" + providerModel, "instructions": "Answer in a few words.",
			}},
			"steps": steps,
		},
		"input": map[string]any{"n": n},
	}
}

// short is a run that asks nobody: its steps are the engine's own and tools that do next to nothing.
func short(n int) map[string]any {
	return map[string]any{
		"definition": map[string]any{
			"spec": "workflow/v1", "name": "chaos-short",
			"steps": []any{
				map[string]any{"id": "one", "set": map[string]any{"n": "${{ input.n }}", "wait": "50ms"}},
				map[string]any{"id": "two", "tool": "builtin:sleep", "args": map[string]any{"duration": "${{ steps.one.output.wait }}"}},
				map[string]any{"id": "three", "tool": "builtin:noop", "args": map[string]any{"from": "${{ steps.two.output }}"}},
			},
		},
		"input": map[string]any{"n": n},
	}
}
