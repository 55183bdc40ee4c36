package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
)

// The pace of simulated models where nothing else is said: quick, but slow enough to be watched.
const (
	simulatedLatency = 150 * time.Millisecond
	simulatedJitter  = 250 * time.Millisecond
)

// simulatedProvider answers for every model when there is no other.
func simulatedProvider(latency, jitter time.Duration) providerConfig {
	return providerConfig{Name: providerSimulated, Kind: providerSimulated, Fallback: true, Latency: latency, LatencyJitter: jitter}
}

// chooseProviders are the configured ones; without a file, OPENAI_API_KEY and OPENAI_BASE_URL make one; with nothing at
// all, models are simulated.
func chooseProviders(configured []providerConfig, lookup func(string) (string, bool)) []providerConfig {
	if len(configured) > 0 {
		return configured
	}
	key, _ := lookup("OPENAI_API_KEY")
	base, _ := lookup("OPENAI_BASE_URL")
	if key == "" && base == "" {
		return []providerConfig{simulatedProvider(simulatedLatency, simulatedJitter)}
	}
	p := providerConfig{Name: providerOpenAI, Kind: providerOpenAI, BaseURL: base}
	if key != "" {
		p.APIKeyEnv = "OPENAI_API_KEY"
	}
	return []providerConfig{p}
}

// connect makes the gateway's providers. It opens no connection.
func connect(configured []providerConfig) ([]gateway.Provider, error) {
	providers := make([]gateway.Provider, len(configured))
	for i, c := range configured {
		p, err := gateway.Connect(gateway.ProviderConfig{
			Name: c.Name, Kind: c.Kind, BaseURL: c.BaseURL, APIKey: os.Getenv(c.APIKeyEnv), NoStream: c.NoStream, Fallback: c.Fallback,
			Simulated: provider.SimulatedConfig{
				Latency: c.Latency, LatencyJitter: c.LatencyJitter, FailRate: c.FailRate, RateLimitRate: c.RateLimitRate,
			},
		})
		if err != nil {
			return nil, err
		}
		providers[i] = p
	}
	return providers, nil
}

// providersOf says which models a service would call.
func providersOf(providers []providerConfig) string {
	names := make([]string, len(providers))
	for i, p := range providers {
		names[i] = p.Name
		switch {
		case p.Kind == providerSimulated && p.Name != providerSimulated:
			names[i] += " (simulated)"
		case p.BaseURL != "":
			names[i] = fmt.Sprintf("%s (%s)", p.Name, p.BaseURL)
		}
	}
	return strings.Join(names, ", ")
}
