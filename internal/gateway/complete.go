package gateway

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Complete makes one logical call: the entries of the chain in order, each with its retries, until one answers and is
// accepted. Its error is a *FailedError. The deadline of ctx bounds everything, waits included; it returns soon after
// ctx is done, with the cost of what was begun.
func (g *Gateway) Complete(ctx context.Context, req Request) (Answer, error) {
	began := time.Now()
	c := &completion{g: g, req: req, limit: req.CallsMax}
	if c.limit <= 0 || c.limit > CallsMax {
		c.limit = CallsMax
	}
	ctx, span := g.spanOf(ctx, &req)
	answer, err := c.run(ctx)
	endCall(span, &answer, err)
	g.metrics.ModelCalls(req.Caller.Agent, c.calls)
	g.metrics.ModelAsked(c.req.Chain.Name, max(time.Since(began)-c.upstream, 0), err == nil)
	return answer, err
}

// completion is one logical call under way.
type completion struct {
	g          *Gateway
	req        Request
	entries    []*entry
	rule       string // that chose the chain
	noBaseline bool   // the baseline model would not have been asked

	mu       sync.Mutex // entries that are hedged are asked at the same time
	limit    int        // requests that may be made
	begun    int        // requests that were, or are about to be
	tries    map[int]int
	calls    []usage.Call
	failures []failure
	best     *best
	based    bool             // an answer has been compared with the baseline
	counted  map[string]int64 // tokens of the prompt, by model
	tooLong  int64            // the prompt did not fit a window of so many tokens
	upstream time.Duration    // spent waiting for providers, in sum
	told     *entry           // whose parts Stream was told of last
}

// entry is one entry of the chain and who serves it.
type entry struct {
	workflow.ChainEntry
	route route
	depth int
	last  bool // nobody is left to be asked after it

	avoided bool // it is of a family that is asked only where nobody else is left
}

// failure is why an entry did not answer.
type failure struct {
	entry   *entry
	err     *provider.Error
	asked   bool         // false: no request was made
	until   time.Time    // when it may be asked again; zero: not known
	shut    *refusal     // by its breaker
	unknown bool         // whether a budget has money for it could not be found out
	budget  *BudgetError // that refused it
	handled bool         // a budget that refused and let a cheaper model be asked instead
}

// best is the surest of the answers that were not accepted.
type best struct {
	answer Answer
	entry  *entry
	score  float64
}

// verdict is what comes after an entry.
type verdict uint8

const (
	verdictNext     verdict = iota // the next entry
	verdictAnswered                // nobody else
	verdictFinal                   // nobody else: every model would say so
	verdictStop                    // nobody else: time, calls or money are used up
	verdictCheaper                 // a budget wants a cheaper model
)

func (c *completion) run(ctx context.Context) (Answer, error) {
	if err := c.plan(ctx); err != nil {
		return Answer{}, err
	}
	answer, v := c.walk(ctx)
	if v != verdictAnswered && c.best != nil && c.req.Chain.AcceptBest && ctx.Err() == nil {
		answer, v = c.takeBest(), verdictAnswered
	}
	if v != verdictAnswered {
		return Answer{}, c.failed(ctx)
	}
	answer.Calls, answer.Rule = c.calls, c.rule
	for i := range c.failures {
		if f := &c.failures[i]; f.shut != nil && f.entry.depth < answer.Depth {
			c.g.metrics.ModelPassedOver(f.entry.route.model, answer.Asked, string(f.err.Class))
		}
	}
	return answer, nil
}

// walk asks the entries in order. Of a family that is to be avoided nobody is asked once somebody else has answered, though
// it was not accepted.
func (c *completion) walk(ctx context.Context) (Answer, verdict) {
	for i := 0; i < len(c.entries); {
		if c.entries[i].avoided && c.best != nil {
			return Answer{}, verdictStop
		}
		answer, v, used := c.ask(ctx, i)
		i += used
		switch v {
		case verdictAnswered, verdictFinal, verdictStop:
			return answer, v
		case verdictCheaper:
			return c.cheaper(ctx, i)
		case verdictNext:
			c.dropTooSmall(i)
		}
	}
	return c.lastResort(ctx)
}

// ask asks entry i, and where the chain says so the one after it beside it. used is how many entries that took.
func (c *completion) ask(ctx context.Context, i int) (answer Answer, v verdict, used int) {
	if c.req.Chain.Hedge && i+1 < len(c.entries) && c.entries[i].avoided == c.entries[i+1].avoided && c.req.Stream == nil {
		return c.hedged(ctx, i)
	}
	answer, v = c.tryEntry(ctx, c.entries[i], tries{})
	return answer, v, 1
}

// tries is how one entry is asked.
type tries struct {
	retries int  // requests made after a failure that is retried
	lessons int  // requests made because its adapter learned something
	longer  bool // the answer may be twice as long
	waited  bool // for a throttle to pass
	forced  bool // its breaker is open, and so are all others
	hedged  bool // beside a slow one
}

// tryEntry asks one entry until it answers, or its failure says to leave it.
func (c *completion) tryEntry(ctx context.Context, e *entry, t tries) (Answer, verdict) {
	for {
		if ctx.Err() != nil || !c.countIn() {
			return Answer{}, verdictStop
		}
		answer, f := c.call(ctx, e, &t)
		if f == nil {
			return answer, verdictAnswered
		}
		if !f.asked {
			c.countOut()
		}
		if f.unknown && c.req.Caller.Run != uuid.Nil && pause(ctx, reserveAgain) {
			continue // while Postgres is away the run cannot go on anyhow, and must not fail for it
		}
		if overtaken(ctx) { // its request is written down; that it was cut is no failure of the chain
			return Answer{}, verdictStop
		}
		c.note(*f)
		if v, again := c.after(ctx, f, &t); !again {
			return Answer{}, v
		}
	}
}

// after says what comes after a failure: the same entry again, or a verdict.
func (c *completion) after(ctx context.Context, f *failure, t *tries) (v verdict, again bool) {
	rule := ruleOf(f.err.Class)
	switch {
	case ctx.Err() != nil:
		return verdictStop, false
	case f.budget != nil && f.budget.OnHard == OnHardDowngrade:
		return verdictCheaper, false
	case f.budget != nil:
		return verdictStop, false
	case !f.asked:
		return verdictNext, c.waitOut(ctx, f, t)
	case c.told != nil && !c.req.Restarts: // a part of an answer is out and cannot be taken back
		return verdictStop, false
	case f.err.Learned && t.lessons < lessonsMax: // the same question, put differently: at once, and not as a retry
		t.lessons++
		return verdictNext, true
	case f.err.Class == provider.ClassOutputTruncated && c.req.Chain.LongerOnce && !t.longer && c.canLonger(f.entry):
		t.longer = true
		return verdictNext, true
	case f.err.Class == provider.ClassContentPolicy && c.req.Chain.OnPolicy:
		return verdictNext, false
	case !rule.next:
		return verdictFinal, false
	case c.again(ctx, f.entry, f.err, t.retries):
		t.retries++
		return verdictNext, true
	}
	return verdictNext, false
}

// countIn takes one of the requests that the logical call may make; false: there are no more.
func (c *completion) countIn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun >= c.limit {
		return false
	}
	c.begun++
	return true
}

// countOut gives a request back that was not made.
func (c *completion) countOut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun--
}

// again decides whether the same entry is asked again, and waits for it.
func (c *completion) again(ctx context.Context, e *entry, failed *provider.Error, retries int) bool {
	rule := ruleOf(failed.Class)
	allowed := rule.retry || failed.Class == provider.ClassTimeout && e.RetryTimeouts
	if !allowed || failed.NoRetry || retries >= e.Retries || rule.once && retries > 0 {
		return false
	}
	wait := max(backoff(retries, c.g.lots.draw()), failed.RetryAfter)
	if wait > patience(ctx, e.last) {
		return false
	}
	if !c.g.retryBudget(e.route.to.Name()).spend(time.Now()) {
		c.g.metrics.RetryRefused(e.route.to.Name())
		return false
	}
	return pause(ctx, wait)
}

// waitOut waits, once, until the last entry may be asked again that the provider wants to be left alone.
func (c *completion) waitOut(ctx context.Context, f *failure, t *tries) bool {
	if f.shut == nil || f.shut.class != provider.ClassRateLimited || !f.entry.last || t.waited {
		return false
	}
	t.waited = true
	wait := time.Until(f.until)
	return wait <= min(patience(ctx, true), waitMax) && pause(ctx, wait)
}

// patience is how long an entry is waited for: half of what is left while there is another, whatever fits when there is
// none.
func patience(ctx context.Context, last bool) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return waitMax
	}
	left := time.Until(deadline)
	if last {
		return left - time.Millisecond
	}
	return min(waitMax, left/2)
}

// backoff is exponential with full jitter: draw is from 0 to 1.
func backoff(retries int, draw float64) time.Duration {
	limit := min(backoffBase<<min(retries, 10), backoffMax)
	return time.Duration(draw * float64(limit))
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lastResort is for a chain of which nobody was asked because every breaker is shut. One entry is tried all the same,
// never all of them: of the open ones the one that would be asked again first, else one that is to be left alone for a
// moment, after that moment.
func (c *completion) lastResort(ctx context.Context) (Answer, verdict) {
	var open, throttled *failure
	sooner := func(f, than *failure) bool {
		return than == nil || cmp.Or(asLast(f.entry.avoided)-asLast(than.entry.avoided), f.until.Compare(than.until)) < 0
	}
	for i := range c.failures {
		f := &c.failures[i]
		switch {
		case f.asked:
			return Answer{}, verdictStop
		case f.shut == nil:
		case f.shut.forcible && sooner(f, open):
			open = f
		case f.shut.class == provider.ClassRateLimited && sooner(f, throttled):
			throttled = f
		}
	}
	switch {
	case open != nil:
		return c.tryEntry(ctx, open.entry, tries{forced: true})
	case throttled == nil || throttled.entry.last: // the last one has been waited for
		return Answer{}, verdictStop
	}
	if wait := time.Until(throttled.until); wait > min(patience(ctx, true), waitMax) || !pause(ctx, wait) {
		return Answer{}, verdictStop
	}
	return c.tryEntry(ctx, throttled.entry, tries{waited: true})
}

// cheaper asks what a budget that is nearly used up still pays for: the cheapest of the entries that are left, then the
// cheapest model of the roster that can do it.
func (c *completion) cheaper(ctx context.Context, from int) (Answer, verdict) {
	refused := &c.failures[len(c.failures)-1]
	for i := range c.failures {
		if c.failures[i].budget != nil {
			refused = &c.failures[i]
		}
	}
	refused.handled = true
	c.rule = "budget:" + refused.budget.Budget
	affordable := c.g.affordable(c.entries[min(from, len(c.entries)):], c.req, refused.budget.Left())
	c.othersFirst(affordable)
	markLast(affordable)
	for _, e := range affordable {
		if answer, v := c.tryEntry(ctx, e, tries{}); v != verdictNext && v != verdictCheaper {
			return answer, v
		}
	}
	return Answer{}, verdictStop
}

// takeBest is the surest of the answers that were not accepted. Whoever listened to another one is told.
func (c *completion) takeBest() Answer {
	a := c.best.answer
	a.BelowGate = true
	for i := range c.calls {
		if line := &c.calls[i]; line.Depth == a.Depth && line.Try == a.Try {
			c.compare(line)
		}
	}
	if c.req.Stream != nil && c.told != c.best.entry {
		c.tellWhole(c.best.entry, a.Reply)
	}
	return a
}
