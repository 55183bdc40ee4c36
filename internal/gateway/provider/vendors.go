package provider

import "strings"

// vendor is who runs a server that speaks OpenAI's protocol, and how its dialect differs. Only preferences are left out
// where a server does not take them (sampling, effort, cache keys). What would change the meaning of an answer (tools,
// stop sequences, images) is always sent: a server that refuses it has a capability_mismatch, and the next is asked.
type vendor struct {
	name  string
	hosts []string // its own, without subdomains; with a port where that alone tells it
	quirk quirk    // of all its models; quirksByModel comes on top
	keeps keeping
	// sessionHeader names the conversation to its load balancer, so that calls find their cache again. Servers of
	// OpenAI take prompt_cache_key for it (quirk.cacheKey).
	sessionHeader string
	// reasoningOutside: reasoning_tokens are not among completion_tokens. Where total_tokens is told it decides.
	reasoningOutside bool
}

// keeping is what of an answer a server wants back with the conversation.
type keeping uint8

const (
	keepsNothing    keeping = iota
	keepsSignatures         // Google: a signature with each tool call, without which the next turn is a 400
	keepsDetails            // OpenRouter: reasoning_details, whatever the model behind it makes of them
	keepsReasoning          // DeepSeek and others: reasoning_content of messages with tool calls, even if it is empty
)

// vendors are the known dialects. A server that is not among them is asked for everything, and learned from.
var vendors = []vendor{
	{name: "openai", hosts: []string{"api.openai.com"}, quirk: quirk{format: formatSchema, completionTokens: true, cacheKey: true}},
	{name: "azure", hosts: []string{"openai.azure.com", "services.ai.azure.com"}, quirk: quirk{format: formatSchema, cacheKey: true}},
	// Google takes JSON for an answer or tools, not both, on models before Gemini 3: that is learned.
	{name: "google", hosts: []string{"generativelanguage.googleapis.com", "aiplatform.googleapis.com"}, quirk: quirk{format: formatSchema, noStrictTools: true}, keeps: keepsSignatures},
	{name: "xai", hosts: []string{"api.x.ai"}, quirk: quirk{format: formatSchema}, sessionHeader: "X-Grok-Conv-Id", reasoningOutside: true},
	{name: "openrouter", hosts: []string{"openrouter.ai"}, quirk: quirk{format: formatSchema}, keeps: keepsDetails},
	{name: "ollama", hosts: []string{"ollama.com", ":11434"}, quirk: quirk{format: formatSchema, noStrictTools: true}},
	{name: "vllm", quirk: quirk{format: formatSchema}}, // by its name alone: it is at home on any host
	// DeepSeek knows JSON, but no schema.
	{name: "deepseek", hosts: []string{"api.deepseek.com"}, quirk: quirk{format: formatObject, noStrictTools: true}, keeps: keepsReasoning},
	{name: "moonshot", hosts: []string{"api.moonshot.ai", "api.moonshot.cn"}, quirk: quirk{format: formatSchema}, keeps: keepsReasoning},
	// Mistral refuses fields that it does not know, and tells usage without being asked.
	{name: "mistral", hosts: []string{"api.mistral.ai"}, quirk: quirk{format: formatSchema, noStreamOptions: true, noEffort: true}},
	{name: "groq", hosts: []string{"api.groq.com"}, quirk: quirk{format: formatSchema, completionTokens: true}},
	{name: "together", hosts: []string{"api.together.xyz", "api.together.ai"}, quirk: quirk{format: formatSchema}},
	{name: "fireworks", hosts: []string{"api.fireworks.ai"}, quirk: quirk{format: formatSchema}, sessionHeader: "X-Session-Affinity"},
	{name: "cerebras", hosts: []string{"api.cerebras.ai"}, quirk: quirk{format: formatSchema, completionTokens: true}},
	// Anthropic's compatible endpoint ignores response_format, strict and effort; its own adapter does better.
	{name: "anthropic", hosts: []string{"api.anthropic.com"}, quirk: quirk{format: formatPrompt, noEffort: true, noStrictTools: true}},
}

// unknownVendor is a server of which nothing is known.
var unknownVendor = vendor{quirk: quirk{format: formatSchema}}

// vendorOf finds a vendor by its name, else by the host that is asked (with its port).
func vendorOf(name, host string) vendor {
	for _, v := range vendors {
		if name != "" && name == v.name {
			return v
		}
	}
	for _, v := range vendors {
		for _, known := range v.hosts {
			if host == known || strings.HasSuffix(host, "."+known) || known[0] == ':' && strings.HasSuffix(host, known) {
				return v
			}
		}
	}
	return unknownVendor
}
