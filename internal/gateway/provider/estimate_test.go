package provider

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/agent"
)

const prose = "The board of Nordwind Logistics decides in March, not later: rent, staff turnover and rail access speak for Osnabrück. "

// Cutting a text into pieces and remembering them gives what the vocabulary itself gives.
func TestCountTokensIsTheVocabularysCount(t *testing.T) {
	o := codec.NewO200kBase()
	for name, text := range map[string]string{
		"empty": "", "prose": strings.Repeat(prose, 20), "code": "func (v *vocabulary) count(text string) int64 {\n\tvar n int64\n\n\treturn n // of them\n}\n",
		"JSON": `{"text": "It's 3,000 words long.", "n": [1, 2, 30000], "ok" : true}`, "spaces": "a  b   c\n\n d \t e  \n  f", "other scripts": "Größe, naïve 日本語 text и слова ",
	} {
		want, err := o.Count(text)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // by the vocabulary, then from memory
			if got := CountTokens(text, "gpt-5.4"); got != int64(want) {
				t.Errorf("%s: %d tokens, the vocabulary counts %d", name, got, want)
			}
		}
	}
	text := strings.Repeat(prose, 20)
	if openai, claude, newer := CountTokens(text, "openai/gpt-4o"), CountTokens(text, "claude-haiku-4-5"), CountTokens(text, "anthropic/claude-opus-4-8"); openai >= claude || claude >= newer {
		t.Errorf("%d, %d, %d: the families are not told apart", openai, claude, newer)
	}
}

// AtMost is never below CountAsk, and CountTokens never above the bytes of a text.
func TestAtMostIsAnUpperBound(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`( \n|\w+ |[A-Z']|==|\x{1F468}\x{200D}){0,40}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	call := rapid.Custom(func(r *rapid.T) agent.ToolCall {
		return agent.ToolCall{Name: text.Draw(r, "name"), Arguments: text.Draw(r, "arguments")}
	})
	message := rapid.Custom(func(r *rapid.T) agent.Message {
		m := agent.Message{Content: text.Draw(r, "content"), ToolCalls: rapid.SliceOfN(call, 0, 2).Draw(r, "calls")}
		m.Images = make([]string, rapid.IntRange(0, 2).Draw(r, "images"))
		if rapid.Bool().Draw(r, "hidden") {
			m.Hidden = &agent.Hidden{Data: json.RawMessage(text.Draw(r, "data"))}
		}
		return m
	})
	tool := rapid.Custom(func(r *rapid.T) agent.Tool {
		return agent.Tool{Name: text.Draw(r, "name"), Description: text.Draw(r, "description"), Parameters: json.RawMessage(text.Draw(r, "parameters"))}
	})
	rapid.Check(t, func(r *rapid.T) {
		ask := agent.Ask{
			Messages: rapid.SliceOfN(message, 0, 4).Draw(r, "messages"), Tools: rapid.SliceOfN(tool, 0, 2).Draw(r, "tools"),
			Schema: json.RawMessage(text.Draw(r, "schema")),
		}
		model := rapid.SampledFrom([]string{"gpt-4o", "claude-opus-5", "gemini-2.5-pro", "own"}).Draw(r, "model")
		if estimate, most := CountAsk(ask, model), AtMost(ask); estimate > most {
			r.Fatalf("estimated %d, at most %d", estimate, most)
		}
	})
}

// Every part of a request counts.
func TestCountAskCountsEverything(t *testing.T) {
	ask := agent.Ask{Messages: []agent.Message{{Role: "user", Content: "Look."}}}
	last := CountAsk(ask, "m")
	for _, add := range []func(){
		func() { ask.Messages[0].Images = []string{"https://example.org/a.png"} },
		func() { ask.Messages = append(ask.Messages, agent.Message{Role: "assistant"}) },
		func() { ask.Messages[1].ToolCalls = []agent.ToolCall{{Name: "look_up", Arguments: `{"name":"x"}`}} },
		func() { ask.Messages[1].Hidden = &agent.Hidden{Data: json.RawMessage(`{"thinking":"so"}`)} },
		func() { ask.Tools = []agent.Tool{{Name: "look_up"}} },
		func() { ask.Tools[0].Description = "Looks a name up." },
		func() { ask.Tools[0].Parameters = json.RawMessage(`{"type":"object"}`) },
		func() { ask.Schema = json.RawMessage(`{"type":"object"}`) },
	} {
		add()
		if n := CountAsk(ask, "m"); n <= last {
			t.Errorf("%d after %d: %+v", n, last, ask)
		} else {
			last = n
		}
	}
}

func TestPiecesMakeTheText(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ab €]{0,900}`)).Draw(r, "text")
		for rest := text; rest != ""; {
			piece := rest[:pieceEnd(rest)]
			if piece == "" || len(piece) > pieceBytesMax+utf8.UTFMax || utf8.ValidString(text) && !utf8.ValidString(piece) {
				r.Fatalf("piece %q", piece)
			}
			rest = rest[len(piece):]
		}
	})
}

// What the estimate costs when most of the text has been seen, and when nothing of it has.
func BenchmarkCountTokens(b *testing.B) {
	words := make([]string, 20_000)
	for i := range words {
		words[i] = fmt.Sprintf("%x-%d", i*7919, i)
	}
	for _, c := range []struct {
		name, text string
		forget     bool
	}{
		{"prose", strings.Repeat(prose, 1000), false},
		{"new prose", strings.Repeat(prose, 1000), true},
		{"new codes", strings.Join(words, "\n"), true},
		{"new blanks", strings.Repeat(" \n", 60<<10), true},
		{"one letter", strings.Repeat("a", 110<<10), true},
	} {
		for _, size := range []int{1 << 10, 100 << 10} {
			b.Run(fmt.Sprintf("%s/%dKB", c.name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if c.forget {
						o200k.known = nil
					}
					CountTokens(c.text[:size], "gpt-4o")
				}
			})
		}
	}
}
