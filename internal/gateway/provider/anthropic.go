package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

// Defaults of Anthropic's Messages API.
const (
	anthropicBaseURL = "https://api.anthropic.com"
	anthropicVersion = "2023-06-01"
	countWait        = 10 * time.Second // for a count of tokens: who waits for it has a call to make
	countBytesMax    = 64 << 10
)

// AnthropicConfig of a server of Anthropic's Messages API. Zero values take the defaults named here.
type AnthropicConfig struct {
	Name     string // anthropic
	BaseURL  string // https://api.anthropic.com; /v1 is added if it does not end in it
	APIKey   string // empty: none is sent
	NoStream bool   // ask for whole answers; streaming notices a dead server sooner

	Cache1h     bool // prompts are cached for an hour instead of five minutes: dearer to write, for conversations that pause
	CountTokens bool // let the server count the tokens of a call before it is made; else CountTokens refuses

	FirstToken time.Duration // how long until an answer begins: 5 min (models think first); pings do not count
	Idle       time.Duration // how long between its parts: 1 min
	ConnsMax   int           // connections at once: 20,000

	Now func() time.Time // time.Now
}

// Anthropic asks a server of Anthropic's Messages API.
type Anthropic struct {
	name       string
	host       string
	url        string
	key        string
	stream     bool
	cache1h    bool
	firstToken time.Duration
	idle       time.Duration
	now        func() time.Time
	client     *http.Client
	transport  *http.Transport
	redact     redactor
	lessons    anthropicLessons
	uncounted  atomic.Bool // counting is off, or the server cannot
}

// NewAnthropic checks a configuration. It opens no connection.
func NewAnthropic(c AnthropicConfig) (*Anthropic, error) {
	if c.Name == "" {
		c.Name = "anthropic"
	}
	if c.BaseURL == "" {
		c.BaseURL = anthropicBaseURL
	}
	u, key, err := checked(c.Name, c.BaseURL, c.APIKey)
	if err != nil {
		return nil, err
	}
	a := &Anthropic{
		name: c.Name, host: u.Hostname(), url: strings.TrimSuffix(strings.TrimRight(u.String(), "/"), "/v1") + "/v1/messages", key: key,
		stream: !c.NoStream, cache1h: c.Cache1h,
		firstToken: orDefault(c.FirstToken, firstTokenDefault), idle: orDefault(c.Idle, idleDefault), now: c.Now,
		transport: newTransport(int(orDefault(int64(c.ConnsMax), connsMaxDefault))), redact: redactor{key: key},
	}
	a.uncounted.Store(!c.CountTokens)
	if a.now == nil {
		a.now = time.Now
	}
	a.client = newClient(a.transport)
	return a, nil
}

// Name is the provider's name in configuration, log and metrics.
func (a *Anthropic) Name() string { return a.name }

// Host is where the requests go.
func (a *Anthropic) Host() string { return a.host }

// Close closes idle connections. Calls under way end by themselves.
func (a *Anthropic) Close() { a.transport.CloseIdleConnections() }

// Complete makes one request.
func (a *Anthropic) Complete(parent context.Context, c Call) (Reply, error) {
	body, sent, err := a.request(c)
	if err != nil {
		return Reply{}, err
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	out := &outgoing{body: body}
	req, err := a.post(ctx, a.url, out)
	if err != nil {
		return Reply{}, err
	}
	x := &anthropicExchange{
		a: a, call: c, sent: sent, parent: parent, ctx: ctx, cancel: cancel, asked: time.Now(),
		firstToken: orDefault(c.FirstToken, a.firstToken), idle: orDefault(c.Idle, a.idle),
	}
	x.watch = time.AfterFunc(x.firstToken, x.late)
	defer x.watch.Stop()
	resp, err := a.client.Do(req)
	if err != nil {
		return Reply{}, x.broken(err, ClassNetwork)
	}
	defer resp.Body.Close()
	out.release()
	x.requestID, x.limits = callID(resp.Header, "request-id"), anthropicLimits(resp.Header, a.now())
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return Reply{}, x.refused(resp)
	}
	return x.read(resp)
}

// CountTokens asks the server how many tokens the input of a call has. It costs nothing, and is limited apart from
// calls. A server that cannot count is not asked again.
func (a *Anthropic) CountTokens(parent context.Context, c Call) (int64, error) {
	if a.uncounted.Load() {
		return 0, &Error{Class: ClassCapabilityMismatch, Message: "this provider does not count tokens"}
	}
	body, sent, err := a.countRequest(c)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeoutCause(parent, countWait, errFirstToken)
	defer cancel()
	req, err := a.post(ctx, a.url+"/count_tokens", &outgoing{body: body})
	if err != nil {
		return 0, err
	}
	x := &anthropicExchange{a: a, call: c, sent: sent, parent: parent, ctx: ctx, firstToken: countWait, free: true}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, x.broken(err, ClassNetwork)
	}
	defer resp.Body.Close()
	x.requestID, x.limits = callID(resp.Header, "request-id"), anthropicLimits(resp.Header, a.now())
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		e := x.refused(resp)
		if e.Status == http.StatusNotFound && !noModel.MatchString(e.Message) || e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented {
			a.uncounted.Store(true)
		}
		return 0, e
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, countBytesMax))
	if err != nil {
		return 0, x.broken(err, ClassNetwork)
	}
	var counted struct {
		Input count `json:"input_tokens"`
	}
	if json.Unmarshal(raw, &counted) != nil || counted.Input == 0 {
		return 0, x.fail(ClassServer, "the answer is no count of tokens")
	}
	return int64(counted.Input), nil
}

// post prepares a request.
func (a *Anthropic) post(ctx context.Context, url string, body *outgoing) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return nil, &Error{Class: ClassInvalidRequest, Message: a.redact.err(err)}
	}
	body.attach(req)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("User-Agent", "fermata")
	req.Header.Set("anthropic-version", anthropicVersion)
	if a.key != "" {
		req.Header.Set("x-api-key", a.key)
	}
	return req, nil
}

// refused reads an answer that is an error. Nothing is charged for one.
func (x *anthropicExchange) refused(resp *http.Response) *Error {
	if x.watch != nil {
		x.watch.Reset(x.idle)
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, errorBytesMax)) //nolint:errcheck // what came is enough to judge by
	wire := readError(body)
	e := &Error{
		Class:      anthropicClass(resp.StatusCode, wire),
		Status:     resp.StatusCode,
		RetryAfter: max(retryAfter(resp.Header, x.a.now()), wire.wait),
		NoRetry:    strings.EqualFold(strings.TrimSpace(resp.Header.Get("x-should-retry")), "false"),
		Message:    x.a.redact.text(wire.message),
		RequestID:  x.requestID, Limits: x.limits,
	}
	if e.Class == ClassRateLimited && e.RetryAfter == 0 {
		e.RetryAfter = anthropicWait(x.limits)
	}
	if e.Message == "" {
		e.Message = http.StatusText(resp.StatusCode)
	}
	if resp.StatusCode < 400 {
		e.Message = "the server redirects; give the address it redirects to as base URL: " + e.Message
	}
	if x.a.lessons.learn(x.call, x.sent, resp.StatusCode, e.Class, wire.message) {
		e.Class, e.Learned = ClassCapabilityMismatch, true
	}
	return e
}

var (
	// "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000"
	exceeding = regexp.MustCompile(`(?i)exceeds? (the )?context (limit|window)`)
	// "You have reached your specified API usage limits. You will regain access on 2026-04-01 at 00:00 UTC."
	usedUp = regexp.MustCompile(`(?i)reached your .{0,40}usage limits?`)
)

// anthropicClass decides as classify does, after what Anthropic says under the word for any wrong request.
func anthropicClass(status int, wire wireError) Class {
	switch {
	case status == http.StatusBadRequest && exceeding.MatchString(wire.message):
		return ClassContextLength
	case usedUp.MatchString(wire.message):
		return ClassQuotaExhausted
	}
	return classify(status, wire)
}

// broken says why no complete answer came: the caller gave up, a timer of ours fired, or the connection failed.
func (x *anthropicExchange) broken(err error, otherwise Class) *Error {
	cause := context.Cause(x.ctx)
	switch {
	case errors.Is(x.parent.Err(), context.DeadlineExceeded):
		return x.fail(ClassTimeout, "no complete answer within the time given")
	case x.parent.Err() != nil:
		return x.fail(ClassCancelled, "the call was cut")
	case errors.Is(cause, errFirstToken):
		return x.fail(ClassTimeout, fmt.Sprintf("%v (%s)", errFirstToken, x.firstToken))
	case errors.Is(cause, errIdle):
		return x.fail(ClassStreamInterrupted, fmt.Sprintf("%v for %s", errIdle, x.idle))
	}
	return x.fail(otherwise, x.a.redact.err(err))
}

// fail ends a call that was begun. Unless no connection was had, the prompt was read, and whatever came was made.
func (x *anthropicExchange) fail(class Class, message string) *Error {
	e := &Error{Class: class, Message: message, Begun: x.begun.Load(), RequestID: x.requestID, Limits: x.limits}
	if class != ClassNetwork && !x.free {
		e.Tokens, e.Estimated = x.tokens()
	}
	return e
}
