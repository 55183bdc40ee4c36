package gateway

import (
	"slices"
	"strings"
	"unicode"
)

// taskClass is a class of work and what a question of it sounds like.
type taskClass struct {
	Name string `yaml:"name"`
	// Triggers describe the work; every word of them that says something speaks for the class.
	Triggers []string `yaml:"triggers"`
	Words    []string `yaml:"words"` // more of what speaks for it
	// TokensOver and Needs speak for it as strongly as two words.
	TokensOver int64    `yaml:"tokens_over"`
	Needs      []string `yaml:"needs"`

	stems map[string]bool
}

// ClassScore is how much of a question speaks for a class.
type ClassScore struct {
	Class string   `json:"class"`
	Score float64  `json:"score"`
	Words []string `json:"words"` // that spoke for it
}

// textMax bounds how much of a question is read for its class: what is wanted is said at the beginning or the end.
const textMax = 8 << 10

// signal is the weight of what is no word.
const signal = 2.0

func (c *taskClass) learn() {
	c.stems = map[string]bool{}
	for _, phrase := range append(slices.Clone(c.Triggers), c.Words...) {
		for _, w := range wordsOf(phrase) {
			if !silent[w] {
				c.stems[stem(w)] = true
			}
		}
	}
}

// classOf works out the class of a question. A word weighs less the more classes it speaks for. Of equal scores the
// class that stands first wins; if nothing speaks for any, the question is unclassified.
func classOf(classes []taskClass, q *Question) (string, []ClassScore) {
	text := q.Text
	if len(text) > textMax {
		text = text[:textMax/2] + " " + text[len(text)-textMax/2:]
	}
	heard := map[string]string{}
	var order []string
	for _, w := range wordsOf(text) {
		if s := stem(w); !silent[w] && heard[s] == "" {
			heard[s] = w
			order = append(order, s)
		}
	}
	scores := make([]ClassScore, len(classes))
	for i := range classes {
		c := &classes[i]
		scores[i] = ClassScore{Class: c.Name, Words: []string{}}
		for _, s := range order {
			if c.stems[s] {
				scores[i].Score += 1 / float64(speakers(classes, s))
				scores[i].Words = append(scores[i].Words, heard[s])
			}
		}
		if c.TokensOver > 0 && q.InputTokens > c.TokensOver {
			scores[i].Score += signal
		}
		for _, need := range c.Needs {
			if slices.Contains(q.Needs, need) {
				scores[i].Score += signal
			}
		}
	}
	slices.SortStableFunc(scores, func(a, b ClassScore) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return 0
	})
	if len(scores) == 0 || scores[0].Score == 0 {
		return ClassUnclassified, scores
	}
	return scores[0].Class, scores
}

func speakers(classes []taskClass, stem string) int {
	n := 0
	for i := range classes {
		if classes[i].stems[stem] {
			n++
		}
	}
	return n
}

// silent words say nothing about the kind of work.
var silent = map[string]bool{
	"a": true, "an": true, "and": true, "another": true, "as": true, "at": true, "be": true, "between": true, "by": true, "for": true,
	"from": true, "in": true, "into": true, "is": true, "it": true, "items": true, "make": true, "model": true, "multiple": true,
	"of": true, "on": true, "or": true, "s": true, "simple": true, "standard": true, "that": true, "the": true, "this": true,
	"time": true, "to": true, "with": true, "work": true, "you": true, "your": true, "incoming": true, "complex": true, "long": true,
	"outputs": true, "output": true, "agent": true, "text": true, "no": true, "yes": true, "against": true, "real": true, "aware": true,
	"100k": true, "x": true,
}

// wordsOf are the words of a text in small letters.
func wordsOf(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// stem takes off what grammar puts behind an English word. It need not be right, only alike for both sides.
func stem(w string) string {
	for _, end := range []string{"ations", "ation", "izing", "izes", "ized", "ize", "ings", "ing", "ies", "ied", "ers", "er", "ed", "es", "s", "e", "y"} {
		if short, ok := strings.CutSuffix(w, end); ok && len(short) >= 4 {
			return short
		}
	}
	return w
}

// stands reports whether a word or phrase stands in a text as whole words.
func stands(text, phrase string) bool {
	return strings.Contains(" "+strings.Join(wordsOf(text), " ")+" ", " "+strings.Join(wordsOf(phrase), " ")+" ")
}
