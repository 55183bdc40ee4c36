package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/workflow"
)

// The kinds of provider.
const (
	KindOpenAI    = "openai" // any server that speaks OpenAI's chat/completions
	KindSimulated = "simulated"
	KindAnthropic = "anthropic" // its own protocol; not in this version
)

// ProviderConfig is one provider as a person configures it.
type ProviderConfig struct {
	Name     string // in model names (`name/model`), log and metrics
	Kind     string // openai or simulated
	BaseURL  string
	APIKey   string
	NoStream bool
	// Fallback, of a simulation: it answers for models that no other provider serves.
	Fallback  bool
	Simulated provider.SimulatedConfig // of a simulation; its Name is not read
}

// Provider is a provider and what the gateway sends to it.
type Provider struct {
	provider.Provider
	// Vendor is whose models it serves without being named: anthropic, openai, google, xai. Empty: no one's.
	Vendor string
	// Only: it is the vendor's own service and has no other models.
	Only      bool
	Simulated bool
	Fallback  bool // answers for models that no other provider serves
}

// vendorHosts are the vendors' own services.
var vendorHosts = map[string]string{
	"api.openai.com": "openai", "api.anthropic.com": "anthropic", "generativelanguage.googleapis.com": "google", "api.x.ai": "xai",
}

// Connect makes a provider from its configuration. It opens no connection.
func Connect(c ProviderConfig) (Provider, error) {
	if c.Name == "" || strings.ContainsAny(c.Name, "/ \t\n") {
		return Provider{}, fmt.Errorf("connect provider %q: a name without spaces and slashes must be given", c.Name)
	}
	switch c.Kind {
	case KindOpenAI:
		o, err := provider.NewOpenAI(provider.OpenAIConfig{Name: c.Name, BaseURL: c.BaseURL, APIKey: c.APIKey, NoStream: c.NoStream})
		if err != nil {
			return Provider{}, fmt.Errorf("connect provider: %w", err)
		}
		p := Provider{Provider: o, Vendor: c.Name}
		if vendor, ok := vendorHosts[o.Host()]; ok {
			p.Vendor, p.Only = vendor, true
		}
		return p, nil
	case KindSimulated:
		s := c.Simulated
		s.Name = c.Name
		return Provider{Provider: provider.NewSimulated(s), Simulated: true, Fallback: c.Fallback}, nil
	case KindAnthropic:
		return Provider{}, fmt.Errorf("connect provider %s: kind anthropic is not in this version; use kind openai with base_url https://api.anthropic.com/v1", c.Name)
	}
	return Provider{}, fmt.Errorf("connect provider %s: kind %q is none of openai, simulated", c.Name, c.Kind)
}

// route is who serves a model and under which name.
type route struct {
	to    *Provider
	model string // as the provider calls it
	known *known // nil: not in the roster
}

// route finds who serves a model: the provider named before the slash; else the one of the model's vendor; else the
// only one there is that takes any model; else the simulation, if it is the fallback.
func (g *Gateway) route(model string) (route, error) {
	if name, rest, ok := strings.Cut(model, "/"); ok && rest != "" {
		if p := g.byName[name]; p != nil {
			return route{p, rest, g.roster.find(rest)}, nil
		}
	}
	r := route{model: model, known: g.roster.find(model)}
	vendor := ""
	prefix, rest, prefixed := strings.Cut(model, "/")
	foreign := prefixed // the name says that somebody else serves it
	if r.known != nil {
		vendor = r.known.vendor
		foreign = prefixed && prefix != vendor && prefix != r.known.family
	}
	var open []*Provider
	for i := range g.providers {
		p := &g.providers[i]
		switch {
		case p.Simulated:
		case vendor != "" && p.Vendor == vendor && !foreign:
			if r.to = p; prefixed {
				r.model = rest
			}
			return r, nil
		case !p.Only || vendor == "" && !foreign:
			open = append(open, p)
		}
	}
	if len(open) == 1 {
		r.to = open[0]
		return r, nil
	}
	if g.fallback != nil {
		r.to, r.model = g.fallback, g.bare(model)
		return r, nil
	}
	return r, errors.New(unserved(model, vendor, len(open)))
}

// unserved says what to do about a model that no provider serves.
func unserved(model, vendor string, open int) string {
	if vendor == "" {
		vendor = "<provider>"
	}
	s := fmt.Sprintf("no provider serves the model %q: ", model)
	if open > 1 {
		return s + fmt.Sprintf("%d providers could; name the one that is meant: \"<provider>/%s\"", open, model)
	}
	return s + fmt.Sprintf("configure one (providers: [{name: %s, kind: openai, base_url: …, api_key_env: …}]), or set OPENAI_API_KEY (and OPENAI_BASE_URL)", vendor)
}

// bare is a model's name without a provider or vendor before it.
func (g *Gateway) bare(model string) string {
	name, rest, ok := strings.Cut(model, "/")
	if !ok || rest == "" {
		return model
	}
	if g.byName[name] != nil {
		return rest
	}
	if slices.Contains(g.roster.vendors, name) {
		return rest
	}
	return model
}

// Check says which models of a chain nobody serves, or nil.
func (g *Gateway) Check(chain workflow.Chain) error {
	for i, e := range chain.Entries {
		if _, err := g.route(e.Model); err != nil {
			return fmt.Errorf("chain entry %d: %w", i, err)
		}
	}
	return nil
}
