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

// value is a count that may not have been told.
func (c *count) value() count {
	if c == nil {
		return 0
	}
	return *c
}

// tokensMax bounds one count: no model reads or writes more, and sums of costs stay far from overflow.
const tokensMax = 1_000_000_000

// wireUsage is usage as OpenAI-compatible servers report it: OpenAI's own fields, which count cached tokens among
// prompt_tokens; those of its Responses API, likewise; and those that Anthropic's servers and some proxies send, whose
// input_tokens do not.
type wireUsage struct {
	Prompt     *count `json:"prompt_tokens"`
	Completion *count `json:"completion_tokens"`
	Total      count  `json:"total_tokens"`
	CacheHit   count  `json:"prompt_cache_hit_tokens"` // DeepSeek
	Cached     count  `json:"cached_tokens"`           // Moonshot

	PromptDetails     usageDetails `json:"prompt_tokens_details"`
	CompletionDetails usageDetails `json:"completion_tokens_details"`

	Input         *count       `json:"input_tokens"`
	Output        *count       `json:"output_tokens"`
	InputDetails  usageDetails `json:"input_tokens_details"`
	OutputDetails usageDetails `json:"output_tokens_details"`

	CacheRead    count `json:"cache_read_input_tokens"`
	CacheCreated count `json:"cache_creation_input_tokens"`
	Created      struct {
		Hour count `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
}

// usageDetails are parts of the prompt or of the completion.
type usageDetails struct {
	Cached    count `json:"cached_tokens"`
	Written   count `json:"cache_write_tokens"`
	Audio     count `json:"audio_tokens"`
	Image     count `json:"image_tokens"`
	Reasoning count `json:"reasoning_tokens"`
}

// read gives usage in disjoint types. It answers false if none was told; zeros may have been. Outside says that this
// server counts reasoning beside the completion; the total, where it is told, says it better.
func (u wireUsage) read(outside bool) (usage.Tokens, bool) {
	prompt, completion, in, out := u.Prompt, u.Completion, u.PromptDetails, u.CompletionDetails
	if prompt.value() == 0 && completion.value() == 0 && (u.Input != nil || u.Output != nil) {
		prompt, completion, in, out = u.Input, u.Output, u.InputDetails, u.OutputDetails
		if in.Cached == 0 { // Anthropic's
			whole := prompt.value() + u.CacheRead + u.CacheCreated
			prompt = &whole
		}
	}
	t := usage.Tokens{
		CacheRead:    int64(max(in.Cached, u.CacheHit, u.Cached, u.CacheRead)),
		CacheWrite1h: int64(u.Created.Hour),
	}
	t.CacheWrite = max(int64(max(in.Written, u.CacheCreated))-t.CacheWrite1h, 0)
	rest := max(int64(prompt.value())-t.InputTotal(), 0)
	t.AudioInput = min(int64(in.Audio), rest)
	t.ImageInput = min(int64(in.Image), rest-t.AudioInput)
	t.Input = rest - t.AudioInput - t.ImageInput

	beside := int64(u.Total) - int64(prompt.value()) - int64(completion.value())
	t.Output, t.Reasoning = splitOutput(int64(completion.value()), int64(out.Reasoning), beside, outside && u.Total == 0)
	t.AudioOutput = min(int64(out.Audio), t.Output)
	t.Output -= t.AudioOutput
	return t, prompt != nil || completion != nil
}

// splitOutput tells what was said from what was thought. Beside is what the total has more than prompt and completion.
func splitOutput(completion, reasoning, beside int64, outside bool) (output, thought int64) {
	switch {
	case reasoning == 0: // Gemini: thoughts are in the total alone
		return completion, max(beside, 0)
	case beside >= reasoning, reasoning > completion, outside: // xAI: not in the completion
		return completion, reasoning
	}
	return completion - reasoning, reasoning // OpenAI: a part of it
}
