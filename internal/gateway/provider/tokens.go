package provider

import (
	"bytes"
	"encoding/json"
	"math"

	"github.com/fermata-run/fermata/internal/usage"
)

// count is a number of tokens however a server writes it: 12, 12.0, "12" or null.
type count int64

func (c *count) UnmarshalJSON(raw []byte) error {
	var f float64
	if err := json.Unmarshal(bytes.Trim(raw, `"`), &f); err != nil || math.IsNaN(f) || f < 0 {
		*c = 0
		return nil //nolint:nilerr // an unreadable count is no count; the answer itself is good
	}
	*c = count(min(f, tokensMax))
	return nil
}

// tokensMax bounds one count: no model reads or writes more, and sums of costs stay far from overflow.
const tokensMax = 1_000_000_000

// wireUsage is usage as OpenAI-compatible servers report it: OpenAI's own fields, which count cached tokens among
// prompt_tokens, and the ones Anthropic's servers and some proxies send, which do not.
type wireUsage struct {
	Prompt     count `json:"prompt_tokens"`
	Completion count `json:"completion_tokens"`
	Total      count `json:"total_tokens"`
	CacheHit   count `json:"prompt_cache_hit_tokens"` // DeepSeek

	PromptDetails struct {
		Cached  count `json:"cached_tokens"`
		Written count `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning count `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`

	Input        count `json:"input_tokens"`
	Output       count `json:"output_tokens"`
	CacheRead    count `json:"cache_read_input_tokens"`
	CacheCreated count `json:"cache_creation_input_tokens"`
}

// read gives usage in disjoint types. It answers false if there is none to speak of.
func (u wireUsage) read() (usage.Tokens, bool) {
	if u.Prompt == 0 && u.Completion == 0 {
		t := usage.Tokens{
			Input: int64(u.Input), Output: int64(u.Output),
			CacheRead: int64(u.CacheRead), CacheWrite: int64(u.CacheCreated),
		}
		return t, t.Total() > 0
	}
	t := usage.Tokens{
		CacheRead:  int64(max(u.PromptDetails.Cached, u.CacheHit, u.CacheRead)),
		CacheWrite: int64(max(u.PromptDetails.Written, u.CacheCreated)),
		Output:     int64(u.Completion),
		Reasoning:  int64(u.CompletionDetails.Reasoning),
	}
	t.Input = max(int64(u.Prompt)-t.CacheRead-t.CacheWrite, 0)
	outside := int64(u.Total) - int64(u.Prompt) - int64(u.Completion)
	switch {
	case t.Reasoning == 0 && outside > 0: // Gemini: thoughts are in the total alone
		t.Reasoning = outside
	case t.Reasoning > 0 && outside >= t.Reasoning, t.Reasoning > t.Output: // xAI: beside the completion
	default: // OpenAI: a part of the completion
		t.Output -= t.Reasoning
	}
	return t, true
}
