package agent

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// TrimEndTokens at the end of the last message are never left out: what is asked stands there.
	TrimEndTokens = 200

	// Counting is dear: each try at a cut keeps less than the one before by more than that was too long, and after so
	// many only the end is kept.
	keepLess = 0.97
	triesMax = 16
)

// Trim makes an ask shorter by at least over tokens, for the overflow "trim": it leaves out the middle of the longest
// message that is not stable, and where that is not enough, of the next. What is left ends and begins with a line
// where one is near, never inside a character, and a mark in the place of the middle says how many tokens stood there.
//
// Not touched are stable messages, those that hold what a provider wants back as it came, and the last TrimEndTokens
// of the last message. Count says how many tokens a text has: the longer the more. Trimmed is how many were left out; where
// ok is false it could not be done, and the ask is the one that came in.
func Trim(ask Ask, over int64, count func(string) int64) (short Ask, trimmed int64, ok bool) {
	if over <= 0 {
		return ask, 0, true
	}
	short = ask
	short.Messages = slices.Clone(ask.Messages)
	for _, c := range cutsOf(ask.Messages, count) {
		content, left, saved := c.by(over)
		if saved <= 0 {
			continue
		}
		short.Messages[c.at].Content = content
		trimmed += left
		if over -= saved; over <= 0 {
			return short, trimmed, true
		}
	}
	return ask, 0, false
}

// cut is a message that may be made shorter.
type cut struct {
	at     int // among the messages
	text   string
	tokens int64
	end    int // from here on it is kept
	count  func(string) int64
}

// cutsOf are the messages that may be cut, the longest first.
func cutsOf(messages []Message, count func(string) int64) []cut {
	var cuts []cut
	for i, m := range messages {
		if m.Stable || m.Hidden != nil {
			continue
		}
		c := cut{at: i, text: m.Content, tokens: count(m.Content), end: len(m.Content), count: count}
		if i == len(messages)-1 {
			c.end = endOf(m.Content, TrimEndTokens, count)
		}
		cuts = append(cuts, c)
	}
	slices.SortStableFunc(cuts, func(a, b cut) int { return cmp.Compare(b.tokens, a.tokens) })
	return cuts
}

// endOf is where the shortest end of a text begins that has so many tokens, or 0.
func endOf(text string, tokens int64, count func(string) int64) int {
	enough := func(size int) bool { return count(text[backTo(text, len(text)-size):]) >= tokens }
	size := 1
	for size < len(text) && !enough(size) {
		size *= 2
	}
	short, long := size/2, min(size, len(text))
	for long-short > 1 {
		if middle := (short + long) / 2; enough(middle) {
			long = middle
		} else {
			short = middle
		}
	}
	return backTo(text, len(text)-long)
}

// backTo is the start of the character at i.
func backTo(text string, i int) int {
	for i > 0 && i < len(text) && !utf8.RuneStart(text[i]) {
		i--
	}
	return i
}

// by cuts a text by so many tokens, or as far as it goes: saved says by how many. Left counts those left out, which are
// more: the mark takes some.
func (c cut) by(over int64) (content string, left, saved int64) {
	target := max(c.tokens-over, 0)
	keep := float64(len(c.text)) * share(target, c.tokens)
	for try := 0; try < triesMax && keep > float64(len(c.text)-c.end); try++ {
		var tokens int64
		content, left, tokens = c.keeping(int(keep))
		if tokens <= target {
			return content, left, c.tokens - tokens
		}
		keep *= keepLess * share(target, tokens)
	}
	content, left, tokens := c.keeping(0)
	return content, left, c.tokens - tokens
}

// share is a part of a whole, at most all of it.
func share(part, whole int64) float64 {
	if part >= whole {
		return 1
	}
	return float64(part) / float64(whole)
}

// keeping leaves out the middle, so that at most so many bytes are left of the text: its end, and as much of its
// beginning.
func (c cut) keeping(size int) (content string, left, tokens int64) {
	end := min(len(c.text)-size/2, c.end)
	begin := c.lineBefore(min(max(size-(len(c.text)-end), 0), end))
	if end = c.lineAfter(end); end == c.end && size > 0 {
		end = max(c.lineWith(end), begin)
	}
	head, tail := c.text[:begin], c.text[end:]
	left = max(c.tokens-c.count(head)-c.count(tail), 1)
	content = head + mark(left, head, tail) + tail
	return content, left, c.count(content)
}

// mark stands, on a line of its own, where something was left out.
func mark(left int64, head, tail string) string {
	m := "[… " + strconv.FormatInt(left, 10) + " tokens left out here …]"
	if head != "" && !strings.HasSuffix(head, "\n") {
		m = "\n" + m
	}
	if tail != "" && !strings.HasPrefix(tail, "\n") {
		m += "\n"
	}
	return m
}

// nearby is the part of what is kept that may be given up to end and begin with whole lines: a quarter.
const nearby = 4

// lineBefore is the end of a line shortly before i, else the start of the character there.
func (c cut) lineBefore(i int) int {
	from := i - i/nearby
	if line := strings.LastIndexByte(c.text[from:i], '\n'); line >= 0 {
		return from + line + 1
	}
	return backTo(c.text, i)
}

// lineAfter is the beginning of a line shortly after i, else of a character. What must be kept is.
func (c cut) lineAfter(i int) int {
	to := min(i+(len(c.text)-i)/nearby, c.end)
	if line := strings.IndexByte(c.text[i:to], '\n'); line >= 0 {
		return i + line + 1
	}
	for i < c.end && !utf8.RuneStart(c.text[i]) {
		i++
	}
	return i
}

// lineWith is the beginning of the line that what must be kept begins in, where it is near.
func (c cut) lineWith(i int) int {
	from := max(i-(len(c.text)-i)/nearby, 0)
	if line := strings.LastIndexByte(c.text[from:i], '\n'); line >= 0 {
		return from + line + 1
	}
	return i
}
