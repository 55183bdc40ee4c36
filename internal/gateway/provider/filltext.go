package provider

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	findingName = regexp.MustCompile(`(?i)issue|error|gap|bias|missing|concern|problem|risk|weakness|defect|unresolved|objection|finding`)
	titleName   = regexp.MustCompile(`(?i)^(title|name|heading|headline|subject|topic|label|section)s?$`)
	tagName     = regexp.MustCompile(`(?i)tag|keyword|category|term`)
	bodyName    = regexp.MustCompile(`(?i)^(text|body|content|draft|script|note|code|report|output|deliverable|article|analysis|answer|document|result|markdown|message)$`)
)

// text writes a string that suits its name and meets its bounds.
func (f *filler) text(n schemaNode, name string, inList bool) json.RawMessage {
	s := f.formatted(n.Format)
	if s == "" && n.Pattern != "" {
		s = matching(n.Pattern, f.dice)
	}
	if s == "" {
		s = f.prose(n, name, inList)
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return json.RawMessage(`""`)
	}
	return raw
}

// prose writes about the prompt. The mark goes where there is room for it.
func (f *filler) prose(n schemaNode, name string, inList bool) string {
	roomy := n.MaxLength == nil || *n.MaxLength >= 60
	marked := f.w.marked
	var s string
	switch {
	case findingName.MatchString(name):
		s = f.w.short(f.w.sentence(findings), false)
	case titleName.MatchString(name):
		s = f.w.short(f.w.sentence(headings), false)
	case tagName.MatchString(name):
		s = f.w.short(f.w.topic(), false)
	case inList || n.MaxLength != nil && *n.MaxLength < 200:
		s = f.w.short(f.w.paragraph(1), roomy && !inList)
	case bodyName.MatchString(name):
		s = f.w.body(f.w.sentence(headings))
	default:
		s = f.w.short(f.w.paragraph(2), roomy)
	}
	low, high := 0, fillBytesMax
	if n.MaxLength != nil {
		high = min(max(*n.MaxLength, 0), high)
	}
	if n.MinLength != nil {
		low = min(*n.MinLength, high)
	}
	if utf8.RuneCountInString(s) > high {
		if !roomy {
			f.w.marked = marked
			s = strings.TrimPrefix(s, SimulatedMark+" ")
		}
		s = cutWords(s, high)
	}
	if have := utf8.RuneCountInString(s); have < low {
		var long strings.Builder
		long.WriteString(s)
		for have < low {
			more := " " + f.w.paragraph(1)
			long.WriteString(more)
			have += utf8.RuneCountInString(more)
		}
		s = long.String()
	}
	if runes := []rune(s); len(runes) > high {
		s = string(runes[:high])
	}
	return s
}

// cutWords cuts a text to at most limit characters, at the end of a word where there is one.
func cutWords(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	cut := string(runes[:limit])
	if i := strings.LastIndexByte(cut, ' '); i > len(cut)/2 {
		cut = strings.TrimRight(cut[:i], " ,;:")
	}
	return cut
}

// formatted gives a value of a string format, or nothing for a format it does not know.
func (f *filler) formatted(format string) string {
	day := time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC).Add(time.Duration(f.draw(format)) * time.Hour)
	switch format {
	case "date-time":
		return day.Format(time.RFC3339)
	case "date":
		return day.Format(time.DateOnly)
	case "time":
		return day.Format("15:04:05Z")
	case "duration":
		return fmt.Sprintf("PT%dM", 5+f.dice.IntN(55))
	case "email", "idn-email":
		return fmt.Sprintf("simulated.%d@example.com", f.dice.IntN(1000))
	case "hostname", "idn-hostname":
		return fmt.Sprintf("simulated-%d.example.com", f.dice.IntN(1000))
	case "uri", "url", "iri", "uri-reference", "iri-reference":
		return fmt.Sprintf("https://example.com/simulated/%d", f.dice.IntN(1000))
	case "uuid":
		return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", f.dice.Uint32(), f.dice.IntN(1<<16), f.dice.IntN(1<<12), f.dice.IntN(1<<12), f.dice.Int64N(1<<48))
	case "ipv4":
		return fmt.Sprintf("192.0.2.%d", 1+f.dice.IntN(254)) // the network for examples
	case "ipv6":
		return fmt.Sprintf("2001:db8::%x", 1+f.dice.IntN(0xffff))
	case "json-pointer":
		return "/simulated"
	case "regex":
		return "simulated.*"
	}
	return ""
}

// draw spends randomness only for formats that need it, so that adding one does not change all other answers.
func (f *filler) draw(format string) int {
	if format == "date-time" || format == "date" || format == "time" {
		return f.dice.IntN(24 * 300)
	}
	return 0
}

// matching writes a text for a regular expression, or nothing for one that it cannot read. What repeats without end
// repeats a few times.
func matching(pattern string, dice *rand.Rand) string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	var s strings.Builder
	match(re.Simplify(), dice, &s)
	return s.String()
}

func match(re *syntax.Regexp, dice *rand.Rand, s *strings.Builder) {
	if s.Len() > 1_000 {
		return
	}
	repeat := func(low, high int) {
		for range low + dice.IntN(high-low+1) {
			match(re.Sub[0], dice, s)
		}
	}
	switch re.Op { //nolint:exhaustive // the others match the empty string
	case syntax.OpLiteral:
		s.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		if len(re.Rune) >= 2 {
			i := 2 * dice.IntN(len(re.Rune)/2)
			low, high := re.Rune[i], min(re.Rune[i+1], max(re.Rune[i], '~'))
			s.WriteRune(low + rune(dice.IntN(int(high-low)+1)))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		s.WriteByte(byte('a' + dice.IntN(26)))
	case syntax.OpCapture:
		match(re.Sub[0], dice, s)
	case syntax.OpStar:
		repeat(0, 3)
	case syntax.OpPlus:
		repeat(1, 4)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		high := re.Max
		if high < 0 {
			high = re.Min + 3
		}
		repeat(re.Min, high)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			match(sub, dice, s)
		}
	case syntax.OpAlternate:
		match(re.Sub[dice.IntN(len(re.Sub))], dice, s)
	}
}
