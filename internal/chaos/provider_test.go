//go:build unix

package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	providerName  = "fake"
	providerModel = "gpt-4o" // one with a price, so that money can be judged, too
)

// call is one request to the provider, as its ledger keeps it.
type call struct {
	no           int    // its place in the ledger, from 1: it stands in the answer
	run          int    // the number in the prompt
	step         string // the step in the prompt
	model        string
	asked        string // all that was said before, hashed: two calls of the same are for the same answer
	node         string // who called
	began, ended time.Time
	open         bool // not answered yet
	answered     bool // the whole answer was written; else the caller had gone
}

// provider is a model provider that speaks OpenAI's chat completions. It answers after a delay, or holds calls until
// they are let go, and writes every call into a ledger.
type provider struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	calls   []call
	delay   time.Duration
	holds   []*hold
	says    func(c call, said string) string // nil: a few words
	changed chan struct{}                    // closed and replaced at each change of the ledger
}

// hold keeps the calls that match from being answered.
type hold struct {
	match    func(call) bool
	released chan struct{}
	once     sync.Once
}

// release lets them go, and those to come.
func (h *hold) release() { h.once.Do(func() { close(h.released) }) }

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{t: t, changed: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	p.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return p
}

// takes sets how long an answer takes.
func (p *provider) takes(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// speaks sets what is answered. said is all that was said before, as it was sent. What it gives must hold c.mark().
func (p *provider) speaks(says func(c call, said string) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.says = says
}

// mark is what the answer to a call is found by in the logs.
func (c call) mark() string { return fmt.Sprintf("#%d#", c.no) }

// words is an answer that nothing is expected of.
func words(c call, _ string) string {
	return fmt.Sprintf("answer %s to %s of %d", c.mark(), c.step, c.run)
}

// hold holds calls that match until release; those already begun are left alone.
func (p *provider) hold(match func(call) bool) *hold {
	h := &hold{match: match, released: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds = append(p.holds, h)
	p.t.Cleanup(h.release)
	return h
}

// ledger is a copy of all calls, in the order they began.
func (p *provider) ledger() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func count[T any](list []T, match func(T) bool) (n int) {
	for _, x := range list {
		if match(x) {
			n++
		}
	}
	return n
}

func isOpen(c call) bool     { return c.open }
func isAnswered(c call) bool { return c.answered }
func isCut(c call) bool      { return !c.open && !c.answered }

func by(name string) func(call) bool { return func(c call) bool { return c.node == name } }

func both(a, b func(call) bool) func(call) bool {
	return func(c call) bool { return a(c) && b(c) }
}

func (p *provider) count(match func(call) bool) int { return count(p.ledger(), match) }

// await waits until at least n calls match.
func (p *provider) await(limit time.Duration, what string, n int, match func(call) bool) {
	p.t.Helper()
	timeout := time.After(limit)
	for {
		p.mu.Lock()
		got, changed := count(p.calls, match), p.changed
		p.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			p.t.Fatalf("after %s still only %d of %d calls: %s", limit, got, n, what)
		}
	}
}

func (p *provider) note(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

// request is what is read of a chat completion.
type request struct {
	Model    string            `json:"model"`
	Stream   bool              `json:"stream"`
	Messages []json.RawMessage `json:"messages"`
}

// said is all that was said, as it was sent.
func (r request) said() string {
	var text strings.Builder
	for _, m := range r.Messages {
		text.Write(m)
	}
	return text.String()
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || !strings.HasSuffix(r.URL.Path, "/chat/completions") {
		http.Error(w, `{"error":{"message":"not a chat completion"}}`, http.StatusBadRequest)
		return
	}
	c, err := identify(req)
	if err != nil {
		p.t.Errorf("the provider was asked something that no step says: %v", err)
		http.Error(w, `{"error":{"message":"unknown prompt"}}`, http.StatusBadRequest)
		return
	}
	c.node = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	said := req.said()
	sum := sha256.Sum256([]byte(said))
	c.model, c.asked = req.Model, hex.EncodeToString(sum[:8])
	no, wait := p.begin(c)
	c.no = no
	answered := wait(r.Context())
	if answered {
		answered = answer(w, req, p.text(c, said)) == nil && r.Context().Err() == nil
	}
	p.note(func() {
		own := &p.calls[c.no-1]
		own.ended, own.open, own.answered = time.Now(), false, answered
	})
}

func (p *provider) text(c call, said string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.says == nil {
		return words(c, said)
	}
	return p.says(c, said)
}

// begin notes a call; wait returns true when it is to be answered, false when its caller is gone.
func (p *provider) begin(c call) (no int, wait func(context.Context) bool) {
	var held *hold
	var delay time.Duration
	p.note(func() {
		c.began, c.open = time.Now(), true
		no, delay = len(p.calls)+1, p.delay
		c.no = no
		p.calls = append(p.calls, c)
		for _, h := range p.holds {
			if h.match(c) {
				held = h
			}
		}
	})
	return no, func(ctx context.Context) bool {
		done := time.After(delay)
		if held != nil {
			select {
			case <-held.released:
			case <-ctx.Done():
				return false
			}
		}
		select {
		case <-done:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// mark is how a prompt says which step of which run it belongs to.
var mark = regexp.MustCompile(`run=(\d+) step=([a-z]+(?:\.[a-z0-9]+)*)`)

// prompt marks a prompt with a step; of one inside a map or a loop, step is its path, with an expression in it.
func prompt(step string) string { return "run=${{ input.n }} step=" + step }

func identify(req request) (call, error) {
	for _, m := range slices.Backward(req.Messages) {
		if found := mark.FindSubmatch(m); found != nil {
			run, err := strconv.Atoi(string(found[1]))
			return call{run: run, step: string(found[2])}, err
		}
	}
	return call{}, fmt.Errorf("no mark in %q", req.Messages)
}

// The usage of each answer. Different numbers, so that a mix-up of types shows.
const (
	tokensPrompt     = 120
	tokensCached     = 20
	tokensCompletion = 15
)

func answer(w http.ResponseWriter, req request, text string) error {
	usage := map[string]any{
		"prompt_tokens": tokensPrompt, "completion_tokens": tokensCompletion, "total_tokens": tokensPrompt + tokensCompletion,
		"prompt_tokens_details": map[string]any{"cached_tokens": tokensCached},
	}
	whole := map[string]any{"id": "chatcmpl-1", "created": 1, "model": req.Model}
	if !req.Stream {
		whole["object"], whole["usage"] = "chat.completion", usage
		whole["choices"] = []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": text}}}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(whole)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	whole["object"] = "chat.completion.chunk"
	half := len(text) / 2
	for _, part := range []struct{ choices, usage any }{
		{choices: chunk(map[string]any{"role": "assistant", "content": ""}, nil)},
		{choices: chunk(map[string]any{"content": text[:half]}, nil)},
		{choices: chunk(map[string]any{"content": text[half:]}, nil)},
		{choices: chunk(map[string]any{}, "stop")},
		{choices: []any{}, usage: usage},
	} {
		whole["choices"], whole["usage"] = part.choices, part.usage
		line, err := json.Marshal(whole)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", line); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprint(w, "data: [DONE]\n\n"); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

func chunk(delta, finish any) []any {
	return []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}
}
