package agent

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fermata-run/fermata/internal/workflow"
)

// charsPerToken is how tokens are estimated, as the function tokens() of expressions does.
const charsPerToken = 4

// summaryTokensDefault bounds a summary that bounds itself not.
const summaryTokensDefault = 500

// summaryTokens is the most that the summary of an agent's output may have.
func summaryTokens(a *workflow.Agent) int {
	if a.Summary == nil || a.Summary.MaxTokens <= 0 {
		return summaryTokensDefault
	}
	return a.Summary.MaxTokens
}

// Short gives an output as the text of its summary, if it is short enough to be its own.
func Short(a *workflow.Agent, output json.RawMessage) (text string, ok bool) {
	text = Plain(output)
	return text, utf8.RuneCountInString(text) <= charsPerToken*summaryTokens(a)
}

// Clipped is the beginning of a text, as long as the summary of an agent's output may be.
func Clipped(a *workflow.Agent, text string) string {
	most := charsPerToken * summaryTokens(a)
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}

// OpenSummary asks for a short form of an agent's output.
func OpenSummary(of *workflow.Agent, output json.RawMessage) (Talk, Ask) {
	words := strconv.Itoa(summaryTokens(of) * 3 / 4)
	a := &workflow.Agent{Instructions: "You make short forms of what others wrote, for whoever builds on it: " +
		"results, decisions, numbers, names and what is still open, word for word where it counts. No preface, no opinion, nothing that is not there."}
	return Open(a, Task{Prompt: "Give the OUTPUT in at most " + words + " words.\n\nOUTPUT\n" + material(strings.TrimSpace(Plain(output)))})
}
