package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/usage"
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

// knownKeys are the variables that make a provider where no file does.
func knownKeys() []providerConfig {
	return []providerConfig{
		{Name: providerAnthropic, Kind: providerAnthropic, APIKeyEnv: "ANTHROPIC_API_KEY"},
		{Name: providerOpenAI, Kind: providerOpenAI, APIKeyEnv: "OPENAI_API_KEY"},
		{Name: "google", Kind: providerOpenAI, APIKeyEnv: "GEMINI_API_KEY"},
		{Name: "xai", Kind: providerOpenAI, APIKeyEnv: "XAI_API_KEY"},
		{Name: "openrouter", Kind: providerOpenAI, APIKeyEnv: "OPENROUTER_API_KEY"},
	}
}

// chooseProviders are the configured ones; without a file, the keys of the well-known ones make them, and
// OPENAI_BASE_URL, ANTHROPIC_BASE_URL say where they are; with nothing at all, models are simulated.
func chooseProviders(configured []providerConfig, lookup func(string) (string, bool)) []providerConfig {
	if len(configured) > 0 {
		return configured
	}
	var found []providerConfig
	for _, p := range knownKeys() {
		key, _ := lookup(p.APIKeyEnv)
		if p.Name == providerOpenAI || p.Name == providerAnthropic {
			p.BaseURL, _ = lookup(strings.ToUpper(p.Name) + "_BASE_URL")
		}
		if key == "" {
			p.APIKeyEnv = ""
		}
		if key != "" || p.BaseURL != "" {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return []providerConfig{simulatedProvider(simulatedLatency, simulatedJitter)}
	}
	return found
}

// connect makes the gateway's providers. It opens no connection.
func connect(configured []providerConfig) ([]gateway.Provider, error) {
	providers := make([]gateway.Provider, len(configured))
	for i, c := range configured {
		p, err := gateway.Connect(gateway.ProviderConfig{
			Name: c.Name, Kind: c.Kind, BaseURL: c.BaseURL, APIKey: os.Getenv(c.APIKeyEnv), NoStream: c.NoStream, Vendor: c.Vendor,
			Subscription: c.Subscription, Limits: c.Limits, FirstToken: c.FirstToken, Idle: c.Idle, Cache1h: c.Cache1h, CountTokens: c.CountTokens,
			Fallback: c.Fallback,
			Simulated: provider.SimulatedConfig{
				Latency: c.Latency, LatencyJitter: c.LatencyJitter, FailRate: c.FailRate, RateLimitRate: c.RateLimitRate, Script: script(c.Script),
			},
		})
		if err != nil {
			return nil, err
		}
		providers[i] = p
	}
	return providers, nil
}

func script(lines []scriptLine) []provider.ScriptLine {
	said := make([]provider.ScriptLine, len(lines))
	for i, l := range lines {
		said[i] = provider.ScriptLine{Contains: l.Contains, Model: l.Model, Answer: l.Answer, Class: l.Class, Latency: l.Latency}
		for _, call := range l.Calls {
			said[i].Calls = append(said[i].Calls, provider.ScriptedCall(call))
		}
		if l.Tokens != (scriptTokens{}) {
			said[i].Tokens = &usage.Tokens{
				Input: l.Tokens.Input, CacheRead: l.Tokens.CacheRead, CacheWrite: l.Tokens.CacheWrite, Output: l.Tokens.Output, Reasoning: l.Tokens.Reasoning,
			}
		}
	}
	return said
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
