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
	"strings"
	"sync/atomic"
	"time"

	openai "github.com/sashabaranov/go-openai"

	"github.com/fermata-run/fermata/internal/usage"
)

// exchange is one request and what has come of its answer.
type exchange struct {
	o      *OpenAI
	call   Call
	sent   sent
	parent context.Context // the caller's
	ctx    context.Context // ours: also ended by our timers
	cancel context.CancelCauseFunc
	watch  *time.Timer // ends the call unless it is put off
	begun  atomic.Bool // something of an answer has come

	firstToken, idle time.Duration
	start            time.Time
	first            time.Duration // until something of a streamed answer came
	streamed         bool
	requestID        string
	limits           Limits

	text, hidden, refusal strings.Builder
	calls                 []called
	details               details
	bytes                 int // of all that has come
	finish                openai.FinishReason
	model                 string
	usage                 json.RawMessage
}

// chunk is one event of a stream, or the whole answer.
type chunk struct {
	ID      string          `json:"id"`
	Model   string          `json:"model"`
	Choices []choice        `json:"choices"`
	Usage   json.RawMessage `json:"usage"`
	Error   json.RawMessage `json:"error"`
	Type    string          `json:"type"`
}

type choice struct {
	Index   int     `json:"index"`
	Delta   content `json:"delta"`
	Message content `json:"message"`
	Finish  *string `json:"finish_reason"`
}

type content struct {
	Content          parts      `json:"content"`
	Refusal          parts      `json:"refusal"`
	Reasoning        parts      `json:"reasoning"`
	ReasoningContent parts      `json:"reasoning_content"`
	ReasoningDetails details    `json:"reasoning_details"`
	ToolCalls        []callPart `json:"tool_calls"`
}

// details are OpenRouter's reasoning_details. What is no list is none: nothing depends on them but the next turn.
type details []json.RawMessage

func (d *details) UnmarshalJSON(raw []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		*d = list
	}
	return nil
}

// parts is text that comes as a string, as null or as a list of parts.
type parts string

func (p *parts) UnmarshalJSON(raw []byte) error {
	if raw[0] != '[' {
		var s string
		err := json.Unmarshal(raw, &s)
		*p = parts(s)
		return err
	}
	var list []struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, part := range list {
		*p += parts(part.Text)
	}
	return nil
}

// read takes an answer as it comes, whether the server streams or not.
func (x *exchange) read(resp *http.Response) (Reply, error) {
	in := bufio.NewReaderSize(resp.Body, readBytes)
	if !isStream(resp.Header, in) {
		return x.whole(resp, in)
	}
	x.streamed = true
	reply, err := x.events(newEvents(in))
	if err == nil {
		// The end of the body is read, so that the connection can be used again; not for long.
		x.watch.Reset(drainWait)
		_, _ = io.CopyN(io.Discard, in, 4<<10)
	}
	return reply, err
}

// isStream goes by the content type, and by the first character where a server mislabels.
func isStream(h http.Header, in *bufio.Reader) bool {
	if strings.Contains(h.Get("Content-Type"), "event-stream") {
		return true
	}
	for n := 1; n <= 64; n++ {
		b, err := in.Peek(n)
		if err != nil {
			return false
		}
		if c := b[n-1]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c != '{' && c != '[' && c != '<' && c != '"'
		}
	}
	return false
}

func (x *exchange) whole(resp *http.Response, in io.Reader) (Reply, error) {
	body, err := io.ReadAll(io.LimitReader(in, bodyBytesMax+1))
	switch {
	case err != nil:
		return Reply{}, x.broken(err, ClassStreamInterrupted)
	case len(body) > bodyBytesMax:
		return Reply{}, x.malformed(fmt.Sprintf("the answer has more than %d bytes", bodyBytesMax))
	case len(bytes.TrimSpace(body)) == 0:
		return Reply{}, x.malformed("the answer is empty")
	}
	var c chunk
	if json.Unmarshal(body, &c) != nil {
		return Reply{}, x.notAnAnswer(resp, body)
	}
	if err := x.take(c, body); err != nil {
		return Reply{}, err
	}
	if len(c.Choices) == 0 {
		return Reply{}, x.notAnAnswer(resp, body)
	}
	return x.end()
}

// notAnAnswer judges a body under a successful status that is no completion: an error in one of its shapes, a page of
// a proxy, or nothing known.
func (x *exchange) notAnAnswer(resp *http.Response, body []byte) *Error {
	wire := readError(body)
	class := classify(http.StatusOK, wire)
	if class == ClassServer && !bytes.Contains(body[:min(len(body), 1<<10)], []byte("<")) {
		class = ClassStreamInterrupted
	}
	e := &Error{Class: class, Status: resp.StatusCode, Message: x.o.redact.text("not a completion: " + wire.message)}
	e.RetryAfter = max(retryAfter(resp.Header, x.o.now()), wire.wait)
	return e
}

// events reads a stream to its end.
func (x *exchange) events(in *events) (Reply, error) {
	var data []byte
	event, lines := "", 0
	for {
		f, err := in.next()
		if err != nil {
			return x.streamEnded(err)
		}
		switch {
		case f.blank:
			if err := x.leftOver(event, data); err != nil {
				return Reply{}, err
			}
			data, event, lines = data[:0], "", 0
		case f.name == "event":
			event = string(bytes.TrimSpace(f.value))
		case f.name == "data":
			if string(bytes.TrimSpace(f.value)) == "[DONE]" {
				return x.end()
			}
			if len(data) > 0 {
				data = append(data, '\n')
			}
			data = append(data, f.value...)
			if lines++; len(data) > lineBytesMax || lines > dataLinesMax {
				return Reply{}, x.malformed(errLineTooLong.Error())
			}
			if complete(data) { // acted on at once: the blank line may never come
				if err := x.takeRaw(data); err != nil {
					return Reply{}, err
				}
				data, lines = data[:0], 0
			}
		case f.line[0] == '{' && json.Valid(f.line): // an error put into the stream without framing
			if err := x.takeRaw(f.line); err != nil {
				return Reply{}, err
			}
		}
	}
}

// dataLinesMax bounds the lines of one event: each is looked at with all before it.
const dataLinesMax = 1_000

// complete reports whether data is JSON to its end.
func complete(data []byte) bool {
	data = bytes.TrimRight(data, " \t")
	return len(data) > 0 && strings.IndexByte(`}]"el0123456789`, data[len(data)-1]) >= 0 && json.Valid(data)
}

// leftOver is called at the end of an event for data that is not JSON.
func (x *exchange) leftOver(event string, data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if event == "error" {
		return x.failed(data)
	}
	return x.malformed("an event of the stream is not JSON")
}

func (x *exchange) streamEnded(err error) (Reply, error) {
	switch {
	case errors.Is(err, io.EOF), x.finish != "":
		return x.end() // a finished answer may lose what follows it
	case errors.Is(err, errLineTooLong), errors.Is(err, errStreamTooLong):
		return Reply{}, x.malformed(err.Error())
	}
	return Reply{}, x.broken(err, ClassStreamInterrupted)
}

func (x *exchange) takeRaw(raw []byte) error {
	var c chunk
	if err := json.Unmarshal(raw, &c); err != nil {
		if wire := readError(raw); wire.message != "" && bytes.Contains(raw, []byte(`"error"`)) {
			return x.failed(raw)
		}
		return x.malformed("an event of the stream is no completion")
	}
	return x.take(c, raw)
}

// take adds a chunk to what has come.
func (x *exchange) take(c chunk, raw []byte) error {
	if len(c.Error) > 0 && string(c.Error) != "null" && string(c.Error) != `""` || c.Type == "error" {
		return x.failed(raw)
	}
	if c.Model != "" {
		x.model = c.Model
	}
	if x.requestID == "" {
		x.requestID = printable(c.ID)
	}
	if len(c.Usage) > 0 && string(c.Usage) != "null" {
		x.usage = append(x.usage[:0], c.Usage...)
	}
	for _, choice := range c.Choices {
		if choice.Index != 0 {
			continue
		}
		for _, part := range []content{choice.Delta, choice.Message} {
			if err := x.add(part); err != nil {
				return err
			}
		}
		if f := choice.Finish; f != nil && *f != "" && *f != string(openai.FinishReasonNull) {
			x.finish = openai.FinishReason(strings.ToLower(*f))
			x.alive(usageWait)
		}
	}
	return nil
}

// add takes a part of the answer and passes it on. A role alone is none.
func (x *exchange) add(c content) error {
	reasoning := c.Reasoning
	if reasoning == "" {
		reasoning = c.ReasoningContent
	}
	d := Delta{Text: string(c.Content), Reasoning: string(reasoning)}
	x.text.WriteString(d.Text)
	x.hidden.WriteString(d.Reasoning)
	x.refusal.WriteString(string(c.Refusal))
	x.bytes += len(d.Text) + len(d.Reasoning) + len(c.Refusal)
	for _, part := range c.ToolCalls {
		delta, err := x.addCall(part)
		if err != nil {
			return err
		}
		d.ToolCalls = append(d.ToolCalls, delta)
		x.bytes += len(part.Function.Arguments) + len(part.Extra)
	}
	if x.o.vendor.keeps == keepsDetails {
		for _, raw := range c.ReasoningDetails {
			x.details = addDetail(x.details, raw)
			x.bytes += len(raw)
		}
	}
	if x.bytes > textBytesMax {
		return x.malformed(fmt.Sprintf("the answer has more than %d bytes", textBytesMax))
	}
	if d.Text == "" && d.Reasoning == "" && len(d.ToolCalls) == 0 {
		if c.Refusal != "" {
			x.alive(x.idle)
		}
		return nil
	}
	x.alive(x.idle)
	if x.call.Stream != nil {
		x.call.Stream(d)
	}
	return nil
}

// alive gives the answer time for its next part.
func (x *exchange) alive(wait time.Duration) {
	if !x.begun.Swap(true) && x.streamed {
		x.first = time.Since(x.start)
	}
	x.watch.Reset(wait)
}

// late is called by the timer.
func (x *exchange) late() {
	if x.begun.Load() {
		x.cancel(errIdle)
		return
	}
	x.cancel(errFirstToken)
}

// failed reads an error that came inside an answer. Before anything was made nothing is charged.
func (x *exchange) failed(raw []byte) *Error {
	wire := readError(raw)
	e := &Error{Class: classify(http.StatusOK, wire), RetryAfter: wire.wait, Message: x.o.redact.text(wire.message)}
	if e.Message == "" {
		e.Message = "the server reports an error and does not say which"
	}
	if x.bytes > 0 {
		if e.Class == ClassServer || e.Class == ClassUnknown {
			e.Class = ClassStreamInterrupted
		}
		e.Tokens, e.Estimated = x.tokens()
	}
	return e
}

func (x *exchange) malformed(message string) *Error {
	e := &Error{Class: ClassStreamInterrupted, Message: message}
	e.Tokens, e.Estimated = x.tokens()
	return e
}

// end judges a finished answer.
func (x *exchange) end() (Reply, error) {
	tokens, estimated := x.tokens()
	bad := func(class Class, message string) (Reply, error) {
		return Reply{}, &Error{Class: class, Message: message, Tokens: tokens, Estimated: estimated}
	}
	switch finish, _, _ := strings.Cut(string(x.finish), ":"); finish { // Gemini adds a reason of its own
	case "":
		return bad(ClassStreamInterrupted, "the answer ended without a finish reason")
	case "length", "max_tokens", "max_output_tokens", "model_length":
		return bad(ClassOutputTruncated, fmt.Sprintf("the answer reached its limit of %d tokens", x.call.MaxTokens))
	case "content_filter", "refusal", "safety", "recitation", "prohibited_content", "blocklist", "spii":
		return bad(ClassContentPolicy, "the provider withheld the answer ("+x.o.redact.text(string(x.finish))+")")
	case "error":
		return bad(ClassStreamInterrupted, "the server ended the answer with an error")
	case "malformed_function_call":
		return bad(ClassStreamInterrupted, "the model's tool call was garbled")
	case "tool_calls", "function_call":
		if len(x.calls) == 0 {
			return bad(ClassStreamInterrupted, "the answer announces tool calls and has none")
		}
	}
	if x.refusal.Len() > 0 && x.text.Len() == 0 && len(x.calls) == 0 {
		return bad(ClassContentPolicy, x.o.redact.text("the model refused: "+x.refusal.String()))
	}
	calls := x.toolCalls()
	finish := string(openai.FinishReasonStop)
	if len(calls) > 0 { // some servers say "stop" then
		finish = string(openai.FinishReasonToolCalls)
	}
	return Reply{
		Text: x.text.String(), FinishReason: finish, Model: x.model, Tokens: tokens, Estimated: estimated,
		ToolCalls: calls, Hidden: x.keep(calls), RequestID: x.requestID, FirstToken: x.first, Limits: x.limits,
	}, nil
}

// tokens is what was used: as reported, or counted here where nothing believable was. Zeros are believed only of an
// answer that is empty.
func (x *exchange) tokens() (usage.Tokens, bool) {
	var u wireUsage
	t, told := usage.Tokens{}, false
	if len(x.usage) > 0 && json.Unmarshal(x.usage, &u) == nil {
		t, told = u.read(x.o.vendor.reasoningOutside)
	}
	if told && (x.bytes == 0 || t.InputTotal() > 0 && t.OutputTotal() > 0) {
		return t, false
	}
	counted := estimate(x.call, x.text.String()+x.callTexts(), x.hidden.String())
	if t.OutputTotal() == 0 {
		t.Output, t.Reasoning = counted.Output, counted.Reasoning
	}
	if t.InputTotal() == 0 {
		t.Input = counted.Input
	}
	return t, true
}
