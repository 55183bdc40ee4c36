package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fermata-run/fermata/internal/gateway"
)

// configFile is what --config names: which providers there are, what they cost and who is asked for what. Everything
// else is a flag or a variable.
type configFile struct {
	Providers []providerConfig   `yaml:"providers"`
	Prices    []gateway.PriceRow `yaml:"prices"`  // beside the built-in ones: a model named here loses its own
	Routing   []gateway.Rule     `yaml:"routing"` // before the built-in rules
}

// providerConfig is one place models are asked at.
type providerConfig struct {
	Name      string `yaml:"name"`
	Kind      string `yaml:"kind"`
	BaseURL   string `yaml:"base_url"`
	APIKeyEnv string `yaml:"api_key_env"` // the variable that holds the key; keys never stand in files
	NoStream  bool   `yaml:"no_stream"`   // ask for whole answers

	Vendor       string             `yaml:"vendor"`       // whose models it serves without being named, where neither name nor host tells
	Subscription string             `yaml:"subscription"` // the flat plan it is paid by: its calls cost nothing more
	Limits       gateway.RateLimits `yaml:"limits"`       // per minute, and calls at once
	FirstToken   time.Duration      `yaml:"first_token"`  // how long until an answer begins
	Idle         time.Duration      `yaml:"idle"`         // how long between its parts
	Cache1h      bool               `yaml:"cache_1h"`     // of kind anthropic: prompts are cached for an hour
	CountTokens  bool               `yaml:"count_tokens"` // of kind anthropic: the server counts a prompt before it is paid for

	// Of a simulation.
	Fallback      bool          `yaml:"fallback"` // answers for models that no other provider serves
	Latency       time.Duration `yaml:"latency"`
	LatencyJitter time.Duration `yaml:"latency_jitter"`
	FailRate      float64       `yaml:"fail_rate"`       // share of the calls that end in a server error
	RateLimitRate float64       `yaml:"rate_limit_rate"` // share of the calls that are refused with a 429

	Script []scriptLine `yaml:"script"` // answers given word for word, with the tokens they are said to have taken
}

// scriptLine answers the first question that fits.
type scriptLine struct {
	Contains string        `yaml:"contains"` // in the last message of the user, or in the results of tools behind it
	Model    string        `yaml:"model"`    // empty: any
	Answer   string        `yaml:"answer"`
	Calls    []scriptCall  `yaml:"calls"` // of tools, besides the answer
	Tokens   scriptTokens  `yaml:"tokens"`
	Class    string        `yaml:"class"` // fail with this class instead
	Latency  time.Duration `yaml:"latency"`
}

// scriptCall is a call of a tool.
type scriptCall struct {
	Name      string `yaml:"name"`
	Arguments string `yaml:"arguments"` // JSON
}

// scriptTokens are what an answer is said to have taken; all zero: they are counted.
type scriptTokens struct {
	Input      int64 `yaml:"input"`
	CacheRead  int64 `yaml:"cache_read"`
	CacheWrite int64 `yaml:"cache_write"`
	Output     int64 `yaml:"output"`
	Reasoning  int64 `yaml:"reasoning"`
}

// The kinds of provider.
const (
	providerOpenAI    = "openai"
	providerAnthropic = "anthropic"
	providerSimulated = "simulated"
)

const (
	configBytesMax = 1 << 20
	providersMax   = 20
	scriptMax      = 1_000
)

var providerName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// readConfig reads and checks a configuration file.
func readConfig(path string) (configFile, error) {
	var c configFile
	f, err := os.Open(path)
	if err != nil {
		return c, usageError("read the configuration: %w", err)
	}
	defer f.Close()
	source, err := readAll(f, configBytesMax)
	if err != nil {
		return c, fmt.Errorf("read %s: %w", path, err)
	}
	d := yaml.NewDecoder(bytes.NewReader(source))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, usageError("%s: %w", path, err)
	}
	if err := c.check(os.LookupEnv); err != nil {
		return c, usageError("%s: %w", path, err)
	}
	return c, nil
}

// check refuses what cannot work, before anything is started.
func (c configFile) check(lookup func(string) (string, bool)) error {
	if len(c.Providers) > providersMax {
		return fmt.Errorf("providers: %d are more than %d", len(c.Providers), providersMax)
	}
	seen := map[string]bool{}
	for i, p := range c.Providers {
		if err := p.check(lookup); err != nil {
			return fmt.Errorf("providers[%d]: %w", i, err)
		}
		if seen[p.Name] {
			return fmt.Errorf("providers[%d]: name %q is taken", i, p.Name)
		}
		seen[p.Name] = true
	}
	// Prices and rules are checked by whoever goes by them; it opens no connection.
	_, err := gateway.New(gateway.Config{Prices: c.Prices, Rules: c.Routing})
	return err
}

func (p providerConfig) check(lookup func(string) (string, bool)) error {
	if !providerName.MatchString(p.Name) {
		return fmt.Errorf("name %q is not of the form %s", p.Name, providerName)
	}
	switch p.Kind {
	case providerOpenAI, providerAnthropic, providerSimulated:
	case "":
		return errors.New("kind is missing: openai, anthropic or simulated")
	default:
		return fmt.Errorf("kind %q is not known: openai, anthropic or simulated", p.Kind)
	}
	if p.Kind != providerAnthropic && (p.Cache1h || p.CountTokens) {
		return errors.New("cache_1h and count_tokens are of kind anthropic only")
	}
	if p.FirstToken < 0 || p.Idle < 0 {
		return errors.New("first_token and idle must not be negative")
	}
	if err := p.checkSimulation(); err != nil {
		return err
	}
	if p.BaseURL != "" {
		u, err := url.Parse(p.BaseURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return fmt.Errorf("base_url %q is not an http or https URL without credentials", p.BaseURL)
		}
	}
	if p.APIKeyEnv != "" {
		if key, ok := lookup(p.APIKeyEnv); !ok || key == "" {
			return fmt.Errorf("api_key_env: %s is not set", p.APIKeyEnv)
		}
	}
	return nil
}

// checkSimulation refuses what belongs to the other kind.
func (p providerConfig) checkSimulation() error {
	if p.Kind == providerSimulated {
		if p.BaseURL != "" || p.APIKeyEnv != "" || p.NoStream {
			return errors.New("a simulated provider has no base_url, api_key_env or no_stream: it calls nobody")
		}
		if len(p.Script) > scriptMax {
			return fmt.Errorf("script: %d lines are more than %d", len(p.Script), scriptMax)
		}
		if p.Latency < 0 || p.LatencyJitter < 0 || p.FailRate < 0 || p.FailRate > 1 || p.RateLimitRate < 0 || p.RateLimitRate > 1 {
			return errors.New("latency and latency_jitter must not be negative, fail_rate and rate_limit_rate are shares from 0 to 1")
		}
		return nil
	}
	if p.Fallback || p.Latency != 0 || p.LatencyJitter != 0 || p.FailRate != 0 || p.RateLimitRate != 0 || len(p.Script) > 0 {
		return errors.New("fallback, latency, latency_jitter, fail_rate, rate_limit_rate and script are of kind simulated only")
	}
	return nil
}
