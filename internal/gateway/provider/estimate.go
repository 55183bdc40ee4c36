package provider

import (
	"hash/maphash"
	"maps"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// What an estimate adds to the tokens of the texts. Servers wrap messages and tools in words of their own; these are
// OpenAI's published overheads, rounded up.
const (
	tokensPerMessage  = 4 // role and separators
	tokensPerExchange = 3
	tokensPerTool     = 8 // of a definition or a call
	// An image is counted flat: one of a megapixel is 765 tokens at OpenAI, 1,290 at Google, about 1,600 at Anthropic.
	tokensPerImage = 1_600
)

// families are models whose vocabulary is not public. The factor is how many tokens they are assumed to count, in
// percent of OpenAI's o200k: rather too many, for budgets are held by it. The first prefix that fits holds.
var families = []struct {
	prefix string
	factor int64
}{
	// Claude's vocabulary from Opus 4.7 and Sonnet 5 on makes up to a third more tokens of a text than the one before.
	{"claude-opus-4-7", 160},
	{"claude-opus-4-8", 160},
	{"claude-opus-5", 160},
	{"claude-sonnet-5", 160},
	{"claude-haiku-5", 160},
	{"claude-fable", 160},
	{"claude", 120},
	{"gemini", 110},
	{"gemma", 110},
	{"grok", 110},
	{"llama", 115},
	{"mistral", 115},
	{"ministral", 115},
	{"mixtral", 115},
	{"codestral", 115},
	{"qwen", 115},
	{"deepseek", 115},
	{"kimi", 115},
	{"glm", 115},
}

func factorOf(model string) int64 {
	name := strings.ToLower(model[strings.LastIndexByte(model, '/')+1:])
	for _, f := range families {
		if strings.HasPrefix(name, f.prefix) {
			return f.factor
		}
	}
	return 100
}

// CountTokens estimates the tokens that a model makes of a text: those of OpenAI's o200k vocabulary, times a factor
// for families that count otherwise. Never more than one for each byte, which is what such vocabularies fall back to.
func CountTokens(text, model string) int64 {
	n := (o200k.count(text)*factorOf(model) + 99) / 100
	return min(n, int64(len(text)))
}

// CountAsk estimates the tokens of what is sent: messages, tools, and the schema of the answer.
func CountAsk(a agent.Ask, model string) int64 {
	return weigh(a, func(text string) int64 { return CountTokens(text, model) })
}

// AtMost bounds the tokens of what is sent without counting them: one for each byte. Never below CountAsk, whatever
// the model.
func AtMost(a agent.Ask) int64 {
	return weigh(a, func(text string) int64 { return int64(len(text)) })
}

// weigh adds up everything of a request that a provider counts as input.
func weigh(a agent.Ask, count func(string) int64) int64 {
	n := tokensPerExchange + count(string(a.Schema))
	for _, m := range a.Messages {
		n += tokensPerMessage + count(m.Content) + tokensPerImage*int64(len(m.Images))
		for _, t := range m.ToolCalls {
			n += tokensPerTool + count(t.Name) + count(t.Arguments)
		}
		if m.Hidden != nil {
			n += count(string(m.Hidden.Data))
		}
	}
	for _, t := range a.Tools {
		n += tokensPerTool + count(t.Name) + count(t.Description) + count(string(t.Parameters))
	}
	return n
}

// estimate counts a call from its texts. It stands in where a provider reports no usage; such calls say Estimated.
// Hidden is reasoning that was shown.
func estimate(c Call, text, hidden string) usage.Tokens {
	return usage.Tokens{Input: CountAsk(c.Ask, c.Model), Output: CountTokens(text, c.Model), Reasoning: CountTokens(hidden, c.Model)}
}

// vocabulary counts by a vocabulary that is loaded when it is first needed (7 MB, about 10 ms). The library splits
// texts by a regular expression, which costs 50 µs and 50 KB of garbage for each KB and grows with the square of a run
// of white space. So texts are cut before, where it would always cut too, and the counts of the pieces are remembered:
// texts are made of few words, and schemas and conversations are sent again and again.
type vocabulary struct {
	load func() *codec.Codec
	seed maphash.Seed
	mu   sync.RWMutex
	// known are the counts by the hashes of the pieces. Two pieces of one hash are too rare to matter to an estimate.
	known map[uint64]uint16
}

var o200k = vocabulary{load: sync.OnceValue(codec.NewO200kBase), seed: maphash.MakeSeed()}

const (
	pieceBytesMax = 256     // a longer one is cut anywhere; that costs a token at most
	piecesMax     = 100_000 // beyond it they are learned anew; about 3 MB
)

func (v *vocabulary) count(text string) int64 {
	var n int64
	var unknown []string
	v.mu.RLock()
	for len(text) > 0 {
		piece := text[:pieceEnd(text)]
		text = text[len(piece):]
		if known, ok := v.known[maphash.String(v.seed, piece)]; ok {
			n += int64(known)
		} else {
			unknown = append(unknown, piece)
		}
	}
	v.mu.RUnlock()
	if len(unknown) > 0 {
		n += v.learn(unknown)
	}
	return n
}

// learn counts pieces by the vocabulary and remembers them.
func (v *vocabulary) learn(pieces []string) int64 {
	var n int64
	learned := make(map[uint64]uint16, len(pieces))
	c := v.load()
	for _, p := range pieces {
		key := maphash.String(v.seed, p)
		tokens, ok := learned[key]
		if !ok {
			counted, err := c.Count(p)
			if err != nil { // of the regular expression; it has no limit that could be reached
				counted = len(p)
			}
			tokens = uint16(counted) // of a few hundred bytes
			learned[key] = tokens
		}
		n += int64(tokens)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil || len(v.known)+len(learned) > piecesMax {
		v.known = make(map[uint64]uint16, len(learned))
	}
	maps.Copy(v.known, learned)
	return n
}

// pieceEnd is where a text can be cut without a change of the count: before a space that a letter follows, for there a
// token always begins.
func pieceEnd(text string) int {
	for i := 1; i < len(text)-1; i++ {
		if text[i] == ' ' && isLetter(text[i+1]) {
			return i
		}
		if i >= pieceBytesMax && utf8.RuneStart(text[i]) {
			return i
		}
	}
	return len(text)
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
