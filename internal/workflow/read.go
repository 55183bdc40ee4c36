package workflow

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keySet is what an object may hold: the keys this version runs, and those that belong to the format only.
type keySet struct {
	known []string
	later []string
}

// object checks that a value is an object of known keys.
func (p *problems) object(n *node, what string, keys keySet) bool {
	if !p.kind(n, nodeObject) {
		return false
	}
	for _, m := range n.members {
		switch {
		case slices.Contains(keys.known, m.name) || p.full():
		case slices.Contains(keys.later, m.name):
			p.add(m.spot(), codeNotSupported, "%q of %s is part of the format but this version does not run it", m.name, what)
		default:
			tail, edit := didYouMean(m.name, keys.known)
			p.suggest(m.spot(), edit, codeUnknownKey, "%s has no key %q%s", what, m.name, tail)
		}
	}
	return true
}

// kind checks what a value is. An absent or already reported one is simply not it.
func (p *problems) kind(n *node, want nodeKind) bool {
	if n == nil || n.kind == nodeBad {
		return false
	}
	if n.kind != want {
		edit, hint := "", ""
		switch {
		case want == nodeText && (n.kind == nodeNumber || n.kind == nodeBool):
			edit, hint = strconv.Quote(n.text), "; quote it"
		case want == nodeList && n.kind == nodeText && n.text != "":
			edit = "[" + clip(n.text) + "]"
		}
		p.suggest(n.spot(), edit, codeType, "must be %s, not %s%s", want, n.kind, hint)
		return false
	}
	return true
}

// need reports a required key that is absent.
func (p *problems) need(n *node, key, what string) *node {
	if v := n.get(key); v != nil {
		return v
	}
	p.add(n.spot(), codeRequired, "%s needs %q", what, key)
	return nil
}

// text reads a plain text: one that must not hold expressions.
func (p *problems) text(n *node) string {
	if !p.kind(n, nodeText) {
		return ""
	}
	if strings.Contains(n.text, "${{") {
		p.add(n.spot(), codeNotSupported, "${{ }} is not evaluated here; this must be plain text")
		return ""
	}
	return n.text
}

// word reads a text that must not be empty.
func (p *problems) word(n *node) string {
	s := p.text(n)
	if n != nil && n.kind == nodeText && strings.TrimSpace(s) == "" && n.text == s {
		p.add(n.spot(), codeValue, "must not be empty")
	}
	return s
}

func (p *problems) oneOf(n *node, words ...string) string {
	s := p.text(n)
	if s == "" && (n == nil || n.kind != nodeText || n.text != "") {
		return ""
	}
	if !slices.Contains(words, s) {
		tail, edit := didYouMean(s, words)
		if edit == "" { // the words are named already
			tail = ""
		}
		p.suggest(n.spot(), edit, codeValue, "%q is none of %s%s", clip(s), strings.Join(words, ", "), tail)
		return ""
	}
	return s
}

func (p *problems) boolean(n *node) bool {
	return p.kind(n, nodeBool) && n.text == "true"
}

// integer reads a whole number within bounds; absent or wrong, it is the fallback.
func (p *problems) integer(n *node, low, high, fallback int) int {
	return int(p.whole(n, int64(low), int64(high), int64(fallback)))
}

// whole is integer for what may be larger than an int.
func (p *problems) whole(n *node, low, high, fallback int64) int64 {
	if !p.kind(n, nodeNumber) {
		return fallback
	}
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil || f != float64(int64(f)) || f < float64(low) || f > float64(high) {
		p.add(n.spot(), codeValue, "%s must be a whole number from %d to %d", n.text, low, high)
		return fallback
	}
	return int64(f)
}

func (p *problems) number(n *node, low, high, fallback float64) float64 {
	if !p.kind(n, nodeNumber) {
		return fallback
	}
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil || f < low || f > high {
		p.add(n.spot(), codeValue, "%s must be a number from %v to %v", n.text, low, high)
		return fallback
	}
	return f
}

// durationMin is the shortest time a definition may name.
const durationMin = time.Millisecond

func (p *problems) duration(n *node, high, fallback time.Duration) time.Duration {
	if n != nil && n.kind == nodeNumber {
		edit := n.text + "s"
		if _, ok := parseDuration(edit); !ok {
			edit = ""
		}
		p.suggest(n.spot(), edit, codeType, "must say its unit, like 30s, 5m, 2h or 3d, not be a number")
		return fallback
	}
	if !p.kind(n, nodeText) {
		return fallback
	}
	d, ok := parseDuration(n.text)
	switch {
	case !ok:
		p.add(n.spot(), codeValue, "%q is not a duration; write it like 30s, 5m, 2h or 3d", n.text)
	case d < durationMin || d > high:
		p.add(n.spot(), codeValue, "%s must be from %s to %s", n.text, formatDuration(durationMin), formatDuration(high))
	default:
		return d
	}
	return fallback
}

var (
	durationForm  = regexp.MustCompile(`^(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+$`)
	durationParts = regexp.MustCompile(`([0-9.]+)(ms|s|m|h|d)`)
	durationUnits = map[string]time.Duration{
		"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}
)

// parseDuration reads 30s, 1h30m, 1.5s, 3d. What is too long for a time.Duration is its longest.
func parseDuration(s string) (time.Duration, bool) {
	if !durationForm.MatchString(s) {
		return 0, false
	}
	total := 0.0
	for _, m := range durationParts.FindAllStringSubmatch(s, -1) {
		f, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, false
		}
		total += f * float64(durationUnits[m[2]])
	}
	return time.Duration(min(total, float64(1<<62))), true
}

// ParseDuration reads a duration as definitions write it: 30s, 1h30m, 1.5s, 3d.
func ParseDuration(s string) (time.Duration, bool) { return parseDuration(s) }

func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	s = strings.TrimSuffix(s, "m0s") + map[bool]string{true: "m"}[strings.HasSuffix(s, "m0s")]
	return strings.TrimSuffix(s, "h0m") + map[bool]string{true: "h"}[strings.HasSuffix(s, "h0m")]
}

// nameBytesMax bounds the names of things that are no steps.
const nameBytesMax = 100

// Names of things. A step's id is also a name in expressions.
var (
	nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}$`)
	idForm   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	idTaken  = []string{"in", "null", "true", "false"}
)

func (p *problems) name(at spot, what, name string) bool {
	if nameForm.MatchString(name) {
		return true
	}
	p.add(at, codeName, "%s is not a name for %s: letters, digits, and . _ - between them, at most 100", strconv.Quote(clip(name)), what)
	return false
}

func (p *problems) id(n *node) bool {
	if !p.kind(n, nodeText) {
		return false
	}
	switch {
	case slices.Contains(idTaken, n.text):
		p.add(n.spot(), codeName, "%q means something else in expressions; call the step differently", n.text)
	case !idForm.MatchString(n.text):
		p.add(n.spot(), codeName, "%s is not a step id: a small letter, then small letters, digits and _, at most 63", strconv.Quote(clip(n.text)))
	default:
		return true
	}
	return false
}

// clip shortens what is quoted in a message.
func clip(s string) string {
	const clipMax = 80
	if len(s) <= clipMax {
		return s
	}
	return strings.ToValidUTF8(s[:clipMax], "") + "…"
}
