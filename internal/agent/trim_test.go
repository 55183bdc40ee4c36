package agent

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// counters are ways to count tokens: by bytes, by characters, and by words with what parts them.
var counters = map[string]func(string) int64{
	"quarters":   func(s string) int64 { return int64(len(s)+3) / 4 },
	"characters": func(s string) int64 { return int64(utf8.RuneCountInString(s)) },
	"words":      func(s string) int64 { return int64(len(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }))) },
}

// Whatever is trimmed: it fits or ok is false, and ok is false only where the end and the marks alone are too long.
func TestTrim(t *testing.T) {
	text := rapid.OneOf(
		rapid.StringMatching(`([a-zé€😀]{1,9}[ \n]){0,30}`),
		rapid.Map(rapid.StringMatching(`([a-zé€😀]{1,9}[ \n]){1,40}`), func(s string) string { return strings.Repeat(s, 40) }),
		rapid.Map(rapid.StringMatching(`[é€😀x]{1,60}`), func(s string) string { return strings.Repeat(s, 60) }),
	)
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.SampledFrom([]string{"quarters", "characters", "words"}).Draw(r, "counter")
		count := counters[name]
		ask := Ask{Messages: make([]Message, rapid.IntRange(0, 4).Draw(r, "messages")), MaxTokens: 5}
		var total int64
		for i := range ask.Messages {
			m := Message{Role: RoleUser, Content: text.Draw(r, "text"), Stable: rapid.IntRange(0, 3).Draw(r, "kind") == 0}
			if rapid.IntRange(0, 5).Draw(r, "hidden") == 0 {
				m.Hidden = &Hidden{}
			}
			ask.Messages[i], total = m, total+count(m.Content)
		}
		before := slices.Clone(ask.Messages)
		over := rapid.Int64Range(-1, total+5).Draw(r, "over")
		if rapid.Bool().Draw(r, "all") { // about as much as can be
			over = most(ask, count) + rapid.Int64Range(-15, 5).Draw(r, "beyond")
		}
		short, trimmed, ok := Trim(ask, over, count)
		if diff := cmp.Diff(before, ask.Messages); diff != "" {
			r.Fatalf("what came in was changed:\n%s", diff)
		}
		if !ok {
			if cmp.Diff(ask, short) != "" || trimmed != 0 {
				r.Fatalf("not done, but %d left out", trimmed)
			}
			if possible := most(ask, count); possible >= over {
				r.Fatalf("%d could have been left out of %d, %d are over", possible, total, over)
			}
			return
		}
		var now int64
		for i, m := range short.Messages {
			now += count(m.Content)
			checkTrimmed(r, before[i], m, count)
		}
		if now > total-max(over, 0) || over > 0 && trimmed < over || over <= 0 && trimmed != 0 {
			r.Fatalf("%d of %d are left, %d were over, %d left out", now, total, over, trimmed)
		}
		if n := len(before); over > 0 {
			end := before[n-1].Content[endOf(before[n-1].Content, TrimEndTokens, count):]
			if !strings.HasSuffix(short.Messages[n-1].Content, end) {
				r.Fatalf("the end is gone: %q", short.Messages[n-1].Content)
			}
		}
	})
}

// most is how much shorter the messages get where nothing but the end is kept.
func most(ask Ask, count func(string) int64) (sum int64) {
	for _, c := range cutsOf(ask.Messages, count) {
		_, _, tokens := c.keeping(0)
		sum += max(c.tokens-tokens, 0)
	}
	return sum
}

var markForm = regexp.MustCompile(`\[… ([0-9]+) tokens left out here …\]`)

// checkTrimmed: a message is what it was, or its beginning, a mark that counts what is missing, and its end.
func checkTrimmed(t *rapid.T, before, after Message, count func(string) int64) {
	if before.Content == after.Content {
		return
	}
	at := markForm.FindStringSubmatchIndex(after.Content)
	if before.Stable || before.Hidden != nil || at == nil {
		t.Fatalf("%+v became %q", before, after.Content)
	}
	head, tail := strings.TrimSuffix(after.Content[:at[0]], "\n"), strings.TrimPrefix(after.Content[at[1]:], "\n")
	if !strings.HasPrefix(before.Content, head) || !strings.HasSuffix(before.Content, tail) || !utf8.ValidString(after.Content) {
		t.Fatalf("%q became %q", before.Content, after.Content)
	}
	left, err := strconv.ParseInt(after.Content[at[2]:at[3]], 10, 64)
	missing := before.Content[len(head) : len(before.Content)-len(tail)]
	if gap := left - count(missing); err != nil || gap < -2 || gap > 2 {
		t.Fatalf("%d said to be left out, %d are: %q", left, count(missing), missing)
	}
}

// The middle goes, on lines where there are some, of the longest message; what is stable and what is asked stay.
func TestTrimCutsLines(t *testing.T) {
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString("line " + strconv.Itoa(i) + "\n")
		}
		return b.String()
	}
	ask := Ask{Messages: []Message{
		{Role: RoleSystem, Content: lines(500), Stable: true},
		{Role: RoleUser, Content: lines(100)},
		{Role: RoleAssistant, Content: "Yes."},
		{Role: RoleUser, Content: "Why?\n" + lines(300) + "ANSWER."},
	}}
	quarters := counters["quarters"]
	short, trimmed, ok := Trim(ask, 250, quarters)
	if !ok || trimmed < 250 || trimmed > 350 {
		t.Fatalf("%d left out, %t", trimmed, ok)
	}
	for i := range 3 {
		if short.Messages[i].Content != ask.Messages[i].Content {
			t.Errorf("message %d was touched", i)
		}
	}
	if got := short.Messages[3].Content; !regexp.MustCompile(`\AWhy\?\n(line \d+\n)+\[… \d+ tokens left out here …\]\n(line \d+\n)+ANSWER\.\z`).MatchString(got) {
		t.Errorf("got %q", got)
	}
	short, _, ok = Trim(ask, 600, quarters)
	if !ok || short.Messages[1].Content == ask.Messages[1].Content {
		t.Error("where the longest is not enough the next is cut, too")
	}
	if _, _, ok = Trim(ask, 900, quarters); ok {
		t.Error("the end of the question was given up")
	}
}
