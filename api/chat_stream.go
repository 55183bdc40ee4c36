package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
)

// streamKindOfChats names the streams of answers in the metrics.
const streamKindOfChats = "chat"

// chunks writes an answer in parts, as OpenAI does. The HTTP answer begins with the first part, or with the first
// heartbeat: until then an error has a status of its own.
//
// Parts come from the goroutine that asks the model, heartbeats from a timer; the mutex keeps their lines whole.
type chunks struct {
	w      http.ResponseWriter
	c      *http.ResponseController
	leave  context.CancelFunc // called when the caller takes nothing any more: the model need not go on
	beat   time.Duration
	usage  bool // a chunk with the usage was asked for
	id     string
	from   time.Time
	simple string // model that stands in chunks until one has answered

	mu    sync.Mutex
	timer *time.Timer
	buf   bytes.Buffer
	model string
	head  []byte // of a chunk with a choice, up to what its delta holds
	begun bool   // the HTTP answer has
	said  bool   // the role is out
	told  bool   // some of what the answer says is
	tools bool   // some of its tool calls are
	over  bool   // nothing more is written
}

func (c *chat) chunks(leave context.CancelFunc) *chunks {
	s := &chunks{
		w: c.w, c: http.NewResponseController(c.w), leave: leave, beat: c.a.beat, usage: c.req.StreamOptions.IncludeUsage,
		id: c.id, from: c.from, simple: c.req.Model,
	}
	s.mu.Lock() // a heartbeat finds the timer
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(s.beat, s.heartbeat)
	return s
}

// heartbeat keeps the line open while nothing comes.
func (s *chunks) heartbeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.begin()
	s.buf.WriteString(": still here\n\n")
	s.flush()
}

// end stops the heartbeat. After it nothing is written.
func (s *chunks) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.timer.Stop()
}

func (s *chunks) begin() {
	if s.begun {
		return
	}
	s.begun = true
	h := s.w.Header()
	h.Set("Content-Type", mediaEventStream)
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
}

// flush hands over what is gathered. Who takes nothing for as long as a deadline allows has left.
func (s *chunks) flush() {
	_ = s.c.SetWriteDeadline(time.Now().Add(writeSlack))
	_, err := s.buf.WriteTo(s.w)
	if err == nil {
		err = s.c.Flush()
	}
	s.buf.Reset()
	if err != nil {
		s.over = true
		s.leave()
		return
	}
	s.timer.Reset(s.beat)
}

// start begins the answer before there is any of it.
func (s *chunks) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers("")
	s.begin()
	s.role()
	s.flush()
}

// answers says which model the next chunks are of.
func (s *chunks) answers(model string) {
	if model == "" {
		model = s.simple
	}
	if s.model == model {
		return
	}
	s.model = model
	s.head = s.envelope(s.head[:0], model)
	s.head = append(s.head, `"choices":[{"index":0,"delta":{`...)
}

// envelope is what every chunk begins with.
func (s *chunks) envelope(dst []byte, model string) []byte {
	dst = fmt.Appendf(dst, `data: {"id":%q,"object":"chat.completion.chunk","created":%d,"model":`, s.id, s.from.Unix())
	return append(quote(dst, model), ',')
}

// quote appends a JSON string. What is no UTF-8 is replaced, which is all that the error would say.
func quote(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// open and close stand around what a delta holds.
func (s *chunks) open() { s.buf.Write(s.head) }

func (s *chunks) close(finish string) {
	s.buf.WriteString(`},"logprobs":null,"finish_reason":`)
	if finish == "" {
		s.buf.WriteString("null}]")
	} else {
		fmt.Fprintf(&s.buf, "%q}]", finish)
	}
	if s.usage {
		s.buf.WriteString(`,"usage":null`)
	}
}

func (s *chunks) endChunk() { s.buf.WriteString("}\n\n") }

// text adds a chunk with one text in its delta.
func (s *chunks) text(name, value string) {
	s.open()
	s.buf.WriteByte('"')
	s.buf.WriteString(name)
	s.buf.WriteString(`":`)
	s.buf.Write(quote(s.buf.AvailableBuffer(), value))
	s.close("")
	s.endChunk()
}

// role says once who speaks.
func (s *chunks) role() {
	if s.said {
		return
	}
	s.said = true
	s.open()
	s.buf.WriteString(`"role":"assistant","content":""`)
	s.close("")
	s.endChunk()
}

// delta writes a part of an answer.
func (s *chunks) delta(d gateway.Delta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.answers(d.Model)
	if !s.begun {
		first := chatAccount{Model: d.Model, Provider: d.Provider, Depth: d.Depth, Simulated: d.Simulated}
		first.head(s.w.Header())
		s.begin()
	}
	if d.Restart {
		s.told, s.tools = false, false
		s.buf.Write(s.envelope(s.buf.AvailableBuffer(), s.model))
		s.buf.WriteString(`"choices":[],"fermata":{"restart":true}`)
		s.endChunk()
	}
	s.role()
	s.says(d.Reasoning, d.Text)
	for _, t := range d.ToolCalls {
		s.toolCall(t)
	}
	s.flush()
}

func (s *chunks) says(reasoning, text string) {
	if reasoning != "" {
		s.text("reasoning_content", reasoning)
	}
	if text != "" {
		s.text("content", text)
	}
	s.told = s.told || reasoning != "" || text != ""
}

func (s *chunks) toolCall(t provider.ToolCallDelta) {
	s.tools = true
	s.open()
	fmt.Fprintf(&s.buf, `"tool_calls":[{"index":%d,`, t.Index)
	if t.ID != "" || t.Name != "" {
		s.buf.WriteString(`"id":`)
		s.buf.Write(quote(s.buf.AvailableBuffer(), t.ID))
		s.buf.WriteString(`,"type":"function",`)
	}
	s.buf.WriteString(`"function":{`)
	if t.Name != "" {
		s.buf.WriteString(`"name":`)
		s.buf.Write(quote(s.buf.AvailableBuffer(), t.Name))
		s.buf.WriteByte(',')
	}
	s.buf.WriteString(`"arguments":`)
	s.buf.Write(quote(s.buf.AvailableBuffer(), t.Arguments))
	s.buf.WriteString("}}]")
	s.close("")
	s.endChunk()
}

// note writes a chunk without a choice, for those who asked for it.
func (s *chunks) note(fermata any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.answers("")
	s.begin()
	s.extra(fermata)
	s.flush()
}

func (s *chunks) extra(fermata any) {
	s.buf.Write(s.envelope(s.buf.AvailableBuffer(), s.model))
	s.buf.WriteString(`"choices":[],"fermata":`)
	s.buf.Write(bytes.TrimSuffix(encode(fermata), []byte{'\n'}))
	s.endChunk()
}

// finish ends a stream well: what was not told in parts, the reason, the account, the usage if asked for.
func (s *chunks) finish(out reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if !s.begun {
		out.account.head(s.w.Header())
	}
	if !s.said {
		s.answers(out.model)
	}
	s.begin()
	s.role()
	if !s.told {
		s.says(out.reasoning, out.text)
	}
	if !s.tools {
		for i, t := range out.tools {
			s.toolCall(provider.ToolCallDelta{Index: i, ID: t.ID, Name: t.Name, Arguments: t.Arguments})
		}
	}
	s.open()
	s.close(out.finish)
	s.buf.WriteString(`,"fermata":`)
	s.buf.Write(bytes.TrimSuffix(encode(out.account), []byte{'\n'}))
	s.endChunk()
	if s.usage {
		s.usageOf(out.tokens)
	}
	s.buf.WriteString("data: [DONE]\n\n")
	s.flush()
}

func (s *chunks) usageOf(t usage.Tokens) {
	s.buf.Write(s.envelope(s.buf.AvailableBuffer(), s.model))
	s.buf.WriteString(`"choices":[],"usage":`)
	s.buf.Write(bytes.TrimSuffix(encode(chatUsageOf(t)), []byte{'\n'}))
	s.endChunk()
}

// fail ends a stream that had begun with the error; no [DONE] follows. False: it had not begun, and the error may have
// an answer of its own.
func (s *chunks) fail(body openAIErrorBody) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.over = true // no heartbeat may begin it now
		return false
	}
	if !s.over {
		s.buf.WriteString("data: ")
		s.buf.Write(encode(body))
		s.buf.WriteByte('\n')
		s.flush()
	}
	return true
}

// stream answers with parts as they come. A contract cannot be held to: what was told cannot be taken back.
func (c *chat) stream(k *call) error {
	allow(c.w, chatTimeMax)
	ctx, cancel := context.WithTimeout(c.r.Context(), chatTimeMax)
	defer cancel()
	c.a.metrics.StreamsOpen(streamKindOfChats, 1)
	defer c.a.metrics.StreamsOpen(streamKindOfChats, -1)
	out := c.chunks(cancel)
	defer out.end()
	r := k.request
	r.Restarts = c.r.Header.Get(headerRestart) == "allow"
	r.Stream = out.delta
	answer, err := c.complete(ctx, r)
	if err == nil {
		out.finish(replyOf(answer))
		return nil
	}
	if cut, ok := cutOf(err, new(pieces)); ok {
		out.finish(cut)
		return nil
	}
	return c.broken(out, callFailed(err))
}

// broken tells the caller of a stream what went wrong: in the stream if that has begun, else by what it returns.
func (c *chat) broken(out *chunks, err error) error {
	p, _ := explain(c.r, err)
	if !out.fail(openAIErrorOf(p, err)) {
		return err
	}
	c.a.logOpenAI(c.r, p, err)
	return nil
}
