package provider

import (
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fermata-run/fermata/internal/agent"
)

const (
	topicsMax      = 40
	promptBytesMax = 16 << 10 // of a prompt that topics are looked for in
)

// writer makes readable sentences about what a prompt is about.
type writer struct {
	dice    *rand.Rand
	topics  []string
	next    int
	brief   bool
	words   int    // of a text of some length; 0: as it comes
	asked   uint64 // what was asked, as a number
	marked  bool   // a text with the mark was written
	markAll bool   // put the mark on short texts too
}

func newWriter(a agent.Ask, dice *rand.Rand) *writer {
	w := &writer{dice: dice, asked: hashOf(a)}
	w.about(firstRequest(a))
	return w
}

// about takes the topics from a text.
func (w *writer) about(text string) {
	if w.topics = topicsOf(text); len(w.topics) == 0 {
		w.topics = []string{"the request", "the material", "the result"}
	}
}

// hashOf is a number for what was asked, whichever model is asked and whatever its instructions say.
func hashOf(a agent.Ask) uint64 {
	h := fnv.New64a()
	for _, m := range a.Messages {
		if m.Role == agent.RoleUser {
			h.Write([]byte(m.Content))
			h.Write([]byte{0})
		}
	}
	return h.Sum64()
}

// length is how many words a prompt asks for: "about 300 words", "in at most 75 words".
var length = regexp.MustCompile(`(?i)\b([1-9][0-9]{1,4})[ -]words?\b`)

// wordsMax bounds the length that a simulated text is given.
const wordsMax = 2_000

// wordsOf is the length that was asked for, as far as tokensMax leaves room for it and for what else the answer holds; 0: none.
func wordsOf(a agent.Ask, tokensMax int) int {
	m := length.FindStringSubmatch(firstRequest(a))
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil { // five digits
		return 0
	}
	if tokensMax > 0 {
		n = min(n, tokensMax/3)
	}
	return min(n, wordsMax)
}

// dull words carry no topic of their own; phrases end at them.
var dull = func() map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(`a about above after again all also am an and any are as at be because been before being below both but
		by can could did do does doing done down each either else ever every few for from get give given go had has have having he her here
		him his how i if in into is it its itself just keep let like made make many may me might more most much must my need no nor not now
		of off on once one only or other our out over own per please put same see shall she should so some such take than that the their
		them then there these they this those through to too two under until up upon us use used using very via was we well were what when
		where which while who whom whose why will with within without would yes yet you your
		task prompt input output draft review self cross check write answer produce create list find identify provide complete score
		text following based above below issue issues json object array string number value field simulated specific independent assume
		accuracy completeness clarity confidence unresolved null true false rate include including ensure every main first second third
		next last three four five six seven eight nine ten new different still open matter plan content contains word words page pages end ends begin begins start starts consider
		critique correct factual errors logical gaps missing context biases type client brief deliverable`) {
		set[w] = true
	}
	return set
}()

// topicsOf finds what a text is about: runs of one to three words that carry meaning, in order, each once.
func topicsOf(text string) []string {
	if len(text) > promptBytesMax {
		text = text[:promptBytesMax]
	}
	var topics []string
	seen := map[string]bool{}
	var run []string
	end := func() {
		phrase := strings.Join(run, " ")
		if key := strings.ToLower(phrase); len(phrase) >= 4 && len(phrase) <= 48 && !seen[key] {
			seen[key] = true
			topics = append(topics, phrase)
		}
		run = run[:0]
	}
	begins := true // a sentence does
	for word := range strings.FieldsSeq(text) {
		first := begins
		begins = strings.ContainsAny(word[len(word)-1:], ".?!:")
		bare := strings.TrimFunc(word, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if !wordlike(bare) || dull[strings.ToLower(bare)] {
			end()
			continue
		}
		if strings.TrimLeftFunc(word, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) != word {
			end() // a quote or bracket opens
		}
		if run = append(run, plain(bare, first)); len(run) == 3 || !strings.HasSuffix(word, bare) {
			end() // punctuation closes
		}
		if len(topics) >= topicsMax {
			return topics
		}
	}
	end()
	return topics
}

func wordlike(s string) bool {
	if utf8.RuneCountInString(s) < 3 || len(s) > 24 {
		return false
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && r != '-' && r != '\'' && r != '’' {
			return false
		}
	}
	return true
}

// plain lowers the first word of a sentence and what is written in capitals, but not names and not short acronyms.
func plain(word string, first bool) string {
	if first && len(word) > 4 && word[1:] == strings.ToLower(word[1:]) || len(word) > 5 && word == strings.ToUpper(word) {
		return strings.ToLower(word)
	}
	return word
}

// topic gives the topics in turn, from a drawn beginning.
func (w *writer) topic() string {
	if w.next == 0 {
		w.next = 1 + w.dice.IntN(len(w.topics))
	}
	t := w.topics[(w.next-1)%len(w.topics)]
	w.next++
	return t
}

var (
	statements = []string{
		"The main point is {a}, taken together with {b}.",
		"{A} sets the pace, and {b} follows from it.",
		"On {a} the material supports a clear statement; on {b} it is thinner.",
		"Three things carry the argument: {a}, {b} and {c}.",
		"{A} and {b} are best decided in one step, since each limits the other.",
		"Set beside {a}, the weight of {b} is easy to overrate.",
		"Work on {a} can begin at once, while {b} waits for a decision.",
		"What is known about {a} is enough to act on, provided {b} holds.",
		"{A} leads to {b}, and from there to {c}.",
		"The cost of {a} is small next to what {b} would save.",
		"For {a}, a short test tells more than a long discussion of {b}.",
		"{A} is where the reader should start; {b} can be read later.",
	}
	findings = []string{
		"The claim about {a} has no source.",
		"{A} is mentioned but not explained.",
		"The link between {a} and {b} is assumed, not shown.",
		"Figures for {a} are missing.",
		"The wording on {a} is vague where {b} needs a number.",
		"{A} is judged by one example only.",
		"Nothing says who decides on {a}.",
		"The section on {a} repeats what was said about {b}.",
	}
	headings = []string{"{A} and {b}", "On {a}", "{A}: what matters", "{A}, step by step", "From {a} to {b}"}
)

func (w *writer) sentence(from []string) string {
	s := from[w.dice.IntN(len(from))]
	a := w.topic()
	s = strings.ReplaceAll(s, "{A}", upperFirst(a))
	s = strings.ReplaceAll(s, "{a}", a)
	for _, slot := range []string{"{b}", "{c}"} {
		if strings.Contains(s, slot) {
			s = strings.ReplaceAll(s, slot, w.topic())
		}
	}
	return s
}

func upperFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

// paragraph is n sentences, no two alike in a row.
func (w *writer) paragraph(n int) string {
	var list []string
	for len(list) < n {
		s := w.sentence(statements)
		if len(list) == 0 || list[len(list)-1] != s {
			list = append(list, s)
		} else {
			n--
		}
	}
	return strings.Join(list, " ")
}

// ofWords is a text of at most n words, and not much less.
func (w *writer) ofWords(n int) string {
	var s strings.Builder
	for have := 0; ; {
		next := w.sentence(statements)
		if have += len(strings.Fields(next)); have > n && s.Len() > 0 {
			return s.String()
		}
		switch {
		case s.Len() == 0:
		case w.dice.IntN(4) == 0:
			s.WriteString("\n\n")
		default:
			s.WriteByte(' ')
		}
		s.WriteString(next)
	}
}

// body is a text of some length under a heading.
func (w *writer) body(heading string) string {
	w.marked = true
	if w.brief {
		return SimulatedMark + " " + w.paragraph(2)
	}
	if heading != "" {
		heading = " " + heading + "\n\n"
	} else {
		heading = " "
	}
	if w.words > 0 {
		return SimulatedMark + heading + w.ofWords(w.words)
	}
	return SimulatedMark + heading + w.paragraph(3) + "\n\n" + w.paragraph(3+w.dice.IntN(2)) + "\n\n" + w.paragraph(2)
}

// short is a text of at most one or two sentences, marked if it is asked for.
func (w *writer) short(s string, mark bool) string {
	if mark || w.markAll && !w.marked {
		w.marked = true
		return SimulatedMark + " " + s
	}
	return s
}
