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
)

// configFile is what --config names: which providers there are. Everything else is a flag or a variable.
type configFile struct {
	Providers []providerConfig `yaml:"providers"`
}

// providerConfig is one place models are asked at.
type providerConfig struct {
	Name      string `yaml:"name"`
	Kind      string `yaml:"kind"`
	BaseURL   string `yaml:"base_url"`
	APIKeyEnv string `yaml:"api_key_env"` // the variable that holds the key; keys never stand in files
	NoStream  bool   `yaml:"no_stream"`   // ask for whole answers

	// Of a simulation.
	Fallback      bool          `yaml:"fallback"` // answers for models that no other provider serves
	Latency       time.Duration `yaml:"latency"`
	LatencyJitter time.Duration `yaml:"latency_jitter"`
	FailRate      float64       `yaml:"fail_rate"`       // share of the calls that end in a server error
	RateLimitRate float64       `yaml:"rate_limit_rate"` // share of the calls that are refused with a 429
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
	return nil
}

func (p providerConfig) check(lookup func(string) (string, bool)) error {
	if !providerName.MatchString(p.Name) {
		return fmt.Errorf("name %q is not of the form %s", p.Name, providerName)
	}
	switch p.Kind {
	case providerOpenAI, providerSimulated:
	case providerAnthropic:
		return errors.New("kind anthropic: the native Anthropic adapter is not in this version; Anthropic's OpenAI-compatible endpoint (https://api.anthropic.com/v1) works with kind openai")
	case "":
		return errors.New("kind is missing: openai or simulated")
	default:
		return fmt.Errorf("kind %q is not known: openai or simulated", p.Kind)
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
		if p.Latency < 0 || p.LatencyJitter < 0 || p.FailRate < 0 || p.FailRate > 1 || p.RateLimitRate < 0 || p.RateLimitRate > 1 {
			return errors.New("latency and latency_jitter must not be negative, fail_rate and rate_limit_rate are shares from 0 to 1")
		}
		return nil
	}
	if p.Fallback || p.Latency != 0 || p.LatencyJitter != 0 || p.FailRate != 0 || p.RateLimitRate != 0 {
		return errors.New("fallback, latency, latency_jitter, fail_rate and rate_limit_rate are of kind simulated only")
	}
	return nil
}
