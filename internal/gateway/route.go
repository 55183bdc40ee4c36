package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// catalog is what a gateway knows before it asks anybody: who serves which model, what it can do, what it costs, and
// which question goes where.
type catalog struct {
	providers []Provider
	byName    map[string]*Provider
	fallback  *Provider
	roster    *roster
	prices    atomic.Pointer[priceBook]
	routing   *routing
	volumes   volumes
	now       func() time.Time
	// standing says how a provider does with a model; nil: nothing is known against anybody.
	standing func(r route, session string) standing
}

// openCatalog checks providers, tables and rules.
func openCatalog(c Config) (*catalog, error) {
	k := &catalog{providers: slices.Clone(c.Providers), byName: map[string]*Provider{}, now: c.Now}
	if k.now == nil {
		k.now = time.Now
	}
	for i := range k.providers {
		p := &k.providers[i]
		if p.Provider == nil {
			return nil, fmt.Errorf("gateway: provider %d is not connected", i)
		}
		if k.byName[p.Name()] != nil {
			return nil, fmt.Errorf("gateway: two providers are named %q", p.Name())
		}
		k.byName[p.Name()] = p
		if p.Fallback {
			if k.fallback != nil {
				return nil, fmt.Errorf("gateway: %q and %q are both the fallback", k.fallback.Name(), p.Name())
			}
			k.fallback = p
		}
	}
	var err error
	if k.roster, err = parseRoster(modelsCSV); err != nil {
		return nil, err
	}
	book, err := openBook(c.Prices)
	if err != nil {
		return nil, err
	}
	k.prices.Store(book)
	if k.routing, err = openRouting(c.Rules, c.Chains); err != nil {
		return nil, err
	}
	return k, nil
}

// route is who serves a model and under which name.
type route struct {
	to    *Provider
	model string // as the provider calls it
	known *known // nil: not in the roster
}

// atMost is what a request with at most so many tokens can cost at this price, by this way.
func (r route) atMost(p *Price, input, output int64) usage.Money {
	if r.to != nil && r.to.Subscription != "" {
		return 0
	}
	return p.atMost(input, output, func(t *Tier) Rate {
		switch {
		case r.known == nil || !r.known.caching:
			return t.Input
		case r.to != nil && r.to.Cache1h:
			return max(t.Input, t.CacheWrite, t.CacheWrite1h)
		}
		return max(t.Input, t.CacheWrite)
	})
}

// cost is what such a request costs by this way.
func (r route) cost(p *Price, t usage.Tokens) usage.Money {
	if r.to != nil && r.to.Subscription != "" {
		return 0
	}
	return p.Cost(t)
}

// subscription is the flat plan that pays for a route, or empty.
func (c *catalog) subscription(r route) string {
	if r.to == nil {
		return ""
	}
	return r.to.Subscription
}

// route finds who serves a model: the provider named before the slash; else the one of the model's vendor, paid by the
// token if there is one; else the only one there is that takes any model; else the simulation, if it is the fallback.
func (c *catalog) route(model string) (route, error) {
	if name, rest, ok := strings.Cut(model, "/"); ok && rest != "" {
		if p := c.byName[name]; p != nil {
			return route{p, rest, c.roster.find(rest)}, nil
		}
	}
	var own, open []route
	for i := range c.providers {
		r, vendors := c.by(&c.providers[i], model)
		switch {
		case r.to == nil:
		case vendors:
			own = append(own, r)
		default:
			open = append(open, r)
		}
	}
	byToken := func(r route) bool { return r.to.Subscription == "" }
	if i := slices.IndexFunc(own, byToken); i > 0 {
		return own[i], nil
	}
	if len(own) > 0 {
		return own[0], nil
	}
	if len(open) == 1 {
		return open[0], nil
	}
	k := c.roster.find(model)
	if c.fallback != nil {
		if k != nil && strings.EqualFold(c.bare(model), k.name) {
			return route{c.fallback, k.name, k}, nil
		}
		return route{c.fallback, c.bare(model), k}, nil
	}
	return route{model: model, known: k}, errors.New(unserved(model, k, len(open)))
}

// by says under which name a provider serves a model that was asked for without naming it, and whether it is the
// vendor's. No provider in it: it does not.
func (c *catalog) by(p *Provider, model string) (r route, vendors bool) {
	if p.Simulated {
		return route{}, false
	}
	k := c.roster.find(model)
	prefix, rest, prefixed := strings.Cut(model, "/")
	foreign := prefixed // the name says that somebody else serves it
	if k != nil {
		foreign = prefixed && prefix != k.vendor && prefix != k.family
	}
	r = route{p, model, k}
	if k != nil && strings.EqualFold(model, k.name) { // one model, one breaker, one row of spend
		r.model = k.name
	}
	switch {
	case k != nil && p.Vendor == k.vendor && !foreign:
		if prefixed {
			r.model = rest
		}
		return r, true
	case !p.Only || k == nil && !foreign:
		return r, false
	}
	return route{}, false
}

// serving is who is asked for a model, the one to ask first first. People who wait are served through a subscription
// where one has the model: the call costs nothing more, and the API answers if the plan is used up.
func (c *catalog) serving(model, mode string) []route {
	usual, err := c.route(model)
	if err != nil {
		return nil
	}
	routes := []route{usual}
	if name, _, ok := strings.Cut(model, "/"); mode != ModeInteractive || ok && c.byName[name] != nil {
		return routes
	}
	for i := range c.providers {
		if c.providers[i].Subscription == "" || &c.providers[i] == usual.to {
			continue
		}
		if r, vendors := c.by(&c.providers[i], model); vendors {
			routes = slices.Insert(routes, len(routes)-1, r)
		}
	}
	return routes
}

// unserved says what to do about a model that no provider serves.
func unserved(model string, k *known, open int) string {
	s := fmt.Sprintf("no provider serves the model %q: ", model)
	if open > 1 {
		return s + fmt.Sprintf("%d providers could; name the one that is meant: \"<provider>/%s\"", open, model)
	}
	vendor, kind := "<provider>", KindOpenAI
	if k != nil {
		vendor = k.vendor
	}
	key := strings.ToUpper(vendor) + "_API_KEY"
	switch vendor {
	case "anthropic":
		kind = KindAnthropic
	case "<provider>":
		key = "…, base_url: …"
	}
	return s + fmt.Sprintf("configure one (providers: [{name: %s, kind: %s, api_key_env: %s}]), or set OPENAI_API_KEY (and OPENAI_BASE_URL)", vendor, kind, key)
}

// bare is a model's name without a provider or vendor before it.
func (c *catalog) bare(model string) string {
	name, rest, ok := strings.Cut(model, "/")
	if !ok || rest == "" {
		return model
	}
	if c.byName[name] != nil {
		return rest
	}
	if slices.Contains(c.roster.vendors, name) {
		return rest
	}
	return model
}

// Check says which models of a chain nobody serves, or nil.
func (c *catalog) Check(chain workflow.Chain) error {
	for i, e := range chain.Entries {
		if _, err := c.route(e.Model); err != nil {
			return fmt.Errorf("chain entry %d: %w", i, err)
		}
	}
	return nil
}

// baseline is the dearest of the prices of these models at a moment, or nil if none is known. What a plan pays for has
// its list price here.
func (c *catalog) baseline(models []string, when time.Time) *Price {
	var dearest *Price
	for _, model := range models {
		r, err := c.route(model)
		if err != nil {
			r = route{model: c.bare(model), known: c.roster.find(model)}
		}
		if p := c.price(r, when); p != nil && (dearest == nil || p.blend() > dearest.blend()) {
			dearest = p
		}
	}
	return dearest
}
