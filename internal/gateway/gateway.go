// Package gateway makes one logical model call: over the entries of a chain, with retries and fallback, until one model
// answers; every request is priced. Who is asked next after which failure stands in rules.go, prices and models in
// data/. Providers are adapters of the provider package.
package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/gateway/provider"
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

	backoffBase = 500 * time.Millisecond
	backoffMax  = 8 * time.Second
	waitMax     = 30 * time.Second // for the same entry, while another is left
	lessonsMax  = 3                // times one entry is asked again because its adapter learned something
)

// Metrics is what the gateway counts; telemetry.Metrics is one. Nothing else counts model calls.
type Metrics interface {
	ModelCalls(agent string, calls []usage.Call)
	ModelInFlight(provider string, delta int)
}

// Config of a Gateway. Zero values take the defaults named here.
type Config struct {
	Providers []Provider // none: every call fails with not_found
	Prices    []byte     // rows like data/prices.csv; a model (or provider/model) named here loses its built-in rows
	Metrics   Metrics    // nothing is counted
	Log       *slog.Logger
	Now       func() time.Time // time.Now; decides which price holds
}

// Gateway makes model calls. It is safe for concurrent use.
type Gateway struct {
	providers []Provider
	byName    map[string]*Provider
	fallback  *Provider
	roster    *roster
	prices    priceList
	metrics   Metrics
	log       *slog.Logger
	now       func() time.Time
}

// New checks the configuration, the roster and the price tables. It opens no connection.
func New(c Config) (*Gateway, error) {
	g := &Gateway{providers: c.Providers, byName: map[string]*Provider{}, metrics: c.Metrics, log: c.Log, now: c.Now}
	if g.metrics == nil {
		g.metrics = uncounted{}
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.now == nil {
		g.now = time.Now
	}
	for i := range g.providers {
		p := &g.providers[i]
		if p.Provider == nil {
			return nil, fmt.Errorf("gateway: provider %d is not connected", i)
		}
		if g.byName[p.Name()] != nil {
			return nil, fmt.Errorf("gateway: two providers are named %q", p.Name())
		}
		g.byName[p.Name()] = p
		if p.Fallback {
			if g.fallback != nil {
				return nil, fmt.Errorf("gateway: %q and %q are both the fallback", g.fallback.Name(), p.Name())
			}
			g.fallback = p
		}
	}
	return g, g.load(c.Prices)
}

func (g *Gateway) load(own []byte) (err error) {
	if g.roster, err = parseRoster(modelsCSV); err != nil {
		return err
	}
	if g.prices, err = parsePrices(pricesCSV); err != nil {
		return err
	}
	for model := range g.prices {
		if m := g.roster.byName[model]; m == nil || m.name != model {
			return fmt.Errorf("read price table: %s is not in the roster", model)
		}
	}
	if len(own) == 0 {
		return nil
	}
	overrides, err := parsePrices(own)
	if err != nil {
		return fmt.Errorf("own prices: %w", err)
	}
	for model, prices := range overrides {
		g.prices[model] = prices
	}
	return nil
}

// uncounted counts nothing.
type uncounted struct{}

func (uncounted) ModelCalls(string, []usage.Call) {}
func (uncounted) ModelInFlight(string, int)       {}

// Request is one logical call.
type Request struct {
	Caller Caller
	Chain  workflow.Chain
	Route  string // task class that chooses the chain, where Chain has no entries
	From   int    // the entry to begin with; those before it are passed over
	Ask    agent.Ask
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
	// Judge says why an entry does not accept an answer, or nil. It is called with the entry and an answer that came whole.
	Judge func(e *workflow.ChainEntry, r provider.Reply, latency time.Duration) *Rejection
	// Stream, if set, is told of the answer as it comes. Once something was told, a failure is one unless Restarts: then
	// the next entry begins the answer anew, after a Delta that says so.
	Stream   func(Delta)
	Restarts bool
}

// Delta is a part of an answer that is still coming.
type Delta struct {
	provider.Delta
	Model   string
	Restart bool // what was told before does not count
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
	Calls     []usage.Call
}

// FailedError says that no entry of a chain answered. Calls lists every request, the last one last.
type FailedError struct {
	Class      string // of the last failure that means something: a fallback that is not configured means little
	Message    string
	Calls      []usage.Call
	RetryAfter time.Duration // asked for by a provider, or until a breaker lets somebody through; 0: not known
	Best       *Answer       // the surest of the answers that were not accepted; nil: there was none
	Budget     *BudgetError  // Class is budget_exceeded
}

func (e *FailedError) Error() string { return e.Class + ": " + e.Message }

// Model is one model of the roster, as it stands here and now.
type Model struct {
	Name          string `json:"name"`
	Vendor        string `json:"vendor"`
	Family        string `json:"family"`
	ContextTokens int64  `json:"context_tokens,omitempty"` // 0: not known
	OutputTokens  int    `json:"output_tokens,omitempty"`  // 0: not known
	Reasoning     bool   `json:"reasoning,omitempty"`
	Price         *Price `json:"price,omitempty"`    // that holds now; nil: unknown
	Provider      string `json:"provider,omitempty"` // that serves it; empty: none does
	Simulated     bool   `json:"simulated,omitempty"`
}

// Models is the roster with what each model costs now and who serves it.
func (g *Gateway) Models() []Model {
	now := g.now()
	list := make([]Model, 0, len(g.roster.models))
	for _, k := range g.roster.models {
		m := Model{Name: k.name, Vendor: k.vendor, Family: k.family, ContextTokens: k.contextTokens, OutputTokens: k.outputTokens, Reasoning: k.reasoning}
		r, err := g.route(k.name)
		if err == nil {
			m.Provider, m.Simulated = r.to.Name(), r.to.Simulated
		}
		m.Price = g.price(r, now)
		list = append(list, m)
	}
	return list
}

// price finds what a routed model costs at a moment: this provider's own price, else the name's, else the price of the
// model the name stands for. Nil: unknown.
func (g *Gateway) price(r route, when time.Time) *Price {
	names := make([]string, 0, 3)
	if r.to != nil {
		names = append(names, r.to.Name()+"/"+r.model)
	}
	names = append(names, r.model)
	if r.known != nil {
		names = append(names, r.known.name)
	}
	for _, name := range names {
		if p := g.prices.at(name, when); p != nil {
			return p
		}
	}
	return nil
}

var errNoEntries = errors.New("the chain has no entries")
