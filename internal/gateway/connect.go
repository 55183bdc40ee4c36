package gateway

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/gateway/provider"
)

// The kinds of provider.
const (
	KindOpenAI    = "openai"    // any server that speaks OpenAI's chat/completions
	KindAnthropic = "anthropic" // Anthropic's Messages API
	KindSimulated = "simulated"
)

// ProviderConfig is one provider as a person configures it.
type ProviderConfig struct {
	Name     string // in model names (`name/model`), log and metrics
	Kind     string // openai, anthropic or simulated
	BaseURL  string // empty: by Name (openai, anthropic, google, xai, openrouter, groq, deepseek, mistral, together, ollama, vllm)
	APIKey   string
	NoStream bool
	// Vendor is whose models it serves, and no others, where neither its name nor its host tells.
	Vendor string
	// Subscription names the flat plan it is paid by: its calls cost nothing more.
	Subscription string
	Limits       RateLimits
	FirstToken   time.Duration // how long until an answer begins; 0: the adapter's default
	Idle         time.Duration // how long between its parts; 0: the adapter's default
	Cache1h      bool          // of kind anthropic: prompts are cached for an hour instead of five minutes
	CountTokens  bool          // of kind anthropic: the server counts the tokens of a call before it is made
	// Fallback, of a simulation: it answers for models that no other provider serves.
	Fallback  bool
	Simulated provider.SimulatedConfig // of a simulation; its Name is not read
}

// RateLimits are what a provider is asked for at most. 0: no limit but the one the provider tells.
type RateLimits struct {
	Requests     int64 `yaml:"requests"` // per minute, as the tokens are
	InputTokens  int64 `yaml:"input_tokens"`
	OutputTokens int64 `yaml:"output_tokens"`
	Concurrency  int   `yaml:"concurrency"` // calls at once
}

// Provider is a provider and what the gateway sends to it.
type Provider struct {
	provider.Provider
	// Vendor is whose models it serves without being named: anthropic, openai, google, xai. Empty: no one's.
	Vendor string
	// Only: it is the vendor's own service and has no other models.
	Only         bool
	Simulated    bool
	Fallback     bool   // answers for models that no other provider serves
	Subscription string // the flat plan it is paid by; empty: by the token
	Limits       RateLimits
	Cache1h      bool // what it caches it keeps for an hour, at another price
}

// reservedNames stand before the names of what clients may use as a model besides the models of providers.
var reservedNames = [...]string{"agent", "chain", "route", "workflow"}

// vendorHosts are the vendors' own services.
var vendorHosts = map[string]string{
	"api.openai.com": "openai", "api.anthropic.com": "anthropic", "generativelanguage.googleapis.com": "google", "api.x.ai": "xai",
	"api.deepseek.com": "deepseek", "api.mistral.ai": "mistral",
}

// presets are where the providers of these names are reached, in OpenAI's protocol.
var presets = map[string]string{
	"openai": "https://api.openai.com/v1",
	// Its own protocol is kind anthropic; this one knows no caching and promises no schema.
	"anthropic":  "https://api.anthropic.com/v1",
	"google":     "https://generativelanguage.googleapis.com/v1beta/openai",
	"xai":        "https://api.x.ai/v1",
	"openrouter": "https://openrouter.ai/api/v1",
	"groq":       "https://api.groq.com/openai/v1",
	"deepseek":   "https://api.deepseek.com/v1",
	"mistral":    "https://api.mistral.ai/v1",
	"together":   "https://api.together.xyz/v1",
	"ollama":     "http://127.0.0.1:11434/v1",
	"vllm":       "http://127.0.0.1:8000/v1",
}

// Connect makes a provider from its configuration. It opens no connection.
func Connect(c ProviderConfig) (Provider, error) {
	if c.Name == "" || strings.ContainsAny(c.Name, "/ \t\n") {
		return Provider{}, fmt.Errorf("connect provider %q: a name without spaces and slashes must be given", c.Name)
	}
	if slices.Contains(reservedNames[:], c.Name) {
		return Provider{}, fmt.Errorf("connect provider %q: %s/… is how models are named that are no provider's; choose another name", c.Name, c.Name)
	}
	if l := c.Limits; l.Requests < 0 || l.InputTokens < 0 || l.OutputTokens < 0 || l.Concurrency < 0 {
		return Provider{}, fmt.Errorf("connect provider %s: limits must not be negative; 0 is none", c.Name)
	}
	p := Provider{Vendor: c.Name, Subscription: c.Subscription, Limits: c.Limits}
	host := ""
	switch c.Kind {
	case KindOpenAI:
		o, err := provider.NewOpenAI(provider.OpenAIConfig{
			Name: c.Name, Vendor: c.Vendor, BaseURL: c.base(), APIKey: c.APIKey, NoStream: c.NoStream, FirstToken: c.FirstToken, Idle: c.Idle,
		})
		if err != nil {
			return Provider{}, fmt.Errorf("connect provider: %w", err)
		}
		p.Provider, host = o, o.Host()
	case KindAnthropic:
		a, err := provider.NewAnthropic(provider.AnthropicConfig{
			Name: c.Name, BaseURL: c.BaseURL, APIKey: c.APIKey, NoStream: c.NoStream, FirstToken: c.FirstToken, Idle: c.Idle,
			Cache1h: c.Cache1h, CountTokens: c.CountTokens,
		})
		if err != nil {
			return Provider{}, fmt.Errorf("connect provider: %w", err)
		}
		p.Provider, p.Cache1h, host = a, c.Cache1h, a.Host()
		p.Vendor, p.Only = "anthropic", true
	case KindSimulated:
		s := c.Simulated
		s.Name = c.Name
		p.Provider, p.Simulated, p.Fallback, p.Vendor = provider.NewSimulated(s), true, c.Fallback, c.Vendor
		return p, nil
	default:
		return Provider{}, fmt.Errorf("connect provider %s: kind %q is none of openai, anthropic, simulated", c.Name, c.Kind)
	}
	if vendor, ok := vendorHosts[host]; ok {
		p.Vendor, p.Only = vendor, true
	}
	if c.Vendor != "" {
		p.Vendor, p.Only = c.Vendor, true
	}
	return p, nil
}

// base is where the provider is reached.
func (c *ProviderConfig) base() string {
	if c.BaseURL != "" {
		return c.BaseURL
	}
	return presets[c.Name]
}

// Preset is where a provider of this name is reached when its configuration does not say; false: it must say.
func Preset(name string) (string, bool) {
	base, ok := presets[name]
	return base, ok
}
