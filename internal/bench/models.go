package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/workflow"
)

// ModelsConfig of a measurement of the gateway, against a model server on loopback that answers at once.
type ModelsConfig struct {
	Upstream string           // base URL of that server, which is another process: its memory is not counted
	Plain    *gateway.Gateway // no budget applies to its calls
	Budgeted *gateway.Gateway // every call needs a durable reservation; nil: not measured
	Caller   gateway.Caller   // of the budgeted calls
	Door     http.Handler     // POST /v1/chat/completions over Plain; nil: not measured
	Rate     int              // calls a second, open loop
	Seconds  int              // of each phase
	Streams  int              // open at once in the last phase
	Calls    func(model string) (int, error)
	Release  func() error // lets the held streams end
	Phase    func(name string)
}

// ModelsResult is what was measured. Times are in milliseconds.
type ModelsResult struct {
	Rate                               int     `json:"rate"` // calls a second that were asked for
	DirectP50, DirectP99               float64 // a bare HTTP client
	PlainP50, PlainP99                 float64 // through the gateway
	BudgetedP50, BudgetedP99           float64
	DoorP50, DoorP99                   float64
	AddedP50, AddedP99                 float64 // PlainP50 - DirectP50, of calls in turn
	BudgetedAddedP50, BudgetedAddedP99 float64
	DoorAddedP50, DoorAddedP99         float64
	CallsPerLogicalCall                float64 // at an upstream that always answers 500
	Streams                            int
	BytesPerStream                     float64 // of this process, heap and stacks
	Failed                             int
}

// The models that the measurements ask for.
const (
	ModelQuick  = "bench-quick"
	ModelBroken = "bench-broken" // always answers 500
	ModelHeld   = "bench-held"   // stops in the middle of its answer until it is released
)

// Models measures the gateway.
func Models(ctx context.Context, c ModelsConfig) (ModelsResult, error) {
	r := ModelsResult{Rate: c.Rate, Streams: c.Streams}
	ways := []way{{name: "directly", do: c.direct(), p50: &r.DirectP50, p99: &r.DirectP99}, {name: "gateway", do: c.through(c.Plain, gateway.Caller{}), p50: &r.PlainP50, p99: &r.PlainP99}}
	if c.Budgeted != nil {
		ways = append(ways, way{name: "gateway with a reservation", do: c.through(c.Budgeted, c.Caller), p50: &r.BudgetedP50, p99: &r.BudgetedP99})
	}
	if c.Door != nil {
		ways = append(ways, way{name: "POST /v1/chat/completions", do: c.knock(), p50: &r.DoorP50, p99: &r.DoorP99})
	}
	c.phase(fmt.Sprintf("latency at %d calls a second", c.Rate))
	failed, err := c.latency(ctx, ways)
	if err != nil {
		return r, err
	}
	r.Failed = failed
	r.AddedP50, r.AddedP99 = r.PlainP50-r.DirectP50, r.PlainP99-r.DirectP99
	if c.Budgeted != nil {
		r.BudgetedAddedP50, r.BudgetedAddedP99 = r.BudgetedP50-r.DirectP50, r.BudgetedP99-r.DirectP99
	}
	if c.Door != nil {
		r.DoorAddedP50, r.DoorAddedP99 = r.DoorP50-r.DirectP50, r.DoorP99-r.DirectP99
	}
	c.phase("an upstream that always fails")
	if r.CallsPerLogicalCall, err = c.storm(ctx); err != nil {
		return r, err
	}
	if c.Streams > 0 {
		c.phase(fmt.Sprintf("%d streams at once", c.Streams))
		r.BytesPerStream, err = c.streams(ctx)
	}
	return r, err
}

func (c *ModelsConfig) phase(name string) {
	if c.Phase != nil {
		c.Phase(name)
	}
}

// way is one way of asking the same.
type way struct {
	name     string
	do       func(context.Context) error
	p50, p99 *float64
}

// latency asks in all ways in turn, at the rate for each phase, so that what disturbs one disturbs all.
func (c *ModelsConfig) latency(ctx context.Context, ways []way) (failed int, err error) {
	const slices = 5
	took := make([]samples, len(ways))
	for s := range slices + 1 { // the first warms up
		for i := range ways {
			got, bad, err := c.paced(ctx, time.Duration(c.Seconds)*time.Second/slices, ways[i].do)
			if err != nil {
				return failed, fmt.Errorf("%s: %w", ways[i].name, err)
			}
			if failed += bad; s > 0 {
				took[i] = append(took[i], got...)
			}
		}
	}
	for i, w := range ways {
		*w.p50, *w.p99 = took[i].quantile(0.5), took[i].quantile(0.99)
	}
	return failed, nil
}

// paced calls at the rate, whether or not the calls before have ended.
func (c *ModelsConfig) paced(ctx context.Context, length time.Duration, do func(context.Context) error) (samples, int, error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	var took samples
	var failed int
	var last error
	every := time.Second / time.Duration(c.Rate)
	begin := time.Now()
	for n := 0; ; n++ {
		due := begin.Add(time.Duration(n) * every)
		if due.Sub(begin) >= length || ctx.Err() != nil {
			break
		}
		time.Sleep(time.Until(due))
		all.Go(func() {
			began := time.Now()
			err := do(ctx)
			d := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed, last = failed+1, err
				return
			}
			took = append(took, d)
		})
	}
	all.Wait()
	if len(took) == 0 && last != nil {
		return nil, failed, last
	}
	return took, failed, ctx.Err()
}

// direct is a bare HTTP client that reads the answer to its end.
func (c *ModelsConfig) direct() func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512, DisableCompression: true}}
	body := []byte(`{"model":"` + ModelQuick + `","stream":true,"max_tokens":4096,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Say something."}]}`)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Upstream+"/v1/chat/completions", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(req)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	}
}

func request(model string, retries int, caller gateway.Caller) gateway.Request {
	return gateway.Request{
		Caller: caller, Chain: workflow.Chain{Entries: []workflow.ChainEntry{{Model: model, Retries: retries}}},
		Ask: agent.Ask{Messages: []agent.Message{{Role: agent.RoleUser, Content: "Say something."}}},
	}
}

func (c *ModelsConfig) through(g *gateway.Gateway, caller gateway.Caller) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := g.Complete(ctx, request("upstream/"+ModelQuick, 0, caller))
		return err
	}
}

// knock asks through the door for OpenAI clients, without a network in between.
func (c *ModelsConfig) knock() func(context.Context) error {
	body := []byte(`{"model":"upstream/` + ModelQuick + `","messages":[{"role":"user","content":"Say something."}]}`)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1/v1/chat/completions", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		w := &sink{header: http.Header{}}
		c.Door.ServeHTTP(w, req)
		if w.status != http.StatusOK {
			return fmt.Errorf("the door answered %d", w.status)
		}
		return nil
	}
}

// sink takes an answer and keeps its status.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return len(p), nil
}

func (s *sink) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
}

// storm asks an upstream that always fails, with retries allowed, and counts what reaches it for each logical call.
func (c *ModelsConfig) storm(ctx context.Context) (float64, error) {
	before, err := c.Calls(ModelBroken)
	if err != nil {
		return 0, err
	}
	var asked atomic.Int64
	_, _, err = c.paced(ctx, time.Duration(c.Seconds)*time.Second, func(ctx context.Context) error {
		asked.Add(1)
		if _, err := c.Plain.Complete(ctx, request("upstream/"+ModelBroken, 3, gateway.Caller{})); err == nil {
			return errors.New("the broken model answered")
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	after, err := c.Calls(ModelBroken)
	return float64(after-before) / float64(max(asked.Load(), 1)), err
}

// streams opens many at once and weighs them.
func (c *ModelsConfig) streams(ctx context.Context) (float64, error) {
	ctx, cut := context.WithTimeout(ctx, 2*time.Minute)
	defer cut()
	empty := weigh()
	var all sync.WaitGroup
	var begun, failed atomic.Int64
	for range c.Streams {
		all.Go(func() {
			r := request("upstream/"+ModelHeld, 0, gateway.Caller{})
			first := sync.OnceFunc(func() { begun.Add(1) })
			r.Stream = func(gateway.Delta) { first() }
			if _, err := c.Plain.Complete(ctx, r); err != nil {
				failed.Add(1)
			}
		})
	}
	for begun.Load()+failed.Load() < int64(c.Streams) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	full := weigh()
	err := c.Release()
	all.Wait()
	if n := failed.Load(); err == nil && n > 0 {
		err = fmt.Errorf("%d of %d streams failed", n, c.Streams)
	}
	return float64(full-empty) / float64(max(c.Streams, 1)), err
}

// weigh is what the process holds after a collection: heap and stacks.
func weigh() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse) //nolint:gosec // far below 2^63
}
