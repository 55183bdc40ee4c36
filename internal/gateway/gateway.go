// Package gateway makes one logical model call: over the entries of a chain, with retries and fallback, until one model
// answers; every request is priced. Who is asked next after which failure stands in rules.go, prices and models in
// data/. Providers are adapters of the provider package.
package gateway

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Limits and paces of the gateway.
const (
	// CallsMax bounds the requests of one logical call, whatever its chain says.
	CallsMax = 24
	// TokensDefault bounds an answer whose agent sets no max_tokens; models that reason get room for it.
	TokensDefault          = 4_096
	TokensReasoningDefault = 16_384

	backoffBase  = 500 * time.Millisecond
	backoffMax   = 8 * time.Second
	waitMax      = 30 * time.Second       // for the same entry, while another is left
	reserveAgain = 500 * time.Millisecond // a run's call asks again for money that nobody can tell of
	lessonsMax   = 3                      // times one entry is asked again because its adapter learned something
)

// Config of a Gateway. Zero values take the defaults named here.
type Config struct {
	Providers []Provider                // none: every call fails with not_found
	Prices    []PriceRow                // beside the built-in ones: a model named here (or provider/model) loses its own
	Rules     []Rule                    // of routing, before the built-in ones
	Chains    map[string]workflow.Chain // that rules may name, beside the built-in ones
	Budgets   Budgets                   // nothing is limited
	// OnBreaker is told what other nodes should know of breakers. It must not block.
	OnBreaker func(BreakerNews)
	Metrics   *telemetry.Metrics // nil: nothing is counted
	Tracer    trace.Tracer       // nil: no spans
	Log       *slog.Logger
	Now       func() time.Time // time.Now; decides which price holds
	// Draw gives a number from 0 to 1 that spreads pauses, so that callers and nodes do not come back all at once: at
	// random.
	Draw func() float64
}

// Gateway makes model calls. It is safe for concurrent use.
type Gateway struct {
	*catalog

	budgets   Budgets
	breakers  breakers
	lanes     *lanes
	warm      warmth
	onBreaker func(BreakerNews)
	metrics   *telemetry.Metrics
	tracer    trace.Tracer
	log       *slog.Logger
	lots      lots

	retriesMu sync.Mutex
	retries   map[string]*retryBudget // by provider
}

// New checks the configuration, the roster, the price tables and the rules. It opens no connection.
func New(c Config) (*Gateway, error) {
	known, err := openCatalog(c)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		catalog: known, budgets: c.Budgets, onBreaker: c.OnBreaker, metrics: c.Metrics, tracer: c.Tracer, log: c.Log,
		retries: map[string]*retryBudget{}, lanes: newLanes(known.providers, known.now()), lots: c.Draw,
	}
	g.breakers.lots = c.Draw
	known.standing = g.stand
	g.metrics.ModelsKnown(known.roster.names())
	if g.budgets == nil {
		g.budgets = unlimited{}
	}
	if g.tracer == nil {
		g.tracer = telemetry.NoTracer()
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	return g, nil
}

// Request is one logical call.
type Request struct {
	Caller Caller
	Chain  workflow.Chain
	Route  string // task class that chooses the chain, where Chain has no entries
	From   int    // the entry to begin with; those before it are passed over
	// Avoid names models whose families are asked only where nobody else is left. Answer.SameFamily says so then.
	Avoid []string
	Ask   agent.Ask
	// Seed tells this turn from all others and is the same when it is asked again after a crash.
	Seed string
	// Session is the same for all calls of one conversation: it stays where its prompt is cached.
	Session string
	// CallsMax bounds its requests; 0: CallsMax.
	CallsMax int
	// Baseline names models; savings are against the dearest of them. Empty: of the chain's.
	Baseline []string
	// ContextTokens bounds the prompt besides the model's window; 0: that alone. Overflow says what becomes of a longer one.
	ContextTokens int64
	Overflow      workflow.Overflow
	// Judge says why an entry that has an accept does not accept an answer that came whole, or nil; Accepts is one. With
	// hedging it is called from two goroutines.
	Judge func(Judged) *Rejection
	// Stream, if set, is told of the answer as it comes. Once something was told, a failure is one unless Restarts: then
	// the next entry begins the answer anew, after a Delta that says so.
	Stream   func(Delta)
	Restarts bool
}

// Delta is a part of an answer that is still coming.
type Delta struct {
	provider.Delta
	Provider  string
	Model     string // as the provider calls it
	Depth     int    // place of its entry, from 0
	Simulated bool
	Restart   bool // what was told before does not count
}

// Judged is an answer that an entry has to accept.
type Judged struct {
	Entry   *workflow.ChainEntry
	Reply   provider.Reply
	Cost    usage.Money // 0 where the price is not known
	Latency time.Duration
}

// Rejection is why an answer is not accepted. The next entry is asked at once.
type Rejection struct {
	Reason     string
	Confidence float64 // 0–100; the surest of the rejected answers is the best one
}

// Answer is what came of it.
type Answer struct {
	provider.Reply
	Provider  string
	Asked     string // the model as its provider calls it
	Depth     int    // place of the entry that answered, from 0
	Try       int    // from 1, within the entry
	BelowGate bool   // no entry's answer was accepted; this is the best one
	// SameFamily: it is of a family that was to be avoided, and nobody else was left.
	SameFamily bool
	Rule       string // the routing rule that chose the chain; empty: none
	Calls      []usage.Call
}

// FailedError says that no entry of a chain answered. Calls lists every request, the last one last.
type FailedError struct {
	Class      string // of the last failure that means something: a fallback that is not configured means little
	Message    string
	Calls      []usage.Call
	RetryAfter time.Duration // asked for by a provider, or until a breaker lets somebody through; 0: not known
	Best       *Answer       // the surest of the answers that were not accepted; nil: there was none
	Budget     *BudgetError  // that refused a call; nil: none did
	Rule       string        // the routing rule that chose the chain
	Attempts   []Attempted   // every entry that did not answer, the ones that were passed over included
}

// Attempted is an entry that did not answer, and why.
type Attempted struct {
	Model   string `json:"model"`
	Depth   int    `json:"depth"`
	Class   string `json:"class"`
	Message string `json:"message"`
	Asked   bool   `json:"asked"` // false: no request was made
}

func (e *FailedError) Error() string { return e.Class + ": " + e.Message }

var errNoEntries = errors.New("the chain has no entries")

// lots are what pauses are drawn from: numbers from 0 to 1. Nil: at random.
type lots func() float64

func (l lots) draw() float64 {
	if l == nil {
		return rand.Float64()
	}
	return l()
}

func (g *Gateway) retryBudget(provider string) *retryBudget {
	g.retriesMu.Lock()
	defer g.retriesMu.Unlock()
	b := g.retries[provider]
	if b == nil {
		b = &retryBudget{}
		g.retries[provider] = b
	}
	return b
}
