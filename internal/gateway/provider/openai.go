package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Defaults of an OpenAI-compatible provider.
const (
	openAIBaseURL     = "https://api.openai.com/v1"
	firstTokenDefault = 5 * time.Minute
	idleDefault       = time.Minute
	connsMaxDefault   = 20_000

	errorBytesMax = 64 << 10
	bodyBytesMax  = 8 << 20
	usageWait     = 5 * time.Second        // for the usage that follows a finished answer
	drainWait     = 100 * time.Millisecond // for the end of a body, so that its connection is used again
)

// OpenAIConfig of an OpenAI-compatible server. Zero values take the defaults named here.
type OpenAIConfig struct {
	Name     string // openai
	BaseURL  string // https://api.openai.com/v1
	Vendor   string // whose dialect the server speaks (the names in vendors.go); empty or unknown: told by the host
	APIKey   string // empty: none is sent
	NoStream bool   // ask for whole answers; streaming notices a dead server sooner

	FirstToken time.Duration // how long until an answer begins: 5 min (models think first); comments do not count
	Idle       time.Duration // how long between its parts: 1 min
	ConnsMax   int           // connections at once: 20,000

	Now func() time.Time // time.Now
}

// OpenAI asks an OpenAI-compatible server over chat/completions. The requests are go-openai's types; transport,
// stream and errors are read here, because that client drops what a gateway must know (its issues are in the tests).
type OpenAI struct {
	name       string
	url        string
	key        string
	stream     bool
	firstToken time.Duration
	idle       time.Duration
	now        func() time.Time
	vendor     vendor
	client     *http.Client
	transport  *http.Transport
	redact     redactor
	lessons    lessons
}

// NewOpenAI checks a configuration. It opens no connection.
func NewOpenAI(c OpenAIConfig) (*OpenAI, error) {
	if c.Name == "" {
		c.Name = "openai"
	}
	if c.BaseURL == "" {
		c.BaseURL = openAIBaseURL
	}
	u, key, err := checked(c.Name, c.BaseURL, c.APIKey)
	if err != nil {
		return nil, err
	}
	o := &OpenAI{
		name: c.Name, url: strings.TrimRight(u.String(), "/") + "/chat/completions", key: key, stream: !c.NoStream,
		firstToken: orDefault(c.FirstToken, firstTokenDefault), idle: orDefault(c.Idle, idleDefault), now: c.Now,
		transport: newTransport(int(orDefault(int64(c.ConnsMax), connsMaxDefault))), redact: redactor{key: key},
		vendor: vendorOf(c.Vendor, strings.ToLower(u.Host)),
	}
	o.lessons.vendor = o.vendor.quirk
	if o.now == nil {
		o.now = time.Now
	}
	o.client = newClient(o.transport)
	return o, nil
}

// Name is the provider's name in configuration, log and metrics.
func (o *OpenAI) Name() string { return o.name }

// Host is where the requests go.
func (o *OpenAI) Host() string {
	u, err := url.Parse(o.url)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Close closes idle connections. Calls under way end by themselves.
func (o *OpenAI) Close() { o.transport.CloseIdleConnections() }

// Why a call was broken off here.
var (
	errFirstToken = errors.New("no answer began in time")
	errIdle       = errors.New("the answer stalled")
)

// Complete makes one request.
func (o *OpenAI) Complete(parent context.Context, c Call) (Reply, error) {
	body, sent, err := o.request(c)
	if err != nil {
		return Reply{}, &Error{Class: ClassInvalidRequest, Message: o.redact.err(err)}
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	out := &outgoing{body: body}
	req, err := o.post(ctx, c, out)
	if err != nil {
		return Reply{}, &Error{Class: ClassInvalidRequest, Message: o.redact.err(err)}
	}
	x := &exchange{
		o: o, call: c, sent: sent, parent: parent, ctx: ctx, cancel: cancel, start: time.Now(),
		firstToken: orDefault(c.FirstToken, o.firstToken), idle: orDefault(c.Idle, o.idle),
	}
	x.watch = time.AfterFunc(x.firstToken, x.late)
	defer x.watch.Stop()
	reply, err := x.run(req, out)
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Begun, e.RequestID, e.Limits = x.begun.Load(), x.requestID, x.limits
		if e.Class == ClassRateLimited && e.RetryAfter == 0 {
			e.RetryAfter = limitWait(e.Message, x.limits)
		}
		return Reply{}, e
	}
	return reply, err
}

func (o *OpenAI) post(ctx context.Context, c Call, body *outgoing) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, nil)
	if err != nil {
		return nil, err
	}
	body.attach(req)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("User-Agent", "fermata")
	if o.key != "" {
		req.Header.Set("Authorization", "Bearer "+o.key)
	}
	if o.vendor.sessionHeader != "" && c.Session != "" {
		req.Header.Set(o.vendor.sessionHeader, sessionKey(c.Session))
	}
	return req, nil
}

// run sends the request and reads what comes.
func (x *exchange) run(req *http.Request, body *outgoing) (Reply, error) {
	resp, err := x.o.client.Do(req)
	if err != nil {
		return Reply{}, x.broken(err, ClassNetwork)
	}
	defer resp.Body.Close()
	body.release()
	x.requestID = callID(resp.Header, "x-request-id", "request-id", "x-generation-id")
	x.limits = rateLimits(resp.Header, x.o.now())
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return Reply{}, x.refused(resp)
	}
	return x.read(resp)
}

// refused reads an answer that is an error.
func (x *exchange) refused(resp *http.Response) *Error {
	x.watch.Reset(x.idle)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, errorBytesMax)) //nolint:errcheck // what came is enough to judge by
	wire := readError(body)
	e := &Error{
		Class:      classify(resp.StatusCode, wire),
		Status:     resp.StatusCode,
		RetryAfter: max(retryAfter(resp.Header, x.o.now()), wire.wait),
		NoRetry:    strings.EqualFold(strings.TrimSpace(resp.Header.Get("x-should-retry")), "false"),
	}
	if e.Message = x.o.redact.text(wire.message); e.Message == "" {
		e.Message = http.StatusText(resp.StatusCode)
	}
	if resp.StatusCode < 400 {
		e.Message = "the server redirects; give the address it redirects to as base URL: " + e.Message
	}
	if x.o.lessons.learn(x.call, x.sent, resp.StatusCode, e.Class, wire.message) {
		e.Class, e.Learned = ClassCapabilityMismatch, true
	}
	return e
}

// broken says why no complete answer came: the caller gave up, a timer of ours fired, or the connection failed.
func (x *exchange) broken(err error, otherwise Class) *Error {
	e := &Error{Class: otherwise}
	cause := context.Cause(x.ctx)
	switch {
	case x.parent.Err() != nil && errors.Is(x.parent.Err(), context.DeadlineExceeded):
		e.Class, e.Message = ClassTimeout, "no complete answer within the time given"
	case x.parent.Err() != nil:
		e.Class, e.Message = ClassCancelled, "the call was cut"
	case errors.Is(cause, errFirstToken):
		e.Class, e.Message = ClassTimeout, fmt.Sprintf("%v (%s)", errFirstToken, x.firstToken)
	case errors.Is(cause, errIdle):
		e.Class, e.Message = ClassStreamInterrupted, fmt.Sprintf("%v for %s", errIdle, x.idle)
	default:
		e.Message = x.o.redact.err(err)
	}
	if e.Class != ClassNetwork { // the prompt was read, and whatever came was made
		e.Tokens, e.Estimated = x.tokens()
	}
	return e
}
