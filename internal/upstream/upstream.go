// Package upstream plays a model server for tests and benchmarks: it speaks OpenAI's chat completions and Anthropic's
// messages, answers by a script, misbehaves in the ways real servers do, and keeps a ledger of what it was asked. It is
// a simulation and says so in its answers.
package upstream

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// requestBytesMax bounds what is read of a request.
const requestBytesMax = 32 << 20

// Tokens that every answer reports, unless a step says otherwise.
const (
	InputTokens  = 12
	OutputTokens = 5
)

// Step is how one request is answered. The zero Step answers well, at once.
type Step struct {
	Status  int               // 0: 200
	Header  map[string]string // of the answer
	Body    string            // of an error; the text of an answer where Status is 0
	After   time.Duration     // until the headers are sent
	First   time.Duration     // then until the first part of the answer; keep-alive comments come meanwhile
	Reset   bool              // the connection is reset before any header
	Silent  bool              // nothing is ever sent
	Cut     bool              // the connection ends in the middle of the answer
	Stall   bool              // the answer stops in the middle, the connection stays
	Garble  bool              // a part of the stream is not JSON
	NoDone  bool              // the stream ends without [DONE]
	Finish  string            // finish reason; empty: stop
	NoUsage bool
	Hold    bool // the answer stops in the middle until the server's Gate is closed
	// ErrorEvent is an error inside a successful stream, before anything else; with Cut, after a part of the answer.
	ErrorEvent string
}

// Call is one request as it came.
type Call struct {
	Model         string
	At            time.Time
	Header        http.Header
	Body          json.RawMessage
	Stream        bool
	Abandoned     bool // the caller went away before the answer was complete
	Authorization string
}

// Server answers by script. It is an http.Handler and safe for concurrent use.
type Server struct {
	// Quiet keeps no ledger: for load.
	Quiet bool
	// Gate lets the answers that are held go on when it is closed.
	Gate chan struct{}

	mu      sync.Mutex
	scripts map[string][]Step
	turn    map[string]int
	calls   []Call
	count   map[string]int
}

// Script sets how the requests for a model are answered, one step each; the last step is used for all that follow.
func (s *Server) Script(model string, steps ...Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.scripts == nil {
		s.scripts, s.turn = map[string][]Step{}, map[string]int{}
	}
	s.scripts[model], s.turn[model] = steps, 0
}

// Calls lists the requests for a model, in order; empty: for all.
func (s *Server) Calls(model string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Call
	for _, c := range s.calls {
		if model == "" || c.Model == model {
			list = append(list, c)
		}
	}
	return list
}

// Count is how many requests for a model came.
func (s *Server) Count(model string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[model]
}

func (s *Server) step(model string) Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = map[string]int{}
	}
	s.count[model]++
	steps := s.scripts[model]
	if len(steps) == 0 {
		return Step{}
	}
	i := min(s.turn[model], len(steps)-1)
	s.turn[model]++
	return steps[i]
}

func (s *Server) note(c Call) (done func(abandoned bool)) {
	if s.Quiet {
		return func(bool) {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := len(s.calls)
	s.calls = append(s.calls, c)
	return func(abandoned bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls[at].Abandoned = abandoned
	}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var speak func(*answer)
	switch {
	case strings.HasSuffix(r.URL.Path, "/chat/completions"):
		speak = (*answer).openai
	case strings.HasSuffix(r.URL.Path, "/messages"):
		speak = (*answer).anthropic
	default:
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, requestBytesMax))
	var asked struct {
		Model  string
		Stream bool
	}
	if err != nil || json.Unmarshal(body, &asked) != nil {
		http.Error(w, `{"error":{"message":"the request cannot be read","type":"invalid_request_error"}}`, http.StatusBadRequest)
		return
	}
	done := s.note(Call{
		Model: asked.Model, At: time.Now(), Header: r.Header, Body: body, Stream: asked.Stream, Authorization: r.Header.Get("Authorization"),
	})
	a := &answer{w: w, r: r, Step: s.step(asked.Model), model: asked.Model, stream: asked.Stream, gate: s.Gate}
	defer func() { done(r.Context().Err() != nil) }()
	if !a.begin() {
		return
	}
	speak(a)
}

// answer is one answer under way.
type answer struct {
	Step
	w      http.ResponseWriter
	r      *http.Request
	model  string
	stream bool
	gate   chan struct{}
}

// begin does what comes before a body. False: that was all.
func (a *answer) begin() bool {
	switch {
	case a.Reset:
		if conn, _, err := http.NewResponseController(a.w).Hijack(); err == nil {
			if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
				_ = tcp.SetLinger(0)
			}
			conn.Close()
		}
		return false
	case a.Silent:
		<-a.r.Context().Done()
		return false
	}
	if !a.wait(a.After) {
		return false
	}
	for name, value := range a.Header {
		a.w.Header().Set(name, value)
	}
	if a.Status >= 300 {
		if a.w.Header().Get("Content-Type") == "" {
			a.w.Header().Set("Content-Type", "application/json")
		}
		a.w.WriteHeader(a.Status)
		fmt.Fprint(a.w, a.Body)
		return false
	}
	return true
}

func (a *answer) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.r.Context().Done():
		return false
	}
}

// send writes a piece of a stream and flushes it.
func (a *answer) send(format string, args ...any) {
	fmt.Fprintf(a.w, format, args...)
	_ = http.NewResponseController(a.w).Flush()
}

// keepAlive sends comments until the first part is due.
func (a *answer) keepAlive(comment string) bool {
	for end := time.Now().Add(a.First); a.First > 0; {
		left := time.Until(end)
		if left <= 0 {
			return true
		}
		a.send("%s", comment)
		if !a.wait(min(left, 50*time.Millisecond)) {
			return false
		}
	}
	return true
}

// middle is what may go wrong in the middle of an answer. False: the answer ends here.
func (a *answer) middle() bool {
	if a.Hold {
		select {
		case <-a.gate:
		case <-a.r.Context().Done():
			return false
		}
	}
	switch {
	case a.Garble:
		a.send("data: {\"choices\":[{\"del\n\n")
	case a.Stall:
		<-a.r.Context().Done()
		return false
	case a.Cut && a.ErrorEvent == "":
		if conn, _, err := http.NewResponseController(a.w).Hijack(); err == nil {
			conn.Close()
		}
		return false
	}
	return true
}

func (a *answer) text() string {
	if a.Body != "" {
		return a.Body
	}
	return "A simulated answer of " + a.model + "."
}

// halves splits the text, so that something can happen in the middle of it.
func (a *answer) halves() (string, string) {
	text := a.text()
	return text[:len(text)/2], text[len(text)/2:]
}

func quote(s string) string {
	raw, _ := json.Marshal(s) //nolint:errcheck // a string always can be
	return string(raw)
}
