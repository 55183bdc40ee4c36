package workflow

import (
	"time"

	"cel.dev/cel-go/cel"

	"github.com/fermata-run/fermata/internal/usage"
)

// The roots of accept: an answer is judged by itself.
const (
	rootOutput     = "output"
	rootConfidence = "confidence"
	rootUsage      = "usage"
	rootLatency    = "latency_ms"
)

// answerRoots declares what judges an answer. A chain serves agents of different contracts: there the output is
// anything.
func (c *compiler) answerRoots(root func(name string, t *cel.Type), output *cel.Type) {
	used := c.object("the usage of the answer", func(fields map[string]*cel.Type) {
		for name := range answerUsage(usage.Tokens{}, 0) {
			fields[name] = cel.IntType
		}
		fields[rootCost] = cel.DoubleType
	})
	root(rootOutput, output)
	root(rootConfidence, cel.DoubleType)
	root(rootUsage, used)
	root(rootLatency, cel.IntType)
}

const rootCost = "cost_usd"

func answerUsage(t usage.Tokens, cost usage.Money) map[string]any {
	return map[string]any{
		"input": t.Input, "cache_read": t.CacheRead, "cache_write": t.CacheWrite, "cache_write_1h": t.CacheWrite1h,
		"output": t.Output, "reasoning": t.Reasoning,
		"audio_input": t.AudioInput, "audio_output": t.AudioOutput, "image_input": t.ImageInput,
		rootCost: float64(cost) / float64(usage.USD),
	}
}

// AnswerScope is what the accept of a chain's entry reads. Output is decoded JSON (see Decode); confidence is from 0 to
// 100, and 100 where the answer gives none.
func AnswerScope(output any, confidence float64, tokens usage.Tokens, cost usage.Money, latency time.Duration) *Scope {
	return &Scope{Extra: map[string]any{
		rootOutput: output, rootConfidence: confidence, rootUsage: answerUsage(tokens, cost), rootLatency: latency.Milliseconds(),
	}}
}
