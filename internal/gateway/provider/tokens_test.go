package provider

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/usage"
)

// The same call as different servers report it: 1,000 tokens in (300 of them from the cache), 200 out (50 of them hidden).
func TestUsageOfAllShapes(t *testing.T) {
	same := usage.Tokens{Input: 700, CacheRead: 300, Output: 150, Reasoning: 50}
	for _, c := range []struct {
		name, raw string
		want      usage.Tokens
	}{
		{"OpenAI: cached and reasoning are parts", `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":300},"completion_tokens_details":{"reasoning_tokens":50}}`, same},
		{
			"OpenAI, cache writes", `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":300,"cache_write_tokens":100},"completion_tokens_details":{"reasoning_tokens":50}}`,
			usage.Tokens{Input: 600, CacheRead: 300, CacheWrite: 100, Output: 150, Reasoning: 50},
		},
		{"xAI: reasoning is outside", `{"prompt_tokens":1000,"completion_tokens":150,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":300},"completion_tokens_details":{"reasoning_tokens":50}}`, same},
		{"xAI, no total", `{"prompt_tokens":1000,"completion_tokens":150,"prompt_tokens_details":{"cached_tokens":300},"completion_tokens_details":{"reasoning_tokens":50}}`, same},
		{"xAI, no total, more thought than said", `{"prompt_tokens":1000,"completion_tokens":10,"completion_tokens_details":{"reasoning_tokens":50}}`, usage.Tokens{Input: 1000, Output: 10, Reasoning: 50}},
		{"Gemini: thoughts in the total alone", `{"prompt_tokens":1000,"completion_tokens":150,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":300}}`, same},
		{"DeepSeek: cache hits at the top", `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_cache_hit_tokens":300,"completion_tokens_details":{"reasoning_tokens":50}}`, same},
		{"Anthropic: input without the cached", `{"input_tokens":700,"output_tokens":200,"cache_read_input_tokens":300,"cache_creation_input_tokens":20}`, usage.Tokens{Input: 700, CacheRead: 300, CacheWrite: 20, Output: 200}},
		{"Moonshot: cached at the top", `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"cached_tokens":300,"completion_tokens_details":{"reasoning_tokens":50}}`, same},
		{"OpenAI's Responses", `{"input_tokens":1000,"output_tokens":200,"total_tokens":1200,"input_tokens_details":{"cached_tokens":300},"output_tokens_details":{"reasoning_tokens":50}}`, same},
		{
			"Anthropic: one cache for five minutes, one for an hour", `{"input_tokens":700,"output_tokens":200,"cache_read_input_tokens":300,"cache_creation_input_tokens":120,"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":100}}`,
			usage.Tokens{Input: 700, CacheRead: 300, CacheWrite: 20, CacheWrite1h: 100, Output: 200},
		},
		{
			"OpenAI: audio", `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":300,"audio_tokens":100},"completion_tokens_details":{"audio_tokens":150,"reasoning_tokens":0}}`,
			usage.Tokens{Input: 600, CacheRead: 300, AudioInput: 100, Output: 50, AudioOutput: 150},
		},
		{
			"xAI: images, most of them cached", `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"text_tokens":200,"image_tokens":800,"cached_tokens":900}}`,
			usage.Tokens{CacheRead: 900, ImageInput: 100, Output: 200},
		},
		{"zeros", `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`, usage.Tokens{}},
		{"vLLM: no details", `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":null}`, usage.Tokens{Input: 1000, Output: 200}},
		{"more cached than sent", `{"prompt_tokens":100,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":300}}`, usage.Tokens{CacheRead: 300, Output: 2}},
		{"floats, strings, nonsense", `{"prompt_tokens":1000.0,"completion_tokens":"200","total_tokens":-5,"completion_tokens_details":{"reasoning_tokens":"many"}}`, usage.Tokens{Input: 1000, Output: 200}},
		{"beyond all bounds", `{"prompt_tokens":1e300,"completion_tokens":1}`, usage.Tokens{Input: tokensMax, Output: 1}},
	} {
		var u wireUsage
		if err := json.Unmarshal([]byte(c.raw), &u); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got, ok := u.read(strings.HasPrefix(c.name, "xAI")); !ok || got != c.want {
			t.Errorf("%s: got %+v (%t), want %+v", c.name, got, ok, c.want)
		}
	}
	for _, raw := range []string{`{}`, `{"queue_time":1}`, `{"total_tokens":7}`, `{"prompt_tokens":null}`} {
		var u wireUsage
		if err := json.Unmarshal([]byte(raw), &u); err != nil {
			t.Fatal(err)
		}
		if got, ok := u.read(false); ok {
			t.Errorf("%s is taken for %+v", raw, got)
		}
	}
}

// One call without hidden output is the same five numbers, whoever reports it, and an hour's cache beside them.
func TestSameCallSameTokens(t *testing.T) {
	want := usage.Tokens{Input: 600, CacheRead: 300, CacheWrite: 100, Output: 200}
	for name, raw := range map[string]string{
		"OpenAI":    `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":300,"cache_write_tokens":100},"completion_tokens_details":{"reasoning_tokens":0}}`,
		"Responses": `{"input_tokens":1000,"output_tokens":200,"total_tokens":1200,"input_tokens_details":{"cached_tokens":300,"cache_write_tokens":100},"output_tokens_details":{"reasoning_tokens":0}}`,
		"Anthropic": `{"input_tokens":600,"output_tokens":200,"cache_read_input_tokens":300,"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":0}}`,
		"xAI":       `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"text_tokens":1000,"image_tokens":0,"cached_tokens":300,"cache_write_tokens":100},"completion_tokens_details":{"reasoning_tokens":0}}`,
		"Gemini":    `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":300,"cache_write_tokens":100}}`,
		"a proxy":   `{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"cache_read_input_tokens":300,"cache_creation_input_tokens":100}`,
	} {
		var u wireUsage
		if err := json.Unmarshal([]byte(raw), &u); err != nil {
			t.Fatal(err)
		}
		if got, ok := u.read(name == "xAI"); !ok || got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What a server may send in place of usage never breaks the answer.
func TestUsageThatIsNone(t *testing.T) {
	for _, raw := range []string{`"none"`, `[]`, `{"prompt_tokens_details":"x","prompt_tokens":3}`, `7`} {
		o := serve(t, OpenAIConfig{}, stream(good+`data: {"choices":[],"usage":`+raw+"}\n\n"+done))
		r, err := o.Complete(t.Context(), simpleCall())
		if err != nil || !r.Estimated || r.Text != "Hello, world" {
			t.Errorf("%s: %+v, %v", raw, r, err)
		}
	}
}
