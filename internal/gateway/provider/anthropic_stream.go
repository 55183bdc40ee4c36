package provider

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// anthropicPartsMax bounds the blocks of an answer.
const anthropicPartsMax = 1_000

// anthropicExchange is one request and what has come of its answer.
type anthropicExchange struct {
	a      *Anthropic
	call   Call
	sent   anthropicSent
	parent context.Context // the caller's
	ctx    context.Context // ours: also ended by our timers
	cancel context.CancelCauseFunc
	watch  *time.Timer // ends the call unless it is put off
	begun  atomic.Bool // something of an answer has come
	free   bool        // nothing is charged for it

	firstToken, idle time.Duration
	asked            time.Time
	first            time.Duration // until the answer began

	requestID string
	limits    Limits

	parts    []*anthropicPart
	calls    int
	size     int
	thinking bool // a block of thinking is open that shows nothing
	model    string
	stop     string
	refusal  string
	done     bool
	usage    anthropicUsage
	settled  bool // the usage is that of the whole answer
}

// anthropicEvent is one event of a stream.
type anthropicEvent struct {
	Type    string          `json:"type"`
	Index   int             `json:"index"`
	Message json.RawMessage `json:"message"`
	Block   json.RawMessage `json:"content_block"`
	Delta   anthropicDelta  `json:"delta"`
	Usage   json.RawMessage `json:"usage"`
	Error   json.RawMessage `json:"error"`
}

type anthropicDelta struct {
	Text      string `json:"text"`
	JSON      string `json:"partial_json"`
	Thinking  string `json:"thinking"`
	Signature string `json:"signature"`
	anthropicStop
}

type anthropicStop struct {
	Reason  string `json:"stop_reason"`
	Details struct {
		Category    string `json:"category"`
		Explanation string `json:"explanation"`
	} `json:"stop_details"`
}

// anthropicMessage is a whole answer, or the head of one that is streamed.
type anthropicMessage struct {
	Type    string            `json:"type"`
	Model   string            `json:"model"`
	Content []json.RawMessage `json:"content"`
	Usage   json.RawMessage   `json:"usage"`
	anthropicStop
}

// read takes an answer as it comes, whether the server streams or not.
func (x *anthropicExchange) read(resp *http.Response) (Reply, error) {
	in := bufio.NewReaderSize(resp.Body, 4<<10)
	if !isStream(resp.Header, in) {
		return x.whole(resp, in)
	}
	reply, err := x.events(newEvents(in))
	if err == nil {
		// The end of the body is read, so that the connection can be used again; not for long.
		x.watch.Reset(drainWait)
		_, _ = io.CopyN(io.Discard, in, 4<<10)
	}
	return reply, err
}

func (x *anthropicExchange) whole(resp *http.Response, in io.Reader) (Reply, error) {
	body, err := io.ReadAll(io.LimitReader(in, bodyBytesMax+1))
	switch {
	case err != nil:
		return Reply{}, x.broken(err, ClassStreamInterrupted)
	case len(body) > bodyBytesMax:
		return Reply{}, x.fail(ClassStreamInterrupted, fmt.Sprintf("the answer has more than %d bytes", bodyBytesMax))
	case len(bytes.TrimSpace(body)) == 0:
		return Reply{}, x.fail(ClassStreamInterrupted, "the answer is empty")
	}
	var m anthropicMessage
	if json.Unmarshal(body, &m) != nil || m.Type != "message" {
		return Reply{}, x.notAnAnswer(resp, body)
	}
	x.model, x.settled = m.Model, true
	x.stopped(m.anthropicStop)
	x.usage.grow(m.Usage)
	for i, raw := range m.Content {
		if err := x.open(i, raw, true); err != nil {
			return Reply{}, err
		}
		x.close(x.parts[len(x.parts)-1])
	}
	x.first = 0 // the whole came at once
	return x.end()
}

// notAnAnswer judges a body under a successful status that is no message: an error in one of its shapes, a page of a
// proxy, or nothing known. Nothing was made.
func (x *anthropicExchange) notAnAnswer(resp *http.Response, body []byte) *Error {
	wire := readError(body)
	class := anthropicClass(http.StatusOK, wire)
	if class == ClassServer && !bytes.Contains(body[:min(len(body), 1<<10)], []byte("<")) {
		class = ClassStreamInterrupted
	}
	return &Error{
		Class: class, Status: resp.StatusCode, Message: x.a.redact.text("not a message: " + wire.message),
		RetryAfter: max(retryAfter(resp.Header, x.a.now()), wire.wait), RequestID: x.requestID, Limits: x.limits,
	}
}

// events reads a stream to its end.
func (x *anthropicExchange) events(in *events) (Reply, error) {
	var data []byte
	event := ""
	for !x.done {
		f, err := in.next()
		if err != nil {
			return x.streamEnded(err)
		}
		switch {
		case f.blank:
			if len(bytes.TrimSpace(data)) > 0 {
				return Reply{}, x.notJSON(event, data)
			}
			event = ""
		case f.name == "event":
			event = string(bytes.TrimSpace(f.value))
		case f.name == "data":
			if string(bytes.TrimSpace(f.value)) == "[DONE]" { // of servers that speak OpenAI's language, too
				return x.end()
			}
			if len(data) > 0 {
				data = append(data, '\n')
			}
			if data = append(data, f.value...); len(data) > lineBytesMax {
				return Reply{}, x.fail(ClassStreamInterrupted, errLineTooLong.Error())
			}
			if json.Valid(data) { // acted on at once: the blank line may never come
				if err := x.take(event, data); err != nil {
					return Reply{}, err
				}
				data = data[:0]
			}
		case f.line[0] == '{' && json.Valid(f.line): // an error put into the stream without framing
			if err := x.take(event, f.line); err != nil {
				return Reply{}, err
			}
		}
	}
	return x.end()
}

func (x *anthropicExchange) notJSON(event string, data []byte) *Error {
	if event == "error" {
		return x.failed(data)
	}
	return x.fail(ClassStreamInterrupted, "an event of the stream is not JSON")
}

func (x *anthropicExchange) streamEnded(err error) (Reply, error) {
	switch {
	case errors.Is(err, io.EOF), x.stop != "":
		return x.end() // a finished answer may lose what follows it
	case errors.Is(err, errLineTooLong), errors.Is(err, errStreamTooLong):
		return Reply{}, x.fail(ClassStreamInterrupted, err.Error())
	}
	return Reply{}, x.broken(err, ClassStreamInterrupted)
}

// take adds an event to what has come. Events that are not known are passed over: there will be new ones.
func (x *anthropicExchange) take(event string, raw []byte) error {
	var e anthropicEvent
	if err := json.Unmarshal(raw, &e); err != nil {
		if event == "error" || bytes.Contains(raw, []byte(`"error"`)) {
			return x.failed(raw)
		}
		return x.fail(ClassStreamInterrupted, "an event of the stream is none of a message")
	}
	if e.Type == "" {
		e.Type = event
	}
	if e.Type == "error" || len(e.Error) > 0 && string(e.Error) != "null" {
		return x.failed(raw)
	}
	x.alive(false)
	switch e.Type {
	case "message_start":
		var m anthropicMessage
		if json.Unmarshal(e.Message, &m) == nil {
			x.model = m.Model
			x.usage.grow(m.Usage)
		}
	case "content_block_start":
		return x.open(e.Index, e.Block, false)
	case "content_block_delta":
		return x.grow(e.Index, e.Delta)
	case "content_block_stop":
		if p := x.part(e.Index); p != nil {
			x.close(p)
		}
	case "message_delta":
		x.settled = x.usage.grow(e.Usage) || x.settled
		x.stopped(e.Delta.anthropicStop)
	case "message_stop":
		x.done = true
	}
	return nil
}

// stopped notes why the answer is over, if it is.
func (x *anthropicExchange) stopped(s anthropicStop) {
	if s.Reason == "" {
		return
	}
	x.stop, x.refusal = strings.ToLower(s.Reason), s.Details.Explanation
	if x.refusal == "" {
		x.refusal = s.Details.Category
	}
	x.begun.Store(true)
	x.watch.Reset(usageWait)
}

// alive gives the answer time for its next part. Pings and empty blocks do not begin an answer; they keep one alive.
func (x *anthropicExchange) alive(content bool) {
	if content && !x.begun.Swap(true) {
		x.first = time.Since(x.asked)
	}
	switch {
	case !x.begun.Load(), x.stop != "":
	case x.thinking: // what is not shown takes as long as an answer may take to begin
		x.watch.Reset(max(x.idle, x.firstToken))
	default:
		x.watch.Reset(x.idle)
	}
}

// late is called by the timer.
func (x *anthropicExchange) late() {
	if x.begun.Load() {
		x.cancel(errIdle)
		return
	}
	x.cancel(errFirstToken)
}

func (x *anthropicExchange) tell(d Delta) {
	if x.call.Stream != nil {
		x.call.Stream(d)
	}
}

// failed reads an error that came inside an answer. Before anything was made nothing is charged.
func (x *anthropicExchange) failed(raw []byte) *Error {
	wire := readError(raw)
	e := &Error{
		Class: anthropicClass(http.StatusOK, wire), RetryAfter: wire.wait, Message: x.a.redact.text(wire.message),
		Begun: x.begun.Load(), RequestID: x.requestID, Limits: x.limits,
	}
	if e.Message == "" {
		e.Message = "the server reports an error and does not say which"
	}
	if e.Begun {
		if e.Class == ClassServer || e.Class == ClassUnknown {
			e.Class = ClassStreamInterrupted
		}
		e.Tokens, e.Estimated = x.tokens()
	}
	return e
}

// end judges a finished answer.
func (x *anthropicExchange) end() (Reply, error) {
	finish := "stop"
	switch x.stop {
	case "end_turn", "stop_sequence", "tool_use":
	case "":
		return Reply{}, x.fail(ClassStreamInterrupted, "the answer ended without a stop reason")
	case "max_tokens":
		return Reply{}, x.fail(ClassOutputTruncated, fmt.Sprintf("the answer reached its limit of %d tokens", x.sent.maxTokens))
	case "model_context_window_exceeded":
		return Reply{}, x.fail(ClassContextLength, "the answer reached the end of the model's context window")
	case "refusal":
		return Reply{}, x.fail(ClassContentPolicy, x.a.redact.text(strings.TrimSuffix("the model refused: "+x.refusal, ": ")))
	case "pause_turn":
		// Only tools that the server runs pause a turn, and none is ever offered.
		return Reply{}, x.fail(ClassStreamInterrupted, "the server paused in the middle of the answer")
	default:
		return Reply{}, x.fail(ClassUnknown, x.a.redact.text("the answer ended for an unknown reason: "+x.stop))
	}
	r := Reply{Model: x.model, RequestID: x.requestID, Limits: x.limits, FirstToken: x.first}
	var text strings.Builder
	for _, p := range x.parts {
		x.close(p)
		switch p.kind {
		case "text":
			text.WriteString(p.text.String())
		case "tool_use":
			if !json.Valid([]byte(p.arguments())) {
				return Reply{}, x.fail(ClassStreamInterrupted, "the arguments of a call of a tool are not JSON")
			}
			r.ToolCalls = append(r.ToolCalls, p.toolCall())
		}
	}
	if len(r.ToolCalls) > 0 {
		finish = "tool_calls"
	} else if x.stop == "tool_use" {
		return Reply{}, x.fail(ClassStreamInterrupted, "the answer announces a call of a tool and holds none")
	}
	r.Text, r.FinishReason = text.String(), finish
	r.Hidden = keep(x.a.name, x.call.Model, x.parts)
	r.Tokens, r.Estimated = x.tokens()
	return r, nil
}

// part finds a block by the server's number for it.
func (x *anthropicExchange) part(index int) *anthropicPart {
	for _, p := range slices.Backward(x.parts) {
		if p.index == index {
			return p
		}
	}
	return nil
}
